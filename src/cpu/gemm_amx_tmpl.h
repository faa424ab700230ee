/* gemm_amx_tmpl.h: the register tile of gemm_tmpl.h in AMX's tile registers: 16 rows by up to four tiles of 16 columns.
 *
 * What fills no tile (half a register tile of rows, the last pairs along k) goes to the vectors' kernels. */
#ifndef DLATTN_GEMM_AMX_TMPL_H
#define DLATTN_GEMM_AMX_TMPL_H

#define TILE_BYTES(elems) ((int64_t)sizeof(elem) * (elems))

/* One step along k: A's 16 pairs by each tile of B. Two tiles of B, so that one is loaded while the other is used. */
#define TILE_STEP(t, own, B)                              \
    do {                                                  \
        tile_load(own, (B) + (t) * L, TILE_BYTES(NR));    \
        tile_dot(t, 4, own);                              \
    } while (0)
#define TILE_BEGIN(t)                                              \
    do {                                                           \
        if (load) tile_load(t, C + (t) * L, TILE_BYTES(ldc));      \
        else tile_zero(t);                                         \
    } while (0)
#define TILE_END(t) tile_store(t, C + (t) * L, TILE_BYTES(ldc))

/* steps * 16 pairs along k. A transposed operand (am 1) is turned block by block. */
#define TILE_KERNEL(nv)                                                                                           \
    static __attribute__((noinline)) void tile_gemm_##nv(real *C, int64_t ldc, const elem *A, int64_t am, int64_t ak, \
                                                         const elem *B, int64_t steps, bool load) {               \
        elem turned[TILE_ROWS * TILE_PAIRS] __attribute__((aligned(64)));                                         \
        TILE_BEGIN(0);                                                                                            \
        if (nv > 1) TILE_BEGIN(1);                                                                                \
        if (nv > 2) TILE_BEGIN(2);                                                                                \
        if (nv > 3) TILE_BEGIN(3);                                                                                \
        for (int64_t n = 0; n < steps; n++, A += ak * TILE_PAIRS, B += NR * TILE_PAIRS) {                         \
            if (ak == 1) {                                                                                        \
                tile_load(4, A, TILE_BYTES(am));                                                                  \
            } else {                                                                                              \
                transpose_block(turned, TILE_PAIRS, A, ak);                                                       \
                tile_load(4, turned, TILE_BYTES(TILE_PAIRS));                                                     \
            }                                                                                                     \
            TILE_STEP(0, 5, B);                                                                                   \
            if (nv > 1) TILE_STEP(1, 6, B);                                                                       \
            if (nv > 2) TILE_STEP(2, 5, B);                                                                       \
            if (nv > 3) TILE_STEP(3, 6, B);                                                                       \
        }                                                                                                         \
        TILE_END(0);                                                                                              \
        if (nv > 1) TILE_END(1);                                                                                  \
        if (nv > 2) TILE_END(2);                                                                                  \
        if (nv > 3) TILE_END(3);                                                                                  \
    }
TILE_KERNEL(1)
TILE_KERNEL(2)
TILE_KERNEL(3)
TILE_KERNEL(4)

typedef void tile_gemm_fn(real *C, int64_t ldc, const elem *A, int64_t am, int64_t ak, const elem *B, int64_t steps, bool load);
static tile_gemm_fn *const tile_gemm_table[5] = {0, tile_gemm_1, tile_gemm_2, tile_gemm_3, tile_gemm_4};

SIMD_INLINE void gemm(real *C, int64_t ldc, const elem *A, int64_t am, int64_t ak, const elem *B, int64_t K, int64_t rows,
                      int vectors, bool load) {
    const bool half = rows <= MR_HALF, tiled = !half && (ak == 1 || am == 1);
    const int64_t steps = tiled ? K / TILE_PAIRS : 0, done = steps * TILE_PAIRS;
    if (steps > 0) tile_gemm_table[vectors](C, ldc, A, am, ak, B, steps, load);
    if (done == K && (K > 0 || load)) return;
    for (int64_t m = 0; m < (half ? MR_HALF : MR); m += VECTOR_ROWS)
        gemm_table[0][vectors](C + m * ldc, ldc, A + m * am + done * ak, am, ak, B + done * NR, K - done, load || steps > 0);
}

#endif
