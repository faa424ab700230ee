// dq_sum.cuh: where the float sums of dq lie: in the order of the fragments that are added, so that a warp's reduction
// touches 512 bytes in a row.
//
// Rows come in blocks of 16 (row_of counts them, a tile starts at a multiple), columns in groups of 8. A block of 16 x 8
// is 128 floats. From sm_90 lane l's four floats are neighbours (one vector reduction); before, float c of lane l is at
// 32 c + l (four scalar ones). Lane and c as in mma's result: row l / 4 + 8 (c / 2), column 2 (l % 4) + c % 2.
#ifndef DLATTN_DQ_SUM_CUH
#define DLATTN_DQ_SUM_CUH

#include "early.cuh"
#include "sequence.cuh"

// The 128 floats of the block with row `row` (a multiple of 16) and column `col` (a multiple of 8), `cols` columns in all.
DEVICE float *dq_sum_block(const dlattn_params &p, i64 row, int col, int cols) {
    return (float *)p.dq_sum + (row * cols + col * 16);
}

DEVICE int dq_sum_index(int lane, int c) {
#if __CUDA_ARCH__ >= 900
    return lane * 4 + c;
#else
    return c * 32 + lane;
#endif
}

DEVICE float4 dq_sum_read(const float *block, int lane) {
    const float *own = block + dq_sum_index(lane, 0);
#if __CUDA_ARCH__ >= 900
    return *(const float4 *)own;
#else
    return make_float4(own[0], own[32], own[64], own[96]);
#endif
}

// own: block + dq_sum_index(lane, 0)
DEVICE void dq_sum_add(float *own, const float x[4]) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v4.f32 [%0], {%1,%2,%3,%4};"
                 :: "l"(__cvta_generic_to_global(own)), "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3]) : "memory");
#else
#pragma unroll
    for (int c = 0; c < 4; c++)
        asm volatile("red.global.add.f32 [%0], %1;" :: "l"(__cvta_generic_to_global(own + c * 32)), "f"(x[c]) : "memory");
#endif
}

// x[w] of lane t of a quad becomes x[t] of lane w.
DEVICE void transpose_quad(u32 x[4], int lane) {
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        const bool odd = (lane & step) != 0;
#pragma unroll
        for (int w = 0; w < 4; w++) {
            if (w & step) continue;
            const u32 other = __shfl_xor_sync(0xffffffffu, odd ? x[w] : x[w + step], step);
            if (odd) x[w] = other;
            else x[w + step] = other;
        }
    }
}

// How many blocks of (sequence, kv head) have added all of theirs to the sums; backward_prepare sets it to 0.
DEVICE u32 *finished_blocks(const dlattn_params &p, int b, int g) { return (u32 *)p.finished + ((i64)b * p.G + g); }

// By the whole block: it has.
DEVICE void finish_block(const dlattn_params &p, int b, int g) {
#if __CUDA_ARCH__ >= 900
    __syncthreads();
    if (threadIdx.x != 0) return;
    __threadfence();
    atomicAdd(finished_blocks(p, b, g), 1u);
#endif
}

// By the whole block: until `blocks` have.
DEVICE void wait_for_blocks(const dlattn_params &p, int b, int g, u32 blocks) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0) {
        while (*(const volatile u32 *)finished_blocks(p, b, g) < blocks) __nanosleep(100);
        __threadfence();
    }
    __syncthreads();
#endif
}

#endif
