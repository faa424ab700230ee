// backward_write_sm80.cuh: dk and dv from the registers of the backward's kernels to their tensors.
#ifndef DLATTN_BACKWARD_WRITE_SM80_CUH
#define DLATTN_BACKWARD_WRITE_SM80_CUH

#include "backward_sm80.cuh"

// A warp's part of dk or dv by pairs, to any strides and types: a loop that takes the first pair and moves the others up, since
// written out for each pair it was three quarters of all that the compiler was given of backward_sm90.
template <int STEPS, int PAIRS>
DEVICE void write_pairs(const dlattn_view &t, const sequence &s, int g, int cols, float (*c)[2 * PAIRS][4], float factor, int j,
                        int col) {
    const int STEP = 8 * PAIRS; // floats
    col += 2 * (lane_id() & 3);
    j += lane_id() >> 2;
#pragma unroll 1
    for (int n = 0; n < STEPS * STEP; n += 2) {
        const int key = j + n / STEP * 16 + n / 2 % 2 * 8, first = col + n % STEP / 4 * 8;
        if (key < s.N)
            store_pair(t, at(t, s.b, s.k_begin + key, g, first), cols - first, c[0][0][0] * factor, c[0][0][1] * factor);
#pragma unroll
        for (int to = 0, from = 2; from < STEPS * STEP; to++, from++)
            c[to / STEP][to % STEP / 4][to % 4] = c[from / STEP][from % STEP / 4][from % 4];
    }
}

// A warp's part of dk or dv: `factor` times it, to rows [j, ...) and columns [col, ...) of the output.
template <int STEPS, int PAIRS>
DEVICE void write_keys(const dlattn_view &t, const sequence &s, int g, int cols, float (*c)[2 * PAIRS][4], float factor,
                       int j, int col) {
    const bool eights = PAIRS % 2 == 0 && t.dtype == TYPE && cols % 8 == 0 && t.stride[3] == 1 && t.data % 16 == 0 &&
                        (t.stride[0] | t.stride[1] | t.stride[2]) % 8 == 0;
    if (!eights) {
        write_pairs<STEPS, PAIRS>(t, s, g, cols, c, factor, j, col);
        return;
    }
#pragma unroll
    for (int m = 0; m < STEPS; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int key = j + 16 * m + 8 * half + (lane_id() >> 2);
            i64 row = at(t, s.b, s.k_begin + key, g);
#pragma unroll
            for (int n = 0; n + 3 < 2 * PAIRS; n += 4) {
                u32 x[4];
#pragma unroll
                for (int w = 0; w < 4; w++) x[w] = pack(c[m][n + w][2 * half] * factor, c[m][n + w][2 * half + 1] * factor);
                transpose_quad(x, thread_anew());
                const int first = col + 8 * (n + (lane_id() & 3));
                if (key < s.N && first < cols) *(uint4 *)(t.data + 2 * (u64)(row + first)) = make_uint4(x[0], x[1], x[2], x[3]);
            }
        }
}

#endif
