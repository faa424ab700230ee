/* simd_avx512.h: the vocabulary of simd.h for AVX-512 (F, BW, DQ, VL). */
#ifndef DLATTN_SIMD_AVX512_H
#define DLATTN_SIMD_AVX512_H

#include <immintrin.h>

#define MR 8
#define NV 2
/* vscalef(anything, -inf) is 0, a NaN that came from -inf - -inf included. */
#define SCALE_TAKES_ANY 1
#define v_keep(x) __asm__("" : "+v"(x))

#if REAL_IS_F64

#define L 8
typedef __m512d v;
typedef __mmask8 vm;

SIMD_INLINE vm vm_first(int64_t n) { return (vm)(n >= L ? 0xff : n <= 0 ? 0 : (1u << n) - 1u); }
SIMD_INLINE v v_zero(void) { return _mm512_setzero_pd(); }
SIMD_INLINE v v_set1(real x) { return _mm512_set1_pd(x); }
SIMD_INLINE v v_load(const real *p) { return _mm512_loadu_pd(p); }
SIMD_INLINE v v_load_n(const real *p, int64_t n) { return _mm512_maskz_loadu_pd(vm_first(n), p); }
SIMD_INLINE void v_store(real *p, v x) { _mm512_storeu_pd(p, x); }
SIMD_INLINE void v_store_n(real *p, v x, int64_t n) { _mm512_mask_storeu_pd(p, vm_first(n), x); }
SIMD_INLINE v v_add(v a, v b) { return _mm512_add_pd(a, b); }
SIMD_INLINE v v_sub(v a, v b) { return _mm512_sub_pd(a, b); }
SIMD_INLINE v v_mul(v a, v b) { return _mm512_mul_pd(a, b); }
SIMD_INLINE v v_div(v a, v b) { return _mm512_div_pd(a, b); }
SIMD_INLINE v v_max(v a, v b) { return _mm512_max_pd(a, b); }
SIMD_INLINE v v_min(v a, v b) { return _mm512_min_pd(a, b); }
SIMD_INLINE v v_fma(v a, v b, v c) { return _mm512_fmadd_pd(a, b, c); }
SIMD_INLINE v v_fnma(v a, v b, v c) { return _mm512_fnmadd_pd(a, b, c); }
SIMD_INLINE v v_abs(v a) { return _mm512_abs_pd(a); }
SIMD_INLINE v v_round(v a) { return _mm512_roundscale_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SIMD_INLINE v v_scale(v p, v n) { return _mm512_scalef_pd(p, n); }
SIMD_INLINE v v_iota(void) { return _mm512_setr_pd(0, 1, 2, 3, 4, 5, 6, 7); }
SIMD_INLINE v v_select(vm m, v a, v b) { return _mm512_mask_blend_pd(m, b, a); }
SIMD_INLINE vm vm_bytes(const uint8_t *p) {
    __m128i bytes = _mm_loadl_epi64((const __m128i *)p);
    return (vm)_mm_test_epi8_mask(bytes, bytes);
}
SIMD_INLINE vm vm_lt(v a, v b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
SIMD_INLINE real v_hsum(v a) { return _mm512_reduce_add_pd(a); }
SIMD_INLINE real v_hmax(v a) { return _mm512_reduce_max_pd(a); }
SIMD_INLINE v v_sums(const v *a) {
    v b[4], c[2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        b[i] = v_add(_mm512_unpacklo_pd(a[2 * i], a[2 * i + 1]), _mm512_unpackhi_pd(a[2 * i], a[2 * i + 1]));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        c[i] = v_add(_mm512_shuffle_f64x2(b[2 * i], b[2 * i + 1], 0x44),
                     _mm512_shuffle_f64x2(b[2 * i], b[2 * i + 1], 0xee));
    return v_add(_mm512_shuffle_f64x2(c[0], c[1], 0x88), _mm512_shuffle_f64x2(c[0], c[1], 0xdd));
}
SIMD_INLINE v v_load_f16(const uint16_t *p) {
    return _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)));
}
SIMD_INLINE v v_load_bf16(const uint16_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
}
/* Not used: outputs of a float64 problem are float64 or float32. */
SIMD_INLINE void v_store_f16(uint16_t *p, v x) { (void)p, (void)x; }
SIMD_INLINE void v_store_bf16(uint16_t *p, v x) { (void)p, (void)x; }

SIMD_INLINE void transpose_block(elem *dst, int64_t ldd, const elem *src, int64_t lds) {
    v r[8], t[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) r[i] = v_load(src + i * lds);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_pd(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++) {
            r[i + k] = _mm512_shuffle_f64x2(t[i + k], t[i + k + 2], 0x88);
            r[i + k + 2] = _mm512_shuffle_f64x2(t[i + k], t[i + k + 2], 0xdd);
        }
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        v_store(dst + k * ldd, _mm512_shuffle_f64x2(r[k], r[k + 4], 0x88));
        v_store(dst + (k + 4) * ldd, _mm512_shuffle_f64x2(r[k], r[k + 4], 0xdd));
    }
}

#else

#define L 16
typedef __m512 v;
typedef __mmask16 vm;

SIMD_INLINE vm vm_first(int64_t n) { return (vm)(n >= L ? 0xffff : n <= 0 ? 0 : (1u << n) - 1u); }
SIMD_INLINE v v_zero(void) { return _mm512_setzero_ps(); }
SIMD_INLINE v v_set1(real x) { return _mm512_set1_ps(x); }
SIMD_INLINE v v_load(const real *p) { return _mm512_loadu_ps(p); }
SIMD_INLINE v v_load_n(const real *p, int64_t n) { return _mm512_maskz_loadu_ps(vm_first(n), p); }
SIMD_INLINE void v_store(real *p, v x) { _mm512_storeu_ps(p, x); }
SIMD_INLINE void v_store_n(real *p, v x, int64_t n) { _mm512_mask_storeu_ps(p, vm_first(n), x); }
SIMD_INLINE v v_add(v a, v b) { return _mm512_add_ps(a, b); }
SIMD_INLINE v v_sub(v a, v b) { return _mm512_sub_ps(a, b); }
SIMD_INLINE v v_mul(v a, v b) { return _mm512_mul_ps(a, b); }
SIMD_INLINE v v_div(v a, v b) { return _mm512_div_ps(a, b); }
SIMD_INLINE v v_max(v a, v b) { return _mm512_max_ps(a, b); }
SIMD_INLINE v v_min(v a, v b) { return _mm512_min_ps(a, b); }
SIMD_INLINE v v_fma(v a, v b, v c) { return _mm512_fmadd_ps(a, b, c); }
SIMD_INLINE v v_fnma(v a, v b, v c) { return _mm512_fnmadd_ps(a, b, c); }
SIMD_INLINE v v_abs(v a) { return _mm512_abs_ps(a); }
SIMD_INLINE v v_round(v a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SIMD_INLINE v v_scale(v p, v n) { return _mm512_scalef_ps(p, n); }
SIMD_INLINE v v_iota(void) {
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
SIMD_INLINE v v_select(vm m, v a, v b) { return _mm512_mask_blend_ps(m, b, a); }
SIMD_INLINE vm vm_bytes(const uint8_t *p) {
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    return _mm_test_epi8_mask(bytes, bytes);
}
SIMD_INLINE vm vm_lt(v a, v b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
SIMD_INLINE real v_hsum(v a) { return _mm512_reduce_add_ps(a); }
SIMD_INLINE real v_hmax(v a) { return _mm512_reduce_max_ps(a); }
/* In each 128-bit lane: the sums over that lane of a[0], a[1], a[2] and a[3]. */
SIMD_INLINE v v_sums_of_four(const v *a) {
    __m512d s = _mm512_castps_pd(v_add(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1])));
    __m512d t = _mm512_castps_pd(v_add(_mm512_unpacklo_ps(a[2], a[3]), _mm512_unpackhi_ps(a[2], a[3])));
    return v_add(_mm512_castpd_ps(_mm512_unpacklo_pd(s, t)), _mm512_castpd_ps(_mm512_unpackhi_pd(s, t)));
}
SIMD_INLINE v v_sums(const v *a) {
    v b[4], c[2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) b[i] = v_sums_of_four(a + 4 * i);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        c[i] = v_add(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x44),
                     _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xee));
    return v_add(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
}
SIMD_INLINE v v_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
SIMD_INLINE v v_load_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
SIMD_INLINE void v_split_bf16(const uint16_t *p, v *even, v *odd) {
    __m512i pairs = _mm512_loadu_si512(p);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000u)));
}
SIMD_INLINE void v_store_f16(uint16_t *p, v x) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/* bfloat16 bits in the low halves; NaN stays NaN. */
SIMD_INLINE __m512i v_bf16_bits(v x) {
    __m512i bits = _mm512_castps_si512(x), high = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(
        _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
}
SIMD_INLINE void v_store_bf16(uint16_t *p, v x) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(v_bf16_bits(x)));
}

SIMD_INLINE void transpose_block(elem *dst_words, int64_t ldd, const elem *src_words, int64_t lds) {
    float *dst = (float *)dst_words; /* moved as words, whatever they hold */
    const float *src = (const float *)src_words;
    __m512 r[16], t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_ps(src + i * lds);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
#pragma GCC unroll 2
        for (int k = 0; k < 2; k++) {
            __m512d a = _mm512_castps_pd(t[i + k]), b = _mm512_castps_pd(t[i + k + 2]);
            r[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) { /* r[4g + k]: rows 4g..4g+3 of column k in each 128-bit lane */
        __m512 a = _mm512_shuffle_f32x4(r[k], r[k + 4], 0x88), b = _mm512_shuffle_f32x4(r[k + 8], r[k + 12], 0x88);
        __m512 c = _mm512_shuffle_f32x4(r[k], r[k + 4], 0xdd), d = _mm512_shuffle_f32x4(r[k + 8], r[k + 12], 0xdd);
        _mm512_storeu_ps(dst + k * ldd, _mm512_shuffle_f32x4(a, b, 0x88));
        _mm512_storeu_ps(dst + (k + 8) * ldd, _mm512_shuffle_f32x4(a, b, 0xdd));
        _mm512_storeu_ps(dst + (k + 4) * ldd, _mm512_shuffle_f32x4(c, d, 0x88));
        _mm512_storeu_ps(dst + (k + 12) * ldd, _mm512_shuffle_f32x4(c, d, 0xdd));
    }
}

#endif
#endif
