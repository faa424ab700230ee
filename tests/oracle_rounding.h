/* oracle_rounding.h: what one rounding of each step may move a result by, in units of the roundoff; part of
 * oracle_tmpl.h.
 *
 * First-order running error analysis: a sum of products moves by the sum of their magnitudes, p = exp(s - lse) by
 * p * weight, weight = 1 + |lse| + the magnitudes in s, and what is computed from moved numbers moves along. */

/* weight of key j in the row whose q, s and lse are there. */
static NUMBER rounding_weight(const head *w, int64_t j) {
    NUMBER sum = 0;
    for (int64_t d = 0; d < w->D; d++) sum += fabs(w->q[d] * w->k[j * w->D + d]);
    return 1 + fabs(w->lse) + fabs(w->s[j]) + fabs(w->scale) * sum;
}

/* A backend may count subnormal numbers as 0, so no step costs less than the least normal one; in units of the roundoff,
 * as everything here. */
static NUMBER least_cost(const head *w) {
    return w->a->q->dtype.bits == 64 ? (NUMBER)DBL_MIN / (NUMBER)0x1p-53 : (NUMBER)FLT_MIN / (NUMBER)0x1p-24;
}

/* How far p of key j moves. */
static NUMBER moved_weight(const head *w, int64_t j) { return w->p[j] * rounding_weight(w, j) + least_cost(w); }

/* Magnitudes of a row: of out, of its rounding, and of delta's two parts. */
typedef struct magnitudes {
    NUMBER *out, *out_rounding;
    NUMBER delta, delta_rounding;
} magnitudes;

static void rounding_of_out(head *w, magnitudes *m, NUMBER *lse_rounding) {
    *lse_rounding = 1 + fabs(w->lse);
    for (int64_t j = 0; j < w->keys.length; j++) {
        if (!w->visible[j] || w->s[j] == -(NUMBER)INFINITY) continue;
        NUMBER moved = moved_weight(w, j), p = w->p[j] * w->keep[j];
        *lse_rounding += moved;
        for (int64_t e = 0; e < w->E; e++) {
            m->out[e] += p * fabs(w->v[j * w->E + e]);
            m->out_rounding[e] += moved * w->keep[j] * fabs(w->v[j * w->E + e]);
        }
    }
}

static void rounding_of_delta(head *w, magnitudes *m, int64_t i) {
    const DLTensor *dlse = w->request->dlse;
    load_row(w->dout, w->request->dout, oracle_row(&w->queries, w->b, w->h, i), w->E);
    m->delta = dlse ? fabs((NUMBER)tensor_get(dlse, oracle_lse_row(&w->queries, w->b, w->h, i))) : 0;
    m->delta_rounding = m->delta;
    for (int64_t e = 0; e < w->E; e++) {
        m->delta += fabs(w->dout[e]) * m->out[e];
        m->delta_rounding += fabs(w->dout[e]) * m->out_rounding[e];
    }
}

static void rounding_of_gradients(head *w, const magnitudes *m, int64_t i, real *dq) {
    const dlattn_attention *a = w->a;
    if (a->sinks)
        w->dsinks[w->h] += exp(w->sink - w->lse) * ((1 + fabs(w->sink) + fabs(w->lse)) * m->delta + m->delta_rounding);
    memset(w->sum, 0, (size_t)w->D * sizeof *w->sum);
    for (int64_t j = 0; j < w->keys.length; j++) {
        if (!w->visible[j] || w->s[j] == -(NUMBER)INFINITY) continue;
        int64_t row = oracle_row(&w->keys, w->b, w->g, j);
        NUMBER moved = moved_weight(w, j), dp = 0;
        for (int64_t e = 0; e < w->E; e++) {
            dp += w->keep[j] * fabs(w->dout[e] * w->v[j * w->E + e]);
            w->dv[row * w->E + e] += moved * w->keep[j] * fabs(w->dout[e]) + least_cost(w);
        }
        NUMBER ds = moved * (dp + m->delta) + w->p[j] * (dp + m->delta_rounding);
        if (a->bias) w->dbias[tensor_broadcast_index(a->bias, w->b, w->h, i, j)] += ds;
        for (int64_t d = 0; d < w->D; d++) {
            w->dk[row * w->D + d] += ds * fabs(w->cap[j] * w->q[d]) + least_cost(w);
            w->sum[d] += ds * fabs(w->cap[j] * w->k[j * w->D + d]) + least_cost(w);
        }
    }
    for (int64_t d = 0; d < w->D; d++) dq[d] = fabs(w->scale) * w->sum[d];
}

/* Row i, whose scores, p and lse are there. */
static void rounding_row(head *w, int64_t i, oracle_result *result) {
    int64_t row = oracle_row(&w->queries, w->b, w->h, i);
    magnitudes m = {.out = numbers(w->E), .out_rounding = numbers(w->E)};
    NUMBER lse_rounding;
    rounding_of_out(w, &m, &lse_rounding);
    result->lse[oracle_lse_row(&w->queries, w->b, w->h, i)] = lse_rounding;
    for (int64_t e = 0; e < w->E; e++) result->out[row * w->E + e] = m.out_rounding[e];
    if (w->request->dout) {
        rounding_of_delta(w, &m, i);
        rounding_of_gradients(w, &m, i, result->dq + row * w->D);
    }
    free(m.out);
    free(m.out_rounding);
}
