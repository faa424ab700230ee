// backward_write_sm80.cuh: dk and dv from the registers of the backward's kernels to their tensors.
#ifndef DLATTN_BACKWARD_WRITE_SM80_CUH
#define DLATTN_BACKWARD_WRITE_SM80_CUH

#include "backward_sm80.cuh"

// A warp's part of dk or dv: `factor` times it, to rows [j, ...) and columns [col, ...) of the output.
template <int STEPS, int PAIRS>
DEVICE void write_keys(const dlattn_view &t, const sequence &s, int g, int cols, float (*c)[2 * PAIRS][4], float factor,
                       int j, int col) {
    const bool eights = PAIRS % 2 == 0 && t.dtype == TYPE && cols % 8 == 0 && t.stride[3] == 1 && t.data % 16 == 0 &&
                        (t.stride[0] | t.stride[1] | t.stride[2]) % 8 == 0;
#pragma unroll
    for (int m = 0; m < STEPS; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int key = j + 16 * m + 8 * half + (lane_id() >> 2);
            i64 row = at(t, s.b, s.k_begin + key, g);
            if (eights) {
#pragma unroll
                for (int n = 0; n + 3 < 2 * PAIRS; n += 4) {
                    u32 x[4];
#pragma unroll
                    for (int w = 0; w < 4; w++) x[w] = pack(c[m][n + w][2 * half] * factor, c[m][n + w][2 * half + 1] * factor);
                    transpose_quad(x, thread_anew());
                    const int first = col + 8 * (n + (lane_id() & 3));
                    if (key < s.N && first < cols) *(uint4 *)(t.data + 2 * (u64)(row + first)) = make_uint4(x[0], x[1], x[2], x[3]);
                }
                continue;
            }
            if (key >= s.N) continue;
#pragma unroll
            for (int n = 0; n < 2 * PAIRS; n++) {
                int first = col + 8 * n + 2 * (lane_id() & 3);
                store_pair(t, row + first * t.stride[3], cols - first, c[m][n][2 * half] * factor,
                           c[m][n][2 * half + 1] * factor);
            }
        }
}

#endif
