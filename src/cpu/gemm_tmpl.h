/* gemm_tmpl.h: the one matrix micro-kernel behind QK^T, PV and the five products of the backward.
 *
 *     C[m][n] (+)= sum_k A[m*am + k*ak] * B[k*NR + n]       m < mr, n < nv * L, k < K
 *
 * A is broadcast, so its two strides are free (a transposed operand costs nothing); B is a packed panel of NR columns;
 * C has row stride ldc. Strides count elements of their own type. `load`: add to C instead of overwriting it. Under
 * bf16 an elem is a pair along k, so K is in pairs.
 *
 * The kernels are out-of-line functions on purpose: inlined into the big loops, gcc spills their accumulators. */
#ifndef DLATTN_GEMM_TMPL_H
#define DLATTN_GEMM_TMPL_H

#include "simd.h"

#define GEMM_KERNEL(mr, nv)                                                                                       \
    static __attribute__((noinline, unused)) void gemm_##mr##x##nv(real *C, int64_t ldc, const elem *A, int64_t am, \
                                                                   int64_t ak, const elem *B, int64_t K, bool load) { \
        v acc[mr][nv];                                                                                            \
        _Pragma("GCC unroll 16") for (int m = 0; m < mr; m++)                                                     \
            _Pragma("GCC unroll 4") for (int n = 0; n < nv; n++)                                                  \
                acc[m][n] = load ? v_load(C + m * ldc + n * L) : v_zero();                                        \
        for (int64_t k = 0; k < K; k++, A += ak, B += NR) {                                                       \
            v_elem b[nv];                                                                                         \
            _Pragma("GCC unroll 4") for (int n = 0; n < nv; n++) {                                                \
                b[n] = v_pair_load(B + n * L);                                                                    \
                v_keep(b[n]);                                                                                     \
            }                                                                                                     \
            _Pragma("GCC unroll 16") for (int m = 0; m < mr; m++) {                                               \
                v_elem a = v_pair_set1(A + m * am);                                                               \
                _Pragma("GCC unroll 4") for (int n = 0; n < nv; n++) acc[m][n] = v_pair_fma(a, b[n], acc[m][n]);  \
            }                                                                                                     \
        }                                                                                                         \
        _Pragma("GCC unroll 16") for (int m = 0; m < mr; m++)                                                     \
            _Pragma("GCC unroll 4") for (int n = 0; n < nv; n++) v_store(C + m * ldc + n * L, acc[m][n]);         \
    }

/* Two heights (a full register tile, and half of one for the last rows) by every width of a panel. Where tiles do the most
 * of it, the vectors' share is taken four rows at a time. */
#ifdef TILE_GEMM
#define VECTOR_ROWS 4
#define VECTOR_ROWS_HALF 4
#else
#define VECTOR_ROWS MR
#define VECTOR_ROWS_HALF MR_HALF
#endif
#if defined(MR_HALF)
#elif MR == 8
#define MR_HALF 4
#elif MR == 6
#define MR_HALF 3
#else
#define MR_HALF 2
#endif
#define GEMM_STAMP_(mr, nv) GEMM_KERNEL(mr, nv)
#define GEMM_STAMP(mr, nv) GEMM_STAMP_(mr, nv)
GEMM_STAMP(VECTOR_ROWS, 1)
GEMM_STAMP(VECTOR_ROWS, 2)
#if NV > 2
GEMM_STAMP(VECTOR_ROWS, 3)
GEMM_STAMP(VECTOR_ROWS, 4)
#endif
#ifndef TILE_GEMM
GEMM_STAMP(MR_HALF, 1)
GEMM_STAMP(MR_HALF, 2)
#if NV > 2
GEMM_STAMP(MR_HALF, 3)
GEMM_STAMP(MR_HALF, 4)
#endif
#endif

typedef void gemm_fn(real *C, int64_t ldc, const elem *A, int64_t am, int64_t ak, const elem *B, int64_t K, bool load);

#define GEMM_NAME_(mr, nv) gemm_##mr##x##nv
#define GEMM_NAME(mr, nv) GEMM_NAME_(mr, nv)

/* gemm_table[half][nv]: a full or half the height, nv vectors wide. */
static gemm_fn *const gemm_table[2][5] __attribute__((unused)) = {
#if NV > 2
    {0, GEMM_NAME(VECTOR_ROWS, 1), GEMM_NAME(VECTOR_ROWS, 2), GEMM_NAME(VECTOR_ROWS, 3), GEMM_NAME(VECTOR_ROWS, 4)},
    {0, GEMM_NAME(VECTOR_ROWS_HALF, 1), GEMM_NAME(VECTOR_ROWS_HALF, 2), GEMM_NAME(VECTOR_ROWS_HALF, 3), GEMM_NAME(VECTOR_ROWS_HALF, 4)},
#else
    {0, GEMM_NAME(VECTOR_ROWS, 1), GEMM_NAME(VECTOR_ROWS, 2), 0, 0},
    {0, GEMM_NAME(VECTOR_ROWS_HALF, 1), GEMM_NAME(VECTOR_ROWS_HALF, 2), 0, 0},
#endif
};

/* Rows of a tile buffer are padded to this, so that every row belongs to a register tile. */
SIMD_INLINE int64_t pad_rows(int64_t n) { return (n + MR_HALF - 1) / MR_HALF * MR_HALF; }
SIMD_INLINE int64_t pad_lanes(int64_t n) { return (n + L - 1) / L * L; }
SIMD_INLINE int64_t pad_panel(int64_t n) { return (n + NR - 1) / NR * NR; }
/* Length of a contraction over n numbers, in elems. */
SIMD_INLINE int64_t pairs(int64_t n) { return (n + PAIR - 1) / PAIR; }

/* How many vectors of a panel that begins at column n0 lie before column n1, at most NV. */
SIMD_INLINE int panel_vectors(int64_t n0, int64_t n1) {
    int64_t count = (n1 - n0 + L - 1) / L;
    return (int)(count < NV ? count : NV);
}

#ifdef TILE_GEMM
#include "gemm_amx_tmpl.h"
#else
#define tiles_begin() (void)0
#define tiles_end() (void)0

/* One register tile: `rows` is MR or less (then at least MR_HALF rows of every operand exist, padded). */
SIMD_INLINE void gemm(real *C, int64_t ldc, const elem *A, int64_t am, int64_t ak, const elem *B, int64_t K, int64_t rows,
                      int vectors, bool load) {
    gemm_table[rows <= MR_HALF][vectors](C, ldc, A, am, ak, B, K, load);
}
#endif

#endif
