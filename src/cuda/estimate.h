/* estimate.h: about how long a forward kernel takes, so that the fastest of those that serve a problem is chosen. */
#ifndef DLATTN_CUDA_ESTIMATE_H
#define DLATTN_CUDA_ESTIMATE_H

#include "tiling.h"

/* What a row makes of a problem: what the time follows from. */
typedef struct workload {
    double blocks, slots;        /* tiles of rows by pieces of keys; blocks that the device holds at once */
    double tiles, most_tiles;    /* of keys, for a block: in the middle and at most */
    double ends;                 /* ends of a row's keys that a mask cuts: 0 to 2 */
    double splits, partial_bytes; /* pieces of keys; bytes of their partial results */
    double bytes;                /* of q, out, and the part of k and v that is seen */
    double width;                /* padded D + E */
    bool shared;                 /* two blocks share a multiprocessor */
} workload;

workload dlattn__workload(const variant *v, const problem *p, const specialisation *how, const cuda_device *device);

/* Microseconds, by the costs that bench/sweep.py fitted to an H100. */
double dlattn__estimate(const variant *v, const problem *p, const specialisation *how, const cuda_device *device);

#endif
