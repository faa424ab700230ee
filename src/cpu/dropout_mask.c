/* dropout_mask.c: dlattn_dropout_mask on the CPU, byte by byte from the specification: the kernels are tested against it. */
#include "cpu.h"
#include "dropout_key.h"
#include "threads.h"

typedef struct mask_job {
    const problem *p;
    const buffers *x;
    dlattn_philox_key key;
} mask_job;

/* One row (b, h, i). */
static void mask_row(void *context, int64_t item, int32_t slot) {
    const mask_job *job = context;
    const problem *p = job->p;
    const int64_t rows = p->keep.extent[2], heads = p->keep.extent[1], keys = p->keep.extent[3];
    const int64_t i = item % rows, h = item / rows % heads, b = item / rows / heads;
    int64_t q_position = 0, k_position = 0;
    (void)slot;
    if (p->flags & DLATTN_POSITIONS) {
        q_position = dlattn__dropout_start(dlattn__read_int(&p->q_starts, job->x->q_starts, b, p->q_start));
        k_position = dlattn__dropout_start(dlattn__read_int(&p->k_starts, job->x->k_starts, b, p->k_start));
    }
    uint8_t *keep = (uint8_t *)dlattn__at(&p->keep, job->x->keep, b, h, i, 0);
    const dlattn_u32 head = (dlattn_u32)(uint64_t)(b * heads + h), threshold = (dlattn_u32)p->dropout_threshold;
    for (int64_t j = 0; j < keys; j++)
        keep[j * p->keep.stride[3]] =
            threshold == 0 || dlattn_dropout_byte(&job->key, head, i + q_position, j + k_position) >= threshold;
}

int32_t dlattn__cpu_dropout_mask(const problem *p, const buffers *x, const dlattn_exec *exec) {
    const int64_t items = p->keep.extent[0] * p->keep.extent[1] * p->keep.extent[2];
    if (items == 0 || p->keep.extent[3] == 0) return DLATTN_OK;
    mask_job job = {p, x, dlattn__dropout_key(p, x)};
    dlattn__parallel(dlattn__thread_count(exec->num_threads), items, mask_row, &job);
    return DLATTN_OK;
}
