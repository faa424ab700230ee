// backward_fetch_sm90.cuh: the tiles of rows of a block of backward_sm90, and the two warps that bring what they need.
//
// Part of backward_sm90.cu: uses its options and its map of shared memory.
#ifndef DLATTN_BACKWARD_FETCH_SM90_CUH
#define DLATTN_BACKWARD_FETCH_SM90_CUH

#include "backward_view_sm80.cuh"
#include "tma_sm90.cuh"

// The block's tiles of rows: `count` in all, for each head of the group those that begin at rows [first, last].
typedef struct tile_list {
    int head, first, last, count;
} tile_list;

DEVICE tile_list tiles_of(const dlattn_params &p, const backward_context &c, row_range rows) {
    const int first = uniform(rows.first) / BM, end = (uniform(rows.end) + BM - 1) / BM;
    const int tiles = uniform(rows.end) > uniform(rows.first) ? end - first : 0;
    const tile_list list = {c.g * p.heads_per_group, first * BM, (first + tiles - 1) * BM, tiles * p.heads_per_group};
    return list;
}

DEVICE row_tile first_tile(const tile_list &list) {
    const row_tile tile = {list.head, list.first, false};
    return tile;
}

DEVICE row_tile tile_after(const tile_list &list, row_tile tile) {
    if (tile.i0 < list.last) tile.i0 += BM;
    else tile.i0 = list.first, tile.h++;
    return tile;
}

// One warp: K and V, then for each tile Q with lse2 and delta, and dO, as soon as there is room.
DEVICE void fetch_tiles(const dlattn_params &p, const dlattn_maps &maps, const backward_context &c, const tile_list &list, u32 base) {
    const bool leads = lane_id() == 0;
    if (leads && list.count > 0) { // nobody would wait for them, and the block might end before they come
        fetch_rows<BN, HEAD_D>(base + K_AT, &maps.k, p.k, c.s.k_begin + c.j0, c.g, c.s.b, base + K_FULL);
        fetch_rows<BN, HEAD_E>(base + V_AT, &maps.v, p.v, c.s.k_begin + c.j0, c.g, c.s.b, base + V_FULL);
    }
    wait_and_let_begin(); // what follows needs backward_prepare's results
    ring<STAGES> at = {0, 0};
    row_tile tile = first_tile(list);
    for (int n = 0; n < list.count; n++) {
        const i64 row = row_of(p, c.s, tile.h, tile.i0), token = c.s.q_begin + tile.i0;
        const u32 q_full = base + Q_FULL(at.stage), dout_full = base + DOUT_FULL(at.stage);
        barrier_wait(base + Q_EMPTY(at.stage), at.lap ^ 1u);
        if (leads) {
            barrier_expect(q_full, Q_BYTES + (ALIBI ? 1 : 2) * (BM * 4));
            fetch_panels<BM, HEAD_D>(base + Q_AT + at.stage * Q_BYTES, &maps.q, p.q, token, tile.h, c.s.b, q_full);
            if (!ALIBI) // else describe_tiles brings it
                fetch_bytes(base + LSE_AT + at.stage * (BM * 4), (const float *)p.lse2 + row, BM * 4, q_full);
            fetch_bytes(base + DELTA_AT + at.stage * (BM * 4), (const float *)p.delta + row, BM * 4, q_full);
        }
        barrier_wait(base + DOUT_EMPTY(at.stage), at.lap ^ 1u);
        if (leads)
            fetch_rows<BM, HEAD_E>(base + DOUT_AT + at.stage * DOUT_BYTES, &maps.dout, p.dout, token, tile.h, c.s.b, dout_full);
        at.next();
        tile = tile_after(list, tile);
    }
}

// What consumers are told of a tile beside its q: of tiles they keep nothing in registers.
typedef struct tile_note {
    i64 row;                // the first, in the workspace's arrays
    u32 seen;               // bit w: all rows see all keys of warp w
    int own_keys;           // of the block's
    int own_rows;           // other tokens follow, which must be cleared; BM: none
    int last;
    // ALiBi, slopes in powers of two: does the tile lie on both sides of the diagonal? Then i' - j' of its first row and the
    // block's first key; else what a key has more than the one before it, and lse2 is less the term of the block's first key.
    int crossed;
    float slope2, distance, key_slope;
} tile_note;
static_assert(sizeof(tile_note) <= NOTE_BYTES, "NOTES_AT");

DEVICE volatile tile_note *note_of(int stage) { return (volatile tile_note *)(shared_bytes + NOTES_AT + stage * NOTE_BYTES); }

DEVICE void leave_note(const dlattn_params &p, const backward_context &c, row_tile tile, u32 seen, bool last, volatile tile_note *to) {
    to->row = row_of(p, c.s, tile.h, tile.i0);
    to->seen = seen;
    to->own_keys = c.s.N - c.j0;
    to->own_rows = tile.i0 + BM > c.s.M && c.s.q_begin + c.s.M < p.tokens_q ? c.s.M - tile.i0 : BM;
    to->last = last;
}

// ALiBi: its part of the note, and lse2 of the tile's rows.
DEVICE void leave_slope(const dlattn_params &p, const backward_context &c, row_tile tile, int stage) {
    const sequence s = placed(c);
    const float slope2 = load_float(p.alibi_slopes, at(p.alibi_slopes, s.b, tile.h)) * LOG2_E;
    const float distance = (float)dlattn_add_sat(dlattn_sub_sat(s.q_position, s.k_position), tile.i0 - c.j0);
    const bool before = distance <= (float)-BM, crossed = !before && distance < (float)BN; // before: all rows before all keys
    const float by_row = crossed ? 0.0f : before ? -slope2 : slope2;
    if (lane_id() == 0) {
        volatile tile_note *const to = note_of(stage);
        to->crossed = crossed, to->slope2 = slope2, to->distance = distance, to->key_slope = by_row;
    }
    const float *from = (const float *)p.lse2 + row_of(p, s, tile.h, tile.i0);
#pragma unroll
    for (int row = lane_id(); row < BM; row += 32)
        ((float *)(shared_bytes + LSE_AT))[stage * BM + row] = fmaf(by_row, distance + (float)row, from[row]);
}

// Another warp: the notes, and the limits of rows that do not see all keys; it arrives at Q's barrier as the copies do.
DEVICE void describe_tiles(const dlattn_params &p, const backward_context &c, const tile_list &list, u32 base) {
    if (ALIBI) wait_and_let_begin(); // lse2 is backward_prepare's
    ring<STAGES> at = {0, 0};
    row_tile tile = first_tile(list);
    for (int n = 0; n < list.count; n++) {
        barrier_wait(base + Q_EMPTY(at.stage), at.lap ^ 1u);
        const u32 seen = __ballot_sync(0xffffffffu, sees_all<BM, 16>(p, c, tile, 0, lane_id() % CONSUMER_WARPS * 16));
        if (lane_id() == 0)
            leave_note(p, c, tile, seen, n + 1 == list.count, note_of(at.stage));
        if (ALIBI) leave_slope(p, c, tile, at.stage);
        if (INTERVAL && ~seen)
#pragma unroll 1
            for (int row = lane_id(); row < BM; row += 32)
                store_shared(base + LIMITS_AT + (at.stage * BM + row) * 4, limits_of_row(p, c, tile, row));
        barrier_arrive(base + Q_FULL(at.stage)); // each lane for what it wrote
        at.next();
        tile = tile_after(list, tile);
    }
}

#endif
