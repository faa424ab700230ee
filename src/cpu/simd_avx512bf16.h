/* simd_avx512bf16.h: AVX-512 with the bfloat16 dot product: the vocabulary of simd_avx512.h, and pairs as elems. */
#ifndef DLATTN_SIMD_AVX512BF16_H
#define DLATTN_SIMD_AVX512BF16_H

#include "simd_avx512.h"

typedef __m512i v_elem;

SIMD_INLINE v_elem v_pair_set1(const elem *p) { return _mm512_set1_epi32((int)*p); }
SIMD_INLINE v_elem v_pair_load(const elem *p) { return _mm512_loadu_si512(p); }
SIMD_INLINE void v_pair_store(elem *p, v_elem x) { _mm512_storeu_si512(p, x); }

/* The two instructions of this ISA, or, in a test build, what they mean in AVX-512 alone, so that any AVX-512 machine
 * can check the code around them. */
#ifdef DLATTN_EMULATE_BF16
SIMD_INLINE v v_pair_fma(v_elem a, v_elem b, v c) {
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    v odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, high)),
                            _mm512_castsi512_ps(_mm512_and_si512(b, high)), c);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
                           _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), odd);
}
/* 32 bfloat16: those of `low`, then those of `high`. */
SIMD_INLINE __m512i v_bf16_two(v low, v high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(v_bf16_bits(low))),
                              _mm512_cvtepi32_epi16(v_bf16_bits(high)), 1);
}
#else
SIMD_INLINE v v_pair_fma(v_elem a, v_elem b, v c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
SIMD_INLINE __m512i v_bf16_two(v low, v high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }
#endif

/* Element l = (bf16 of even[l], bf16 of odd[l]): two rows of reals become row pairs. */
SIMD_INLINE v_elem v_pair_pack(v even, v odd) {
    const __m512i interleave =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19,
                         3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(interleave, v_bf16_two(even, odd));
}

/* The bf16 of x[0..16) then of y[0..16), natural order: 16 pairs along the row. */
SIMD_INLINE v_elem v_pair_natural(v x, v y) { return v_bf16_two(x, y); }

/* Element l = (even[l], odd[l]) from rows that are bfloat16 already. */
SIMD_INLINE v_elem v_pair_rows(const uint16_t *even, const uint16_t *odd) {
    __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)even));
    __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)odd));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

#endif
