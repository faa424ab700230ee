/* backward_rows_tmpl.h: the backward's phases over rows: delta before the main pass, dq and dsinks after it. */
#ifndef DLATTN_BACKWARD_ROWS_TMPL_H
#define DLATTN_BACKWARD_ROWS_TMPL_H

#include "score_tmpl.h"

static double lse_at(const operand *o, const void *data, int64_t b, int64_t h, int64_t token) {
    return read_float(o, dlattn__at(o, data, b, h, token, 0));
}

/* delta = sum_e dout*out - dlse and lse in units of log2, of one (b, h). A row of lse -inf has delta 0 and lse2 +inf,
 * which makes all its P exact zeros. */
cpu_item NAME(delta);
void NAME(delta)(const cpu_job *job, int64_t item, void *scratch) {
    const problem *p = job->p;
    const buffers *x = job->x;
    const int64_t b = item / p->H, h = item % p->H, width = pad_lanes(p->E);
    const sequence s = dlattn__sequence(p, x, b);
    real *out = (real *)scratch, *dout = out + width;
    real *delta = (real *)job->delta + item * p->M, *lse2 = (real *)job->lse2 + item * p->M;
    for (int64_t i = 0; i < s.M; i++) {
        const int64_t token = s.q_begin + i;
        const double lse = lse_at(&p->lse, x->lse, b, h, token);
        if (lse == -INFINITY) {
            delta[i] = 0;
            lse2[i] = (real)INFINITY;
            continue;
        }
        v sum = v_zero();
        row_load(out, dlattn__at(&p->out, x->out, b, token, h, 0), p->out.stride[3], p->out.dtype, p->E);
        row_load(dout, dlattn__at(&p->dout, x->dout, b, token, h, 0), p->dout.stride[3], p->dout.dtype, p->E);
        for (int64_t e = 0; e < width; e += L) sum = v_fma(v_load(out + e), v_load(dout + e), sum);
        const double dlse = p->dlse.dtype ? lse_at(&p->dlse, x->dlse, b, h, token) : 0;
        delta[i] = (real)((double)v_hsum(sum) - dlse);
        lse2[i] = (real)(lse * LOG2_E);
    }
}

/* dq of one (b, h): the pieces' sums added in order, scaled, rounded once. */
cpu_item NAME(reduce_dq);
void NAME(reduce_dq)(const cpu_job *job, int64_t item, void *scratch) {
    const problem *p = job->p;
    const int64_t b = item / p->H, h = item % p->H, width = pad_lanes(p->D);
    const sequence s = dlattn__sequence(p, job->x, b);
    const real *lse2 = (const real *)job->lse2 + item * p->M;
    const v scale = v_set1((real)p->scale);
    real *line = (real *)scratch;
    for (int64_t i = 0; i < s.M; i++) {
        const real *from = (const real *)job->dq_sum + (item * p->M + i) * width;
        const bool empty = lse2[i] == (real)INFINITY; /* 0 whatever k holds */
        for (int64_t d = 0; d < width; d += L) {
            v sum = v_load(from + d);
            for (int64_t piece = 1; piece < job->shape.pieces; piece++)
                sum = v_add(sum, v_load(from + d + piece * p->B * p->H * p->M * width));
            v_store(line + d, empty ? v_zero() : v_mul(sum, scale));
        }
        row_store(dlattn__at(&p->dq, job->x->dq, b, s.q_begin + i, h, 0), p->dq.stride[3], p->dq.dtype, line, p->D);
    }
}

/* dsinks[h] = -sum over all rows of exp(sink - lse) * delta. */
cpu_item NAME(dsinks);
void NAME(dsinks)(const cpu_job *job, int64_t item, void *scratch) {
    const problem *p = job->p;
    const buffers *x = job->x;
    const double sink = read_float(&p->sinks, dlattn__at(&p->sinks, x->sinks, item, 0, 0, 0));
    double sum = 0;
    (void)scratch;
    for (int64_t b = 0; b < p->B; b++) {
        const sequence s = dlattn__sequence(p, x, b);
        const real *delta = (const real *)job->delta + (b * p->H + item) * p->M;
        for (int64_t i = 0; i < s.M; i++) {
            const double lse = lse_at(&p->lse, x->lse, b, item, s.q_begin + i);
            if (lse != -INFINITY) sum -= exp(sink - lse) * (double)delta[i];
        }
    }
    real result[L] = {0};
    result[0] = (real)sum;
    row_store(dlattn__at(&p->dsinks, x->dsinks, item, 0, 0, 0), 1, p->dsinks.dtype, result, 1);
}

#endif
