// generic_tf32.cuh: generic_fma.cuh on tensor cores, sm_80 on: operands have 10 bits of fraction, sums are float32.
//
// For float32 inputs where the caller allows it. fp16 and bf16 inputs are exact in TF32, but p and ds are not: rounding
// them costs fp16 its accuracy rule in short rows, so that for these only dbias_generic may use it, where they enter no
// product.
//
// Of the 8 warps each takes 16 rows and 32 columns of a tile, as four accumulators of mma.sync m16n8k8: a thread owns
// two rows.
#ifndef DLATTN_GENERIC_TF32_CUH
#define DLATTN_GENERIC_TF32_CUH

#include "generic_memory.cuh"

#define ROWS_OWNED 2
#define ROW_LENGTH (16 / ROWS_OWNED) // of what a thread owns

// The warp's first row and column; the lane's place in an mma fragment.
DEVICE int warp_row(void) { return (int)threadIdx.x / 64 * 16; }
DEVICE int warp_half(void) { return (int)threadIdx.x / 32 % 2; }
DEVICE int lane_row(void) { return (int)threadIdx.x % 32 / 4; }
DEVICE int lane_pair(void) { return (int)threadIdx.x % 4; }

// Element k of the thread's m-th row, and where element n of a tile of scores or outputs is.
DEVICE int own_index(int m, int k) { return k / 2 * 4 + 2 * m + k % 2; }
DEVICE int own_row(int n) { return warp_row() + lane_row() + n / 2 % 2 * 8; }
DEVICE int own_column(int n) { return warp_half() * 32 + n / 4 * 8 + lane_pair() * 2 + n % 2; }
DEVICE int out_column(int n) { return own_column(n); }

// One of the threads that own a row.
DEVICE bool speaks_for_row(void) { return warp_half() == 0 && lane_pair() == 0; }

// An operand of a product, as the product takes it.
DEVICE float rounded(float x) {
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
}

// x[m] becomes the largest, or the sum, over the row, half of which the neighbouring warp has. All threads wait.
DEVICE void largest_of_rows(float (&x)[ROWS_OWNED], tile_memory *t) {
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++) {
        for (int lane = 1; lane < 4; lane *= 2) x[m] = fmaxf(x[m], __shfl_xor_sync(0xffffffffu, x[m], lane));
        if (lane_pair() == 0) t->halves[warp_half()][own_row(2 * m)] = x[m];
    }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++) x[m] = fmaxf(x[m], t->halves[1 - warp_half()][own_row(2 * m)]);
}

DEVICE void sums_of_rows(float (&x)[ROWS_OWNED], tile_memory *t) {
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++) {
        for (int lane = 1; lane < 4; lane *= 2) x[m] += __shfl_xor_sync(0xffffffffu, x[m], lane);
        if (lane_pair() == 0) t->halves[warp_half()][own_row(2 * m)] = x[m];
    }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++) x[m] = t->halves[0][own_row(2 * m)] + t->halves[1][own_row(2 * m)];
}

// sum += a . b, 16 x 8 by 8 x 8.
DEVICE void mma_tf32(float *sum, const float (&a)[4], float b0, float b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}

// sums += left . right for the warp's 16 rows and 32 columns and `depth` terms. Element (row, term) of the left operand
// lies at left[row * ROW + term * TERM], element (term, column) of the right one at right[term * RIGHT_TERM + column *
// COLUMN].
template <int DEPTH, int ROW, int TERM, int RIGHT_TERM, int COLUMN>
DEVICE void multiply(fragment &sums, const float *left, const float *right) {
    const float *from_left = left + (warp_row() + lane_row()) * ROW + lane_pair() * TERM;
    const float *from_right = right + (warp_half() * 32 + lane_row()) * COLUMN + lane_pair() * RIGHT_TERM;
#pragma unroll 4
    for (int term = 0; term < DEPTH; term += 8) {
        const float *l = from_left + term * TERM, *r = from_right + term * RIGHT_TERM;
        const float a[4] = {l[0], l[8 * ROW], l[4 * TERM], l[8 * ROW + 4 * TERM]};
#pragma unroll
        for (int n = 0; n < 4; n++) mma_tf32(sums + 4 * n, a, r[8 * n * COLUMN], r[8 * n * COLUMN + 4 * RIGHT_TERM]);
    }
}

// scores[row][key] += sum over the slice of a[row][c] * b[key][c]
DEVICE void multiply_slice(fragment &scores, const tile_memory *t) {
    multiply<SLICE, SLICE_STRIDE, 1, 1, SLICE_STRIDE>(scores, t->a, t->b);
}

// sums[row][c] += sum over keys of scores[row][key] * wide[key][c]
DEVICE void multiply_rows(fragment &sums, const tile_memory *t) {
    multiply<TILE, SCORE_STRIDE, 1, WIDE_STRIDE, 1>(sums, t->scores, t->wide);
}

// sums[key][c] += sum over rows of scores[row][key] * wide[row][c]
DEVICE void multiply_columns(fragment &sums, const tile_memory *t) {
    multiply<TILE, 1, SCORE_STRIDE, WIDE_STRIDE, 1>(sums, t->scores, t->wide);
}

#endif
