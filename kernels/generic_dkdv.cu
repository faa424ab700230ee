// generic_dkdv.cu: dk and dv in plain fused multiply-adds, for any element type, head size, strides and mask.
//
// Entry backward_generic_dkdv: 256 threads, grid key_tiles * G * B, no dynamic shared memory. Options: TYPE (required),
// HEAD = 64, 128 or 256, FEATURES, TF32. Tiles of 64 rows and 64 keys. It reads delta and lse2 of backward_prepare.
//
// A block owns 64 keys of one (sequence, kv head) and loops over the heads of the group and the rows that see the keys,
// always in the same order: no atomics, and the same bits in every run. dk or dv may be absent.
#include "generic_gradient.cuh"

// The rows of head h that see keys j0 .. add their part to dk and dv.
DEVICE void add_head(fragment (&dk)[WIDE_SLICES], fragment (&dv)[WIDE_SLICES], tile_memory *t, const dlattn_params &p,
                     const sequence &s, const dlattn_mask &mask, const dlattn_interval &rows, int h, int j0) {
    const gradient_context c = gradient_context_of(p, s, h);
    for (int i0 = (int)rows.lo / TILE * TILE; i0 < rows.hi; i0 += TILE) {
        const limits seen = find_limits(t, p, s, mask, i0);
        if (seen.hi <= j0 || seen.lo >= j0 + TILE) continue;
        const i64 token = s.q_begin + i0;
        fragment gradients;
        gradient_tile<true>(gradients, t, p, c, i0, j0);
        if (p.dv.data) add_columns(dv, t, source_of(p.dout, s.b, token, h, s.M - i0, p.E));
        if (!p.dk.data) continue;
        __syncthreads(); // dv has been read from t->scores
        share_scores(t, gradients);
        add_columns(dk, t, source_of(p.q, s.b, token, h, s.M - i0, p.D));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, HEAD > 64 ? 1 : 2)
    backward_generic_dkdv(const __grid_constant__ dlattn_params p) {
    __shared__ __align__(16) tile_memory memory;
    const block_place place = place_of(p, p.key_tiles, p.B * p.G, 1, false);
    const int g = place.head % p.G, j0 = place.tile * TILE;
    const sequence s = read_sequence(p, place.head / p.G);
    if (j0 >= s.N) return;

    const dlattn_mask mask = mask_of(p, s);
    const dlattn_interval rows = dlattn_mask_rows(&mask, s.M, j0, j0 + TILE);
    fragment dk[WIDE_SLICES], dv[WIDE_SLICES];
    clear(dk);
    clear(dv);
    for (int n = 0; n < p.heads_per_group; n++)
        add_head(dk, dv, &memory, p, s, mask, rows, g * p.heads_per_group + n, j0);
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++) {
        const int j = j0 + own_row(own_index(m, 0));
        if (j >= s.N) continue;
        if (p.dk.data) store_row(p.dk, at(p.dk, s.b, s.k_begin + j, g), dk, m, p.scale, false, p.D);
        if (p.dv.data) store_row(p.dv, at(p.dv, s.b, s.k_begin + j, g), dv, m, 1.0f, false, p.E);
    }
}
