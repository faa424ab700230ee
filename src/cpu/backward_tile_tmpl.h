/* backward_tile_tmpl.h: one tile of the backward, up to BWD_ROWS query rows by a tile of keys: its packed operands and S, dP.
 *
 *     S = Q K^T,  dP = dO V^T        only register tiles that hold a visible score are computed
 *
 * The rows are those of rows.h (all heads that share the keys), so a tile may straddle two heads. */
#ifndef DLATTN_BACKWARD_TILE_TMPL_H
#define DLATTN_BACKWARD_TILE_TMPL_H

#include "dropout_tmpl.h"
#include "tile_tmpl.h"

/* Query rows of a backward tile: they are the contraction of dK and dV. */
#ifndef BWD_BLOCKS
#define BWD_BLOCKS 8
#endif
#define BWD_ROWS (BWD_BLOCKS * MR)

/* Keys of a backward tile; TILE_KEYS is a multiple of it. Seven arrays of tile x D stay in L2 beside the rows. */
SIMD_INLINE int64_t backward_keys(const problem *p) {
    return p->D > 64 || p->E > 64 ? TILE_KEYS / 2 : TILE_KEYS;
}

typedef struct backward_tile {
    const cpu_job *job;
    row_group group;
    score_context context;
    dropout_spec dropout;
    real keep_factor;        /* 256/(256-t) of dropout */
    bool scores_only;        /* no gradient needs dP */
    int64_t ldq, ldo;        /* elems of a packed row of Q or K, of dO or V: whole panels */
    int64_t keys;            /* room for keys, see backward_keys */

    /* the keys */
    int64_t j0, n;
    elem *key_rows;          /* [keys][max(ldq, ldo)]: K, then V, on the way into panels */
    elem *kt, *vt;           /* panels of K^T and V^T: [keys / NR][pairs(D or E)][NR] */

    /* the rows */
    int64_t count, blocks;   /* rows, and register tiles of MR rows */
    row *rows;               /* [BWD_ROWS] */
    elem *q, *dout;          /* [BWD_ROWS][ldq], [BWD_ROWS][ldo], rows past `count` zero */
    real *lse2, *delta;      /* [BWD_ROWS] */
    block_range ranges[BWD_BLOCKS];
    int64_t u0, u1;          /* the union of the ranges' vectors */

    /* the scores, row stride LD_SCORES */
    real *s, *dp;            /* [BWD_ROWS]: in kinds without pairs they become P and dS in place */
    elem *p, *ds;            /* P and dS as the products over rows read them: s and dp, or [BWD_ROWS / 2] row pairs */
    elem *ds_along;          /* dS as the product over keys reads it: dp, or pairs along the row, stride / PAIR */
    real *ds_rows;           /* [PAIR]: rows of dS before softcap's slope, for dbias */
    real *slopes;            /* [PAIR]: derivative of softcap */
    uint8_t *keep;           /* [BWD_ROWS]: dropout */
} backward_tile;

static void backward_tile_carve(backward_tile *t, const problem *p, char **at) {
    t->keys = backward_keys(p);
    t->ldq = pad_panel(p->D) / PAIR;
    t->ldo = pad_panel(p->E) / PAIR;
    t->key_rows = CARVE(at, elem, t->keys * (t->ldq > t->ldo ? t->ldq : t->ldo));
    t->kt = CARVE(at, elem, t->keys * t->ldq);
    t->vt = CARVE(at, elem, t->keys * t->ldo);
    t->rows = CARVE(at, row, BWD_ROWS);
    t->q = CARVE(at, elem, BWD_ROWS * t->ldq);
    t->dout = CARVE(at, elem, BWD_ROWS * t->ldo);
    t->lse2 = CARVE(at, real, BWD_ROWS);
    t->delta = CARVE(at, real, BWD_ROWS);
    t->s = CARVE(at, real, BWD_ROWS * LD_SCORES);
    t->dp = CARVE(at, real, BWD_ROWS * LD_SCORES);
    t->p = PAIR == 1 ? (elem *)t->s : CARVE(at, elem, BWD_ROWS / 2 * LD_SCORES);
    t->ds = PAIR == 1 ? (elem *)t->dp : CARVE(at, elem, BWD_ROWS / 2 * LD_SCORES);
    t->ds_along = PAIR == 1 ? (elem *)t->dp : CARVE(at, elem, BWD_ROWS / 2 * LD_SCORES);
    t->ds_rows = CARVE(at, real, PAIR * LD_SCORES);
    t->slopes = CARVE(at, real, PAIR * LD_SCORES);
    t->keep = CARVE(at, uint8_t, p->dropout_threshold ? BWD_ROWS * LD_SCORES : 0);
    t->context.bias_row = CARVE(at, real, LD_SCORES);
    t->context.keep_row = CARVE(at, uint8_t, LD_SCORES);
}

/* After carving: what is the same for all tiles of one (b, g). */
static void backward_tile_begin(backward_tile *t, const cpu_job *job, int64_t b, int64_t g) {
    const problem *p = job->p;
    t->job = job;
    t->group = dlattn__row_group(p, job->x, b, g);
    t->context = score_context_make(job, &t->group, t->context.bias_row, t->context.keep_row);
    if (p->dropout_threshold) t->dropout = dropout_spec_make(p, job->x, &t->group);
    t->keep_factor = (real)(p->dropout_threshold < 256 ? 256.0 / (256 - p->dropout_threshold) : 0);
    t->scores_only = false;
}

/* Packed rows as panels whose contraction runs over the rows: line k holds row k (bf16: rows 2k and 2k+1). `lines` is
 * the panel's room; rows are present up to a whole pair. */
static __attribute__((noinline)) void panels_from_rows(elem *dst, const elem *src, int64_t ld, int64_t count,
                                                       int64_t lines, int64_t n) {
    for (int64_t c = 0; c < n; c += NR) {
        elem *panel = dst + c * lines;
        const elem *from = src + c / PAIR;
        for (int64_t k = 0; k < pairs(count); k++, panel += NR, from += PAIR * ld)
#pragma GCC unroll 4
            for (int64_t part = 0; part < NR; part += L) {
#if REAL_IS_BF16
                const uint16_t *even = (const uint16_t *)from + part, *odd = (const uint16_t *)(from + ld) + part;
                v_pair_store(panel + part, v_pair_rows(even, odd));
#else
                v_store(panel + part, v_load(from + part));
#endif
            }
    }
}

/* Keys j0 .. j0 + n. k_panels: receives K along D, the lane side of dQ; NULL when it is not wanted. */
static void backward_tile_keys(backward_tile *t, int64_t j0, int64_t n, elem *k_panels) {
    const problem *p = t->job->p;
    const buffers *x = t->job->x;
    const row_group *group = &t->group;
    const int64_t token = group->sequence.k_begin + j0, padded = pad_panel(n);
    t->j0 = j0;
    t->n = n;
    pack_rows(t->key_rows, t->ldq, dlattn__at(&p->k, x->k, group->b, token, group->g, 0), p->k.stride[1], p->k.stride[3],
              p->k.dtype, n, padded, p->D);
    transpose_panels(t->kt, t->key_rows, t->ldq, padded, pairs(p->D));
    if (k_panels) panels_from_rows(k_panels, t->key_rows, t->ldq, padded, pairs(t->keys), p->D);
    if (t->scores_only) return;
    pack_rows(t->key_rows, t->ldo, dlattn__at(&p->v, x->v, group->b, token, group->g, 0), p->v.stride[1], p->v.stride[3],
              p->v.dtype, n, padded, p->E);
    transpose_panels(t->vt, t->key_rows, t->ldo, padded, pairs(p->E));
}

/* Ranges of the register tiles and their union; false when no row sees any of the keys. t->rows has been filled. */
static bool backward_tile_ranges(backward_tile *t) {
    t->blocks = (t->count + MR - 1) / MR;
    t->u0 = t->u1 = 0;
    for (int64_t b = 0; b < t->blocks; b++) {
        int64_t rows = t->count - b * MR < MR ? t->count - b * MR : MR;
        block_range r = t->ranges[b] = block_range_make(t->rows + b * MR, rows, t->j0, t->n);
        if (r.k1 == r.k0) continue;
        if (t->u1 == 0 || r.v0 < t->u0) t->u0 = r.v0;
        if (r.v1 > t->u1) t->u1 = r.v1;
    }
    return t->u1 > 0;
}

/* Rows of Q or dO as the broadcast side. Copied even where they could be read in place: rows of one head often lie a
 * power of two apart and would share a few sets of the cache. */
static void copy_rows(const backward_tile *t, elem *dst, int64_t ld, const operand *o, const void *data, int64_t n) {
    const int64_t b = t->group.b, begin = t->group.sequence.q_begin;
    for (int64_t r = 0, end; r < t->count; r = end) { /* a run of rows of one head at a time */
        for (end = r + 1; end < t->count && t->rows[end].h == t->rows[r].h;) end++;
        pack_rows(dst + r * ld, ld, dlattn__at(o, data, b, begin + t->rows[r].i, t->rows[r].h, 0), o->stride[1],
                  o->stride[3], o->dtype, end - r, (end == t->count ? t->blocks * MR : end) - r, n);
    }
}

/* Q, dO, lse and delta of the rows in t->rows. */
static void backward_tile_rows(backward_tile *t) {
    const problem *p = t->job->p;
    const buffers *x = t->job->x;
    copy_rows(t, t->q, t->ldq, &p->q, x->q, p->D);
    copy_rows(t, t->dout, t->ldo, &p->dout, x->dout, p->E);
    for (int64_t r = 0; r < t->count; r++) {
        const int64_t at = (t->group.b * p->H + t->rows[r].h) * p->M + t->rows[r].i;
        t->lse2[r] = ((const real *)t->job->lse2)[at];
        t->delta[r] = ((const real *)t->job->delta)[at];
    }
}

/* C = A B for register tile b of the rows; B is K^T or V^T. */
static void backward_tile_product(const backward_tile *t, int64_t b, real *C, const elem *A, int64_t lda, const elem *B,
                                  int64_t depth) {
    const block_range *r = &t->ranges[b];
    for (int64_t n0 = r->v0 / NR * NR; n0 < r->v1; n0 += NR) {
        const int64_t skip = r->v0 > n0 ? r->v0 - n0 : 0; /* whole vectors of the first panel */
        gemm(C + b * MR * LD_SCORES + n0 + skip, LD_SCORES, A + b * MR * lda, lda, 1, B + n0 * depth + skip, depth,
             t->count - b * MR, panel_vectors(n0 + skip, r->v1 < n0 + NR ? r->v1 : n0 + NR), false);
    }
}

/* Row r's part of the bias, and of its gradient where the caller says so: long before they are needed, because rows
 * of a tile lie too far apart for the hardware to guess. */
static void prefetch_bias(const backward_tile *t, int64_t r, bool gradient) {
    const problem *p = t->job->p;
    if (r >= t->count || p->bias.stride[3] != 1) return;
    const row *at = &t->rows[r];
    const char *bias = dlattn__at(&p->bias, t->job->x->bias, t->group.b, at->h, at->i, t->j0);
    const int64_t bytes = t->n * dlattn__size_of(p->bias.dtype);
    for (int64_t n = 0; n < bytes; n += 64) prefetch(bias + n);
    if (!gradient) return;
    const char *dbias = dlattn__at(&p->dbias, t->job->x->dbias, t->group.b, at->h, at->i, t->j0);
    for (int64_t n = 0; n < bytes; n += 64) __builtin_prefetch(dbias + n, 1);
}

/* S and dP of register tile b. */
static void backward_tile_scores(const backward_tile *t, int64_t b) {
    const problem *p = t->job->p;
    backward_tile_product(t, b, t->s, t->q, t->ldq, t->kt, pairs(p->D));
    if (!t->scores_only) backward_tile_product(t, b, t->dp, t->dout, t->ldo, t->vt, pairs(p->E));
}

#endif
