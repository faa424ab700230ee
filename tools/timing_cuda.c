/* timing_cuda.c: times one problem on a CUDA device: events around a few calls, medians, and the host's time per call. */
#include "timing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "instance.h"
#include "pairs.h"
#include "peak.h"

enum { MOST_TIMES = 1000, GROUP_MS = 1 };

/* Enqueues calls with nothing in their way: the median time per call of a few short bursts, none of which fills the
 * queue; fewer where a call takes the device long. */
static int32_t time_host(double *microseconds, device_call *call, double ms) {
    enum { BURSTS = 20, CALLS = 8 };
    double times[BURSTS];
    int bursts = ms * BURSTS * CALLS < 100 ? BURSTS : 5;
    for (int n = 0; n < bursts; n++) {
        if (device_wait()) return DLATTN_ERR_CUDA;
        double start = now_seconds();
        for (int c = 0; c < CALLS; c++) {
            int32_t status = device_call_run(call);
            if (status) return status;
        }
        times[n] = (now_seconds() - start) / CALLS;
    }
    qsort(times, (size_t)bursts, sizeof *times, timing_by_size);
    *microseconds = times[bursts / 2] * 1e6;
    return device_wait() ? DLATTN_ERR_CUDA : DLATTN_OK;
}

/* Milliseconds per call, the median. Short calls are timed in groups of at least a millisecond, so that the events and
 * the way to the device cost nothing. */
static int32_t median(double *ms, int32_t *repeats, device_call *call, const timing_request *r) {
    double times[MOST_TIMES], first, spent = 0;
    int32_t status = device_call_run(call); /* compiles */
    if (status) return status;
    if ((first = device_call_time(call, 3) / 3) < 0) return DLATTN_ERR_CUDA;
    int32_t group = first < GROUP_MS ? 1 + (int32_t)(GROUP_MS / (first + 1e-3)) : 1, count = 0;
    for (double warm = 0; warm < 100 * r->budget; warm += first * group)
        if (device_call_time(call, group) < 0) return DLATTN_ERR_CUDA;
    int32_t most = r->repeats ? r->repeats : MOST_TIMES, least = r->repeats ? r->repeats : 5;
    if (most > MOST_TIMES) most = least = MOST_TIMES;
    while (count < most && (count < least || spent < 1000 * r->budget)) {
        double time = device_call_time(call, group);
        if (time < 0) return DLATTN_ERR_CUDA;
        times[count++] = time / group;
        spent += time;
    }
    qsort(times, (size_t)count, sizeof *times, timing_by_size);
    *ms = times[count / 2];
    *repeats = count * group;
    return DLATTN_OK;
}

/* The device's name, as the library knows it: the line "device N: NAME, ..." of its description. */
static void read_device(timing *t, const timing_request *r) {
    char text[8192], key[32], *at;
    snprintf(t->isa, sizeof t->isa, "cuda:%d", r->device.ordinal);
    snprintf(key, sizeof key, "device %d: ", r->device.ordinal);
    if (dlattn_explain(NULL, NULL, NULL, NULL, text, sizeof text) || !(at = strstr(text, key))) return;
    at += strlen(key);
    snprintf(t->isa, sizeof t->isa, "%.*s", (int)strcspn(at, ",(\n"), at);
}

int32_t time_on_cuda(timing results[2], int *count, const timing_request *r) {
    const test_case *c = r->problem;
    instance x;
    int32_t status = DLATTN_OK;
    device_capture(0);
    instance_make_empty(&x, c, 1);
    instance_fill_fast(&x);
    double pairs = count_pairs(&x.attention);
    for (int backward = 0; backward <= r->backward && !status; backward++) {
        timing *t = &results[*count];
        *t = (timing){.problem = c, .backward = backward, .cuda = 1};
        if (backward) status = device_forward(&x.attention, &x.outputs, NULL); /* its out and lse */
        device_call *call = status ? NULL : device_call_new(&x.attention, &x.outputs, backward ? &x.gradients : NULL, &status);
        if (call && !status) status = median(&t->ms, &t->repeats, call, r);
        if (call && !status) status = time_host(&t->host_us, call, t->ms);
        if (call) device_call_free(call);
        if (status) break;
        t->gflops = pairs * 2.0 * (double)(c->D + c->E) * (backward ? 2.5 : 1) / t->ms * 1e-6;
        read_device(t, r);
        ++*count;
    }
    instance_free(&x);
    return status;
}
