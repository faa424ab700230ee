/* pack_tmpl.h: from the caller's tensors (any dtype, any strides) to the operands of gemm_tmpl.h, and back.
 *
 * Operands: "rows" are [rows][pairs(n)] elems, row-major, the broadcast side; "panels" are [ceil(n/NR)][K][NR] elems,
 * the lane side. Everything past the given rows and columns is filled with zeros, so tails cost nothing later and
 * memory outside a sequence is never read. */
#ifndef DLATTN_PACK_TMPL_H
#define DLATTN_PACK_TMPL_H

#include "gemm_tmpl.h"
#include "half.h"
#include "problem.h"

/* dst[0..n) = src[0], src[stride], ... as reals. */
SIMD_INLINE void row_load_strided(real *dst, const void *src, int64_t stride, int32_t dtype, int64_t n) {
    switch (dtype) {
    case DLATTN_T_F16:
        for (int64_t i = 0; i < n; i++) dst[i] = (real)dlattn__f16_to_float(((const uint16_t *)src)[i * stride]);
        break;
    case DLATTN_T_BF16:
        for (int64_t i = 0; i < n; i++) dst[i] = (real)dlattn__bf16_to_float(((const uint16_t *)src)[i * stride]);
        break;
    case DLATTN_T_F64:
        for (int64_t i = 0; i < n; i++) dst[i] = (real)((const double *)src)[i * stride];
        break;
    default:
        for (int64_t i = 0; i < n; i++) dst[i] = (real)((const float *)src)[i * stride];
        break;
    }
}

#define ROW_LOAD_LOOP(load, type)                                          \
    for (; i + L <= n; i += L) v_store(dst + i, load((const type *)src + i)); \
    break

/* Nothing past dst + n is written. */
SIMD_INLINE void row_load_exact(real *dst, const void *src, int64_t stride, int32_t dtype, int64_t n) {
    int64_t i = 0;
    if (stride == 1 || n <= 1) {
        switch (dtype) {
        case DLATTN_T_F16: ROW_LOAD_LOOP(v_load_f16, uint16_t);
        case DLATTN_T_BF16: ROW_LOAD_LOOP(v_load_bf16, uint16_t);
#if REAL_IS_F64
        case DLATTN_T_F64: ROW_LOAD_LOOP(v_load, real);
#else
        case DLATTN_T_F32: ROW_LOAD_LOOP(v_load, real);
#endif
        default: break;
        }
    }
    row_load_strided(dst + i, (const char *)src + i * stride * dlattn__size_of(dtype), stride, dtype, n - i);
}

/* dst must have room up to pad_lanes(n); [n, pad_lanes(n)) is zeroed. */
static __attribute__((noinline, unused)) void row_load(real *dst, const void *src, int64_t stride, int32_t dtype,
                                                       int64_t n) {
    row_load_exact(dst, src, stride, dtype, n);
    for (int64_t z = n; z < pad_lanes(n); z++) dst[z] = 0;
}

/* The reverse: n reals to the caller's row, one rounding. Writes nothing past it. */
static __attribute__((noinline, unused)) void row_store(void *dst, int64_t stride, int32_t dtype, const real *src,
                                                        int64_t n) {
    int64_t i = 0;
    switch (dtype) {
#if !REAL_IS_F64
    case DLATTN_T_F16:
        if (stride == 1)
            for (; i + L <= n; i += L) v_store_f16((uint16_t *)dst + i, v_load(src + i));
        for (; i < n; i++) ((uint16_t *)dst)[i * stride] = dlattn__float_to_f16(src[i]);
        break;
    case DLATTN_T_BF16:
        if (stride == 1)
            for (; i + L <= n; i += L) v_store_bf16((uint16_t *)dst + i, v_load(src + i));
        for (; i < n; i++) ((uint16_t *)dst)[i * stride] = dlattn__float_to_bf16(src[i]);
        break;
#endif
    case DLATTN_T_F64:
        for (; i < n; i++) ((double *)dst)[i * stride] = (double)src[i];
        break;
    default:
        if (stride == 1 && sizeof(real) == sizeof(float)) {
            memcpy(dst, src, (size_t)n * sizeof(float));
            break;
        }
        for (; i < n; i++) ((float *)dst)[i * stride] = (float)src[i];
        break;
    }
}

#if REAL_IS_BF16
/* One row of n numbers as pairs along the row: bfloat16 bits, natural order. */
SIMD_INLINE void elem_row_load(elem *dst, const void *src, int64_t stride, int32_t dtype, int64_t n) {
    (void)dtype; /* this kind serves bfloat16 inputs only */
    uint16_t *bits = (uint16_t *)dst;
    if (stride == 1)
        memcpy(bits, src, (size_t)n * 2);
    else
        for (int64_t i = 0; i < n; i++) bits[i] = ((const uint16_t *)src)[i * stride];
    if (n & 1) bits[n] = 0;
}
#else
SIMD_INLINE void elem_row_load(elem *dst, const void *src, int64_t stride, int32_t dtype, int64_t n) {
    if (stride == 1 && dtype == (REAL_IS_F64 ? DLATTN_T_F64 : DLATTN_T_F32))
        memcpy(dst, src, (size_t)n * sizeof(elem));
    else
        row_load_exact(dst, src, stride, dtype, n);
}
#endif

/* dst[r*ld ..] = numbers [0, n) of row r, for r < count; zeros from column n to ld*PAIR and for rows up to padded.
 * A row begins at src + r*row_stride (elements of dtype). */
static __attribute__((noinline, unused)) void pack_rows(elem *dst, int64_t ld, const void *src, int64_t row_stride,
                                                        int64_t stride, int32_t dtype, int64_t count, int64_t padded,
                                                        int64_t n) {
    int64_t width = pairs(n), bytes = dlattn__size_of(dtype);
    for (int64_t r = 0; r < padded; r++, dst += ld) {
        int64_t from = 0;
        if (r < count) {
            elem_row_load(dst, (const char *)src + r * row_stride * bytes, stride, dtype, n);
            from = width;
        }
        for (int64_t k = from; k < ld; k++) dst[k] = 0;
    }
}

/* Transposes packed rows into panels: dst panel p, line k, column c = src row p*NR + c, elem k. `rows` is the number of
 * source rows available, a multiple of L (pad with pack_rows); K elems per row, padded to a multiple of L in src too. */
static __attribute__((noinline, unused)) void transpose_panels(elem *dst, const elem *src, int64_t ld, int64_t rows,
                                                               int64_t K) {
    elem block[L * L];
    for (int64_t r = 0; r < rows; r += L) {
        elem *panel = dst + r / NR * K * NR + r % NR;
        int64_t k = 0;
        for (; k + L <= K; k += L) transpose_block(panel + k * NR, NR, src + r * ld + k, ld);
        if (k < K) { /* the last lines go through a block, so that the panel's end is respected */
            transpose_block(block, L, src + r * ld + k, ld);
            for (int64_t line = 0; k + line < K; line++)
                memcpy(panel + (k + line) * NR, block + line * L, L * sizeof(elem));
        }
    }
}

/* Panels of the transpose of `count` rows of n numbers: the caller's tensor to K^T in one step, L rows at a time.
 * Columns from count to the end of the last panel are zeros. `block_rows` holds L * pad_lanes(pairs(n)) elems. */
static __attribute__((noinline, unused)) void pack_transposed(elem *dst, const void *src, int64_t row_stride,
                                                              int64_t stride, int32_t dtype, int64_t count, int64_t n,
                                                              elem *block_rows) {
    const int64_t K = pairs(n), ld = pad_lanes(K), bytes = dlattn__size_of(dtype);
    const bool direct = PAIR == 1 && stride == 1 && n % L == 0 && dtype == (REAL_IS_F64 ? DLATTN_T_F64 : DLATTN_T_F32);
    for (int64_t r = 0; r < pad_panel(count); r += L) {
        elem *panel = dst + r / NR * K * NR + r % NR;
        const char *from = (const char *)src + r * row_stride * bytes;
        int64_t rows = count - r < L ? count - r : L;
        if (rows <= 0) {
            for (int64_t k = 0; k < K; k++) memset(panel + k * NR, 0, L * sizeof(elem));
        } else if (direct && rows == L) {
            for (int64_t k = 0; k < K; k += L) transpose_block(panel + k * NR, NR, (const elem *)from + k, row_stride);
        } else {
            pack_rows(block_rows, ld, from, row_stride, stride, dtype, rows, L, n);
            transpose_panels(panel, block_rows, ld, L, K);
        }
    }
}

/* Panels of a row-major operand whose rows are the contraction: panel p, line k, column c = row k, number p*NR + c
 * (bf16: the pair of rows 2k and 2k+1). Row r begins at src + r*row_stride. `lines` is the contraction length after
 * padding, in elems; rows from count on are zeros. `row_buffer` holds 2 * pad_panel(n) reals. */
static __attribute__((noinline, unused)) void pack_panels(elem *dst, const void *src, int64_t row_stride, int64_t stride,
                                                          int32_t dtype, int64_t count, int64_t lines, int64_t n,
                                                          real *row_buffer) {
    int64_t bytes = dlattn__size_of(dtype), width = pad_panel(n);
    const char *base = (const char *)src;
    for (int64_t i = 0; i < 2 * width; i++) row_buffer[i] = 0;
    for (int64_t k = 0; k < lines; k++) {
#if REAL_IS_BF16
        uint16_t *even = (uint16_t *)row_buffer, *odd = even + width;
        if (2 * k < count) elem_row_load((elem *)even, base + 2 * k * row_stride * bytes, stride, dtype, n);
        else memset(even, 0, (size_t)width * 2);
        if (2 * k + 1 < count) elem_row_load((elem *)odd, base + (2 * k + 1) * row_stride * bytes, stride, dtype, n);
        else memset(odd, 0, (size_t)width * 2);
        for (int64_t c = 0; c < width; c += NR)
            for (int64_t part = 0; part < NR; part += L)
                v_pair_store(dst + c * lines + k * NR + part, v_pair_rows(even + c + part, odd + c + part));
#else
        const real *row = row_buffer;
        if (k < count && stride == 1 && n % NR == 0 && dtype == (REAL_IS_F64 ? DLATTN_T_F64 : DLATTN_T_F32)) {
            row = (const real *)(base + k * row_stride * bytes); /* nothing to convert or to pad */
        } else if (k < count) {
            row_load(row_buffer, base + k * row_stride * bytes, stride, dtype, n);
        } else {
            memset(row_buffer, 0, (size_t)width * sizeof(real));
        }
        for (int64_t c = 0; c < width; c += NR)
            for (int64_t part = 0; part < NR; part += L)
                v_store(dst + c * lines + k * NR + part, v_load(row + c + part));
#endif
    }
}

#endif
