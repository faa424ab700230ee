/* rotary.c: dlattn_rotary on the CPU: rotates pairs of elements by the angles of their position (Su et al., 2021). */
#include <inttypes.h>
#include <string.h>

#include "cache.h"
#include "error.h"
#include "number.h"
#include "threads.h"

enum { MOST_COLUMNS = 256 };

typedef struct rotary_job {
    const rotary_problem *p;
    const rotary_buffers *x;
} rotary_job;

static int32_t check_positions(const rotary_job *job) {
    const rotary_problem *p = job->p;
    if (p->S > p->positions && !p->starts.dtype)
        return dlattn__fail(DLATTN_ERR_SHAPE, "cosines has %" PRId64 " positions, expected at least x's %" PRId64 " tokens",
                            p->positions, p->S);
    for (int64_t b = 0; p->starts.dtype && b < p->B; b++) {
        const int64_t start = dlattn__read_int(&p->starts, job->x->starts, b, 0);
        if (start < 0 || start > p->positions - p->S)
            return dlattn__fail(DLATTN_ERR_ARGUMENT, "starts[%" PRId64 "] is %" PRId64 ", expected 0 to %" PRId64
                                " (%" PRId64 " tokens, %" PRId64 " positions)", b, start, p->positions - p->S, p->S,
                                p->positions);
    }
    return DLATTN_OK;
}

/* (x, y) becomes (x cos - y sin, x sin + y cos). */
static void rotate(double *row, const double *cosines, const double *sines, int64_t pairs, bool interleaved) {
    const int64_t step = interleaved ? 2 : 1, other = interleaved ? 1 : pairs;
    for (int64_t n = 0; n < pairs; n++) {
        const double x = row[n * step], y = row[n * step + other];
        row[n * step] = x * cosines[n] - y * sines[n];
        row[n * step + other] = x * sines[n] + y * cosines[n];
    }
}

/* One token of one sequence, all heads. */
static void rotate_token(void *context, int64_t item, int32_t slot) {
    const rotary_job *job = context;
    const rotary_problem *p = job->p;
    const int64_t b = item / p->S, s = item % p->S;
    const int64_t position = dlattn__read_int(&p->starts, job->x->starts, b, 0) + s;
    double row[MOST_COLUMNS], cosines[MOST_COLUMNS / 2], sines[MOST_COLUMNS / 2];
    (void)slot;
    dlattn__read_numbers(cosines, p->cosines.dtype, dlattn__at(&p->cosines, job->x->cosines, position, 0, 0, 0),
                         p->cosines.stride[1], p->pairs);
    dlattn__read_numbers(sines, p->sines.dtype, dlattn__at(&p->sines, job->x->sines, position, 0, 0, 0), p->sines.stride[1],
                         p->pairs);
    for (int64_t n = 0; p->inverse && n < p->pairs; n++) sines[n] = -sines[n];
    for (int64_t h = 0; h < p->H; h++) {
        dlattn__read_numbers(row, p->x.dtype, dlattn__at(&p->x, job->x->x, b, s, h, 0), p->x.stride[3], p->D);
        rotate(row, cosines, sines, p->pairs, p->interleaved != 0);
        dlattn__write_numbers(p->out.dtype, dlattn__at(&p->out, job->x->out, b, s, h, 0), p->out.stride[3], row, p->D);
    }
}

int32_t dlattn__cpu_rotary(const rotary_problem *p, const rotary_buffers *x, const dlattn_exec *exec) {
    rotary_job job = {p, x};
    if (p->B == 0 || p->S == 0 || p->H == 0 || p->D == 0) return DLATTN_OK;
    DLATTN_TRY(check_positions(&job));
    const double elements = (double)p->B * (double)p->S * (double)(p->H * p->D);
    dlattn__parallel(elements < 1e5 ? 1 : dlattn__thread_count(exec->num_threads), p->B * p->S, rotate_token, &job);
    return DLATTN_OK;
}
