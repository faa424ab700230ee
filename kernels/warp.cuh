// warp.cuh: reductions over the 32 lanes of a warp, every lane receiving the result. The order of the sums is fixed.
#ifndef DLATTN_WARP_CUH
#define DLATTN_WARP_CUH

#include "element.cuh"

#define LANES 32

DEVICE double warp_sum(double x) {
    for (int lane = 1; lane < LANES; lane *= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}

// NaN is dropped, as fmaxf does.
DEVICE float warp_largest(float x) {
    for (int lane = 1; lane < LANES; lane *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}

#endif
