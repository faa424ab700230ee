/* demo_check.c: judges slices of a layer against the oracle, by the rule of tests/check_bound.c.
 *
 * Some rows of one kv head are an attention problem of their own: their queries, all keys, and positions said with
 * DLATTN_POSITIONS. The oracle computes it three times (double, the input dtype, float), each on its own thread. */
#include <pthread.h>
#include <stdlib.h>

#include "check.h"
#include "demo.h"

/* A part of a compact tensor. */
typedef struct part {
    DLTensor dl;
    int64_t shape[4], strides[4];
} part;

/* The slice as a problem, and the same parts of the results. */
typedef struct sliced {
    part q, k, v, bias, slopes, sinks, dout, out, lse, dq, dk, dv, dbias, dsinks;
    dlattn_attention attention;
    oracle_result results[4]; /* by arithmetic */
} sliced;

typedef struct job {
    const demo_run *run;
    sliced *slice;
    int32_t arithmetic;
} job;

static DLTensor *cut(part *p, const DLTensor *t, int32_t ndim, const int64_t *shape, const int64_t *strides,
                     int64_t first) {
    p->dl = *t;
    p->dl.ndim = ndim;
    p->dl.shape = p->shape;
    p->dl.strides = p->strides;
    p->dl.data = (char *)t->data + first * (t->dtype.bits / 8);
    for (int32_t d = 0; d < ndim; d++) p->shape[d] = shape[d], p->strides[d] = strides[d];
    return &p->dl;
}

/* count sequences, `rows` tokens from `row` on, `heads` heads from `head` on, of a tensor with `all` heads. */
static DLTensor *cut_tokens(part *p, const demo_run *run, const DLTensor *t, demo_slice s, int64_t row, int64_t rows,
                            int64_t head, int64_t heads, int64_t all) {
    int64_t D = run->layer->D, tokens = t->shape[t->ndim - 3];
    int64_t first = run->layer->lengths ? demo_sequence_of(run->layer, s.b).start : s.b * tokens;
    int64_t shape[4] = {s.count, rows, heads, D}, strides[4] = {tokens * all * D, all * D, D, 1};
    if (!t->data) return NULL;
    return cut(p, t, 4, shape, strides, ((first + row) * all + head) * D);
}

static DLTensor *cut_list(part *p, const DLTensor *t, int64_t first, int64_t count) {
    int64_t one = 1;
    return t->data ? cut(p, t, 1, &count, &one, first) : NULL;
}

static DLTensor *cut_bias(part *p, const DLTensor *t, demo_slice s, int64_t head, int64_t heads) {
    if (!t->data) return NULL;
    int64_t M = t->shape[2], N = t->shape[3];
    int64_t shape[4] = {1, heads, s.rows, N}, strides[4] = {t->shape[1] * M * N, M * N, N, 1};
    return cut(p, t, 4, shape, strides, (head * M + s.row) * N);
}

static void cut_lse(part *p, const demo_run *run, demo_slice s, int64_t head, int64_t heads) {
    const DLTensor *t = &run->lse.dl;
    int64_t H = run->layer->H, tokens = t->shape[t->ndim - 1];
    int64_t shape[3] = {s.count, heads, s.rows}, strides[3] = {H * tokens, tokens, 1};
    int64_t first = run->layer->lengths ? demo_sequence_of(run->layer, s.b).start : s.b * H * tokens;
    cut(p, t, 3, shape, strides, first + head * tokens + s.row);
}

static void make_slice(sliced *x, const demo_run *run, demo_slice s) {
    const demo_layer *l = run->layer;
    int64_t group = l->H / l->G, h = s.g * group;
    demo_sequence lengths = demo_sequence_of(l, s.b);
    x->attention = run->attention;
    x->attention.cu_seqlens_q = x->attention.cu_seqlens_k = NULL;
    x->attention.max_seqlen_q = x->attention.max_seqlen_k = 0;
    x->attention.flags |= DLATTN_POSITIONS;
    x->attention.q_start = s.row + lengths.N - lengths.M;
    x->attention.q = cut_tokens(&x->q, run, &run->q.dl, s, s.row, s.rows, h, group, l->H);
    x->attention.k = cut_tokens(&x->k, run, &run->k.dl, s, 0, lengths.N, s.g, 1, l->G);
    x->attention.v = cut_tokens(&x->v, run, &run->v.dl, s, 0, lengths.N, s.g, 1, l->G);
    x->attention.bias = cut_bias(&x->bias, &run->bias.dl, s, h, group);
    x->attention.alibi_slopes = cut_list(&x->slopes, &run->slopes.dl, h, group);
    x->attention.sinks = cut_list(&x->sinks, &run->sinks.dl, h, group);
    cut_tokens(&x->out, run, &run->out.dl, s, s.row, s.rows, h, group, l->H);
    cut_lse(&x->lse, run, s, h, group);
    if (l->forward_only) return;
    cut_tokens(&x->dout, run, &run->dout.dl, s, s.row, s.rows, h, group, l->H);
    cut_tokens(&x->dq, run, &run->dq.dl, s, s.row, s.rows, h, group, l->H);
    cut_tokens(&x->dk, run, &run->dk.dl, s, 0, lengths.N, s.g, 1, l->G);
    cut_tokens(&x->dv, run, &run->dv.dl, s, 0, lengths.N, s.g, 1, l->G);
    cut_bias(&x->dbias, &run->dbias.dl, s, h, group);
    cut_list(&x->dsinks, &run->dsinks.dl, h, group);
}

static void *run_oracle(void *argument) {
    job *j = argument;
    sliced *x = j->slice;
    int backward = !j->run->layer->forward_only && j->arithmetic != ORACLE_PLAIN_F32;
    oracle_request request = {.attention = &x->attention,
                              .arithmetic = j->arithmetic,
                              .out_dtype = x->out.dl.dtype,
                              .gradient_dtype = x->dq.dl.dtype,
                              .dbias_dtype = x->dbias.dl.dtype,
                              .dsinks_dtype = x->dsinks.dl.dtype,
                              .given_out = &x->out.dl,
                              .given_lse = &x->lse.dl,
                              .dout = backward ? &x->dout.dl : NULL};
    x->results[j->arithmetic] = oracle_run(&request);
    return NULL;
}

static void judge(demo_result *result, const char *name, demo_slice s, const part *p, const real *reference,
                  const real *plain, const real *rounding) {
    if (!p->dl.data || !reference) return;
    check_bound bound = check_rows(&p->dl, (check_expected){reference, plain, rounding, NULL}, NULL);
    if (bound.ratio > result->error) result->error = bound.ratio;
    if (bound.ratio <= 1 || !result->passed) return;
    result->passed = 0;
    snprintf(result->message, sizeof result->message,
             "%s is off by %.3g where %.3g is allowed, in the slice of batch %lld, kv head %lld, rows %lld to %lld",
             name, bound.error, bound.allowed, (long long)s.b, (long long)s.g, (long long)s.row,
             (long long)(s.row + s.rows - 1));
}

static void judge_slice(demo_result *result, demo_slice s, const sliced *x) {
    const oracle_result *reference = &x->results[ORACLE_REFERENCE], *plain = &x->results[ORACLE_PLAIN];
    const oracle_result *rounding = &x->results[ORACLE_ROUNDING];
    judge(result, "out", s, &x->out, reference->out, plain->out, rounding->out);
    judge(result, "lse", s, &x->lse, reference->lse, x->results[ORACLE_PLAIN_F32].lse, rounding->lse);
    judge(result, "dq", s, &x->dq, reference->dq, plain->dq, rounding->dq);
    judge(result, "dk", s, &x->dk, reference->dk, plain->dk, rounding->dk);
    judge(result, "dv", s, &x->dv, reference->dv, plain->dv, rounding->dv);
    judge(result, "dbias", s, &x->dbias, reference->dbias, plain->dbias, rounding->dbias);
    judge(result, "dsinks", s, &x->dsinks, reference->dsinks, plain->dsinks, rounding->dsinks);
}

void demo_check(const demo_run *run, demo_result *result) {
    sliced slices[DEMO_SLICES] = {0};
    job jobs[4 * DEMO_SLICES];
    pthread_t threads[4 * DEMO_SLICES];
    int started[4 * DEMO_SLICES] = {0};
    int64_t count = 0;
    result->passed = 1;
    for (int64_t n = 0; n < run->slice_count; n++) {
        make_slice(&slices[n], run, run->slices[n]);
        for (int32_t arithmetic = 0; arithmetic < 4; arithmetic++) jobs[count++] = (job){run, &slices[n], arithmetic};
    }
    for (int64_t n = 0; n < count; n++) {
        started[n] = pthread_create(&threads[n], NULL, run_oracle, &jobs[n]) == 0;
        if (!started[n]) run_oracle(&jobs[n]);
    }
    for (int64_t n = 0; n < count; n++)
        if (started[n]) pthread_join(threads[n], NULL);
    for (int64_t n = 0; n < run->slice_count; n++) {
        judge_slice(result, run->slices[n], &slices[n]);
        for (int arithmetic = 0; arithmetic < 4; arithmetic++) oracle_free(&slices[n].results[arithmetic]);
    }
}
