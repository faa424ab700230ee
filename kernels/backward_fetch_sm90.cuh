// backward_fetch_sm90.cuh: the tiles of rows of a block of Hopper's backwards, and the warps that bring what they need.
//
// Part of backward_sm90.cu and backward_wide_sm90.cu: uses their options and their maps of shared memory.
#ifndef DLATTN_BACKWARD_FETCH_SM90_CUH
#define DLATTN_BACKWARD_FETCH_SM90_CUH

#include "backward_view.cuh"
#include "backward_walk.cuh"
#include "tma_sm90.cuh"

// The block's tiles of rows: `count` in all, for each head of the group those that begin at rows [begin, last]; with segments those
// of them that meet the keys, from row `first` on.
typedef struct tile_list {
    int head, begin, last, count, first;
} tile_list;

DEVICE tile_list tiles_of(const dlattn_params &p, const backward_context &c, row_range rows) {
    const int first = uniform(rows.first) / BM, end = (uniform(rows.end) + BM - 1) / BM;
    const int tiles = uniform(rows.end) > uniform(rows.first) ? end - first : 0;
    const tile_list list = {c.g * p.heads_per_group, first * BM, (first + tiles - 1) * BM, tiles * p.heads_per_group, first * BM};
    return list;
}

DEVICE segment_walk walk_of(const tile_list &list) {
    const segment_walk walk = {list.begin / BM, list.last / BM + 1, 0, 0};
    return walk;
}

// By the whole block.
DEVICE void find_tiles_that_meet(const dlattn_params &p, const backward_context &c, tile_list *list) {
    if (list->count == 0) return;
    segment_walk walk = walk_of(*list);
    row_tile tile = {list->head, list->begin, false};
    list->count = uniform(start_walk(p, c, &walk, &tile)) * p.heads_per_group;
    list->first = uniform(tile.i0);
}

// A warp's way along the list.
typedef struct tile_walk {
    row_tile tile;
    segment_walk segments;
} tile_walk;

// As start_walk ends, but for each warp: what that found of the first tile was not kept till here.
DEVICE tile_walk first_tile(const dlattn_params &p, const backward_context &c, const tile_list &list) {
    tile_walk walk = {{list.head, list.first, false}, walk_of(list)};
    if (!SEGMENTS || list.count == 0) return walk;
    const int number = list.first / BM;
    look_at_word(p, c, &walk.segments, number >> 5);
    walk.tile.one_segment = (walk.segments.one_segment >> (number & 31) & 1u) != 0;
    return walk;
}

// There must be one.
DEVICE void next_tile(const dlattn_params &p, const backward_context &c, const tile_list &list, tile_walk *walk) {
    if (SEGMENTS) walk_on(p, c, &walk->segments, &walk->tile);
    else if (walk->tile.i0 < list.last) walk->tile.i0 += BM;
    else walk->tile.i0 = list.begin, walk->tile.h++;
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
    tile_walk walk = first_tile(p, c, list);
    for (int n = 0; n < list.count; n++) {
        const row_tile tile = walk.tile;
        const i64 row = row_of(p, c.s, tile.h, tile.i0), token = c.s.q_begin + tile.i0;
        const u32 q_full = base + Q_FULL(at.stage);
        barrier_wait(base + Q_EMPTY(at.stage), at.lap ^ 1u);
        if (leads) {
            barrier_expect(q_full, Q_BYTES + (ALIBI ? 1 : 2) * (BM * 4));
            const u32 to = base + Q_AT + at.stage * Q_BYTES;
            if (CLUSTER > 1) fetch_panels_for_both<BM, HEAD_D>(to, &maps.q, p.q, token, tile.h, c.s.b, q_full, rank_in_cluster());
            else fetch_panels<BM, HEAD_D>(to, &maps.q, p.q, token, tile.h, c.s.b, q_full);
            if (!ALIBI) // else describe_tiles brings it
                fetch_bytes(base + LSE_AT + at.stage * (BM * 4), (const float *)p.lse2 + row, BM * 4, q_full);
            fetch_bytes(base + DELTA_AT + at.stage * (BM * 4), (const float *)p.delta + row, BM * 4, q_full);
        }
#pragma unroll
        for (int part = 0; part < DOUT_PARTS; part++) {
            const u32 full = base + DOUT_FULL(dout_place(at, part)), to = base + DOUT_AT + dout_place(at, part) * (DOUT_BYTES / DOUT_PARTS);
            const int COLS = HEAD_E / DOUT_PARTS;
            barrier_wait(base + DOUT_EMPTY(dout_place(at, part)), dout_lap(at) ^ 1u);
            if (!leads) continue;
            barrier_expect(full, DOUT_BYTES / DOUT_PARTS);
            if (CLUSTER > 1)
                fetch_panels_for_both<BM, COLS>(to, &maps.dout, p.dout, token, tile.h, c.s.b, full, rank_in_cluster(), part * COLS);
            else fetch_panels<BM, COLS>(to, &maps.dout, p.dout, token, tile.h, c.s.b, full);
        }
        at.next();
        if (n + 1 < list.count) next_tile(p, c, list, &walk);
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

// Keys [first, first + 32) of the block that a row's limits leave, as bits.
DEVICE u32 bits_of_limits(u32 limits, int first) {
    const int lo = (int)(limits & 0xffffu) - first, hi = lo + (int)(limits >> 16);
    const u32 before = hi >= 32 ? ~0u : hi > 0 ? (1u << hi) - 1u : 0, after = lo >= 32 ? 0 : lo > 0 ? ~0u << lo : ~0u;
    return before & after;
}

// The segments of the block's keys, for the warp that calls; read by it alone.
DEVICE void keep_key_segments(const dlattn_params &p, const backward_context &c) {
#pragma unroll 1
    for (int n = lane_id(); n < BN && c.j0 + n < c.s.N; n += 32)
        ((i64 *)(shared_bytes + K_SEGMENTS_AT))[n] = load_int(p.kv_segments, at(p.kv_segments, c.s.b, c.j0 + n));
    __syncwarp();
}

// Which keys the tile's rows see: a bit for each, [BN / 32][BM] words. Rows of one segment are looked at together.
DEVICE void leave_bits(const dlattn_params &p, const backward_context &c, row_tile tile, int stage) {
    const volatile i64 *keys = (const volatile i64 *)(shared_bytes + K_SEGMENTS_AT);
#pragma unroll 1
    for (int row = lane_id(); row < BM; row += 32) {
        u32 *const words = (u32 *)(shared_bytes + LIMITS_AT) + stage * (BM * BN / 32) + row;
        const u32 limits = limits_of_row(p, c, tile, row);
        const i64 own = load_int(p.q_segments, at(p.q_segments, c.s.b, smaller(tile.i0 + row, c.s.M - 1)));
#pragma unroll 1
        for (u32 left = 0xffffffffu; left;) {
            const i64 segment = __shfl_sync(0xffffffffu, own, __ffs((int)left) - 1);
            left &= ~__ballot_sync(0xffffffffu, own == segment);
#pragma unroll 1
            for (int word = 0; word < BN / 32; word++) {
                const u32 same = __ballot_sync(0xffffffffu, keys[32 * word + lane_id()] == segment);
                if (own == segment) words[word * BM] = same & bits_of_limits(limits, 32 * word);
            }
        }
    }
}

DEVICE void describe_tile(const dlattn_params &p, const backward_context &c, row_tile tile, bool last, int stage) {
    const u32 seen = __ballot_sync(0xffffffffu, sees_all<BM, 16>(p, c, tile, 0, lane_id() % (BN / 16) * 16));
    if (lane_id() == 0) leave_note(p, c, tile, seen, last, note_of(stage));
    if (ALIBI) leave_slope(p, c, tile, stage);
    if (SEGMENTS && ~seen) leave_bits(p, c, tile, stage);
    else if (INTERVAL && ~seen)
#pragma unroll 1
        for (int row = lane_id(); row < BM; row += 32)
            ((u32 *)(shared_bytes + LIMITS_AT))[stage * BM + row] = limits_of_row(p, c, tile, row);
}

// Which scores dropout keeps, in the order of consumers' fragments: for each 16 rows and 32 keys a word of each lane, as
// dropout_bits of backward_scores_sm80.cuh. Every DESCRIBERS-th of them.
DEVICE void leave_kept(const dlattn_params &p, const backward_context &c, row_tile tile, int stage, const dlattn_philox_key &key,
                       int part) {
    u32 *const to = (u32 *)(shared_bytes + KEPT_AT) + stage * (BM * BN / 16) + lane_id();
    const u32 head = (u32)(c.s.b * p.H + tile.h);
#pragma unroll 1
    for (int n = part; n < BM / 16 * (BN / 32); n += DESCRIBERS)
        to[32 * n] = transpose(kept_of_block(key, head, tile.i0 + n / (BN / 32) * 16, c.j0 + n % (BN / 32) * 32, p.dropout_threshold));
}

// Other warps: the notes, and what rows see where they do not see all keys; they arrive at Q's barrier as the copies do. The
// first does all but dropout, where each has its part.
DEVICE void describe_tiles(const dlattn_params &p, const backward_context &c, const tile_list &list, u32 base, int part) {
    dlattn_philox_key key = {0, 0, 0};
    if (DROPOUT) key = dropout_key(p);
    if (ALIBI) wait_and_let_begin(); // lse2 is backward_prepare's
    if (SEGMENTS && part == 0) keep_key_segments(p, c);
    ring<STAGES> at = {0, 0};
    tile_walk walk = first_tile(p, c, list);
    for (int n = 0; n < list.count; n++) {
        const row_tile tile = walk.tile;
        barrier_wait(base + Q_EMPTY(at.stage), at.lap ^ 1u);
        if (part == 0) describe_tile(p, c, tile, n + 1 == list.count, at.stage);
        if (DROPOUT) leave_kept(p, c, tile, at.stage, key, part);
        barrier_arrive(base + Q_FULL(at.stage)); // each lane for what it wrote
        at.next();
        if (n + 1 < list.count) next_tile(p, c, list, &walk);
    }
}

#endif
