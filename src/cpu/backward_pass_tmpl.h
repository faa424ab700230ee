/* backward_pass_tmpl.h: the one pass over a tile's scores: S and dP become P and dS.
 *
 *     P = 2^(t(S) - lse2),  dS = P * (dP - delta) * softcap's slope;  with dropout P and dP are scaled or dropped first
 *
 * Hidden scores have P = 0 exactly; there dS is selected, not computed, because dP may be anything where nobody looks. */
#ifndef DLATTN_BACKWARD_PASS_TMPL_H
#define DLATTN_BACKWARD_PASS_TMPL_H

#include "backward_tile_tmpl.h"

/* Receives columns [v0, v1) of the dS of row r of the tile, before softcap's slope: the gradient of the bias. */
typedef void dbias_sink(void *to, const backward_tile *t, int64_t r, const real *ds, int64_t v0, int64_t v1);

/* One row of the pass. */
typedef struct pass_row {
    real *s, *dp, *slope, *ds_row; /* slope and ds_row may be NULL */
    const uint8_t *keep;           /* NULL: no dropout */
    real factor, lse2, delta, keep_factor;
} pass_row;

/* One vector. `plain`: no dropout, no slope, no ds_row; the compiler drops what that makes dead. */
SIMD_INLINE void pass_vector(const pass_row *r, int64_t k, bool plain, v *p_out, v *ds_out) {
    v p = v_exp2(v_fma(v_load(r->s + k), v_set1(r->factor), v_set1(-r->lse2)));
    v dp = v_load(r->dp + k), dropped = p;
    vm visible = vm_lt(v_zero(), p); /* NaN is not: there p itself, a NaN, becomes dS */
    if (!plain && r->keep) {
        vm keep = vm_bytes(r->keep + k);
        dropped = v_select(keep, v_mul(p, v_set1(r->keep_factor)), v_zero());
        dp = v_select(keep, v_mul(dp, v_set1(r->keep_factor)), v_zero());
    }
    v ds = v_select(visible, v_mul(p, v_sub(dp, v_set1(r->delta))), p);
    if (!plain && r->ds_row) v_store(r->ds_row + k, ds);
    if (!plain && r->slope) ds = v_select(visible, v_mul(ds, v_load(r->slope + k)), p);
    *p_out = dropped;
    *ds_out = ds;
}

/* The loops copy the rows first: the compiler cannot know that the stores leave them alone. */
#if PAIR == 1
SIMD_INLINE void pass_loop(const pass_row *at, int64_t v0, int64_t v1, bool plain) {
    const pass_row r = *at;
#pragma GCC unroll 4
    for (int64_t k = v0; k < v1; k += L) {
        v p, ds;
        pass_vector(&r, k, plain, &p, &ds);
        v_store(r.s + k, p);
        v_store(r.dp + k, ds);
    }
}
static __attribute__((noinline)) void pass_plain(const pass_row *r, int64_t v0, int64_t v1) {
    pass_loop(r, v0, v1, true);
}
static __attribute__((noinline)) void pass_general(const pass_row *r, int64_t v0, int64_t v1) {
    pass_loop(r, v0, v1, false);
}
#else
/* Two rows at a time: they are the pairs of dV and dK. v0 and v1 are multiples of two vectors. */
SIMD_INLINE void pass_loop(const pass_row *at, elem *p_pairs, elem *ds_pairs, elem *ds_even, elem *ds_odd, int64_t v0,
                           int64_t v1, bool plain) {
    const pass_row r[2] = {at[0], at[1]};
    for (int64_t k = v0; k < v1; k += 2 * L) {
        v p[2][2], ds[2][2];
#pragma GCC unroll 2
        for (int part = 0; part < 2; part++) {
            pass_vector(&r[0], k + part * L, plain, &p[0][part], &ds[0][part]);
            pass_vector(&r[1], k + part * L, plain, &p[1][part], &ds[1][part]);
            v_pair_store(p_pairs + k + part * L, v_pair_pack(p[0][part], p[1][part]));
            v_pair_store(ds_pairs + k + part * L, v_pair_pack(ds[0][part], ds[1][part]));
        }
        v_pair_store(ds_even + k / 2, v_pair_natural(ds[0][0], ds[0][1]));
        v_pair_store(ds_odd + k / 2, v_pair_natural(ds[1][0], ds[1][1]));
    }
}
static __attribute__((noinline)) void pass_plain(const pass_row *r, elem *p_pairs, elem *ds_pairs, elem *ds_even,
                                                 elem *ds_odd, int64_t v0, int64_t v1) {
    pass_loop(r, p_pairs, ds_pairs, ds_even, ds_odd, v0, v1, true);
}
static __attribute__((noinline)) void pass_general(const pass_row *r, elem *p_pairs, elem *ds_pairs, elem *ds_even,
                                                   elem *ds_odd, int64_t v0, int64_t v1) {
    pass_loop(r, p_pairs, ds_pairs, ds_even, ds_odd, v0, v1, false);
}
#endif

/* Row r of the tile made ready: its scores are final up to `factor`. `member`: which of PAIR rows. */
static pass_row pass_row_make(const backward_tile *t, int64_t r, int64_t member, bool dbias, int64_t v0, int64_t v1) {
    pass_row w = {0};
    const bool softcap = t->job->p->softcap > 0;
    w.s = t->s + r * LD_SCORES;
    w.dp = t->dp + r * LD_SCORES;
    w.ds_row = dbias ? t->ds_rows + member * LD_SCORES : NULL;
    if (r >= t->count) { /* the missing half of the last pair: P = dS = 0 */
        for (int64_t k = v0; k < v1; k += L) {
            v_store(w.s + k, v_zero());
            v_store(w.dp + k, v_zero());
        }
        w.factor = 1;
        w.lse2 = (real)INFINITY;
        return w;
    }
    if (t->job->p->bias.dtype) prefetch_bias(t, r + MR, dbias && t->job->p->dbias.stride[3] == 1);
    w.slope = softcap ? t->slopes + member * LD_SCORES : NULL;
    w.factor = score_row(w.s, &t->context, &t->rows[r], t->j0, v0, v1, w.slope);
    w.lse2 = t->lse2[r];
    w.delta = t->delta[r];
    w.keep = t->job->p->dropout_threshold ? t->keep + r * LD_SCORES : NULL;
    w.keep_factor = t->keep_factor;
    return w;
}

/* Zeros in P and dS left and right of a register tile's own range, over the union that the products over rows read. */
static void pass_blank(const backward_tile *t, int64_t first, int64_t rows, const block_range *range, int64_t u0,
                       int64_t u1) {
    for (int64_t r = first / PAIR; r < pairs(first + rows); r++) {
        real *p = (real *)(t->p + r * LD_SCORES), *ds = (real *)(t->ds + r * LD_SCORES);
        for (int64_t k = u0; k < range->v0 && k < u1; k += L) {
            v_store(p + k, v_zero());
            v_store(ds + k, v_zero());
        }
        for (int64_t k = range->v1 > u0 ? range->v1 : u0; k < u1; k += L) {
            v_store(p + k, v_zero());
            v_store(ds + k, v_zero());
        }
    }
}

/* All rows of the tile. sink may be NULL. */
static void backward_tile_pass(const backward_tile *t, dbias_sink *sink, void *to) {
    const problem *p = t->job->p;
    const bool plain = !p->dropout_threshold && !(p->softcap > 0) && !sink;
    /* the products take MR keys at a time, so the union ends at such a border */
    const int64_t u0 = t->u0 / MR * MR / RANGE_STEP * RANGE_STEP;
    const int64_t u1 = ((t->u1 + MR - 1) / MR * MR + RANGE_STEP - 1) / RANGE_STEP * RANGE_STEP;
    if (p->dropout_threshold) dropout_tile(t->keep, LD_SCORES, &t->dropout, t->rows, t->count, t->j0, t->n);
    for (int64_t b = 0; b < t->blocks; b++) {
        const block_range range = t->ranges[b];
        const int64_t first = b * MR, rows = t->count - first < MR ? t->count - first : MR;
        if (range.v0 < range.v1) backward_tile_scores(t, b); /* may write left of v0, so blank comes after */
        pass_blank(t, first, rows, &range, u0, u1);
        if (range.v0 == range.v1) continue;
        for (int64_t r = first; r < first + rows; r += PAIR) {
            pass_row w[PAIR];
            for (int64_t member = 0; member < PAIR; member++)
                w[member] = pass_row_make(t, r + member, member, sink != NULL, range.v0, range.v1);
#if PAIR == 1
            (plain ? pass_plain : pass_general)(w, range.v0, range.v1);
#else
            (plain ? pass_plain : pass_general)(w, t->p + r / 2 * LD_SCORES, t->ds + r / 2 * LD_SCORES,
                                                t->ds_along + r * (LD_SCORES / 2),
                                                t->ds_along + (r + 1) * (LD_SCORES / 2), range.v0, range.v1);
#endif
            for (int64_t member = 0; sink && member < PAIR && r + member < t->count; member++)
                sink(to, t, r + member, t->ds_rows + member * LD_SCORES, range.v0, range.v1);
        }
    }
}

#endif
