/* oracle_rounding.h: what one rounding of each step may move a result by, in units of the roundoff; part of
 * oracle_tmpl.h.
 *
 * First-order running error analysis: a sum of products moves by the sum of their magnitudes, every other step by the
 * magnitude of what it makes, and what is computed from moved numbers moves along, by the derivative.
 * docs/numerics.md derives each line. */

/* How far the score of key j moves in the row whose q is there, and by what part of itself the derivative of its softcap
 * does. Terms count one by one: their sum may be small where they are not. */
static void rounding_of_score(head *w, int64_t i, int64_t j) {
    const dlattn_attention *a = w->a;
    const NUMBER softcap = (NUMBER)a->softcap;
    NUMBER dot = 0, moved = 0;
    for (int64_t d = 0; d < w->D; d++) {
        NUMBER product = w->q[d] * w->k[j * w->D + d];
        dot += product;
        moved += fabs(product);
    }
    NUMBER s = w->scale * dot;
    moved = fabs(w->scale) * moved + fabs(s);
    w->cap_moved[j] = 0;
    if (softcap > 0) {
        NUMBER t = tanh(s / softcap);
        w->cap_moved[j] = 1 + 2 * fabs(t) * (moved + fabs(s)) / softcap;
        moved = w->cap[j] * (moved + fabs(s)) + 2 * fabs(softcap * t);
        s = softcap * t;
    }
    if (a->alibi_slopes) {
        NUMBER term = w->slope * (NUMBER)oracle_distance(a, w->b, i, j);
        s -= fabs(term);
        moved += fabs(term) + fabs(s);
    }
    if (a->bias) {
        NUMBER term = (NUMBER)tensor_get(a->bias, tensor_broadcast_index(a->bias, w->b, w->h, i, j));
        s += term;
        moved += fabs(term) + fabs(s);
    }
    w->score_moved[j] = moved;
}

/* A backend may count subnormal numbers as 0, so no step costs less than the least normal one; in units of the roundoff,
 * as everything here. */
static NUMBER least_cost(const head *w) {
    return w->a->q->dtype.bits == 64 ? (NUMBER)DBL_MIN / (NUMBER)0x1p-53 : (NUMBER)FLT_MIN / (NUMBER)0x1p-24;
}

/* How far p = exp(s - lse) of key j moves: s, lse, their difference, and exp itself. */
static NUMBER moved_weight(const head *w, int64_t j) {
    return w->p[j] * (1 + fabs(w->lse) + fabs(w->s[j] - w->lse) + w->score_moved[j]) + least_cost(w);
}

/* What moves in a row: out, lse and delta = sum dout*out - dlse. */
typedef struct moved_row {
    NUMBER *out, lse, delta;
} moved_row;

static void rounding_of_out(head *w, int64_t i, moved_row *m) {
    m->lse = 1 + fabs(w->lse);
    if (w->a->sinks) m->lse += exp(w->sink - w->lse) * (1 + fabs(w->sink) + fabs(w->lse));
    for (int64_t j = 0; j < w->keys.length; j++) {
        if (!w->visible[j] || w->s[j] == -(NUMBER)INFINITY) continue;
        rounding_of_score(w, i, j);
        NUMBER moved = moved_weight(w, j);
        m->lse += moved;
        for (int64_t e = 0; e < w->E; e++)
            m->out[e] += moved * w->keep[j] * fabs(w->v[j * w->E + e]) + least_cost(w);
    }
}

/* out and lse are handed in, or moved themselves. Returns delta. */
static NUMBER rounding_of_delta(head *w, int64_t i, moved_row *m) {
    const oracle_request *r = w->request;
    NUMBER dlse = r->dlse ? (NUMBER)tensor_get(r->dlse, oracle_lse_row(&w->queries, w->b, w->h, i)) : 0, delta = -dlse;
    m->delta = 2 * fabs(dlse);
    for (int64_t e = 0; e < w->E; e++) {
        delta += w->dout[e] * w->out[e];
        m->delta += fabs(w->dout[e] * w->out[e]) + (r->given_out ? 0 : fabs(w->dout[e]) * m->out[e]);
    }
    return delta;
}

static void rounding_of_gradients(head *w, int64_t i, moved_row *m, real *dq) {
    const dlattn_attention *a = w->a;
    take_given(w, i);
    load_row(w->dout, w->request->dout, oracle_row(&w->queries, w->b, w->h, i), w->E);
    const NUMBER delta = rounding_of_delta(w, i, m);
    if (a->sinks)
        w->dsinks[w->h] += exp(w->sink - w->lse) * ((2 + fabs(w->sink) + fabs(w->lse)) * fabs(delta) + m->delta);
    memset(w->sum, 0, (size_t)w->D * sizeof *w->sum);
    for (int64_t j = 0; j < w->keys.length; j++) {
        if (!w->visible[j] || w->s[j] == -(NUMBER)INFINITY) continue;
        int64_t row = oracle_row(&w->keys, w->b, w->g, j);
        NUMBER moved = moved_weight(w, j), dp = 0, dp_moved = 0, ds, ds_moved;
        for (int64_t e = 0; e < w->E; e++) {
            NUMBER product = w->keep[j] * w->dout[e] * w->v[j * w->E + e];
            dp += product;
            dp_moved += fabs(product);
            w->dv[row * w->E + e] += moved * w->keep[j] * fabs(w->dout[e]) + least_cost(w);
        }
        ds = w->p[j] * fabs(dp - delta);
        ds_moved = moved * fabs(dp - delta) + w->p[j] * (dp_moved + m->delta) + 2 * ds;
        if (a->bias) w->dbias[tensor_broadcast_index(a->bias, w->b, w->h, i, j)] += ds_moved + ds;
        ds_moved = w->cap[j] * (ds_moved + w->cap_moved[j] * ds);
        for (int64_t d = 0; d < w->D; d++) {
            w->dk[row * w->D + d] += (ds_moved + w->cap[j] * ds) * fabs(w->q[d]) + least_cost(w);
            w->sum[d] += (ds_moved + w->cap[j] * ds) * fabs(w->k[j * w->D + d]) + least_cost(w);
        }
    }
    for (int64_t d = 0; d < w->D; d++) dq[d] = fabs(w->scale) * w->sum[d];
}

/* Row i, whose scores, p and lse are there. */
static void rounding_row(head *w, int64_t i, oracle_result *result) {
    int64_t row = oracle_row(&w->queries, w->b, w->h, i);
    moved_row m = {.out = numbers(w->E)};
    rounding_of_out(w, i, &m);
    result->lse[oracle_lse_row(&w->queries, w->b, w->h, i)] = m.lse;
    for (int64_t e = 0; e < w->E; e++) result->out[row * w->E + e] = m.out[e];
    if (w->request->dout) rounding_of_gradients(w, i, &m, result->dq + row * w->D);
    free(m.out);
}
