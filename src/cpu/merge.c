/* merge.c: joins the results of a problem that was split over its keys, in double. */
#include <math.h>

#include "number.h"
#include "threads.h"

enum { ROWS_PER_ITEM = 32, MOST_COLUMNS = 256 };

typedef struct merge_job {
    const merge_problem *p;
    const merge_part *parts;
    void *out, *lse;
    int64_t blocks; /* of rows, per (b, h) */
} merge_job;

static double part_lse(const merge_part *part, int64_t b, int64_t h, int64_t i) {
    return dlattn__read_number(part->lse.dtype, dlattn__at(&part->lse, part->lse_data, b, h, i, 0));
}

/* log(sum exp(lse)); -inf when all parts are empty, NaN when one is NaN. */
static double merged_lse(const merge_job *job, int64_t b, int64_t h, int64_t i) {
    double top = -INFINITY, sum = 0;
    for (int64_t n = 0; n < job->p->count; n++) {
        double lse = part_lse(&job->parts[n], b, h, i);
        if (lse > top) top = lse;
    }
    for (int64_t n = 0; n < job->p->count; n++) {
        double lse = part_lse(&job->parts[n], b, h, i);
        if (lse != -INFINITY) sum += exp(lse - top);
    }
    return sum == 0 ? -INFINITY : top + log(sum);
}

/* A part that saw nothing is left out, whatever its out holds. */
static void merge_row(const merge_job *job, int64_t b, int64_t h, int64_t i, double lse) {
    double sum[MOST_COLUMNS] = {0};
    for (int64_t n = 0; n < job->p->count; n++) {
        const merge_part *part = &job->parts[n];
        const double own = part_lse(part, b, h, i);
        if (own == -INFINITY) continue;
        const double weight = exp(own - lse);
        for (int64_t e = 0; e < job->p->E; e++)
            sum[e] += weight * dlattn__read_number(part->out.dtype, dlattn__at(&part->out, part->out_data, b, i, h, e));
    }
    const operand *o = &job->p->out;
    for (int64_t e = 0; e < job->p->E; e++) dlattn__write_number(o->dtype, dlattn__at(o, job->out, b, i, h, e), sum[e]);
}

static void merge_rows(void *context, int64_t item, int32_t slot) {
    const merge_job *job = context;
    const merge_problem *p = job->p;
    const int64_t first = item % job->blocks * ROWS_PER_ITEM, h = item / job->blocks % p->H, b = item / job->blocks / p->H;
    (void)slot;
    for (int64_t i = first; i < p->M && i < first + ROWS_PER_ITEM; i++) {
        const double lse = merged_lse(job, b, h, i);
        merge_row(job, b, h, i, lse);
        if (p->lse.dtype != DLATTN_T_NONE)
            dlattn__write_number(p->lse.dtype, dlattn__at(&p->lse, job->lse, b, h, i, 0), lse);
    }
}

int32_t dlattn__cpu_merge(const merge_problem *p, const merge_part *parts, void *out, void *lse,
                          const dlattn_exec *exec) {
    merge_job job = {p, parts, out, lse, (p->M + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM};
    const int64_t items = p->B * p->H * job.blocks;
    const int32_t threads = items * ROWS_PER_ITEM * p->E * p->count < 20000 ? 1 : dlattn__thread_count(exec->num_threads);
    dlattn__parallel(threads, items, merge_rows, &job);
    return DLATTN_OK;
}
