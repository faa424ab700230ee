/* simd_scalar.h: the vocabulary of simd.h with one lane, in plain C: what each operation means, and the last resort. */
#ifndef DLATTN_SIMD_SCALAR_H
#define DLATTN_SIMD_SCALAR_H

#include "half.h"

#define L 1
#define MR 4
#define NV 4

typedef real v;
typedef bool vm;

SIMD_INLINE v v_zero(void) { return 0; }
SIMD_INLINE v v_set1(real x) { return x; }
SIMD_INLINE v v_load(const real *p) { return *p; }
SIMD_INLINE v v_load_n(const real *p, int64_t n) { return n > 0 ? *p : 0; }
SIMD_INLINE void v_store(real *p, v x) { *p = x; }
SIMD_INLINE void v_store_n(real *p, v x, int64_t n) {
    if (n > 0) *p = x;
}
SIMD_INLINE v v_add(v a, v b) { return a + b; }
SIMD_INLINE v v_sub(v a, v b) { return a - b; }
SIMD_INLINE v v_mul(v a, v b) { return a * b; }
SIMD_INLINE v v_div(v a, v b) { return a / b; }
SIMD_INLINE v v_max(v a, v b) { return a > b ? a : b; }
SIMD_INLINE v v_min(v a, v b) { return a < b ? a : b; }
SIMD_INLINE v v_fma(v a, v b, v c) { return a * b + c; }
SIMD_INLINE v v_fnma(v a, v b, v c) { return c - a * b; }
SIMD_INLINE v v_abs(v a) { return a < 0 ? -a : a; }
/* Adding and taking away 1.5 * 2^(mantissa bits) rounds to an integer. */
SIMD_INLINE v v_round(v a) {
    const real magic = sizeof(real) == 8 ? (real)6755399441055744.0 : (real)12582912.0;
    volatile real shifted = a + magic; /* volatile: the compiler may not cancel the pair */
    return shifted - magic;
}
SIMD_INLINE v v_scale(v p, v n) {
    const real floor = sizeof(real) == 8 ? -1076 : -151;
    int exponent = n > floor ? (n < 1100 ? (int)n : 1100) : -2000; /* NaN lands on -2000, but p is NaN then */
    return n > floor || n != n ? (real)ldexp(p, n != n ? 0 : exponent) : 0;
}
SIMD_INLINE v v_iota(void) { return 0; }
SIMD_INLINE v v_select(vm m, v a, v b) { return m ? a : b; }
SIMD_INLINE vm vm_first(int64_t n) { return n > 0; }
SIMD_INLINE vm vm_bytes(const uint8_t *p) { return *p != 0; }
SIMD_INLINE vm vm_lt(v a, v b) { return a < b; }
SIMD_INLINE real v_hsum(v a) { return a; }
SIMD_INLINE real v_hmax(v a) { return a; }
SIMD_INLINE v v_sums(const v *a) { return *a; }
SIMD_INLINE v v_load_f16(const uint16_t *p) { return (real)dlattn__f16_to_float(*p); }
SIMD_INLINE v v_load_bf16(const uint16_t *p) { return (real)dlattn__bf16_to_float(*p); }
SIMD_INLINE void v_split_bf16(const uint16_t *p, v *even, v *odd) {
    *even = v_load_bf16(p);
    *odd = v_load_bf16(p + 1);
}
SIMD_INLINE void v_store_f16(uint16_t *p, v x) { *p = dlattn__float_to_f16((float)x); }
SIMD_INLINE void v_store_bf16(uint16_t *p, v x) { *p = dlattn__float_to_bf16((float)x); }
SIMD_INLINE void transpose_block(elem *dst, int64_t ldd, const elem *src, int64_t lds) {
    (void)ldd, (void)lds;
    *dst = *src;
}

#endif
