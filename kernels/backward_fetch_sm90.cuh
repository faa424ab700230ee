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
            barrier_expect(q_full, Q_BYTES + 2 * BM * 4);
            fetch_panels<BM, HEAD_D>(base + Q_AT + at.stage * Q_BYTES, &maps.q, p.q, token, tile.h, c.s.b, q_full);
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

// Another warp: the limits of the rows of tiles that do not see all keys; it arrives at Q's barrier as the copies do.
DEVICE void limit_tiles(const dlattn_params &p, const backward_context &c, const tile_list &list, u32 base) {
    ring<STAGES> at = {0, 0};
    row_tile tile = first_tile(list);
    for (int n = 0; n < list.count; n++) {
        barrier_wait(base + Q_EMPTY(at.stage), at.lap ^ 1u);
        if (!sees_all<BM, BN>(p, c, tile, 0, 0))
#pragma unroll 1
            for (int row = lane_id(); row < BM; row += 32)
                store_shared(base + LIMITS_AT + (at.stage * BM + row) * 4, limits_of_row(p, c, tile, row));
        barrier_arrive(base + Q_FULL(at.stage)); // each lane for what it wrote
        at.next();
        tile = tile_after(list, tile);
    }
}

#endif
