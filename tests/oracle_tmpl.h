/* oracle_tmpl.h: the oracle's loops, compiled once per NUMBER (float, double, long double) by oracle_<number>.c.
 *
 * One query row at a time, all its keys at once. Sums run in the order of their index; the loops are turned so that
 * the compiler can take neighbouring keys or columns together without changing that order. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>

#include "oracle.h"

/* One (b, h) and the row being worked on. Arrays end with their extents. */
typedef struct head {
    const oracle_request *request;
    const dlattn_attention *a;
    oracle_side queries, keys;
    int64_t b, h, g, D, E;
    NUMBER scale;
    DLDataType step; /* each step is rounded to it; bits 0: not rounded */
    int tf32;        /* q, k, v and dout are rounded to TF32 where they enter products */
    int narrow_tf32; /* so are p and ds */
    NUMBER *k, *v, *k_columns, *v_columns; /* [N][D], [N][E] and transposed */
    NUMBER *q, *out, *dout;                /* [D], [E], [E] */
    NUMBER *s, *cap, *keep, *p, *dp, *sum; /* [N]; cap: derivative of softcap; keep: dropout's factor; sum: [max(D, E)] */
    NUMBER *score_moved, *cap_moved;       /* [N]: see oracle_rounding.h */
    unsigned char *visible;                /* [N] */
    NUMBER lse, sink, slope;
    NUMBER *dk, *dv, *dbias, *dsinks; /* sums over heads, in the shapes of the tensors */
    NUMBER *dk_squares, *dv_squares;  /* see oracle_narrowing.h */
} head;

static NUMBER round_to(NUMBER value, DLDataType dtype) {
    if (dtype.bits == 16) {
        return dtype.code == kDLBfloat ? bfloat_to_float(float_to_bfloat((float)value))
                                       : half_to_float(float_to_half((float)value));
    }
    return dtype.bits == 32 ? (NUMBER)(float)value : value;
}

/* p or ds as an operand of a product. */
static NUMBER operand(const head *w, NUMBER x) { return w->narrow_tf32 ? float_to_tf32((float)x) : x; }

static NUMBER *numbers(int64_t count) {
    NUMBER *array = calloc((size_t)(count > 0 ? count : 1), sizeof *array);
    if (!array) abort();
    return array;
}

static real *reals(int64_t count) {
    real *array = calloc((size_t)(count > 0 ? count : 1), sizeof *array);
    if (!array) abort();
    return array;
}

static void load_row(NUMBER *to, const DLTensor *t, int64_t row, int64_t width) {
    const unsigned char *at = width > 0 ? tensor_address(t, row * width) : NULL;
    const int64_t step = tensor_stride(t, t->ndim - 1) * tensor_item_bytes(t);
    for (int64_t x = 0; x < width; x++) to[x] = (NUMBER)element_get(t->dtype, at + x * step);
}

static void make_operands(const head *w, NUMBER *row, int64_t width) {
    for (int64_t x = 0; x < width && w->tf32; x++) row[x] = float_to_tf32((float)row[x]);
}

/* The keys and values of (b, g), as rows and as columns. */
static void load_keys(head *w) {
    int64_t N = w->keys.length, D = w->D, E = w->E;
    for (int64_t j = 0; j < N; j++) {
        load_row(w->k + j * D, w->a->k, oracle_row(&w->keys, w->b, w->g, j), D);
        load_row(w->v + j * E, w->a->v, oracle_row(&w->keys, w->b, w->g, j), E);
        make_operands(w, w->k + j * D, D);
        make_operands(w, w->v + j * E, E);
        for (int64_t d = 0; d < D; d++) w->k_columns[d * N + j] = w->k[j * D + d];
        for (int64_t e = 0; e < E; e++) w->v_columns[e * N + j] = w->v[j * E + e];
    }
}

/* to[j] = sum_x row[x] * columns[x][j], each sum in the order of x. */
static void dot_columns(NUMBER *restrict to, const NUMBER *restrict row, const NUMBER *restrict columns, int64_t width,
                        int64_t N) {
    memset(to, 0, (size_t)N * sizeof *to);
    for (int64_t x = 0; x < width; x++)
        for (int64_t j = 0; j < N; j++) to[j] += row[x] * columns[x * N + j];
}

static void add_scaled(NUMBER *restrict to, NUMBER factor, const NUMBER *restrict row, int64_t width) {
    for (int64_t x = 0; x < width; x++) to[x] += factor * row[x];
}

/* s[j] of row i, with every term; visible[j] and the derivative of softcap. */
static void score_row(head *w, int64_t i) {
    const dlattn_attention *a = w->a;
    NUMBER softcap = (NUMBER)a->softcap;
    load_row(w->q, a->q, oracle_row(&w->queries, w->b, w->h, i), w->D);
    make_operands(w, w->q, w->D);
    dot_columns(w->s, w->q, w->k_columns, w->D, w->keys.length);
    for (int64_t j = 0; j < w->keys.length; j++) {
        w->visible[j] = (unsigned char)oracle_visible(a, w->b, w->h, i, j);
        if (!w->visible[j]) continue;
        NUMBER s = round_to(w->scale * round_to(w->s[j], w->step), w->step);
        w->cap[j] = 1;
        if (softcap > 0) {
            NUMBER t = round_to(tanh(round_to(s / softcap, w->step)), w->step);
            s = round_to(softcap * t, w->step);
            NUMBER c = cosh(w->scale * w->s[j] / softcap); /* the truth: 1 - t*t would lose its digits where t is near 1 */
            int plain = w->request->arithmetic == ORACLE_PLAIN || w->request->arithmetic == ORACLE_PLAIN_F32;
            w->cap[j] = plain ? round_to(1 - t * t, w->step) : 1 / (c * c);
        }
        if (a->alibi_slopes) {
            NUMBER distance = (NUMBER)oracle_distance(a, w->b, i, j);
            s = round_to(s - round_to(w->slope * fabs(distance), w->step), w->step);
        }
        if (a->bias)
            s = round_to(s + (NUMBER)tensor_get(a->bias, tensor_broadcast_index(a->bias, w->b, w->h, i, j)), w->step);
        w->s[j] = s;
    }
}

/* lse = log(sum exp(s) + exp(sink)), -inf when nothing but -inf is there. A NaN score makes it NaN. */
static void softmax_row(head *w) {
    NUMBER top = w->a->sinks ? w->sink : -(NUMBER)INFINITY, sum;
    int not_a_number = top != top;
    for (int64_t j = 0; j < w->keys.length; j++) {
        if (!w->visible[j]) continue;
        if (w->s[j] != w->s[j]) not_a_number = 1;
        if (w->s[j] > top) top = w->s[j];
    }
    w->lse = top;
    if (not_a_number) w->lse = (NUMBER)NAN;
    if (not_a_number || top == -(NUMBER)INFINITY) return;
    sum = w->a->sinks ? exp(w->sink - top) : 0;
    for (int64_t j = 0; j < w->keys.length; j++)
        if (w->visible[j]) sum += exp(w->s[j] - top);
    w->lse = top + log(sum);
}

/* p, the dropout factors and the row of out. */
static void out_row(head *w, int64_t i) {
    NUMBER factor = (NUMBER)oracle_dropout_factor(w->a->dropout);
    memset(w->out, 0, (size_t)w->E * sizeof *w->out);
    for (int64_t j = 0; j < w->keys.length; j++) {
        w->p[j] = 0;
        if (!w->visible[j]) continue;
        w->p[j] = round_to(exp(w->s[j] - w->lse), w->step);
        w->keep[j] = w->a->dropout == 0 ? 1 : oracle_kept(w->a, w->b, w->h, i, j) ? factor : 0;
        if (w->keep[j] == 0 && w->p[j] == w->p[j]) continue; /* dropout does not heal NaN */
        add_scaled(w->out, operand(w, round_to(w->p[j] * w->keep[j], w->step)), w->v + j * w->E, w->E);
    }
    for (int64_t e = 0; e < w->E; e++) w->out[e] = round_to(w->out[e], w->request->out_dtype);
}

/* delta = sum dout*out - dlse */
static NUMBER row_delta(head *w, int64_t i) {
    const DLTensor *dlse = w->request->dlse;
    NUMBER delta = 0;
    for (int64_t e = 0; e < w->E; e++) delta += w->dout[e] * w->out[e];
    delta = round_to(delta, w->step);
    if (dlse) delta = round_to(delta - (NUMBER)tensor_get(dlse, oracle_lse_row(&w->queries, w->b, w->h, i)), w->step);
    return delta;
}

/* The backward recomputes p from the lse it is handed. */
static void take_given(head *w, int64_t i) {
    const oracle_request *r = w->request;
    if (r->given_out) load_row(w->out, r->given_out, oracle_row(&w->queries, w->b, w->h, i), w->E);
    if (!r->given_lse) return;
    w->lse = (NUMBER)tensor_get(r->given_lse, oracle_lse_row(&w->queries, w->b, w->h, i));
    for (int64_t j = 0; j < w->keys.length; j++)
        if (w->visible[j]) w->p[j] = round_to(exp(w->s[j] - w->lse), w->step);
}

/* What row i adds to every gradient; its row of dq goes to `dq`. */
static void gradient_row(head *w, int64_t i, real *dq) {
    const dlattn_attention *a = w->a;
    NUMBER delta;
    take_given(w, i);
    if (w->lse == -(NUMBER)INFINITY) return;
    load_row(w->dout, w->request->dout, oracle_row(&w->queries, w->b, w->h, i), w->E);
    delta = row_delta(w, i);
    make_operands(w, w->dout, w->E);
    if (a->sinks) w->dsinks[w->h] -= exp(w->sink - w->lse) * delta;
    dot_columns(w->dp, w->dout, w->v_columns, w->E, w->keys.length);
    memset(w->sum, 0, (size_t)w->D * sizeof *w->sum);
    for (int64_t j = 0; j < w->keys.length; j++) {
        if (!w->visible[j]) continue;
        int64_t row = oracle_row(&w->keys, w->b, w->g, j);
        NUMBER dp = w->keep[j] == 0 ? 0 : round_to(round_to(w->dp[j], w->step) * w->keep[j], w->step);
        NUMBER ds = round_to(w->p[j] * round_to(dp - delta, w->step), w->step);
        if (w->keep[j] != 0)
            add_scaled(w->dv + row * w->E, operand(w, round_to(w->p[j] * w->keep[j], w->step)), w->dout, w->E);
        if (a->bias) w->dbias[tensor_broadcast_index(a->bias, w->b, w->h, i, j)] += ds;
        ds = operand(w, round_to(ds * w->cap[j], w->step));
        add_scaled(w->dk + row * w->D, ds, w->q, w->D);
        add_scaled(w->sum, ds, w->k + j * w->D, w->D);
    }
    for (int64_t d = 0; d < w->D; d++)
        dq[d] = round_to(w->scale * round_to(w->sum[d], w->step), w->request->gradient_dtype);
}

#include "oracle_rounding.h"
#include "oracle_narrowing.h"

static NUMBER slope_of(const head *w) {
    const DLTensor *slopes = w->a->alibi_slopes;
    if (!slopes) return 0;
    return (NUMBER)tensor_get(slopes, slopes->ndim == 2 ? w->b * w->queries.heads + w->h : w->h);
}

static void run_head(head *w, oracle_result *result) {
    load_keys(w);
    w->slope = slope_of(w);
    w->sink = w->a->sinks ? (NUMBER)tensor_get(w->a->sinks, w->h) : 0;
    for (int64_t i = 0; i < w->queries.length; i++) {
        int64_t row = oracle_row(&w->queries, w->b, w->h, i);
        score_row(w, i);
        softmax_row(w);
        result->lse[oracle_lse_row(&w->queries, w->b, w->h, i)] = w->lse;
        if (w->lse == -(NUMBER)INFINITY) continue;
        out_row(w, i);
        if (w->request->arithmetic == ORACLE_ROUNDING) {
            rounding_row(w, i, result);
            continue;
        }
        if (w->request->arithmetic == ORACLE_NARROWING) {
            narrowing_row(w, i, result);
            continue;
        }
        for (int64_t e = 0; e < w->E; e++) result->out[row * w->E + e] = w->out[e];
        if (w->request->dout) gradient_row(w, i, result->dq + row * w->D);
    }
}

static void allocate_work(head *w) {
    int64_t N = w->keys.longest, D = w->D, E = w->E;
    w->k = numbers(N * D), w->v = numbers(N * E), w->k_columns = numbers(N * D), w->v_columns = numbers(N * E);
    w->q = numbers(D), w->out = numbers(E), w->dout = numbers(E), w->sum = numbers(D > E ? D : E);
    w->s = numbers(N), w->cap = numbers(N), w->keep = numbers(N), w->p = numbers(N), w->dp = numbers(N);
    w->score_moved = numbers(N), w->cap_moved = numbers(N);
    w->visible = calloc((size_t)N + 1, 1);
    w->dk = numbers(tensor_count(w->a->k)), w->dv = numbers(tensor_count(w->a->v));
    w->dk_squares = numbers(tensor_count(w->a->k)), w->dv_squares = numbers(tensor_count(w->a->v));
    w->dbias = w->a->bias ? numbers(tensor_count(w->a->bias)) : NULL;
    w->dsinks = w->a->sinks ? numbers(tensor_count(w->a->sinks)) : NULL;
    if (!w->visible) abort();
}

static void free_work(head *w) {
    NUMBER *all[] = {w->k, w->v, w->k_columns, w->v_columns, w->q,  w->out, w->dout,  w->sum,    w->s,
                     w->cap, w->keep, w->p,    w->dp,        w->dk, w->dv,  w->dbias, w->dsinks,
                     w->score_moved, w->cap_moved, w->dk_squares, w->dv_squares};
    for (unsigned n = 0; n < sizeof all / sizeof *all; n++) free(all[n]);
    free(w->visible);
}

/* The last step of a sum over heads: times `factor`, rounded to the gradient's dtype. */
static real *finish(const head *w, const NUMBER *sums, int64_t count, NUMBER factor, DLDataType dtype) {
    real *to = reals(count);
    for (int64_t x = 0; x < count; x++)
        to[x] = round_to(factor == 1 ? sums[x] : factor * round_to(sums[x], w->step), dtype);
    return to;
}

void ORACLE_NAME(const oracle_request *request, oracle_result *result) {
    const dlattn_attention *a = request->attention;
    const DLDataType exact = {kDLFloat, 0, 1};
    oracle_request unrounded = *request;
    head w = {.request = request, .a = a, .D = a->q->shape[a->q->ndim - 1], .E = a->v->shape[a->v->ndim - 1]};
    w.step = request->arithmetic == ORACLE_PLAIN && a->q->dtype.bits == 16 ? a->q->dtype : exact;
    w.tf32 = request->tf32;
    w.narrow_tf32 = request->tf32 && (request->arithmetic == ORACLE_PLAIN || request->arithmetic == ORACLE_PLAIN_F32);
    if (request->arithmetic != ORACLE_PLAIN) {
        unrounded.out_dtype = unrounded.gradient_dtype = unrounded.dbias_dtype = unrounded.dsinks_dtype = exact;
        w.request = &unrounded;
    }
    w.scale = a->flags & DLATTN_SCALE ? (NUMBER)a->scale : 1 / sqrt((NUMBER)w.D);
    oracle_sides(a, 0, &w.queries, &w.keys);
    int64_t rows = oracle_rows(&w.queries), batch = w.queries.count;
    result->out = reals(rows * w.E);
    result->lse = reals(rows);
    for (int64_t r = 0; r < rows; r++) result->lse[r] = -(real)INFINITY;
    if (request->dout) result->dq = reals(rows * w.D);
    allocate_work(&w);
    for (w.b = 0; w.b < batch; w.b++) {
        oracle_sides(a, w.b, &w.queries, &w.keys);
        for (w.h = 0; w.h < w.queries.heads; w.h++) {
            w.g = w.h / (w.queries.heads / w.keys.heads);
            run_head(&w, result);
        }
    }
    if (request->arithmetic == ORACLE_NARROWING) narrow_sums(&w);
    if (request->dout) {
        result->dk = finish(&w, w.dk, tensor_count(a->k), w.scale, w.request->gradient_dtype);
        result->dv = finish(&w, w.dv, tensor_count(a->v), 1, w.request->gradient_dtype);
        if (a->bias) result->dbias = finish(&w, w.dbias, tensor_count(a->bias), 1, w.request->dbias_dtype);
        if (a->sinks) result->dsinks = finish(&w, w.dsinks, tensor_count(a->sinks), 1, w.request->dsinks_dtype);
    }
    free_work(&w);
}
