// generic_tile.cuh: 64 x 64 tiles in plain fused multiply-adds: which keys the rows see, loading, and three products.
//
// A block is 16 x 16 threads. In a tile of scores thread (x, y) owns rows 4y .. 4y+3 and columns x, x+16, x+32, x+48:
// all reads of shared memory are then 16 bytes wide and free of bank conflicts. In a tile of outputs it owns rows
// 4y .. 4y+3 and columns 4x .. 4x+3. Options: TYPE, the element type of q, k, v and dout; HEAD, the largest D and E.
#ifndef DLATTN_GENERIC_TILE_CUH
#define DLATTN_GENERIC_TILE_CUH

#include "scores.cuh"

#ifndef HEAD
#define HEAD 256
#endif
static_assert(HEAD % 64 == 0, "HEAD is a number of whole slices");

#define THREADS 256
#define TILE 64                   // rows, and keys
#define SLICE 32                  // columns of a dot product taken at a time
#define SLICE_STRIDE (SLICE + 4)
#define SCORE_STRIDE (TILE + 4)
#define WIDE 64                   // columns of an output computed at a time
#define WIDE_SLICES (HEAD / WIDE)

// What every kernel on these tiles keeps in shared memory: 35.5 KB.
typedef struct tile_memory {
    union {
        struct {
            float a[TILE * SLICE_STRIDE], b[TILE * SLICE_STRIDE];  // operands of dot_tiles
        };
        float wide[TILE * WIDE];                                   // right operand of the other products
        float gradients[TILE * SCORE_STRIDE];                      // of the scores, between the products
    };
    float scores[TILE * SCORE_STRIDE];
    int lo[TILE], hi[TILE]; // keys that the rows see
    int first, last;        // union of those
} tile_memory;

typedef float fragment[4][4];

DEVICE int thread_x(void) { return (int)threadIdx.x % 16; }
DEVICE int thread_y(void) { return (int)threadIdx.x / 16; }
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
DEVICE float load_input(u64 data, i64 index) { return ((const float *)data)[index]; }
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

DEVICE float4 load4(const float *from) { return *(const float4 *)from; }

DEVICE void add_outer(float *sum, float a, const float4 &b) {
    sum[0] = fmaf(a, b.x, sum[0]);
    sum[1] = fmaf(a, b.y, sum[1]);
    sum[2] = fmaf(a, b.z, sum[2]);
    sum[3] = fmaf(a, b.w, sum[3]);
}

// scores[row][key] = sum over `size` columns of a[row][c] * b[key][c]. It waits for all threads before it writes, but
// not at its end: the caller waits before it overwrites a, b or wide.
DEVICE void dot_tiles(fragment &scores, tile_memory *t, const dlattn_view &a, i64 a_at, int a_rows,
                      const dlattn_view &b, i64 b_at, int b_rows, int size) {
#pragma unroll
    for (int n = 0; n < 16; n++) scores[n / 4][n % 4] = 0.0f;
    for (int c0 = 0; c0 < size; c0 += SLICE) {
        __syncthreads();
        load_tile<SLICE, SLICE_STRIDE>(t->a, a, a_at + c0 * a.stride[3], a_rows, size - c0);
        load_tile<SLICE, SLICE_STRIDE>(t->b, b, b_at + c0 * b.stride[3], b_rows, size - c0);
        __syncthreads();
#pragma unroll 2
        for (int c = 0; c < SLICE; c += 4) {
            float4 y[4];
#pragma unroll
            for (int n = 0; n < 4; n++) y[n] = load4(t->b + (thread_x() + 16 * n) * SLICE_STRIDE + c);
#pragma unroll
            for (int m = 0; m < 4; m++) {
                const float4 x = load4(t->a + (4 * thread_y() + m) * SLICE_STRIDE + c);
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    scores[m][n] = fmaf(x.x, y[n].x, scores[m][n]);
                    scores[m][n] = fmaf(x.y, y[n].y, scores[m][n]);
                    scores[m][n] = fmaf(x.z, y[n].z, scores[m][n]);
                    scores[m][n] = fmaf(x.w, y[n].w, scores[m][n]);
                }
            }
        }
    }
}

// Where the thread's own score n of 16 lies in t->scores, and which row and column of the tile that is.
DEVICE int own_row(int n) { return 4 * thread_y() + n / 4; }
DEVICE int own_column(int n) { return thread_x() + 16 * (n % 4); }
DEVICE int own_place(int n) { return own_row(n) * SCORE_STRIDE + own_column(n); }

// The thread's own scores into shared memory, for the products below, and for loops over them that are not unrolled.
DEVICE void share_scores(tile_memory *t, const fragment &scores) {
#pragma unroll
    for (int n = 0; n < 16; n++) t->scores[own_place(n)] = scores[n / 4][n % 4];
}

// sums[slice][row][c] += sum over keys of t->scores[row][key] * x[key][c], all slices of x's `size` columns.
DEVICE void add_rows(fragment (&sums)[WIDE_SLICES], tile_memory *t, const dlattn_view &x, i64 x_at, int keys,
                     int size) {
#pragma unroll
    for (int slice = 0; slice < WIDE_SLICES; slice++) {
        const int c0 = slice * WIDE;
        if (c0 >= size) break;
        __syncthreads();
        load_tile<WIDE, WIDE>(t->wide, x, x_at + c0 * x.stride[3], keys, size - c0);
        __syncthreads();
#pragma unroll 2
        for (int key = 0; key < TILE; key += 4) {
            float4 y[4];
#pragma unroll
            for (int n = 0; n < 4; n++) y[n] = load4(t->wide + (key + n) * WIDE + 4 * thread_x());
#pragma unroll
            for (int m = 0; m < 4; m++) {
                const float4 w = load4(t->scores + (4 * thread_y() + m) * SCORE_STRIDE + key);
                add_outer(sums[slice][m], w.x, y[0]);
                add_outer(sums[slice][m], w.y, y[1]);
                add_outer(sums[slice][m], w.z, y[2]);
                add_outer(sums[slice][m], w.w, y[3]);
            }
        }
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
        load_tile<WIDE, WIDE>(t->wide, x, x_at + c0 * x.stride[3], rows, size - c0);
        __syncthreads();
#pragma unroll 4
        for (int row = 0; row < TILE; row++) {
            const float4 y = load4(t->wide + row * WIDE + 4 * thread_x());
            const float4 w = load4(t->scores + row * SCORE_STRIDE + 4 * thread_y());
            add_outer(sums[slice][0], w.x, y);
            add_outer(sums[slice][1], w.y, y);
            add_outer(sums[slice][2], w.z, y);
            add_outer(sums[slice][3], w.w, y);
        }
    }
}

DEVICE void clear(fragment (&sums)[WIDE_SLICES]) {
#pragma unroll
    for (int n = 0; n < 16 * WIDE_SLICES; n++) sums[n / 16][n / 4 % 4][n % 4] = 0.0f;
}

// Row m of the thread's part of an output, times `factor`: elements `at` .. of `to`, of which there are `size`. An
// empty row is 0 whatever the sums are.
DEVICE void store_row(const dlattn_view &to, i64 at, const fragment (&sums)[WIDE_SLICES], int m, float factor,
                      bool empty, int size) {
#pragma unroll
    for (int n = 0; n < 4 * WIDE_SLICES; n++) {
        const int c = n / 4 * WIDE + 4 * thread_x() + n % 4;
        if (c < size) store_float(to, at + c * to.stride[3], empty ? 0.0f : sums[n / 4][m][n % 4] * factor);
    }
}

#endif
