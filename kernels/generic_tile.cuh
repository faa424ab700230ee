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

DEVICE int smaller(int a, int b) { return a < b ? a : b; }

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

#if TYPE == DLATTN_TYPE_F32
DEVICE float load_input(u64 data, i64 index) { return rounded(((const float *)data)[index]); }
#elif TYPE == DLATTN_TYPE_F16
DEVICE float load_input(u64 data, i64 index) { return float_of_f16(((const u16 *)data)[index]); }
#else
static_assert(TYPE == DLATTN_TYPE_BF16, "TYPE is one of DLATTN_TYPE_F16, _BF16, _F32");
DEVICE float load_input(u64 data, i64 index) { return float_of_bf16(((const u16 *)data)[index]); }
#endif

// TILE rows of COLUMNS elements, the first at element `start`, as floats. What lies past `rows` or `columns` is 0 and
// not read.
template <int COLUMNS, int STRIDE>
DEVICE void load_tile(float *to, const dlattn_view &t, i64 start, int rows, int columns) {
    const int c = (int)threadIdx.x % COLUMNS;
    const i64 first = start + c * t.stride[3];
#pragma unroll 8
    for (int step = 0; step < TILE * COLUMNS / THREADS; step++) {
        const int r = (int)threadIdx.x / COLUMNS + step * (THREADS / COLUMNS);
        to[r * STRIDE + c] = r < rows && c < columns ? load_input(t.data, first + r * t.stride[1]) : 0.0f;
    }
}

// scores[row][key] = sum over `size` columns of a[row][c] * b[key][c]. It waits for all threads before it writes, but
// not at its end: the caller waits before it overwrites a, b or wide.
DEVICE void dot_tiles(fragment &scores, tile_memory *t, const dlattn_view &a, i64 a_at, int a_rows,
                      const dlattn_view &b, i64 b_at, int b_rows, int size) {
#pragma unroll
    for (int n = 0; n < 16; n++) scores[n] = 0.0f;
    for (int c0 = 0; c0 < size; c0 += SLICE) {
        __syncthreads();
        load_tile<SLICE, SLICE_STRIDE>(t->a, a, a_at + c0 * a.stride[3], a_rows, size - c0);
        load_tile<SLICE, SLICE_STRIDE>(t->b, b, b_at + c0 * b.stride[3], b_rows, size - c0);
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

// sums[slice][row][c] += sum over keys of t->scores[row][key] * x[key][c], all slices of x's `size` columns.
DEVICE void add_rows(fragment (&sums)[WIDE_SLICES], tile_memory *t, const dlattn_view &x, i64 x_at, int keys,
                     int size) {
#pragma unroll
    for (int slice = 0; slice < WIDE_SLICES; slice++) {
        const int c0 = slice * WIDE;
        if (c0 >= size) break;
        __syncthreads();
        load_tile<WIDE, WIDE_STRIDE>(t->wide, x, x_at + c0 * x.stride[3], keys, size - c0);
        __syncthreads();
        multiply_rows(sums[slice], t);
    }
}

// sums[slice][key][c] += sum over rows of t->scores[row][key] * x[row][c]: the transposed product.
DEVICE void add_columns(fragment (&sums)[WIDE_SLICES], tile_memory *t, const dlattn_view &x, i64 x_at, int rows,
                        int size) {
#pragma unroll
    for (int slice = 0; slice < WIDE_SLICES; slice++) {
        const int c0 = slice * WIDE;
        if (c0 >= size) break;
        __syncthreads();
        load_tile<WIDE, WIDE_STRIDE>(t->wide, x, x_at + c0 * x.stride[3], rows, size - c0);
        __syncthreads();
        multiply_columns(sums[slice], t);
    }
}

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
