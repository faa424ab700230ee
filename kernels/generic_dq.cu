// generic_dq.cu: dq in plain fused multiply-adds, for any element type, head size, strides and mask.
//
// Entry backward_generic_dq: 256 threads, grid row_tiles * H * B, no dynamic shared memory. Options: TYPE (required),
// HEAD = 64, 128 or 256, FEATURES, TF32. Tiles of 64 rows and 64 keys. It reads delta and lse2 of backward_prepare.
//
// A block owns 64 rows of one (sequence, head) and loops over the keys that they see: the same bits in every run.
#include "generic_gradient.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, HEAD > 128 ? 1 : 2)
    backward_generic_dq(const __grid_constant__ dlattn_params p) {
    __shared__ __align__(16) tile_memory memory;
    tile_memory *t = &memory;
    const block_place place = place_of(p, p.row_tiles, p.B * p.H, 1, true);
    const int h = place.head % p.H, i0 = place.tile * TILE;
    const sequence s = read_sequence(p, place.head / p.H);
    if (i0 >= s.M) return;

    const dlattn_mask mask = mask_of(p, s);
    const gradient_context c = gradient_context_of(p, s, h);
    const limits seen = find_limits(t, p, s, mask, i0);
    fragment dq[WIDE_SLICES];
    clear(dq);
    for (int j0 = seen.lo / TILE * TILE; j0 < seen.hi; j0 += TILE) {
        fragment gradients;
        gradient_tile<true>(gradients, t, p, c, i0, j0);
        share_scores(t, gradients); // the thread's own places, where its p was
        add_rows(dq, t, source_of(p.k, s.b, s.k_begin + j0, c.g, s.N - j0, p.D));
    }
    const float *lse2 = (const float *)p.lse2 + row_of(p, s, h, i0);
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++) {
        const int r = own_row(own_index(m, 0));
        const bool empty = lse2[r] == INFINITE; // 0 whatever k holds
        if (i0 + r < s.M) store_row(p.dq, at(p.dq, s.b, s.q_begin + i0 + r, h), dq, m, p.scale, empty, p.D);
    }
}
