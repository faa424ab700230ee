/* simd_neon.h: the vocabulary of simd.h for 64-bit Arm (Advanced SIMD, part of every such processor). */
#ifndef DLATTN_SIMD_NEON_H
#define DLATTN_SIMD_NEON_H

#include <arm_neon.h>

#define MR 8
#define NV 2
#define v_keep(x) __asm__("" : "+w"(x))

#if REAL_IS_F64

#define L 2
typedef float64x2_t v;
typedef uint64x2_t vm; /* a lane is all ones or all zeros */

SIMD_INLINE vm vm_first(int64_t n) {
    const int64x2_t lane = vcombine_s64(vcreate_s64(0), vcreate_s64(1));
    return vcltq_s64(lane, vdupq_n_s64(n));
}
SIMD_INLINE v v_zero(void) { return vdupq_n_f64(0); }
SIMD_INLINE v v_set1(real x) { return vdupq_n_f64(x); }
SIMD_INLINE v v_load(const real *p) { return vld1q_f64(p); }
SIMD_INLINE void v_store(real *p, v x) { vst1q_f64(p, x); }
SIMD_INLINE v v_add(v a, v b) { return vaddq_f64(a, b); }
SIMD_INLINE v v_sub(v a, v b) { return vsubq_f64(a, b); }
SIMD_INLINE v v_mul(v a, v b) { return vmulq_f64(a, b); }
SIMD_INLINE v v_div(v a, v b) { return vdivq_f64(a, b); }
SIMD_INLINE v v_fma(v a, v b, v c) { return vfmaq_f64(c, a, b); }
SIMD_INLINE v v_fnma(v a, v b, v c) { return vfmsq_f64(c, a, b); }
SIMD_INLINE v v_abs(v a) { return vabsq_f64(a); }
SIMD_INLINE v v_round(v a) { return vrndnq_f64(a); }
SIMD_INLINE v v_select(vm m, v a, v b) { return vbslq_f64(m, a, b); }
SIMD_INLINE vm vm_lt(v a, v b) { return vcltq_f64(a, b); }
/* As on x86: the second operand when either is NaN. */
SIMD_INLINE v v_max(v a, v b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }
SIMD_INLINE v v_min(v a, v b) { return vbslq_f64(vcltq_f64(a, b), a, b); }
/* p * 2^(n+53) * 2^-53: the first power is built from its exponent bits (those of +0 for n <= -1076), the second product
 * rounds to a subnormal where need be. */
SIMD_INLINE v v_scale(v p, v n) {
    n = v_min(v_set1(971), v_max(v_set1(-1076), n));
    int64x2_t bits = vshlq_n_s64(vaddq_s64(vcvtq_s64_f64(n), vdupq_n_s64(1076)), 52);
    return vmulq_f64(vmulq_f64(p, vreinterpretq_f64_s64(bits)), v_set1(0x1p-53));
}
SIMD_INLINE v v_iota(void) { return vcombine_f64(vdup_n_f64(0), vdup_n_f64(1)); }
SIMD_INLINE vm vm_bytes(const uint8_t *p) {
    uint64x2_t wide = vcombine_u64(vcreate_u64(p[0]), vcreate_u64(p[1]));
    return vtstq_u64(wide, wide);
}
SIMD_INLINE real v_hsum(v a) { return vgetq_lane_f64(a, 0) + vgetq_lane_f64(a, 1); }
SIMD_INLINE real v_hmax(v a) {
    real x = vgetq_lane_f64(a, 0), y = vgetq_lane_f64(a, 1);
    return x > y ? x : y;
}
SIMD_INLINE v v_sums(const v *a) { return vpaddq_f64(a[0], a[1]); }
SIMD_INLINE uint32x2_t v_two_words(const uint16_t *p) {
    return vcreate_u32(p[0] | (uint64_t)p[1] << 32);
}
SIMD_INLINE v v_load_f16(const uint16_t *p) {
    float16x4_t halves = vreinterpret_f16_u16(vcreate_u16(p[0] | (uint64_t)p[1] << 16));
    return vcvt_f64_f32(vget_low_f32(vcvt_f32_f16(halves)));
}
SIMD_INLINE v v_load_bf16(const uint16_t *p) {
    return vcvt_f64_f32(vreinterpret_f32_u32(vshl_n_u32(v_two_words(p), 16)));
}
/* Not used: outputs of a float64 problem are float64 or float32. */
SIMD_INLINE void v_store_f16(uint16_t *p, v x) { (void)p, (void)x; }
SIMD_INLINE void v_store_bf16(uint16_t *p, v x) { (void)p, (void)x; }

SIMD_INLINE void transpose_block(elem *dst, int64_t ldd, const elem *src, int64_t lds) {
    v a = v_load(src), b = v_load(src + lds);
    v_store(dst, vzip1q_f64(a, b));
    v_store(dst + ldd, vzip2q_f64(a, b));
}

#else

#define L 4
typedef float32x4_t v;
typedef uint32x4_t vm; /* a lane is all ones or all zeros */

SIMD_INLINE vm vm_first(int64_t n) {
    const int32x4_t lane = vcombine_s32(vcreate_s32(0x100000000u), vcreate_s32(0x300000002u));
    return vcltq_s32(lane, vdupq_n_s32(n >= L ? L : n <= 0 ? 0 : (int32_t)n));
}
SIMD_INLINE v v_zero(void) { return vdupq_n_f32(0); }
SIMD_INLINE v v_set1(real x) { return vdupq_n_f32(x); }
SIMD_INLINE v v_load(const real *p) { return vld1q_f32(p); }
SIMD_INLINE void v_store(real *p, v x) { vst1q_f32(p, x); }
SIMD_INLINE v v_add(v a, v b) { return vaddq_f32(a, b); }
SIMD_INLINE v v_sub(v a, v b) { return vsubq_f32(a, b); }
SIMD_INLINE v v_mul(v a, v b) { return vmulq_f32(a, b); }
SIMD_INLINE v v_div(v a, v b) { return vdivq_f32(a, b); }
SIMD_INLINE v v_fma(v a, v b, v c) { return vfmaq_f32(c, a, b); }
SIMD_INLINE v v_fnma(v a, v b, v c) { return vfmsq_f32(c, a, b); }
SIMD_INLINE v v_abs(v a) { return vabsq_f32(a); }
SIMD_INLINE v v_round(v a) { return vrndnq_f32(a); }
SIMD_INLINE v v_select(vm m, v a, v b) { return vbslq_f32(m, a, b); }
SIMD_INLINE vm vm_lt(v a, v b) { return vcltq_f32(a, b); }
/* As on x86: the second operand when either is NaN. */
SIMD_INLINE v v_max(v a, v b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
SIMD_INLINE v v_min(v a, v b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
/* p * 2^(n+24) * 2^-24: the first power is built from its exponent bits (those of +0 for n <= -151), the second product
 * rounds to a subnormal where need be. */
SIMD_INLINE v v_scale(v p, v n) {
    n = v_min(v_set1(104), v_max(v_set1(-151), n));
    int32x4_t bits = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(151)), 23);
    return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(bits)), v_set1(0x1p-24f));
}
SIMD_INLINE v v_iota(void) {
    return vcvtq_f32_s32(vcombine_s32(vcreate_s32(0x100000000u), vcreate_s32(0x300000002u)));
}
SIMD_INLINE vm vm_bytes(const uint8_t *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    uint16x8_t halves = vmovl_u8(vcreate_u8(four));
    uint32x4_t wide = vmovl_u16(vget_low_u16(halves));
    return vtstq_u32(wide, wide);
}
SIMD_INLINE real v_hsum(v a) {
    float32x2_t pair = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(pair, 0) + vget_lane_f32(pair, 1);
}
SIMD_INLINE real v_hmax(v a) {
    v high = v_max(a, vextq_f32(a, a, 2));
    return vgetq_lane_f32(v_max(high, vextq_f32(high, high, 1)), 0);
}
SIMD_INLINE v v_sums(const v *a) { return vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3])); }
SIMD_INLINE v v_load_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
SIMD_INLINE v v_load_bf16(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
SIMD_INLINE void v_split_bf16(const uint16_t *p, v *even, v *odd) {
    uint32x4_t pairs = vreinterpretq_u32_u16(vld1q_u16(p));
    *even = vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16));
    *odd = vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000u)));
}
SIMD_INLINE void v_store_f16(uint16_t *p, v x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))); }
/* NaN stays NaN. */
SIMD_INLINE void v_store_bf16(uint16_t *p, v x) {
    uint32x4_t bits = vreinterpretq_u32_f32(x), high = vshrq_n_u32(bits, 16);
    uint32x4_t half = vaddq_u32(vdupq_n_u32(0x7fff), vandq_u32(high, vdupq_n_u32(1)));
    uint32x4_t rounded = vshrq_n_u32(vaddq_u32(bits, half), 16);
    uint32x4_t quiet = vorrq_u32(high, vdupq_n_u32(0x40));
    vst1_u16(p, vmovn_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet)));
}

SIMD_INLINE void transpose_block(elem *dst, int64_t ldd, const elem *src, int64_t lds) {
    v r0 = v_load(src), r1 = v_load(src + lds), r2 = v_load(src + 2 * lds), r3 = v_load(src + 3 * lds);
    float64x2_t t0 = vreinterpretq_f64_f32(vtrn1q_f32(r0, r1)), t1 = vreinterpretq_f64_f32(vtrn2q_f32(r0, r1));
    float64x2_t t2 = vreinterpretq_f64_f32(vtrn1q_f32(r2, r3)), t3 = vreinterpretq_f64_f32(vtrn2q_f32(r2, r3));
    v_store(dst, vreinterpretq_f32_f64(vtrn1q_f64(t0, t2)));
    v_store(dst + ldd, vreinterpretq_f32_f64(vtrn1q_f64(t1, t3)));
    v_store(dst + 2 * ldd, vreinterpretq_f32_f64(vtrn2q_f64(t0, t2)));
    v_store(dst + 3 * ldd, vreinterpretq_f32_f64(vtrn2q_f64(t1, t3)));
}

#endif

/* Memory beyond n is not touched. */
SIMD_INLINE v v_load_n(const real *p, int64_t n) {
    real lanes[L] = {0};
    if (n >= L) return v_load(p);
    for (int64_t i = 0; i < n; i++) lanes[i] = p[i];
    return v_load(lanes);
}
SIMD_INLINE void v_store_n(real *p, v x, int64_t n) {
    real lanes[L];
    v_store(lanes, x);
    for (int64_t i = 0; i < n && i < L; i++) p[i] = lanes[i];
}

#endif
