// generic_fma.cuh: what of a 64 x 64 tile a thread owns, and the three products, in plain fused multiply-adds.
//
// A block is 16 x 16 threads. In a tile of scores thread (x, y) owns rows 4y .. 4y+3 and columns x, x+16, x+32, x+48:
// all reads of shared memory are then 16 bytes wide and free of bank conflicts. In a tile of outputs it owns rows
// 4y .. 4y+3 and columns 4x .. 4x+3. generic_tf32.cuh has the same functions on tensor cores.
#ifndef DLATTN_GENERIC_FMA_CUH
#define DLATTN_GENERIC_FMA_CUH

#include "generic_memory.cuh"

#define ROWS_OWNED 4
#define ROW_LENGTH (16 / ROWS_OWNED) // of what a thread owns

DEVICE int thread_x(void) { return (int)threadIdx.x % 16; }
DEVICE int thread_y(void) { return (int)threadIdx.x / 16; }

// Element k of the thread's m-th row, and where element n of a tile of scores or outputs is. Rows are the same in both.
DEVICE int own_index(int m, int k) { return 4 * m + k; }
DEVICE int own_row(int n) { return 4 * thread_y() + n / 4; }
DEVICE int own_column(int n) { return thread_x() + 16 * (n % 4); }
DEVICE int out_column(int n) { return 4 * thread_x() + n % 4; }

// One of the threads that own a row.
DEVICE bool speaks_for_row(void) { return thread_x() == 0; }

// An operand of a product, as the product takes it.
DEVICE float rounded(float x) { return x; }

// x[m] becomes the largest, or the sum, over the row.
DEVICE void largest_of_rows(float (&x)[ROWS_OWNED], tile_memory *) {
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++)
        for (int lane = 1; lane < 16; lane *= 2) x[m] = fmaxf(x[m], __shfl_xor_sync(0xffffffffu, x[m], lane));
}

DEVICE void sums_of_rows(float (&x)[ROWS_OWNED], tile_memory *) {
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++)
        for (int lane = 1; lane < 16; lane *= 2) x[m] += __shfl_xor_sync(0xffffffffu, x[m], lane);
}

DEVICE float4 load4(const float *from) { return *(const float4 *)from; }

DEVICE void add_outer(float *sum, float a, const float4 &b) {
    sum[0] = fmaf(a, b.x, sum[0]);
    sum[1] = fmaf(a, b.y, sum[1]);
    sum[2] = fmaf(a, b.z, sum[2]);
    sum[3] = fmaf(a, b.w, sum[3]);
}

// scores[row][key] += sum over the slice of a[row][c] * b[key][c]
DEVICE void multiply_slice(fragment &scores, const tile_memory *t) {
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
                float *sum = &scores[4 * m + n];
                *sum = fmaf(x.x, y[n].x, *sum);
                *sum = fmaf(x.y, y[n].y, *sum);
                *sum = fmaf(x.z, y[n].z, *sum);
                *sum = fmaf(x.w, y[n].w, *sum);
            }
        }
    }
}

// sums[row][c] += sum over keys of scores[row][key] * wide[key][c]
DEVICE void multiply_rows(fragment &sums, const tile_memory *t) {
#pragma unroll 2
    for (int key = 0; key < TILE; key += 4) {
        float4 y[4];
#pragma unroll
        for (int n = 0; n < 4; n++) y[n] = load4(t->wide + (key + n) * WIDE_STRIDE + 4 * thread_x());
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const float4 w = load4(t->scores + (4 * thread_y() + m) * SCORE_STRIDE + key);
            add_outer(sums + 4 * m, w.x, y[0]);
            add_outer(sums + 4 * m, w.y, y[1]);
            add_outer(sums + 4 * m, w.z, y[2]);
            add_outer(sums + 4 * m, w.w, y[3]);
        }
    }
}

// sums[key][c] += sum over rows of scores[row][key] * wide[row][c]
DEVICE void multiply_columns(fragment &sums, const tile_memory *t) {
#pragma unroll 4
    for (int row = 0; row < TILE; row++) {
        const float4 y = load4(t->wide + row * WIDE_STRIDE + 4 * thread_x());
        const float4 w = load4(t->scores + row * SCORE_STRIDE + 4 * thread_y());
        add_outer(sums, w.x, y);
        add_outer(sums + 4, w.y, y);
        add_outer(sums + 8, w.z, y);
        add_outer(sums + 12, w.w, y);
    }
}

#endif
