/* timing.c: times one problem through the public API: warm-up, repeats, median. */
#include "timing.h"

#include <stdlib.h>
#include <string.h>

#include "instance.h"
#include "pairs.h"
#include "peak.h"

/* ---- time ----------------------------------------------------------------------------------------------------------- */

int timing_by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int32_t run(instance *x, int backward, const dlattn_exec *exec, const timing_request *r) {
    if (r->call) return r->call(r->context, x, backward, exec);
    return backward ? dlattn_backward(&x->attention, &x->gradients, exec) : dlattn_forward(&x->attention, &x->outputs, exec);
}

/* The shortest of some calls in seconds: at least three, so that pages and threads are there. */
static int32_t warm_up(double *each, instance *x, int backward, const dlattn_exec *exec, const timing_request *r) {
    const double begun = now_seconds();
    int32_t status = DLATTN_OK;
    *each = 1e9;
    for (int n = 0; !status && (n < 3 || now_seconds() - begun < 0.1 * r->budget); n++) {
        const double start = now_seconds();
        status = run(x, backward, exec, r);
        const double seconds = now_seconds() - start;
        if (seconds < *each) *each = seconds;
    }
    return status;
}

/* Seconds of a call, the median of samples; a sample is one call, or as many as take SHORTEST. */
static int32_t median(double *seconds, int32_t *repeats, instance *x, int backward, const dlattn_exec *exec, const timing_request *r) {
    static const double SHORTEST = 50e-6;
    double each = 0;
    int32_t status = warm_up(&each, x, backward, exec, r);
    if (status) return status;
    const int32_t burst = each < SHORTEST ? (int32_t)(SHORTEST / (each + 1e-9)) + 1 : 1;
    const double wanted = r->budget / (each * burst + 1e-9);
    int32_t count = r->repeats ? r->repeats : wanted > 100000 ? 100000 : wanted < 5 ? 5 : (int32_t)wanted;
    double *times = malloc((size_t)count * sizeof *times);
    if (!times) abort();
    for (int32_t n = 0; n < count && !status; n++) {
        const double start = now_seconds();
        for (int32_t c = 0; c < burst && !status; c++) status = run(x, backward, exec, r);
        times[n] = (now_seconds() - start) / burst;
    }
    qsort(times, (size_t)count, sizeof *times, timing_by_size);
    *seconds = times[count / 2];
    *repeats = count * burst;
    free(times);
    return status;
}

/* What the library says it uses: "threads: N" and "in use: ISA (bfloat16: ISA)". */
static void read_library(timing *t, int32_t threads) {
    char text[8192], *at, *end;
    int bfloat = t->problem->dtype == BF16;
    strcpy(t->isa, "unknown");
    t->threads = threads > 0 ? threads : 1;
    if (dlattn_explain(NULL, NULL, NULL, NULL, text, sizeof text)) return;
    if (threads == 0 && (at = strstr(text, "threads: "))) t->threads = atoi(at + 9) > 0 ? atoi(at + 9) : 1;
    at = strstr(text, bfloat ? "(bfloat16: " : "in use: ");
    if (!at) return;
    at += bfloat ? 11 : 8;
    end = at + strcspn(at, " )\n");
    snprintf(t->isa, sizeof t->isa, "%.*s", (int)(end - at), at);
}

/* What the library's instructions for the problem's numbers are measured against. */
static int kind_of(const timing *t) {
    const test_case *c = t->problem;
    if (c->dtype == BF16) return strcmp(t->isa, "amx") ? PEAK_BF16 : PEAK_AMX;
    return c->dtype == F64 ? PEAK_F64 : PEAK_F32;
}

static void describe(timing *t, const instance *x, double seconds, const timing_request *r) {
    const test_case *c = x->test;
    double each = 2.0 * (double)(c->D + c->E) * (t->backward ? 2.5 : 1);
    t->ms = seconds * 1e3;
    t->gflops = seconds > 0 ? count_pairs(&x->attention) * each / seconds * 1e-9 : 0;
    read_library(t, r->threads);
    t->peak_gflops = peak_gflops(kind_of(t), t->threads, &t->peak_isa);
    if (t->backward || c->G == 0 || c->M * (c->H / c->G) > 16 || c->strides != COMPACT || c->packed_k) return;
    int64_t key_bytes = (int64_t)x->buffers[x->tensors[T_K].buffer].bytes, value_bytes = (int64_t)x->buffers[x->tensors[T_V].buffer].bytes;
    int64_t least = key_bytes < value_bytes ? key_bytes : value_bytes;
    if (least < 1 << 16) return; /* a read so short is all latency */
    t->read_gbs = (double)(key_bytes + value_bytes) / seconds * 1e-9;
    t->peak_read_gbs = peak_read(x->tensors[T_K].dl.data, x->tensors[T_V].dl.data, least, t->threads) * 1e-9;
}

int32_t time_instance(timing *t, instance *x, int backward, const timing_request *r) {
    dlattn_exec exec = {.struct_size = sizeof exec, .num_threads = r->threads};
    double seconds = 0;
    *t = (timing){.problem = x->test, .backward = backward, .error_ratio = -1};
    int32_t status = median(&seconds, &t->repeats, x, backward, &exec, r);
    if (!status) describe(t, x, seconds, r);
    return status;
}

int32_t time_problem(timing results[2], int *count, const timing_request *r) {
    instance x;
    int32_t status = DLATTN_OK;
    *count = 0;
    if (r->device.kind == DEVICE_CUDA) return time_on_cuda(results, count, r);
    instance_make_empty(&x, r->problem, 1);
    instance_fill_hashed(&x);
    for (int backward = 0; backward <= r->backward && !status; backward++) {
        status = time_instance(&results[*count], &x, backward, r);
        if (!status) ++*count;
    }
    instance_free(&x);
    return status;
}
