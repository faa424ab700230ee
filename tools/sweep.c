/* sweep.c: times every forward kernel that serves a shape, and asks which one the library would take.
 *
 * Kernels are compiled first, in processes of their own, through the disk cache. Then they take turns on each shape, so that a
 * clock that falls meets all of them. */
#include "sweep.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "instance.h"
#include "timing.h"

enum { ROUNDS = 9, HOPELESS_ROUNDS = 2, MOST_CALLS = 100 };
static const double group_ms = 0.7, hopeless = 2; /* times the best: timed less often */

/* ---- the library's kernels ------------------------------------------------------------------------------------------ */

typedef struct kernel_row {
    char name[SWEEP_NAME];
    int64_t head; /* the largest that it computes */
} kernel_row;

typedef struct kernel_rows {
    int32_t count;
    kernel_row row[SWEEP_MOST_ROWS];
} kernel_rows;

/* Those of tensor cores, from the line "forward kernels (...): NAME to HEAD, ..." of the library's description. */
static int find_rows(kernel_rows *rows) {
    char text[16384], *at;
    rows->count = 0;
    if (dlattn_explain(NULL, NULL, NULL, NULL, text, sizeof text) || !(at = strstr(text, "forward kernels ("))) return 1;
    at[strcspn(at, "\n")] = 0;
    at = strstr(at, "): ");
    for (char *name = at ? strtok(at + 3, ",") : NULL; name && rows->count < SWEEP_MOST_ROWS; name = strtok(NULL, ",")) {
        kernel_row *row = &rows->row[rows->count];
        int head;
        if (sscanf(name, " %63s to %d", row->name, &head) != 2) return 1;
        row->head = head;
        rows->count += strncmp(row->name, "generic", 7) != 0;
    }
    return rows->count == 0;
}

/* Rows for the head size and the next larger one; what is wider still only wastes. Of rows with one name the first counts. */
static int is_candidate(const kernel_rows *rows, int32_t n, const test_case *c) {
    const int64_t size = c->D > c->E ? c->D : c->E;
    int64_t next = 0, after = 0;
    for (int32_t i = 0; i < rows->count; i++) {
        const int64_t head = rows->row[i].head;
        if (head >= size && (!next || head < next)) next = head;
    }
    for (int32_t i = 0; i < rows->count; i++) {
        const int64_t head = rows->row[i].head;
        if (head > next && (!after || head < after)) after = head;
    }
    for (int32_t i = 0; i < n; i++)
        if (rows->row[i].head >= size && !strcmp(rows->row[i].name, rows->row[n].name)) return 0;
    return rows->row[n].head == next || rows->row[n].head == after;
}

/* ---- questions that need no data ------------------------------------------------------------------------------------ */

static void place(instance *x, const sweep_request *r) {
    for (int id = 0; id < T_COUNT; id++) x->tensors[id].dl.device = (DLDevice){kDLCUDA, r->device.ordinal};
}

/* The name at the end of the plan: "... 4 warps (sm80:64x128x4x1)". */
static int find_choice(char out[SWEEP_NAME], const instance *x) {
    char text[8192], *at;
    if (dlattn_explain(&x->attention, &x->outputs, NULL, NULL, text, sizeof text) || !(at = strstr(text, " warps ("))) return 1;
    return sscanf(at, " warps (%63[^)])", out) != 1;
}

/* Keeps the rows that serve the shape; returns the largest workspace that one of them needs. */
static uint64_t find_candidates(sweep_result *result, const kernel_rows *rows, const instance *x) {
    uint64_t most = 0, bytes = 0;
    for (int32_t n = 0; n < rows->count; n++) {
        if (!is_candidate(rows, n, &result->shape.problem) || dlattn_set_option("cuda_variant", rows->row[n].name)) continue;
        if (dlattn_forward_workspace(&x->attention, &x->outputs, NULL, &bytes, NULL)) continue;
        strcpy(result->rows[result->count++], rows->row[n].name);
        if (bytes > most) most = bytes;
    }
    dlattn_set_option("cuda_variant", NULL);
    return most;
}

/* ---- compiling ------------------------------------------------------------------------------------------------------ */

/* Which process compiles a kernel: the same for all shapes that share it, so that nothing is compiled twice. */
static int64_t owner(const test_case *c, int32_t row, int64_t jobs) {
    const int64_t masks = c->flags != 0, terms = c->softcap > 0;
    return (c->D * 7 + c->E * 13 + c->dtype * 5 + masks * 3 + terms + row * 31) % jobs;
}

static void compile_share(const sweep_request *r, int64_t job) {
    kernel_rows *rows = calloc(1, sizeof *rows);
    char why[300];
    if (!rows || device_select(&r->device, why, sizeof why) || find_rows(rows)) _exit(1);
    for (int64_t s = 0; s < r->count; s++) {
        sweep_shape shape;
        instance x;
        sweep_shape_make(&shape, r->seed, s);
        instance_make_empty(&x, &shape.problem, 1);
        place(&x, r);
        for (int32_t n = 0; n < rows->count; n++) {
            if (owner(&shape.problem, n, r->jobs) != job || !is_candidate(rows, n, &shape.problem)) continue;
            if (!dlattn_set_option("cuda_variant", rows->row[n].name)) dlattn_prepare(&x.attention, &x.outputs, NULL, NULL);
        }
        instance_free(&x);
    }
    _exit(0);
}

/* Fills the disk cache; what goes wrong here goes wrong again, with a sentence, when it is timed. CUDA does not survive a
 * fork, so this comes first. */
static void compile_all(const sweep_request *r) {
    fflush(NULL);
    for (int64_t job = 0; job < r->jobs; job++)
        if (fork() == 0) compile_share(r, job);
    while (wait(NULL) > 0) continue;
}

/* ---- times ---------------------------------------------------------------------------------------------------------- */

typedef struct series {
    double times[ROUNDS], first;
    int32_t calls, count;
} series;

static int32_t time_group(series *s, device_call *call, const char *row, int32_t calls) {
    if (dlattn_set_option("cuda_variant", row)) return DLATTN_ERR_INTERNAL;
    const double ms = device_call_time(call, calls);
    if (ms < 0) return DLATTN_ERR_CUDA;
    if (s->count < ROUNDS) s->times[s->count++] = ms / calls;
    return DLATTN_OK;
}

/* Loads each kernel and finds how many calls make a group. */
static int32_t warm_up(series *all, sweep_result *result, device_call *call) {
    for (int32_t n = 0; n < result->count; n++) {
        series *s = &all[n];
        if (dlattn_set_option("cuda_variant", result->rows[n])) return DLATTN_ERR_INTERNAL;
        int32_t status = device_call_run(call);
        for (int32_t calls = 1; !status && calls <= 4; calls += 3) {
            s->count = 0;
            status = time_group(s, call, result->rows[n], calls);
        }
        if (status) return status;
        s->first = s->times[0];
        s->calls = s->first * MOST_CALLS < group_ms ? MOST_CALLS : 1 + (int32_t)(group_ms / s->first);
        s->count = 0;
    }
    return DLATTN_OK;
}

static int32_t time_all(sweep_result *result, device_call *call) {
    series all[SWEEP_MOST_ROWS];
    int32_t status = warm_up(all, result, call);
    double best = 1e30;
    for (int32_t n = 0; !status && n < result->count; n++)
        if (all[n].first < best) best = all[n].first;
    for (int32_t round = 0; round < ROUNDS; round++)
        for (int32_t n = 0; !status && n < result->count; n++)
            if (round < HOPELESS_ROUNDS || all[n].first < hopeless * best)
                status = time_group(&all[n], call, result->rows[n], all[n].calls);
    for (int32_t n = 0; !status && n < result->count; n++) {
        qsort(all[n].times, (size_t)all[n].count, sizeof(double), timing_by_size);
        result->us[n] = 1e3 * all[n].times[all[n].count / 2];
    }
    dlattn_set_option("cuda_variant", NULL);
    return status;
}

static int32_t time_shape(sweep_result *result, const kernel_rows *rows, const sweep_request *r) {
    instance x;
    int32_t status = DLATTN_OK;
    instance_make_empty(&x, &result->shape.problem, 1);
    instance_fill_fast(&x);
    place(&x, r);
    const uint64_t bytes = find_candidates(result, rows, &x);
    if (find_choice(result->chosen, &x)) status = DLATTN_ERR_INTERNAL;
    device_call *call = status ? NULL : device_call_new(&x.attention, &x.outputs, NULL, &status);
    if (call && !status) {
        device_call_reserve(call, bytes);
        status = time_all(result, call);
    }
    if (call) device_call_free(call);
    instance_free(&x);
    return status;
}

int run_sweep(FILE *to, const sweep_request *r) {
    kernel_rows *rows = calloc(1, sizeof *rows);
    sweep_result *results = calloc((size_t)r->count, sizeof *results);
    char why[300];
    int failed = 0;
    if (!rows || !results) abort();
    compile_all(r);
    if (device_select(&r->device, why, sizeof why)) failed = fprintf(stderr, "dlattn bench: %s\n", why);
    if (!failed && find_rows(rows)) failed = fprintf(stderr, "dlattn bench: the library does not list its kernels\n");
    for (int64_t n = 0; n < r->count && !failed; n++) {
        sweep_shape_make(&results[n].shape, r->seed, n);
        const int32_t status = time_shape(&results[n], rows, r);
        if (status) failed = fprintf(stderr, "dlattn bench: %s: %s: %s\n", results[n].shape.name, dlattn_status_name(status),
                                     *device_message() ? device_message() : dlattn_last_error());
    }
    if (!failed) {
        const sweep_judgement j = sweep_judge(results, r->count);
        sweep_print(to, r, results, r->count);
        fprintf(stderr, "the chosen kernel is within 5 %% of the best on %lld of %lld shapes; at worst it takes %.2f times as long\n",
                (long long)j.within, (long long)j.shapes, j.worst);
    }
    free(results);
    free(rows);
    return failed != 0;
}
