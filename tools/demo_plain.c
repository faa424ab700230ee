/* demo_plain.c: what the speed-up of the demo is measured against: attention as the formula is written, with the M x N
 * scores of a head stored, in float, the loops turned so that the compiler makes vectors of them.
 *
 * Like every plain formula it computes hidden scores too and then masks them. It runs on as many threads as the
 * library, one head on each, on so many rows that a layer takes a moment; the time is scaled to B*H*M*N pairs. The
 * conversion of the inputs to float and the transposition of K and V are not counted. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "demo.h"
#include "element.h"
#include "peak.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

enum { MOST_THREADS = 256 };
static const double flop_per_thread = 2e8;

typedef struct plain_head {
    const demo_run *run;
    demo_sequence sequence;
    int64_t b, h, row, rows, N, D;
    float *q, *k, *v, *kt, *vt, *dout;  /* rows [D]; kt, vt [D][N] */
    float *p, *dp, *out, *dq, *dk, *dv; /* p, dp [rows][N]: the matrices that the library never stores */
} plain_head;

WIDEST static void add_scaled(float *restrict to, float factor, const float *restrict from, int64_t count) {
    for (int64_t n = 0; n < count; n++) to[n] += factor * from[n];
}

/* c[rows][columns] = a[rows][depth] * b[depth][columns] */
WIDEST static void multiply(float *restrict c, const float *restrict a, const float *restrict b, int64_t rows,
                            int64_t depth, int64_t columns) {
    memset(c, 0, (size_t)(rows * columns) * sizeof *c);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t x = 0; x < depth; x++) {
            float factor = a[i * depth + x];
            for (int64_t j = 0; j < columns; j++) c[i * columns + j] += factor * b[x * columns + j];
        }
}

/* Every term of one row of scores, then the mask. */
static void finish_scores(const plain_head *w, int64_t i, float *s) {
    const demo_layer *l = w->run->layer;
    int64_t first, end, position = i + w->sequence.N - w->sequence.M;
    float scale = 1 / sqrtf((float)w->D), softcap = (float)l->softcap;
    for (int64_t j = 0; j < w->N; j++) s[j] *= scale;
    if (l->softcap > 0)
        for (int64_t j = 0; j < w->N; j++) s[j] = softcap * tanhf(s[j] / softcap);
    if (l->alibi) {
        float slope = ((const float *)w->run->slopes.dl.data)[w->h];
        for (int64_t j = 0; j < w->N; j++) s[j] -= slope * fabsf((float)(position - j));
    }
    if (l->bias) add_scaled(s, 1, (const float *)w->run->bias.dl.data + (w->h * l->M + i) * w->N, w->N);
    demo_span(l, w->sequence, i, &first, &end);
    for (int64_t j = 0; j < first; j++) s[j] = -INFINITY;
    for (int64_t j = end; j < w->N; j++) s[j] = -INFINITY;
}

static void softmax(float *s, int64_t N, float sink) {
    float top = sink, sum = 0;
    for (int64_t j = 0; j < N; j++) top = s[j] > top ? s[j] : top;
    for (int64_t j = 0; j < N; j++) sum += s[j] = expf(s[j] - top);
    sum += expf(sink - top);
    for (int64_t j = 0; j < N; j++) s[j] /= sum;
}

static void *forward(void *argument) {
    plain_head *w = argument;
    const demo_run *run = w->run;
    float sink = -INFINITY;
    if (run->layer->sinks) sink = (float)tensor_get(&run->sinks.dl, w->h);
    multiply(w->p, w->q, w->kt, w->rows, w->D, w->N);
    for (int64_t i = 0; i < w->rows; i++) {
        finish_scores(w, w->row + i, w->p + i * w->N);
        softmax(w->p + i * w->N, w->N, sink);
    }
    multiply(w->out, w->p, w->v, w->rows, w->N, w->D);
    return NULL;
}

/* c[depth][columns] += a[rows][depth] transposed * b[rows][columns] */
WIDEST static void multiply_transposed(float *restrict c, const float *restrict a, const float *restrict b,
                                       int64_t rows, int64_t depth, int64_t columns) {
    for (int64_t x = 0; x < depth; x++)
        for (int64_t i = 0; i < rows; i++) {
            float factor = a[i * depth + x];
            for (int64_t j = 0; j < columns; j++) c[x * columns + j] += factor * b[i * columns + j];
        }
}

/* From the stored p, as frameworks do. */
static void *backward(void *argument) {
    plain_head *w = argument;
    multiply(w->dp, w->dout, w->vt, w->rows, w->D, w->N);
    multiply_transposed(w->dv, w->p, w->dout, w->rows, w->N, w->D);
    for (int64_t i = 0; i < w->rows; i++) {
        float delta = 0, *p = w->p + i * w->N, *dp = w->dp + i * w->N;
        for (int64_t d = 0; d < w->D; d++) delta += w->dout[i * w->D + d] * w->out[i * w->D + d];
        for (int64_t j = 0; j < w->N; j++) dp[j] = p[j] * (dp[j] - delta);
    }
    multiply(w->dq, w->dp, w->k, w->rows, w->N, w->D);
    multiply_transposed(w->dk, w->dp, w->q, w->rows, w->N, w->D);
    return NULL;
}

static void transpose(float *to, const float *from, int64_t N, int64_t D) {
    for (int64_t j = 0; j < N; j++)
        for (int64_t d = 0; d < D; d++) to[d * N + j] = from[j * D + d];
}

static float *floats(int64_t count) { return calloc((size_t)count, sizeof(float)); }

static int prepare(plain_head *w, const demo_run *run, int64_t thread) {
    const demo_layer *l = run->layer;
    int64_t longest = 0, h = thread % l->H, g = h / (l->H / l->G);
    for (int64_t b = 0; l->lengths && b < l->B; b++)
        if (l->lengths[b] > l->lengths[longest]) longest = b;
    demo_sequence s = demo_sequence_of(l, longest);
    int64_t rows = (int64_t)(flop_per_thread / (double)(4 * l->D * s.N));
    rows = rows < 1 ? 1 : rows < s.M ? rows : s.M;
    *w = (plain_head){
        .run = run, .sequence = s, .b = longest, .h = h, .row = (s.M - rows) / 2, .rows = rows, .N = s.N, .D = l->D};
    w->q = floats(rows * w->D), w->dout = floats(rows * w->D), w->out = floats(rows * w->D),
    w->dq = floats(rows * w->D);
    w->k = floats(s.N * w->D), w->v = floats(s.N * w->D), w->kt = floats(s.N * w->D), w->vt = floats(s.N * w->D);
    w->dk = floats(s.N * w->D), w->dv = floats(s.N * w->D), w->p = floats(rows * s.N), w->dp = floats(rows * s.N);
    if (!w->q || !w->dout || !w->out || !w->dq || !w->k || !w->v || !w->kt || !w->vt || !w->dk || !w->dv || !w->p ||
        !w->dp)
        return 1;
    demo_load(w->q, run, &run->q.dl, l->H, longest, h, w->row, rows);
    demo_load(w->k, run, &run->k.dl, l->G, longest, g, 0, s.N);
    demo_load(w->v, run, &run->v.dl, l->G, longest, g, 0, s.N);
    if (!l->forward_only) demo_load(w->dout, run, &run->dout.dl, l->H, longest, h, w->row, rows);
    transpose(w->kt, w->k, s.N, w->D);
    transpose(w->vt, w->v, s.N, w->D);
    return 0;
}

static void release(plain_head *w) {
    float *all[] = {w->q, w->dout, w->out, w->dq, w->k, w->v, w->kt, w->vt, w->dk, w->dv, w->p, w->dp};
    for (unsigned n = 0; n < sizeof all / sizeof *all; n++) free(all[n]);
}

/* Seconds until all threads are done; the better of two runs. */
static double time_threads(plain_head *heads, int32_t count, void *(*work)(void *)) {
    double best = INFINITY;
    for (int repeat = 0; repeat < 2; repeat++) {
        pthread_t threads[MOST_THREADS];
        int started[MOST_THREADS];
        double start = now_seconds();
        for (int32_t n = 1; n < count; n++) started[n] = pthread_create(&threads[n], NULL, work, &heads[n]) == 0;
        work(&heads[0]);
        for (int32_t n = 1; n < count; n++) {
            if (started[n])
                pthread_join(threads[n], NULL);
            else
                work(&heads[n]);
        }
        double seconds = now_seconds() - start;
        if (seconds < best) best = seconds;
    }
    return best;
}

void demo_plain(const demo_run *run, demo_result *result) {
    plain_head heads[MOST_THREADS] = {0};
    int32_t count = result->threads < MOST_THREADS ? result->threads : MOST_THREADS;
    int failed = 0;
    for (int32_t n = 0; n < count; n++) failed |= prepare(&heads[n], run, n);
    if (!failed) {
        double share = demo_all_pairs(run->layer) / ((double)count * (double)heads[0].rows * (double)heads[0].N);
        result->plain_forward_seconds = share * time_threads(heads, count, forward);
        if (!run->layer->forward_only) result->plain_backward_seconds = share * time_threads(heads, count, backward);
    }
    for (int32_t n = 0; n < count; n++) release(&heads[n]);
}
