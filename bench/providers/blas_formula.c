/* blas_formula.c: a provider that is not dlattn: attention by its formula, a product, a softmax and a product per head,
 * with the whole matrix of scores in memory, on whatever BLAS the machine has.
 *
 * float32 on the CPU, full or causal, grouped heads, any scale; nothing else. BLAS sees row-major matrices as transposed
 * column-major ones, so every product below is written for the transposes. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include <dlattn/dlattn.h>

extern void sgemm_(const char *ta, const char *tb, const int *m, const int *n, const int *k, const float *alpha, const float *a,
                   const int *lda, const float *b, const int *ldb, const float *beta, float *c, const int *ldc);

typedef struct matrix {
    float *data;
    int row; /* elements from one row to the next */
} matrix;

typedef struct sizes {
    int64_t B, H, G;
    int M, N, D, E;
    int32_t layout;
    float scale;
    bool causal;
    int64_t shift; /* query i stands at position i + shift */
} sizes;

static bool float_matrix(const DLTensor *t) {
    return t && t->ndim == 4 && t->dtype.code == kDLFloat && t->dtype.bits == 32 && t->device.device_type == kDLCPU &&
           (!t->strides || t->strides[3] == 1);
}

/* Rows of one head: tokens by head size. */
static matrix head(const DLTensor *t, const sizes *s, int64_t b, int64_t h) {
    int64_t strides[4] = {0, 0, 0, 1};
    for (int d = 2; d >= 0; d--) strides[d] = t->strides ? t->strides[d] : strides[d + 1] * t->shape[d + 1];
    const int token = s->layout == DLATTN_BSHD ? 1 : 2;
    float *first = (float *)(void *)((char *)t->data + t->byte_offset);
    return (matrix){first + b * strides[0] + h * strides[3 - token], (int)strides[token]};
}

/* Has the problem only what this file knows? */
static bool read_sizes(sizes *s, const dlattn_attention *a) {
    const uint32_t known = DLATTN_CAUSAL | DLATTN_TOP_LEFT | DLATTN_SCALE;
    const bool plain = !a->bias && !a->mask && !a->alibi_slopes && !a->sinks && !a->q_segments && !a->kv_segments && !a->cu_seqlens_q &&
                       !a->cu_seqlens_k && !a->seqlens_q && !a->seqlens_k && !a->block_table && !(a->softcap > 0) && !(a->dropout > 0) &&
                       !(a->flags & ~known);
    if (!plain || !float_matrix(a->q) || !float_matrix(a->k) || !float_matrix(a->v)) return false;
    const int heads = a->layout == DLATTN_BSHD ? 2 : 1, tokens = 3 - heads;
    *s = (sizes){.B = a->q->shape[0], .H = a->q->shape[heads], .G = a->k->shape[heads], .M = (int)a->q->shape[tokens],
                 .N = (int)a->k->shape[tokens], .D = (int)a->q->shape[3], .E = (int)a->v->shape[3], .layout = a->layout,
                 .scale = (float)(a->flags & DLATTN_SCALE ? a->scale : 1 / sqrt((double)a->q->shape[3])),
                 .causal = a->flags & DLATTN_CAUSAL};
    s->shift = a->flags & DLATTN_TOP_LEFT ? 0 : s->N - s->M;
    return s->M > 0 && s->N > 0 && s->G > 0;
}

/* to [m, n] = alpha * (a or its transpose) * (b or its transpose) + beta * to; all row-major, k terms a sum. */
static void product(matrix to, int m, int n, int k, float alpha, bool ta, matrix a, bool tb, matrix b, float beta) {
    sgemm_(tb ? "T" : "N", ta ? "T" : "N", &n, &m, &k, &alpha, b.data, &b.row, a.data, &a.row, &beta, to.data, &to.row);
}

/* The scores of one head in p. */
static void scores(matrix p, const sizes *s, matrix q, matrix k) { product(p, s->M, s->N, s->D, s->scale, false, q, true, k, 0); }

static int visible(const sizes *s, int i) {
    const int64_t count = s->causal ? i + s->shift + 1 : s->N;
    return (int)(count < 0 ? 0 : count > s->N ? s->N : count);
}

/* A row of scores becomes probabilities, what is hidden 0; returns lse. */
static float softmax(float *row, int n, int total) {
    float most = -INFINITY, sum = 0;
    for (int j = 0; j < n; j++) most = row[j] > most ? row[j] : most;
    for (int j = 0; j < n; j++) sum += row[j] = expf(row[j] - most);
    for (int j = 0; j < n; j++) row[j] /= sum;
    for (int j = n; j < total; j++) row[j] = 0;
    return n ? most + logf(sum) : -INFINITY;
}

static float *lse_at(const DLTensor *t, int64_t b, int64_t h, int64_t i) {
    const int64_t heads = t->strides ? t->strides[1] : t->shape[2], rows = t->strides ? t->strides[2] : 1;
    const int64_t batch = t->strides ? t->strides[0] : heads * t->shape[1];
    return (float *)(void *)((char *)t->data + t->byte_offset) + b * batch + h * heads + i * rows;
}

static void forward_head(const sizes *s, const dlattn_attention *a, const dlattn_outputs *o, matrix p, int64_t b, int64_t h) {
    const int64_t g = h / (s->H / s->G);
    scores(p, s, head(a->q, s, b, h), head(a->k, s, b, g));
    for (int i = 0; i < s->M; i++) {
        const float lse = softmax(p.data + (int64_t)i * s->N, visible(s, i), s->N);
        if (o->lse) *lse_at(o->lse, b, h, i) = lse;
    }
    product(head(o->out, s, b, h), s->M, s->E, s->N, 1, false, p, false, head(a->v, s, b, g), 0);
}

/* ds in dp, from p and dp: p * (dp - delta), delta = sum of dout * out over the row. */
static void score_gradients(const sizes *s, float *dp, const float *p, matrix dout, matrix out) {
    for (int i = 0; i < s->M; i++) {
        float delta = 0;
        for (int e = 0; e < s->E; e++) delta += dout.data[(int64_t)i * dout.row + e] * out.data[(int64_t)i * out.row + e];
        for (int64_t at = (int64_t)i * s->N; at < (int64_t)(i + 1) * s->N; at++) dp[at] = p[at] * (dp[at] - delta);
    }
}

static void backward_head(const sizes *s, const dlattn_attention *a, const dlattn_gradients *d, matrix p, matrix dp, int64_t b, int64_t h) {
    const int64_t group = s->H / s->G, g = h / group;
    const float sum = h % group == 0 ? 0 : 1; /* the heads of a group add up */
    const matrix q = head(a->q, s, b, h), k = head(a->k, s, b, g), dout = head(d->dout, s, b, h);
    scores(p, s, q, k);
    for (int i = 0; i < s->M; i++) softmax(p.data + (int64_t)i * s->N, visible(s, i), s->N);
    product(dp, s->M, s->N, s->E, 1, false, dout, true, head(a->v, s, b, g), 0);
    score_gradients(s, dp.data, p.data, dout, head(d->out, s, b, h));
    product(head(d->dv, s, b, g), s->N, s->E, s->M, 1, true, p, false, dout, sum);
    product(head(d->dq, s, b, h), s->M, s->D, s->N, s->scale, false, dp, false, k, 0);
    product(head(d->dk, s, b, g), s->N, s->D, s->M, s->scale, true, dp, false, q, sum);
}

int32_t dlattn_forward(const dlattn_attention *a, const dlattn_outputs *o, const dlattn_exec *exec) {
    sizes s;
    (void)exec; /* threads are BLAS' own */
    if (!read_sizes(&s, a) || !float_matrix(o->out)) return DLATTN_ERR_UNSUPPORTED;
    float *p = malloc((size_t)s.M * (size_t)s.N * sizeof *p);
    if (!p) return DLATTN_ERR_OUT_OF_MEMORY;
    for (int64_t n = 0; n < s.B * s.H; n++) forward_head(&s, a, o, (matrix){p, s.N}, n / s.H, n % s.H);
    free(p);
    return DLATTN_OK;
}

int32_t dlattn_backward(const dlattn_attention *a, const dlattn_gradients *d, const dlattn_exec *exec) {
    sizes s;
    (void)exec;
    if (!read_sizes(&s, a) || d->dlse || !float_matrix(d->out) || !float_matrix(d->dout) || !float_matrix(d->dq) || !float_matrix(d->dk) ||
        !float_matrix(d->dv))
        return DLATTN_ERR_UNSUPPORTED;
    const size_t count = (size_t)s.M * (size_t)s.N;
    float *p = malloc(2 * count * sizeof *p);
    if (!p) return DLATTN_ERR_OUT_OF_MEMORY;
    for (int64_t n = 0; n < s.B * s.H; n++) backward_head(&s, a, d, (matrix){p, s.N}, (matrix){p + count, s.N}, n / s.H, n % s.H);
    free(p);
    return DLATTN_OK;
}
