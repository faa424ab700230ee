// backward_write.cuh: sums of the backward's kernels, in registers as mma leaves them, to their tensors.
#ifndef DLATTN_BACKWARD_WRITE_CUH
#define DLATTN_BACKWARD_WRITE_CUH

#include "backward_parts.cuh"

// Where they go: element `at` is the first of row 0; `rows` and `cols` there are.
typedef struct write_place {
    i64 at, row_stride;
    int rows, cols;
} write_place;

// `factor` times a warp's sums by pairs, to any strides and types: a loop that takes the first pair and moves the others up, since
// written out for each pair it was three quarters of all that the compiler was given of backward_sm90.
template <int STEPS, int PAIRS>
DEVICE void write_pairs(const dlattn_view &t, const write_place &to, float (*c)[2 * PAIRS][4], float factor, int row, int col) {
    const int STEP = 8 * PAIRS; // floats
    row += lane_id() >> 2;
    col += 2 * (lane_id() & 3);
#pragma unroll 1
    for (int n = 0; n < STEPS * STEP; n += 2) {
        const int own = row + n / STEP * 16 + n / 2 % 2 * 8, first = col + n % STEP / 4 * 8;
        if (own < to.rows)
            store_pair(t, to.at + own * to.row_stride + first * t.stride[3], to.cols - first, c[0][0][0] * factor, c[0][0][1] * factor);
#pragma unroll
        for (int x = 0; x + 2 < STEPS * STEP; x++) c[x / STEP][x % STEP / 4][x % 4] = c[(x + 2) / STEP][(x + 2) % STEP / 4][(x + 2) % 4];
    }
}

// `factor` times a warp's sums, to rows [row, ...) and columns [col, ...).
template <int STEPS, int PAIRS>
DEVICE void write_rows(const dlattn_view &t, const write_place &to, float (*c)[2 * PAIRS][4], float factor, int row, int col) {
    const bool eights = PAIRS % 2 == 0 && t.dtype == TYPE && to.cols % 8 == 0 && t.stride[3] == 1 && t.data % 16 == 0 &&
                        (t.stride[0] | t.stride[1] | t.stride[2]) % 8 == 0;
    if (!eights) {
        write_pairs<STEPS, PAIRS>(t, to, c, factor, row, col);
        return;
    }
#pragma unroll
    for (int m = 0; m < STEPS; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int own = row + 16 * m + 8 * half + (lane_id() >> 2);
            const i64 start = to.at + own * to.row_stride;
#pragma unroll
            for (int n = 0; n + 3 < 2 * PAIRS; n += 4) {
                u32 x[4];
#pragma unroll
                for (int w = 0; w < 4; w++) x[w] = pack(c[m][n + w][2 * half] * factor, c[m][n + w][2 * half + 1] * factor);
                transpose_quad(x, thread_anew());
                const int first = col + 8 * (n + (lane_id() & 3));
                if (own < to.rows && first < to.cols) *(uint4 *)(t.data + 2 * (u64)(start + first)) = make_uint4(x[0], x[1], x[2], x[3]);
            }
        }
}

// A warp's part of dk or dv, from key j on.
template <int STEPS, int PAIRS>
DEVICE void write_keys(const dlattn_view &t, const sequence &s, int g, int cols, float (*c)[2 * PAIRS][4], float factor,
                       int j, int col) {
    const write_place to = {at(t, s.b, s.k_begin, g), t.stride[1], s.N, cols};
    write_rows<STEPS, PAIRS>(t, to, c, factor, j, col);
}

#endif
