/* demo_run.c: makes a layer of the demo real (memory, data, slices for the check) and times it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "demo.h"
#include "element.h"
#include "peak.h"

enum { TABLE = 1 << 16, CHUNK = 64, MOST_RUNS = 5 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- data: normal numbers, cut from one table at random places so that gigabytes are filled at the speed of memory -- */

typedef struct source {
    uint64_t state;
    float f32[TABLE + CHUNK];
    uint16_t f16[TABLE + CHUNK], bf16[TABLE + CHUNK];
} source;

static uint64_t next_random(source *s) { /* splitmix64 */
    uint64_t z = s->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static source *make_source(void) {
    source *s = malloc(sizeof *s);
    if (!s) return NULL;
    s->state = 3;
    for (int n = 0; n < TABLE + CHUNK; n++) { /* Box and Muller */
        double u = ((double)(next_random(s) >> 11) + 1) * 0x1p-53, v = (double)(next_random(s) >> 11) * 0x1p-53;
        s->f32[n] = (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
        s->f16[n] = float_to_half(s->f32[n]);
        s->bf16[n] = float_to_bfloat(s->f32[n]);
    }
    return s;
}

static void fill(source *s, const DLTensor *t) {
    int64_t count = tensor_count(t), item = t->dtype.bits / 8;
    const char *table = t->dtype.bits == 32          ? (char *)s->f32
                        : t->dtype.code == kDLBfloat ? (char *)s->bf16
                                                     : (char *)s->f16;
    for (int64_t n = 0; n < count; n += CHUNK) {
        int64_t at = (int64_t)(next_random(s) % TABLE);
        memcpy((char *)t->data + n * item, table + at * item, (size_t)(least(CHUNK, count - n) * item));
    }
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

static DLDataType dtype_of(int32_t dtype) {
    return (DLDataType){dtype == BF16 ? kDLBfloat : kDLFloat, dtype == F32 ? 32 : 16, 1};
}

/* Memory starts as NaN, so that an output that is not written is found. */
static int add(demo_tensor *t, DLDataType dtype, int32_t ndim, const int64_t *shape) {
    t->dl = (DLTensor){.device = {kDLCPU, 0}, .ndim = ndim, .dtype = dtype, .shape = t->shape};
    memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
    size_t bytes = (size_t)(tensor_count(&t->dl) * dtype.bits / 8);
    t->dl.data = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (t->dl.data) memset(t->dl.data, 0xFF, bytes);
    return t->dl.data == NULL;
}

static int add_rows(demo_run *run, demo_tensor *t, int64_t tokens, int64_t heads) {
    const demo_layer *l = run->layer;
    int64_t shape[4] = {l->B, tokens, heads, l->D};
    return l->lengths ? add(t, dtype_of(l->dtype), 3, shape + 1) : add(t, dtype_of(l->dtype), 4, shape);
}

static int add_lengths(demo_run *run) {
    const demo_layer *l = run->layer;
    int64_t count = l->B + 1;
    if (add(&run->cu, (DLDataType){kDLInt, 64, 1}, 1, &count)) return 1;
    for (int64_t b = 0; b < l->B; b++) {
        demo_sequence s = demo_sequence_of(l, b);
        ((int64_t *)run->cu.dl.data)[b] = s.start;
        ((int64_t *)run->cu.dl.data)[b + 1] = s.start + s.M;
    }
    return 0;
}

static int add_terms(demo_run *run, source *s) {
    const demo_layer *l = run->layer;
    DLDataType single = dtype_of(F32);
    int64_t bias[4] = {1, l->H, l->M, l->N};
    if (l->bias && (add(&run->bias, single, 4, bias) || add(&run->dbias, single, 4, bias))) return 1;
    if (l->alibi && add(&run->slopes, single, 1, &l->H)) return 1;
    if (l->sinks && (add(&run->sinks, dtype_of(l->dtype), 1, &l->H) || add(&run->dsinks, dtype_of(l->dtype), 1, &l->H)))
        return 1;
    if (l->bias) fill(s, &run->bias.dl);
    if (l->sinks) fill(s, &run->sinks.dl);
    for (int64_t h = 0; l->alibi && h < l->H; h++)
        ((float *)run->slopes.dl.data)[h] = exp2f(-8.0f * (float)(h + 1) / (float)l->H);
    return 0;
}

static DLTensor *given(demo_tensor *t) { return t->dl.data ? &t->dl : NULL; }

static void link_structs(demo_run *run) {
    const demo_layer *l = run->layer;
    run->attention = (dlattn_attention){.struct_size = sizeof run->attention,
                                        .q = &run->q.dl,
                                        .k = &run->k.dl,
                                        .v = &run->v.dl,
                                        .bias = given(&run->bias),
                                        .alibi_slopes = given(&run->slopes),
                                        .sinks = given(&run->sinks),
                                        .cu_seqlens_q = given(&run->cu),
                                        .cu_seqlens_k = given(&run->cu),
                                        .window_left = l->window_left,
                                        .window_right = -1,
                                        .block_size = l->block_size,
                                        .block_count = l->block_count,
                                        .softcap = l->softcap,
                                        .flags = l->flags};
    for (int64_t b = 0; l->lengths && b < l->B; b++)
        if (l->lengths[b] > run->attention.max_seqlen_q)
            run->attention.max_seqlen_q = run->attention.max_seqlen_k = l->lengths[b];
    run->outputs = (dlattn_outputs){sizeof run->outputs, &run->out.dl, &run->lse.dl};
    run->gradients = (dlattn_gradients){.struct_size = sizeof run->gradients,
                                        .out = &run->out.dl,
                                        .lse = &run->lse.dl,
                                        .dout = given(&run->dout),
                                        .dq = given(&run->dq),
                                        .dk = given(&run->dk),
                                        .dv = given(&run->dv),
                                        .dbias = given(&run->dbias),
                                        .dsinks = given(&run->dsinks)};
}

/* ---- slices ------------------------------------------------------------------------------------------------------- */

/* The first rows of the first kv head, some in the middle and the last rows of the last; fewer where the oracle would
 * take too long. A bias that the batch shares needs the whole batch in its gradient. */
static void choose_slices(demo_run *run) {
    const demo_layer *l = run->layer;
    int64_t group = l->H / l->G, heads = l->bias ? l->G : l->G * l->B;
    run->slice_count = l->N > 16384 || heads < DEMO_SLICES ? 1 : DEMO_SLICES;
    for (int64_t n = 0; n < run->slice_count; n++) {
        int64_t of = run->slice_count > 1 ? run->slice_count - 1 : 1;
        demo_slice s = {.b = l->bias ? 0 : n * (l->B - 1) / of, .count = l->bias ? l->B : 1, .g = n * (l->G - 1) / of};
        demo_sequence lengths = demo_sequence_of(l, s.b);
        int64_t rows = (INT64_C(1) << 18) / (s.count * group * lengths.N);
        s.rows = least(lengths.M, rows < 1 ? 1 : least(rows, 48));
        s.row = n * (lengths.M - s.rows) / of;
        run->slices[n] = s;
    }
}

/* dout is zero outside of the slices in the kv heads that have one: dk, dv, dbias and dsinks of these heads then come
 * from the slices' rows alone, and the oracle can compute all of them. */
static void clear_around_slices(demo_run *run) {
    const demo_layer *l = run->layer;
    int64_t group = l->H / l->G, item = run->dout.dl.dtype.bits / 8;
    for (int64_t n = 0; n < run->slice_count; n++) {
        demo_slice slice = run->slices[n];
        for (int64_t b = 0; b < l->B; b++) {
            demo_sequence s = demo_sequence_of(l, b);
            int whole_batch = l->sinks, inside = b >= slice.b && b < slice.b + slice.count;
            for (int64_t i = 0; i < s.M && (inside || whole_batch); i++) {
                if (inside && i >= slice.row && i < slice.row + slice.rows) continue;
                int64_t row = l->lengths ? s.start + i : b * l->M + i;
                memset((char *)run->dout.dl.data + ((row * l->H + slice.g * group) * l->D) * item, 0,
                       (size_t)(group * l->D * item));
            }
        }
    }
}

int demo_make(demo_run *run, const demo_layer *layer) {
    demo_layer l = *layer;
    int64_t tokens = 0, lse[3];
    source *s = make_source();
    *run = (demo_run){.layer = layer};
    for (int64_t b = 0; l.lengths && b < l.B; b++) tokens += l.lengths[b];
    if (l.lengths) l.M = l.N = tokens;
    lse[0] = l.B, lse[1] = l.H, lse[2] = l.M;
    int failed = !s || add_rows(run, &run->q, l.M, l.H) || add_rows(run, &run->k, l.N, l.G) ||
                 add_rows(run, &run->v, l.N, l.G) || add_rows(run, &run->out, l.M, l.H) ||
                 (l.lengths ? add(&run->lse, dtype_of(F32), 2, lse + 1) : add(&run->lse, dtype_of(F32), 3, lse)) ||
                 add_terms(run, s) || (l.lengths && add_lengths(run));
    if (!failed && !l.forward_only)
        failed = add_rows(run, &run->dout, l.M, l.H) || add_rows(run, &run->dq, l.M, l.H) ||
                 add_rows(run, &run->dk, l.N, l.G) || add_rows(run, &run->dv, l.N, l.G);
    if (!failed) {
        fill(s, &run->q.dl), fill(s, &run->k.dl), fill(s, &run->v.dl);
        choose_slices(run);
        if (!l.forward_only) fill(s, &run->dout.dl), clear_around_slices(run);
        link_structs(run);
    }
    free(s);
    return failed;
}

void demo_free(demo_run *run) {
    demo_tensor *all[] = {&run->q,     &run->k,  &run->v,    &run->bias,  &run->slopes,
                          &run->sinks, &run->cu, &run->dout, &run->out,   &run->lse,
                          &run->dq,    &run->dk, &run->dv,   &run->dbias, &run->dsinks};
    for (unsigned n = 0; n < sizeof all / sizeof *all; n++) free(all[n]->dl.data);
}

void demo_load(float *to, const demo_run *run, const DLTensor *t, int64_t heads, int64_t b, int64_t h, int64_t row,
               int64_t rows) {
    int64_t D = run->layer->D, tokens = t->shape[t->ndim - 3];
    int64_t first = (run->layer->lengths ? demo_sequence_of(run->layer, b).start : b * tokens) + row;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t d = 0; d < D; d++) to[i * D + d] = (float)tensor_get(t, ((first + i) * heads + h) * D + d);
}

/* ---- time --------------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The median of as many calls as about a second allows; the first one warms up where there is a second. */
static int32_t time_calls(demo_run *run, int backward, double *seconds) {
    double times[MOST_RUNS + 1], begun = now_seconds();
    int count = 0;
    do {
        double start = now_seconds();
        int32_t status = backward ? dlattn_backward(&run->attention, &run->gradients, NULL)
                                  : dlattn_forward(&run->attention, &run->outputs, NULL);
        if (status) return status;
        times[count++] = now_seconds() - start;
    } while (count <= MOST_RUNS && now_seconds() - begun < 1);
    int skip = count > 1;
    qsort(times + skip, (size_t)(count - skip), sizeof *times, by_size);
    *seconds = times[skip + (count - skip) / 2];
    return DLATTN_OK;
}

/* "threads: at most N" of the plan. */
static int32_t planned_threads(demo_run *run) {
    char text[4096];
    int32_t threads = 1;
    if (dlattn_explain(&run->attention, &run->outputs, NULL, NULL, text, sizeof text)) return 1;
    const char *line = strstr(text, "threads: at most ");
    if (line) threads = (int32_t)atoi(line + strlen("threads: at most "));
    return threads > 0 ? threads : 1;
}

int demo_time(demo_run *run, demo_result *result) {
    const demo_layer *l = run->layer;
    uint64_t forward = 0, backward = 0;
    double flop = 4 * (double)l->D * demo_pairs(l);
    int32_t status = dlattn_forward_workspace(&run->attention, &run->outputs, NULL, &forward, NULL);
    if (!status && !l->forward_only)
        status = dlattn_backward_workspace(&run->attention, &run->gradients, NULL, &backward, NULL);
    if (!status) status = time_calls(run, 0, &result->forward_seconds);
    if (!status && !l->forward_only) status = time_calls(run, 1, &result->backward_seconds);
    if (status) {
        snprintf(result->message, sizeof result->message, "%s: %s", dlattn_status_name(status), dlattn_last_error());
        return 1;
    }
    result->threads = planned_threads(run);
    result->forward_gflops = 1e-9 * flop / result->forward_seconds;
    if (!l->forward_only) result->backward_gflops = 2.5e-9 * flop / result->backward_seconds;
    result->read_bytes = 2.0 * (double)tensor_count(&run->k.dl) * run->k.dl.dtype.bits / 8;
    result->workspace_bytes = (double)(forward > backward ? forward : backward);
    result->matrix_bytes = demo_all_pairs(l) * run->q.dl.dtype.bits / 8;
    return 0;
}
