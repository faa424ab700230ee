/* tile_tmpl.h: tile sizes, scratch carving and the visible range of each register tile of rows. */
#ifndef DLATTN_TILE_TMPL_H
#define DLATTN_TILE_TMPL_H

#include "score_tmpl.h"

/* Query rows that draw their dropout together; register tiles, these and items share one grid. */
#ifndef BM_BLOCKS
#define BM_BLOCKS 8
#endif
#define BM (BM_BLOCKS * MR)

/* Query rows whose scores are held at a time: a divisor of BM. */
#ifndef SCORE_BLOCKS
#define SCORE_BLOCKS 4
#endif
#define SCORE_ROWS (SCORE_BLOCKS * MR)

/* Query rows of a forward item: the more, the fewer times K and V are packed. Twice as many where they still fit into L2
 * and enough items are left. */
SIMD_INLINE int64_t item_rows(const problem *p) {
    const int64_t group_rows = p->G > 0 ? p->M * (p->H / p->G) : 0;
    const bool small = p->D <= 64 && p->E <= 64, many = p->B * p->G * (group_rows / (8 * BM)) >= 16;
    return small && many ? 8 * BM : 4 * BM;
}
/* The most keys of a tile (the backward's, for small heads), and those of a forward tile: with 32 rows of scores, one
 * panel of V and one of K share an L1 of 32 KiB. */
#define TILE_KEYS 256
#define FORWARD_KEYS 128

/* Row stride of a score tile: a whole number of vectors, and not a power of two, so that the rows of a column spread
 * over the cache's sets. */
#define LD_SCORES (TILE_KEYS + 2 * L)

/* Takes `count` items of `size` bytes from *at, 64-byte aligned. Adding up with at = NULL gives the total. */
SIMD_INLINE void *carve_bytes(char **at, int64_t bytes) {
    char *block = *at;
    *at = block + (bytes + 63) / 64 * 64;
    return block;
}
#define CARVE(at, type, count) ((type *)carve_bytes((at), (int64_t)sizeof(type) * (count)))

/* Columns of the tile at j0 (width n) that the rows of one register tile see: [k0, k1) exact, [v0, v1) whole vectors
 * (whole pairs of vectors under bf16, for the narrowing store). k0 == k1: none. */
typedef struct block_range {
    int64_t k0, k1, v0, v1;
} block_range;

#define RANGE_STEP (PAIR * L)

SIMD_INLINE block_range block_range_make(const row *rows, int64_t count, int64_t j0, int64_t n) {
    key_range keys = dlattn__rows_span(rows, count);
    block_range r = {keys.lo - j0, keys.hi - j0, 0, 0};
    if (r.k0 < 0) r.k0 = 0;
    if (r.k1 > n) r.k1 = n;
    if (r.k1 <= r.k0) {
        r.k0 = r.k1 = 0;
        return r;
    }
    r.v0 = r.k0 / RANGE_STEP * RANGE_STEP;
    r.v1 = (r.k1 + RANGE_STEP - 1) / RANGE_STEP * RANGE_STEP;
    return r;
}

#endif
