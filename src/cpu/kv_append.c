/* kv_append.c: dlattn_kv_append on the CPU: copies rows of keys and values into the cache. */
#include <inttypes.h>
#include <string.h>

#include "cache.h"
#include "cpu.h"
#include "error.h"
#include "threads.h"

typedef struct append_job {
    const append_problem *p;
    const append_buffers *x;
} append_job;

static int32_t check_pages(const append_job *job, int64_t b, int64_t begin) {
    const append_problem *p = job->p;
    for (int64_t page = begin / p->tokens; p->S > 0 && page <= (begin + p->S - 1) / p->tokens; page++) {
        const int64_t id = dlattn__read_page(&p->block_table, job->x->block_table, b, page);
        if (id < 0 || id >= p->rows)
            return dlattn__fail(DLATTN_ERR_ARGUMENT, "block_table[%" PRId64 ",%" PRId64 "] is %" PRId64
                                ", expected a page from 0 to %" PRId64, b, page, id, p->rows - 1);
    }
    return DLATTN_OK;
}

/* Before anything is written: every token has its place. */
static int32_t check_places(const append_job *job) {
    const append_problem *p = job->p;
    const int64_t capacity = p->block_table.dtype ? p->pages * p->tokens : p->tokens;
    for (int64_t b = 0; b < p->B; b++) {
        const int64_t begin = dlattn__read_int(&p->seqlens, job->x->seqlens, b, 0);
        const int64_t row = dlattn__read_int(&p->batch_index, job->x->batch_index, b, b);
        if (begin < 0 || begin > capacity - p->S)
            return dlattn__fail(DLATTN_ERR_ARGUMENT, "seqlens[%" PRId64 "] is %" PRId64 ", expected 0 to %" PRId64
                                " (%" PRId64 " new tokens, room for %" PRId64 ")", b, begin, capacity - p->S, p->S, capacity);
        if (!p->block_table.dtype && (row < 0 || row >= p->rows))
            return dlattn__fail(DLATTN_ERR_ARGUMENT, "batch_index[%" PRId64 "] is %" PRId64 ", expected 0 to %" PRId64, b,
                                row, p->rows - 1);
        if (p->block_table.dtype) DLATTN_TRY(check_pages(job, b, begin));
    }
    return DLATTN_OK;
}

static void copy_row(const operand *to, char *to_at, const operand *from, const char *from_at) {
    const int64_t size = dlattn__size_of(to->dtype), count = to->extent[3];
    if ((to->stride[3] == 1 && from->stride[3] == 1) || count == 1) {
        memcpy(to_at, from_at, (size_t)(count * size));
        return;
    }
    for (int64_t n = 0; n < count; n++)
        memcpy(to_at + n * to->stride[3] * size, from_at + n * from->stride[3] * size, (size_t)size);
}

/* One token of one sequence, all heads. */
static void append_token(void *context, int64_t item, int32_t slot) {
    const append_job *job = context;
    const append_problem *p = job->p;
    const int64_t b = item / p->S, s = item % p->S;
    int64_t token = dlattn__read_int(&p->seqlens, job->x->seqlens, b, 0) + s;
    int64_t row = dlattn__read_int(&p->batch_index, job->x->batch_index, b, b);
    (void)slot;
    if (p->block_table.dtype) {
        row = dlattn__read_page(&p->block_table, job->x->block_table, b, token / p->tokens);
        token %= p->tokens;
    }
    for (int64_t g = 0; g < p->G; g++) {
        copy_row(&p->k_cache, dlattn__at(&p->k_cache, job->x->k_cache, row, token, g, 0), &p->k_new,
                 dlattn__at(&p->k_new, job->x->k_new, b, s, g, 0));
        copy_row(&p->v_cache, dlattn__at(&p->v_cache, job->x->v_cache, row, token, g, 0), &p->v_new,
                 dlattn__at(&p->v_new, job->x->v_new, b, s, g, 0));
    }
}

int32_t dlattn__cpu_kv_append(const append_problem *p, const append_buffers *x, const dlattn_exec *exec) {
    append_job job = {p, x};
    if (p->B == 0 || p->S == 0 || p->G == 0) return DLATTN_OK;
    DLATTN_TRY(check_places(&job));
    const double bytes = (double)p->B * (double)p->S * (double)(p->G * (p->D + p->E)) * 4;
    dlattn__parallel(bytes < 1e6 ? 1 : dlattn__thread_count(exec->num_threads), p->B * p->S, append_token, &job);
    return DLATTN_OK;
}
