/* finish_tmpl.h: the last step of a forward row: from running maximum, sum and accumulator to out and lse. */
#ifndef DLATTN_FINISH_TMPL_H
#define DLATTN_FINISH_TMPL_H

#include "score_tmpl.h"

/* Start of the running maximum: finite, so that a score of -inf still gives 2^(t - m) = 0 and not NaN. */
#define SCORE_FLOOR (-REAL_MAX)

/* Writes row r: accumulator O[0..E), maximum m of t (log2 units), sum l of 2^(t - m). O is scaled in place. */
static __attribute__((noinline, unused)) void finish_row(const cpu_job *job, const row_group *group, const row *r,
                                                         double m, double l, real *O) {
    const problem *p = job->p;
    const int64_t b = group->b, token = group->sequence.q_begin + r->i;
    double lse = l > 0 || l != l ? m * LN_2 + log(l) : -INFINITY, factor = l > 0 || l != l ? 1 / l : 0;
    if (p->sinks.dtype) {
        double sink = read_float(&p->sinks, dlattn__at(&p->sinks, job->x->sinks, r->h, 0, 0, 0));
        double top = lse > sink ? lse : sink;
        double with_sink = top == -INFINITY ? top : top + log(exp(lse - top) + exp(sink - top));
        if (factor != 0) factor *= exp(lse - with_sink);
        lse = with_sink;
    }
    if (p->dropout_threshold) factor *= p->dropout_threshold < 256 ? 256.0 / (256 - p->dropout_threshold) : 0;
    v scale = v_set1((real)factor);
    if (factor == 0) /* an empty row is 0 whatever the accumulator holds */
        for (int64_t e = 0; e < p->E; e += L) v_store(O + e, v_zero());
    else
        for (int64_t e = 0; e < p->E; e += L) v_store(O + e, v_mul(v_load(O + e), scale));
    row_store(dlattn__at(&p->out, job->x->out, b, token, r->h, 0), p->out.stride[3], p->out.dtype, O, p->E);
    if (p->lse.dtype) {
        char *at = dlattn__at(&p->lse, job->x->lse, b, r->h, token, 0);
        if (p->lse.dtype == DLATTN_T_F64) *(double *)at = lse;
        else *(float *)at = (float)lse;
    }
}

#endif
