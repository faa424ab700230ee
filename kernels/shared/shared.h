// shared.h: what lets one header serve C11 (the CPU backend) and CUDA C++ under NVRTC.
#ifndef DLATTN_SHARED_SHARED_H
#define DLATTN_SHARED_SHARED_H

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define DLATTN_SHARED static __device__ __forceinline__
typedef long long dlattn_i64;
typedef unsigned int dlattn_u32;
typedef unsigned long long dlattn_u64;
#else
#include <stdint.h>
#define DLATTN_SHARED static inline
typedef int64_t dlattn_i64;
typedef uint32_t dlattn_u32;
typedef uint64_t dlattn_u64;
#endif

#define DLATTN_I64_MAX ((dlattn_i64)0x7fffffffffffffffLL)
#define DLATTN_I64_MIN (-DLATTN_I64_MAX - 1)

// a + b, a - b, a * b, held at the ends of the range instead of wrapping: the sign of a wrapped sum is that of neither.
DLATTN_SHARED dlattn_i64 dlattn_add_sat(dlattn_i64 a, dlattn_i64 b) {
    dlattn_i64 sum = (dlattn_i64)((dlattn_u64)a + (dlattn_u64)b);
    if (((a ^ sum) & (b ^ sum)) < 0) return a < 0 ? DLATTN_I64_MIN : DLATTN_I64_MAX;
    return sum;
}

DLATTN_SHARED dlattn_i64 dlattn_sub_sat(dlattn_i64 a, dlattn_i64 b) {
    dlattn_i64 difference = (dlattn_i64)((dlattn_u64)a - (dlattn_u64)b);
    if (((a ^ b) & (a ^ difference)) < 0) return a < 0 ? DLATTN_I64_MIN : DLATTN_I64_MAX;
    return difference;
}

// a * b for b >= 1.
DLATTN_SHARED dlattn_i64 dlattn_mul_sat(dlattn_i64 a, dlattn_i64 b) {
    if (a > DLATTN_I64_MAX / b) return DLATTN_I64_MAX;
    if (a < DLATTN_I64_MIN / b) return DLATTN_I64_MIN;
    return a * b;
}

// floor(a / b) for b >= 1.
DLATTN_SHARED dlattn_i64 dlattn_floor_div(dlattn_i64 a, dlattn_i64 b) {
    dlattn_i64 q = a / b;
    return q * b > a ? q - 1 : q;
}

#endif
