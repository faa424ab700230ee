// element.cuh: numbers in device memory: reading and writing elements whose type is known only at run time, and packing.
#ifndef DLATTN_ELEMENT_CUH
#define DLATTN_ELEMENT_CUH

#include "shared/params.h"

#define DEVICE static __device__ __forceinline__

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define INFINITE __int_as_float(0x7f800000)
#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f

DEVICE float float_of_f16(u16 bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

DEVICE u16 f16_of_float(float x) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

DEVICE float float_of_bf16(u16 bits) { return __uint_as_float((u32)bits << 16); }

// To nearest, ties to even, by integers: sm_75 has no instruction for it. NaN stays NaN.
DEVICE u16 bf16_of_float(float x) {
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (u16)((bits >> 16) | 0x40u);
    return (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

DEVICE int size_of_type(int dtype) {
    return dtype == DLATTN_TYPE_U8 ? 1 : dtype <= DLATTN_TYPE_BF16 ? 2 : dtype == DLATTN_TYPE_I64 ? 8 : 4;
}

// A float element at `index` elements from the view's start.
DEVICE float load_float(const dlattn_view &t, i64 index) {
    if (t.dtype == DLATTN_TYPE_F32) return ((const float *)t.data)[index];
    u16 bits = ((const u16 *)t.data)[index];
    return t.dtype == DLATTN_TYPE_F16 ? float_of_f16(bits) : float_of_bf16(bits);
}

DEVICE void store_float(const dlattn_view &t, i64 index, float x) {
    if (t.dtype == DLATTN_TYPE_F32) ((float *)t.data)[index] = x;
    else ((u16 *)t.data)[index] = t.dtype == DLATTN_TYPE_F16 ? f16_of_float(x) : bf16_of_float(x);
}

DEVICE i64 load_int(const dlattn_view &t, i64 index) {
    return t.dtype == DLATTN_TYPE_I64 ? ((const i64 *)t.data)[index] : ((const int *)t.data)[index];
}

DEVICE i64 at(const dlattn_view &t, i64 a) { return a * t.stride[0]; }
DEVICE i64 at(const dlattn_view &t, i64 a, i64 b) { return at(t, a) + b * t.stride[1]; }
DEVICE i64 at(const dlattn_view &t, i64 a, i64 b, i64 c) { return at(t, a, b) + c * t.stride[2]; }
DEVICE i64 at(const dlattn_view &t, i64 a, i64 b, i64 c, i64 d) { return at(t, a, b, c) + d * t.stride[3]; }

#endif
