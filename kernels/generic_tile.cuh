// generic_tile.cuh: 64 x 64 tiles of the generic kernels: which keys the rows see, loading, products over slices.
//
// Options: TYPE, the element type of q, k, v and dout; HEAD, the largest D and E; TF32=1 for products on tensor cores.
#ifndef DLATTN_GENERIC_TILE_CUH
#define DLATTN_GENERIC_TILE_CUH

#include "scores.cuh"

#if defined(TF32) && TF32
#include "generic_tf32.cuh"
#else
#include "generic_fma.cuh"
#endif
#include "generic_copy.cuh"

// The block's part of the grid: tile, index of (sequence, head), piece of the keys. Under causal masks long tiles come
// first; otherwise neighbours share their keys.
typedef struct block_place {
    int tile, head, split;
} block_place;

DEVICE block_place place_of(const dlattn_params &p, int tiles, int heads, int splits, bool last_first) {
    const u32 x = blockIdx.x;
    block_place r;
    r.split = (int)(x % splits);
    if (p.mask_kinds & DLATTN_MASK_CAUSAL) {
        r.head = (int)(x / splits % heads);
        r.tile = (int)(x / splits / heads);
        if (last_first) r.tile = tiles - 1 - r.tile;
    } else {
        r.tile = (int)(x / splits % tiles);
        r.head = (int)(x / splits / tiles);
    }
    return r;
}

// Fills lo and hi of rows i0 ..; answers their union, {0, 0} when no row sees a key.
DEVICE limits find_limits(tile_memory *t, const dlattn_params &p, const sequence &s, const dlattn_mask &m, int i0) {
    __syncthreads();
    if (threadIdx.x == 0) {
        t->first = 0x7fffffff;
        t->last = 0;
    }
    __syncthreads();
    if (threadIdx.x < TILE) {
        const limits r = row_limits(p, s, m, i0 + (int)threadIdx.x);
        t->lo[threadIdx.x] = r.lo;
        t->hi[threadIdx.x] = r.hi;
        if (r.lo < r.hi) {
            atomicMin(&t->first, r.lo);
            atomicMax(&t->last, r.hi);
        }
    }
    __syncthreads();
    limits all = {t->first, t->last};
    if (all.hi <= all.lo) all.lo = all.hi = 0;
    return all;
}

// scores[row][key] = sum over all columns of a[row][c] * b[key][c]. It waits for all threads before it writes, but not
// at its end: the caller waits before it overwrites a, b or wide.
DEVICE void dot_tiles(fragment &scores, tile_memory *t, const tile_source &a, const tile_source &b) {
#pragma unroll
    for (int n = 0; n < 16; n++) scores[n] = 0.0f;
    panel<SLICE> next_a, next_b;
    fetch(next_a, a, 0);
    fetch(next_b, b, 0);
    for (int c0 = 0; c0 < a.columns; c0 += SLICE) {
        __syncthreads();
        place<SLICE, SLICE_STRIDE>(t->a, next_a, a, c0);
        place<SLICE, SLICE_STRIDE>(t->b, next_b, b, c0);
        fetch(next_a, a, c0 + SLICE);
        fetch(next_b, b, c0 + SLICE);
        __syncthreads();
        multiply_slice(scores, t);
    }
}

// Where the thread's own score n lies in t->scores.
DEVICE int own_place(int n) { return own_row(n) * SCORE_STRIDE + own_column(n); }

// The thread's own scores as the left operand of the products below.
DEVICE void share_scores(tile_memory *t, const fragment &scores) {
#pragma unroll
    for (int n = 0; n < 16; n++) t->scores[own_place(n)] = rounded(scores[n]);
}

// All slices of x's columns come by turns: sums[slice] += the scores, or with TRANSPOSED their transpose, times the slice.
template <bool TRANSPOSED>
DEVICE void add_slices(fragment (&sums)[WIDE_SLICES], tile_memory *t, const tile_source &x) {
    panel<WIDE> next;
    fetch(next, x, 0);
#pragma unroll
    for (int slice = 0; slice < WIDE_SLICES; slice++) {
        const int c0 = slice * WIDE;
        if (c0 >= x.columns) break;
        __syncthreads();
        place<WIDE, WIDE_STRIDE>(t->wide, next, x, c0);
        fetch(next, x, c0 + WIDE);
        __syncthreads();
        if (TRANSPOSED) multiply_columns(sums[slice], t);
        else multiply_rows(sums[slice], t);
    }
}

// sums[slice][row][c] += sum over keys of t->scores[row][key] * x[key][c], all slices of x's columns.
DEVICE void add_rows(fragment (&sums)[WIDE_SLICES], tile_memory *t, const tile_source &x) { add_slices<false>(sums, t, x); }

// sums[slice][key][c] += sum over rows of t->scores[row][key] * x[row][c]: the transposed product.
DEVICE void add_columns(fragment (&sums)[WIDE_SLICES], tile_memory *t, const tile_source &x) { add_slices<true>(sums, t, x); }

DEVICE void clear(fragment (&sums)[WIDE_SLICES]) {
#pragma unroll
    for (int n = 0; n < 16 * WIDE_SLICES; n++) sums[n / 16][n % 16] = 0.0f;
}

// Row m of the thread's part of an output, times `factor`: elements `at` .. of `to`, of which there are `size`. An
// empty row is 0 whatever the sums are.
DEVICE void store_row(const dlattn_view &to, i64 at, const fragment (&sums)[WIDE_SLICES], int m, float factor,
                      bool empty, int size) {
#pragma unroll
    for (int k = 0; k < ROW_LENGTH * WIDE_SLICES; k++) {
        const int slice = k / ROW_LENGTH, n = own_index(m, k % ROW_LENGTH), c = slice * WIDE + out_column(n);
        if (c < size) store_float(to, at + c * to.stride[3], empty ? 0.0f : sums[slice][n] * factor);
    }
}

#endif
