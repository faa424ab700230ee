/* simd_amx.h: AVX-512 with bfloat16, and the tile registers of AMX: the vocabulary of simd_avx512bf16.h, and tiles.
 *
 * A tile is 16 rows of 64 bytes. Of the eight, 0 to 3 are sums (16 x 16 float32), the others operands (16 x 16 pairs). */
#ifndef DLATTN_SIMD_AMX_H
#define DLATTN_SIMD_AMX_H

#include "simd_avx512bf16.h"

#undef MR
#undef NV
#define MR 16 /* rows of a tile */
#define NV 4  /* tiles of sums beside each other */
#define MR_HALF 8
#define TILE_GEMM 1

/* As many rows together as where MR is 8. */
#define BM_BLOCKS 4
#define SCORE_BLOCKS 2
#define BWD_BLOCKS 4

#define TILE_ROWS 16
#define TILE_PAIRS 16

/* The instructions, or, in a test build, what they mean in AVX-512. Tile numbers are constants. */
#ifdef DLATTN_EMULATE_BF16
typedef union emulated_tile {
    float sums[TILE_ROWS][16];
    uint32_t pairs[TILE_ROWS][TILE_PAIRS];
} emulated_tile;
static _Thread_local emulated_tile emulated[8];

static __attribute__((unused)) void emulated_copy(char *to, int64_t to_step, const char *from, int64_t from_step) {
    for (int r = 0; r < TILE_ROWS; r++) memcpy(to + r * to_step, from + r * from_step, 64);
}
static __attribute__((unused)) void emulated_dot(int c, int a, int b) {
    for (int m = 0; m < TILE_ROWS; m++) {
        v sum = v_load(emulated[c].sums[m]);
        for (int k = 0; k < TILE_PAIRS; k++)
            sum = v_pair_fma(v_pair_set1(&emulated[a].pairs[m][k]), v_pair_load(emulated[b].pairs[k]), sum);
        v_store(emulated[c].sums[m], sum);
    }
}
#define tiles_begin() (void)0
#define tiles_end() (void)0
#define tile_zero(t) ((void)memset(&emulated[t], 0, sizeof emulated[t]))
#define tile_load(t, from, bytes) emulated_copy((char *)&emulated[t], 64, (const char *)(from), bytes)
#define tile_store(t, to, bytes) emulated_copy((char *)(to), bytes, (const char *)&emulated[t], 64)
#define tile_dot(c, a, b) emulated_dot(c, a, b)
#else
/* Every work item sets the tiles' shape and gives them back: they are the thread's own state, and costly to keep. */
SIMD_INLINE void tiles_begin(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int t = 0; t < 8; t++) shape.row_bytes[t] = 64, shape.rows[t] = TILE_ROWS;
    _tile_loadconfig(&shape);
}
#define tiles_end() _tile_release()
#define tile_zero(t) _tile_zero(t)
/* gcc's intrinsic does not tell that it reads memory: what was stored before has to be there. */
#define tile_load(t, from, bytes)                 \
    do {                                          \
        __asm__ volatile("" ::: "memory");        \
        _tile_loadd(t, from, bytes);              \
    } while (0)
#define tile_store(t, to, bytes) _tile_stored(t, to, bytes)
#define tile_dot(c, a, b) _tile_dpbf16ps(c, a, b)
#endif

#endif
