/* simd_avx2.h: the vocabulary of simd.h for AVX2 with FMA and F16C. */
#ifndef DLATTN_SIMD_AVX2_H
#define DLATTN_SIMD_AVX2_H

#include <immintrin.h>

#define MR 6
#define NV 2
#define v_keep(x) __asm__("" : "+x"(x))

#if REAL_IS_F64

#define L 4
typedef __m256d v;
typedef __m256d vm; /* a lane is all ones or all zeros */

SIMD_INLINE vm vm_first(int64_t n) {
    static const int64_t ones_then_zeros[8] = {-1, -1, -1, -1, 0, 0, 0, 0};
    return _mm256_loadu_pd((const double *)(ones_then_zeros + L - (n >= L ? L : n <= 0 ? 0 : n)));
}
SIMD_INLINE v v_zero(void) { return _mm256_setzero_pd(); }
SIMD_INLINE v v_set1(real x) { return _mm256_set1_pd(x); }
SIMD_INLINE v v_load(const real *p) { return _mm256_loadu_pd(p); }
SIMD_INLINE v v_load_n(const real *p, int64_t n) { return _mm256_maskload_pd(p, _mm256_castpd_si256(vm_first(n))); }
SIMD_INLINE void v_store(real *p, v x) { _mm256_storeu_pd(p, x); }
SIMD_INLINE void v_store_n(real *p, v x, int64_t n) { _mm256_maskstore_pd(p, _mm256_castpd_si256(vm_first(n)), x); }
SIMD_INLINE v v_add(v a, v b) { return _mm256_add_pd(a, b); }
SIMD_INLINE v v_sub(v a, v b) { return _mm256_sub_pd(a, b); }
SIMD_INLINE v v_mul(v a, v b) { return _mm256_mul_pd(a, b); }
SIMD_INLINE v v_div(v a, v b) { return _mm256_div_pd(a, b); }
SIMD_INLINE v v_max(v a, v b) { return _mm256_max_pd(a, b); }
SIMD_INLINE v v_min(v a, v b) { return _mm256_min_pd(a, b); }
SIMD_INLINE v v_fma(v a, v b, v c) { return _mm256_fmadd_pd(a, b, c); }
SIMD_INLINE v v_fnma(v a, v b, v c) { return _mm256_fnmadd_pd(a, b, c); }
SIMD_INLINE v v_abs(v a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a); }
SIMD_INLINE v v_round(v a) { return _mm256_round_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* p * 2^(n+53) * 2^-53: the first power is built from its exponent bits (those of +0 for n <= -1076), the second product
 * rounds to a subnormal where need be. Adding 1.5 * 2^52 leaves n in the low bits. */
SIMD_INLINE v v_scale(v p, v n) {
    n = _mm256_min_pd(_mm256_set1_pd(971), _mm256_max_pd(_mm256_set1_pd(-1076), n));
    __m256i low = _mm256_castpd_si256(_mm256_add_pd(n, _mm256_set1_pd(6755399441055744.0)));
    __m256i bits = _mm256_slli_epi64(_mm256_add_epi64(low, _mm256_set1_epi64x(1076)), 52);
    return _mm256_mul_pd(_mm256_mul_pd(p, _mm256_castsi256_pd(bits)), _mm256_set1_pd(0x1p-53));
}
SIMD_INLINE v v_iota(void) { return _mm256_setr_pd(0, 1, 2, 3); }
SIMD_INLINE v v_select(vm m, v a, v b) { return _mm256_blendv_pd(b, a, m); }
SIMD_INLINE vm vm_bytes(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    __m256i wide = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
    return _mm256_castsi256_pd(_mm256_cmpgt_epi64(wide, _mm256_setzero_si256()));
}
SIMD_INLINE vm vm_lt(v a, v b) { return _mm256_cmp_pd(a, b, _CMP_LT_OQ); }
SIMD_INLINE real v_hsum(v a) {
    __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
}
SIMD_INLINE real v_hmax(v a) {
    __m128d pair = _mm_max_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_max_sd(pair, _mm_unpackhi_pd(pair, pair)));
}
SIMD_INLINE v v_sums(const v *a) {
    v s = v_add(_mm256_unpacklo_pd(a[0], a[1]), _mm256_unpackhi_pd(a[0], a[1]));
    v t = v_add(_mm256_unpacklo_pd(a[2], a[3]), _mm256_unpackhi_pd(a[2], a[3]));
    return v_add(_mm256_permute2f128_pd(s, t, 0x20), _mm256_permute2f128_pd(s, t, 0x31));
}
SIMD_INLINE v v_load_f16(const uint16_t *p) {
    return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)p)));
}
SIMD_INLINE v v_load_bf16(const uint16_t *p) {
    __m128i wide = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)p));
    return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(wide, 16)));
}
/* Not used: outputs of a float64 problem are float64 or float32. */
SIMD_INLINE void v_store_f16(uint16_t *p, v x) { (void)p, (void)x; }
SIMD_INLINE void v_store_bf16(uint16_t *p, v x) { (void)p, (void)x; }

SIMD_INLINE void transpose_block(elem *dst, int64_t ldd, const elem *src, int64_t lds) {
    v r0 = v_load(src), r1 = v_load(src + lds), r2 = v_load(src + 2 * lds), r3 = v_load(src + 3 * lds);
    v t0 = _mm256_unpacklo_pd(r0, r1), t1 = _mm256_unpackhi_pd(r0, r1);
    v t2 = _mm256_unpacklo_pd(r2, r3), t3 = _mm256_unpackhi_pd(r2, r3);
    v_store(dst, _mm256_permute2f128_pd(t0, t2, 0x20));
    v_store(dst + ldd, _mm256_permute2f128_pd(t1, t3, 0x20));
    v_store(dst + 2 * ldd, _mm256_permute2f128_pd(t0, t2, 0x31));
    v_store(dst + 3 * ldd, _mm256_permute2f128_pd(t1, t3, 0x31));
}

#else

#define L 8
typedef __m256 v;
typedef __m256 vm; /* a lane is all ones or all zeros */

SIMD_INLINE vm vm_first(int64_t n) {
    static const int32_t ones_then_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_loadu_ps((const float *)(ones_then_zeros + L - (n >= L ? L : n <= 0 ? 0 : n)));
}
SIMD_INLINE v v_zero(void) { return _mm256_setzero_ps(); }
SIMD_INLINE v v_set1(real x) { return _mm256_set1_ps(x); }
SIMD_INLINE v v_load(const real *p) { return _mm256_loadu_ps(p); }
SIMD_INLINE v v_load_n(const real *p, int64_t n) { return _mm256_maskload_ps(p, _mm256_castps_si256(vm_first(n))); }
SIMD_INLINE void v_store(real *p, v x) { _mm256_storeu_ps(p, x); }
SIMD_INLINE void v_store_n(real *p, v x, int64_t n) { _mm256_maskstore_ps(p, _mm256_castps_si256(vm_first(n)), x); }
SIMD_INLINE v v_add(v a, v b) { return _mm256_add_ps(a, b); }
SIMD_INLINE v v_sub(v a, v b) { return _mm256_sub_ps(a, b); }
SIMD_INLINE v v_mul(v a, v b) { return _mm256_mul_ps(a, b); }
SIMD_INLINE v v_div(v a, v b) { return _mm256_div_ps(a, b); }
SIMD_INLINE v v_max(v a, v b) { return _mm256_max_ps(a, b); }
SIMD_INLINE v v_min(v a, v b) { return _mm256_min_ps(a, b); }
SIMD_INLINE v v_fma(v a, v b, v c) { return _mm256_fmadd_ps(a, b, c); }
SIMD_INLINE v v_fnma(v a, v b, v c) { return _mm256_fnmadd_ps(a, b, c); }
SIMD_INLINE v v_abs(v a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
SIMD_INLINE v v_round(v a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* p * 2^(n+24) * 2^-24: the first power is built from its exponent bits (those of +0 for n <= -151), the second product
 * rounds to a subnormal where need be. */
SIMD_INLINE v v_scale(v p, v n) {
    n = _mm256_min_ps(_mm256_set1_ps(104), _mm256_max_ps(_mm256_set1_ps(-151), n));
    __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(151)), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(bits)), _mm256_set1_ps(0x1p-24f));
}
SIMD_INLINE v v_iota(void) { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
SIMD_INLINE v v_select(vm m, v a, v b) { return _mm256_blendv_ps(b, a, m); }
SIMD_INLINE vm vm_bytes(const uint8_t *p) {
    __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(wide, _mm256_setzero_si256()));
}
SIMD_INLINE vm vm_lt(v a, v b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
SIMD_INLINE real v_hsum(v a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
SIMD_INLINE real v_hmax(v a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
/* In each 128-bit half: the sums over that half of a[0], a[1], a[2] and a[3]. */
SIMD_INLINE v v_sums_of_four(const v *a) {
    __m256d s = _mm256_castps_pd(v_add(_mm256_unpacklo_ps(a[0], a[1]), _mm256_unpackhi_ps(a[0], a[1])));
    __m256d t = _mm256_castps_pd(v_add(_mm256_unpacklo_ps(a[2], a[3]), _mm256_unpackhi_ps(a[2], a[3])));
    return v_add(_mm256_castpd_ps(_mm256_unpacklo_pd(s, t)), _mm256_castpd_ps(_mm256_unpackhi_pd(s, t)));
}
SIMD_INLINE v v_sums(const v *a) {
    v s = v_sums_of_four(a), t = v_sums_of_four(a + 4);
    return v_add(_mm256_permute2f128_ps(s, t, 0x20), _mm256_permute2f128_ps(s, t, 0x31));
}
SIMD_INLINE v v_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
SIMD_INLINE v v_load_bf16(const uint16_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
SIMD_INLINE void v_split_bf16(const uint16_t *p, v *even, v *odd) {
    __m256i pairs = _mm256_loadu_si256((const __m256i *)p);
    *even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    *odd = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000u)));
}
SIMD_INLINE void v_store_f16(uint16_t *p, v x) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/* NaN stays NaN. */
SIMD_INLINE void v_store_bf16(uint16_t *p, v x) {
    __m256i bits = _mm256_castps_si256(x), high = _mm256_srli_epi32(bits, 16);
    __m256i half = _mm256_add_epi32(_mm256_set1_epi32(0x7fff), _mm256_and_si256(high, _mm256_set1_epi32(1)));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
    __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i words = _mm256_blendv_epi8(rounded, quiet, nan);
    _mm_storeu_si128((__m128i *)p,
                     _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

SIMD_INLINE void transpose_block(elem *dst, int64_t ldd, const elem *src, int64_t lds) {
    v r[8], t[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) r[i] = v_load(src + i * lds);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) { /* r[i + k]: rows i..i+3 of column k in each 128-bit half */
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++) {
            r[i + 2 * k] = _mm256_shuffle_ps(t[i + k], t[i + k + 2], 0x44);
            r[i + 2 * k + 1] = _mm256_shuffle_ps(t[i + k], t[i + k + 2], 0xee);
        }
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        v_store(dst + k * ldd, _mm256_permute2f128_ps(r[k], r[k + 4], 0x20));
        v_store(dst + (k + 4) * ldd, _mm256_permute2f128_ps(r[k], r[k + 4], 0x31));
    }
}

#endif
#endif
