/* cpu_backend.c: the CPU backend: plans a call, lays out its workspace and runs its phases on the thread pool. */
#include <stdio.h>
#include <string.h>

#include "cpu.h"
#include "error.h"
#include "float_mode.h"
#include "tensor.h"
#include "threads.h"

/* The shared part of the workspace: what the phases of one call hand to each other. */
typedef struct shared_part {
    int64_t partial_out, partial_lse, delta, lse2, dq_sum; /* bytes, multiples of 64 */
    int64_t total;
} shared_part;

/* What consider() decides and run() needs again; cheap enough to be decided twice. */
typedef struct decision {
    const cpu_kernels *kernels;
    cpu_shape shape;
    shared_part shared;
    int64_t scratch_bytes; /* per thread */
    int64_t items;         /* of the main phase; when it goes by sequence, of one sequence */
} decision;

static int64_t round_up_64(int64_t bytes) { return (bytes + 63) / 64 * 64; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t pad_to(int64_t n, int64_t lanes) { return (n + lanes - 1) / lanes * lanes; }

static decision decide_forward(const problem *p) {
    decision d = {0};
    const int64_t groups = p->B * p->G, group_rows = p->G > 0 ? p->M * (p->H / p->G) : 0;
    d.kernels = dlattn__cpu_kernels_for(p->dtype, false);
    const bool decode = group_rows <= d.kernels->decode_rows && d.kernels->decode_takes(p);
    if (!decode) d.kernels = dlattn__cpu_kernels_for(p->dtype, true);
    d.shape = dlattn__cpu_shape(p, d.kernels, decode);
    d.scratch_bytes = decode ? d.kernels->decode_scratch(p) : d.kernels->forward_scratch(p);
    d.items = groups * d.shape.pieces * (decode ? 1 : d.shape.row_blocks);
    if (d.shape.pieces > 1) {
        const int64_t parts = groups * group_rows * d.shape.pieces;
        d.shared.partial_out = round_up_64(parts * pad_to(p->E, d.kernels->lanes) * d.kernels->real_bytes);
        d.shared.partial_lse = round_up_64(parts * 2 * d.kernels->real_bytes);
    }
    return d;
}

static decision decide_backward(const problem *p) {
    decision d = {0};
    d.kernels = dlattn__cpu_kernels_for(p->dtype, true);
    d.shape = dlattn__cpu_shape(p, d.kernels, false);
    d.scratch_bytes = d.kernels->backward_scratch(p);
    if (dlattn__dbias_items(p) && !d.shape.by_sequence) d.scratch_bytes = larger(d.scratch_bytes, d.kernels->dbias_scratch(p));
    d.items = (d.shape.by_sequence ? 1 : p->B) * p->G * d.shape.pieces;
    const int64_t rows = p->B * p->H * p->M, real_bytes = d.kernels->real_bytes;
    d.shared.delta = d.shared.lse2 = round_up_64(rows * real_bytes);
    if (p->dq.dtype)
        d.shared.dq_sum = round_up_64(d.shape.pieces * rows * pad_to(p->D, d.kernels->lanes) * real_bytes);
    return d;
}

static decision decide(const problem *p) {
    decision d = p->op == DLATTN_OP_BACKWARD ? decide_backward(p) : decide_forward(p);
    shared_part *s = &d.shared;
    s->total = s->partial_out + s->partial_lse + s->delta + s->lse2 + s->dq_sum;
    d.scratch_bytes = round_up_64(d.scratch_bytes);
    return d;
}

/* Below this a second thread costs more than it brings. */
#define ALONE_FLOP 2e6

static int32_t threads_for(const problem *p, const decision *d, int32_t requested) {
    double flop = 2.0 * (double)(p->B * p->H) * (double)p->M * (double)p->N * (double)(p->D + p->E);
    int32_t threads = dlattn__thread_count(requested);
    if (flop < ALONE_FLOP) threads = 1;
    if (d->items < threads) threads = (int32_t)larger(d->items, 1);
    return threads;
}

/* Could any byte count above pass int64? A tensor without data may claim any extents. An item keeps at most 64 pieces of
 * a row, each D or E numbers and a few more. */
static bool is_too_large(const problem *p) {
    double rows = (double)p->B * (double)p->H * (double)(p->M + 1);
    return rows * 64 * (double)(p->D + p->E + 64) * 8 > 0x1p62 || (double)p->B * (double)p->G * (double)p->N > 0x1p56;
}

static int32_t cpu_consider(const problem *p, const dlattn_exec *exec, plan *out) {
    if (p->op == DLATTN_OP_DROPOUT_MASK) return DLATTN_OK;
    if (is_too_large(p)) {
        snprintf(out->note, sizeof out->note, "a workspace for these extents would pass 2^62 bytes");
        return DLATTN_ERR_UNSUPPORTED;
    }
    const decision d = decide(p);
    out->num_threads = threads_for(p, &d, exec->num_threads);
    out->pieces = d.shape.pieces;
    out->variant = d.kernels;
    /* 63 more bytes let a 16-byte aligned workspace be used from a cache line on */
    out->minimum_bytes = (uint64_t)(d.shared.total + d.scratch_bytes + 63);
    out->workspace_bytes = (uint64_t)(d.shared.total + d.scratch_bytes * out->num_threads + 63);
    return DLATTN_OK;
}

static void cpu_tell(plan *out) {
    const problem *p = out->problem;
    const decision d = decide(p);
    snprintf(out->note, sizeof out->note, "%s, %s arithmetic, %s: %lld items, keys in %lld pieces, up to %d threads",
             d.kernels->isa, strcmp(d.kernels->real, "bf16") == 0 ? "bfloat16 pair" : d.kernels->real,
             p->op == DLATTN_OP_BACKWARD ? "backward" : d.shape.decode ? "decode" : "forward", (long long)d.items,
             (long long)d.shape.pieces, (int)out->num_threads);
}

typedef struct phase {
    const cpu_job *job;
    cpu_item *item;
    int64_t first;
} phase;

static void run_phase_item(void *context, int64_t index, int32_t slot) {
    const phase *f = context;
    const uint64_t mode = dlattn__float_mode_begin();
    f->item(f->job, f->first + index, f->job->scratch + f->job->scratch_bytes * slot);
    dlattn__float_mode_end(mode);
}

/* Items [first, first + items). */
static void run_items(const cpu_job *job, cpu_item *item, int64_t first, int64_t items, int32_t threads) {
    phase f = {job, item, first};
    dlattn__parallel(threads, items, run_phase_item, &f);
}

static void run_phase(const cpu_job *job, cpu_item *item, int64_t items, int32_t threads) {
    run_items(job, item, 0, items, threads);
}

static void run_forward(const cpu_job *job, const decision *d, int32_t threads) {
    run_phase(job, d->shape.decode ? d->kernels->decode : d->kernels->forward, d->items, threads);
    if (d->shape.pieces > 1) run_phase(job, d->kernels->combine, job->p->B * job->p->G, threads);
}

static void run_backward(const cpu_job *job, const decision *d, int32_t threads) {
    const problem *p = job->p;
    run_phase(job, d->kernels->delta, p->B * p->H, threads);
    for (int64_t b = 0; b < (job->shape.by_sequence ? p->B : 1); b++)
        run_items(job, d->kernels->backward, b * d->items, d->items, threads);
    if (p->dq.dtype) run_phase(job, d->kernels->reduce_dq, p->B * p->H, threads);
    if (dlattn__dbias_items(p) && !job->shape.by_sequence)
        run_phase(job, d->kernels->dbias, dlattn__dbias_items(p), threads);
    if (p->dsinks.dtype) run_phase(job, d->kernels->dsinks, p->H, threads);
}

/* Points the job's shared buffers and scratch into `at`. */
static void lay_out(cpu_job *job, const decision *d, char *at) {
    at += (64 - (uintptr_t)at % 64) % 64;
    job->partial_out = at;
    job->partial_lse = at += d->shared.partial_out;
    job->delta = at += d->shared.partial_lse;
    job->lse2 = at += d->shared.delta;
    job->dq_sum = at += d->shared.lse2;
    job->scratch = at + d->shared.dq_sum;
    job->scratch_bytes = d->scratch_bytes;
}

static int32_t cpu_run(const plan *plan, const dlattn_exec *exec) {
    const buffers *x = plan->buffers;
    const problem *p = plan->problem;
    DLATTN_TRY(dlattn__problem_check_lengths(p, x));
    const decision d = decide(p);
    cpu_job job = {.p = p, .x = x, .kernels = d.kernels, .shape = d.shape};
    int32_t threads = plan->num_threads;
    void *taken = NULL;
    if (exec->workspace) { /* less than the best: fewer threads, the same results */
        int64_t room = (int64_t)(exec->workspace_bytes - (uint64_t)d.shared.total - 63) / larger(d.scratch_bytes, 1);
        if (room < threads) threads = (int32_t)room;
    } else {
        taken = dlattn__scratch_take(plan->workspace_bytes);
        if (!taken)
            return dlattn__fail(DLATTN_ERR_OUT_OF_MEMORY, "workspace of %llu bytes could not be had from the system",
                                (unsigned long long)plan->workspace_bytes);
    }
    lay_out(&job, &d, taken ? taken : exec->workspace);
    dlattn__cpu_blank(p, x);
    if (p->op == DLATTN_OP_BACKWARD) run_backward(&job, &d, threads);
    else run_forward(&job, &d, threads);
    if (taken) dlattn__scratch_give_back(taken);
    return DLATTN_OK;
}

static void cpu_describe(char *text, int64_t text_bytes) {
    char isas[128];
    dlattn__cpu_isa_list(isas, sizeof isas);
    snprintf(text, (size_t)text_bytes, "instruction sets: %s\nin use: %s (bfloat16: %s)\nthreads: %d\n", isas,
             dlattn__cpu_kernels_for(DLATTN_T_F32, false)->isa, dlattn__cpu_kernels_for(DLATTN_T_BF16, true)->isa,
             (int)dlattn__thread_count(0));
}

static bool cpu_isa_available(const char *name) {
    return strcmp(name, "auto") == 0 || dlattn__cpu_isa_available(name);
}

static int32_t cpu_prepare(const plan *plan, const dlattn_exec *exec) {
    (void)exec;
    dlattn__threads_prepare(plan->num_threads);
    return DLATTN_OK;
}

const backend dlattn__cpu_backend = {
    .name = "cpu",
    .serves = dlattn__device_is_host,
    .consider = cpu_consider,
    .tell = cpu_tell,
    .run = cpu_run,
    .merge = dlattn__cpu_merge,
    .dropout_mask = dlattn__cpu_dropout_mask,
    .kv_append = dlattn__cpu_kv_append,
    .rotary = dlattn__cpu_rotary,
    .describe = cpu_describe,
    .isa_available = cpu_isa_available,
    .prepare = cpu_prepare,
};
