/* schedule.h: what a call launches, in order, and where its workspace lies: decided from problem, device and alignment. */
#ifndef DLATTN_CUDA_SCHEDULE_H
#define DLATTN_CUDA_SCHEDULE_H

#include "variants.h"

enum { DLATTN_MAX_STEPS = 8 };

/* One launch. */
typedef struct cuda_step {
    kernel_request request;
    int64_t blocks; /* 0: nothing to do */
    int32_t threads, row_tiles, key_tiles;
    bool early; /* its kernel itself waits for what it needs of the step before: it may begin while that one's last blocks run */
} cuda_step;

/* Bytes from the start of the workspace, multiples of 256; total 0: none is needed. */
typedef struct cuda_workspace {
    uint64_t delta, lse2, row_segments, key_segments, dq_sum, finished, partial_out, partial_lse;
    uint64_t next_tile;
    uint64_t total, least;   /* least: without what is only for speed */
} cuda_workspace;

typedef struct cuda_schedule {
    const variant *main, *dq; /* dq: when a kernel of its own computes it */
    int64_t row_count, head_rows;
    int32_t splits, step_count, dq_columns;
    bool counts; /* blocks take tiles of rows by a counter in the workspace, which is 0 at first */
    bool spans;  /* the workspace tells of the segments; in a forward the step that writes this clears the counter too */
    cuda_workspace workspace;
    cuda_step steps[DLATTN_MAX_STEPS];
} cuda_schedule;

/* The best schedule whose workspace is at most `room` bytes. x: the addresses, for their alignment alone; NULL: all are
 * multiples of 16 bytes. Fails (no error sentence) with the reason in `note` when
 * no row of the table serves p; when nothing fits into `room`, the answer is the smallest there is. */
int32_t dlattn__schedule(cuda_schedule *out, const problem *p, const buffers *x, const cuda_device *device, uint64_t room,
                         char *note, int64_t note_bytes);

/* The workspace that suffices on every device of an architecture, whichever row is chosen there. */
int32_t dlattn__schedule_bound(cuda_workspace *out, const problem *p, int32_t arch, char *note, int64_t note_bytes);

#endif
