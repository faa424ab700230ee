/* score_tmpl.h: one row of raw products q.k becomes scores: softcap, ALiBi, bias and masks, each a loop of its own.
 *
 * Scores are kept in units of log2: t = log2(e) * s, so that softmax is 2^t. A tile row S holds keys j0, j0+1, ...;
 * work goes over columns [k0, k1), both multiples of L. Plain rows are not touched at all: the factor that is still
 * to be applied is returned, and the caller folds it into its own fused multiply-add. */
#ifndef DLATTN_SCORE_TMPL_H
#define DLATTN_SCORE_TMPL_H

#include "cpu.h"
#include "exp2_tmpl.h"
#include "pack_tmpl.h"
#include "shared.h"

#define LOG2_E 1.44269504088896340736
#define LN_2 0.693147180559945309417

/* What is constant for one (b, g), and two scratch rows. */
typedef struct score_context {
    const problem *p;
    const buffers *x;
    const row_group *group;
    real factor;        /* scale * log2(e) */
    bool plain;         /* no softcap, ALiBi, bias or element mask, and factor > 0 */
    real *bias_row;     /* room for a tile row */
    uint8_t *keep_row;  /* likewise */
} score_context;

SIMD_INLINE score_context score_context_make(const cpu_job *job, const row_group *group, real *bias_row,
                                             uint8_t *keep_row) {
    const problem *p = job->p;
    score_context c = {p, job->x, group, (real)(p->scale * LOG2_E), false, bias_row, keep_row};
    c.plain = !(p->softcap > 0) && !p->alibi_slopes.dtype && !p->bias.dtype && !group->element_mask && c.factor > 0;
    return c;
}

/* One number of a float operand. */
SIMD_INLINE double read_float(const operand *o, const char *at) {
    switch (o->dtype) {
    case DLATTN_T_F16: return dlattn__f16_to_float(*(const uint16_t *)at);
    case DLATTN_T_BF16: return dlattn__bf16_to_float(*(const uint16_t *)at);
    case DLATTN_T_F64: return *(const double *)at;
    default: return *(const float *)at;
    }
}

/* softcap * tanh(scale * s / softcap), times log2(e). slope, if given, receives the derivative by scale * s. */
SIMD_INLINE void score_softcap(real *S, const problem *p, real *slope, int64_t k0, int64_t k1) {
    v inner = v_set1((real)(p->scale / p->softcap)), outer = v_set1((real)(p->softcap * LOG2_E));
    for (int64_t k = k0; k < k1; k += L) {
        v x = v_mul(v_load(S + k), inner);
        if (slope) v_store(slope + k, v_tanh_slope(x));
        v_store(S + k, v_mul(v_tanh(x), outer));
    }
}

SIMD_INLINE void score_scale(real *S, real factor, int64_t k0, int64_t k1) {
    v c = v_set1(factor);
    for (int64_t k = k0; k < k1; k += L) v_store(S + k, v_mul(v_load(S + k), c));
}

/* -slope[b|1,h] * |i' - j'| */
SIMD_INLINE void score_alibi(real *S, const score_context *c, const row *r, int64_t j0, int64_t k0, int64_t k1) {
    const sequence *q = &c->group->sequence;
    double slope = read_float(&c->p->alibi_slopes,
                              dlattn__at(&c->p->alibi_slopes, c->x->alibi_slopes, c->group->b, r->h, 0, 0));
    v factor = v_set1((real)(slope * LOG2_E));
    int64_t distance = dlattn_add_sat(dlattn_sub_sat(q->q_position, q->k_position), r->i - j0);
    v here = v_sub(v_set1((real)distance), v_iota());
    for (int64_t k = k0; k < k1; k += L)
        v_store(S + k, v_fnma(factor, v_abs(v_sub(here, v_set1((real)k))), v_load(S + k)));
}

/* Columns past the sequence's end are not read: they are hidden by the caller. */
SIMD_INLINE void score_bias(real *S, const score_context *c, const row *r, int64_t j0, int64_t k0, int64_t k1) {
    const operand *o = &c->p->bias;
    int64_t end = c->group->sequence.N - j0 < k1 ? c->group->sequence.N - j0 : k1, whole = k0 + (end - k0) / L * L;
    const char *at = dlattn__at(o, c->x->bias, c->group->b, r->h, r->i, j0 + k0);
    const real *bias = (const real *)at - k0;
    int64_t k = k0;
    v log2_e = v_set1((real)LOG2_E);
    if (o->stride[3] != 1 || dlattn__size_of(o->dtype) != sizeof(real)) {
        row_load(c->bias_row + k0, at, o->stride[3], o->dtype, end - k0);
        bias = c->bias_row;
    }
    for (; k < whole; k += L) v_store(S + k, v_fma(v_load(bias + k), log2_e, v_load(S + k)));
    if (k < end) v_store(S + k, v_fma(v_load_n(bias + k, end - k), log2_e, v_load(S + k)));
}

/* Columns of [k0, k1) outside [lo, hi) get -inf. */
SIMD_INLINE void score_hide(real *S, int64_t lo, int64_t hi, int64_t k0, int64_t k1) {
    v h = v_set1(-(real)INFINITY);
    int64_t k = k0;
    for (; k < k1 && k < lo; k += L) v_store(S + k, v_select(vm_first(lo - k), h, v_load(S + k)));
    k = hi > k0 ? hi / L * L : k0; /* nothing to do between; may be the vector that also holds lo */
    for (; k < k1; k += L) v_store(S + k, v_select(vm_first(hi - k), v_load(S + k), h));
}

SIMD_INLINE void score_mask(real *S, const uint8_t *keep, int64_t k0, int64_t k1) {
    v h = v_set1(-(real)INFINITY);
    for (int64_t k = k0; k < k1; k += L) v_store(S + k, v_select(vm_bytes(keep + k), v_load(S + k), h));
}

/* Turns columns [k0, k1) of row r's tile row into scores and returns the factor f > 0 still to be applied: t = f * S. Hidden
 * columns become t = -inf. softcap_slope: a tile row that receives d capped / d (scale*s), or NULL; untouched without
 * softcap. */
static __attribute__((noinline, unused)) real score_row(real *S, const score_context *c, const row *r, int64_t j0,
                                                        int64_t k0, int64_t k1, real *softcap_slope) {
    const problem *p = c->p;
    int64_t lo = r->lo - j0, hi = r->hi - j0;
    if (c->plain) {
        if (lo > k0 || hi < k1) score_hide(S, lo, hi, k0, k1);
        return c->factor;
    }
    if (p->softcap > 0) score_softcap(S, p, softcap_slope, k0, k1);
    else score_scale(S, c->factor, k0, k1);
    if (p->alibi_slopes.dtype) score_alibi(S, c, r, j0, k0, k1);
    if (p->bias.dtype) score_bias(S, c, r, j0, k0, k1);
    if (c->group->element_mask) {
        int64_t end = c->group->sequence.N - j0 < k1 ? c->group->sequence.N - j0 : k1;
        dlattn__rows_keep(c->keep_row + k0, p, c->x, c->group, r, j0 + k0, j0 + end);
        score_mask(S, c->keep_row, k0, k1); /* stale bytes past `end` are hidden below */
    }
    if (lo > k0 || hi < k1) score_hide(S, lo, hi, k0, k1);
    return 1;
}

#endif
