/* timing.h: times one problem through the public API. */
#ifndef DLATTN_TOOLS_TIMING_H
#define DLATTN_TOOLS_TIMING_H

#include <dlattn/dlattn.h>

#include "case.h"
#include "device_call.h"

typedef struct timing {
    const test_case *problem;
    int32_t backward, threads, repeats; /* threads: as used; repeats: how many were timed */
    double ms, gflops;                  /* median; floating-point operations of the unmasked pairs alone */
    double peak_gflops;                 /* of the machine, same threads and kind of number */
    double read_gbs, peak_read_gbs;     /* bytes of k and v per second, and of a pure read; 0 where it is no decode */
    double host_us;                     /* CUDA: time of a call on the host; ms is then time on the device */
    int32_t cuda;
    char isa[64];                       /* CUDA: the device's name */
} timing;

typedef struct timing_request {
    const test_case *problem;
    int32_t threads; /* 0: the library's default */
    int32_t repeats; /* 0: as many as fit into `budget` seconds, at least 5 */
    int32_t backward;
    double budget;
    device_options device;
} timing_request;

/* Fills the forward's timing and, where wanted, the backward's (backward = 1). Returns a status; the sentence is
 * dlattn_last_error's. *count says how many results there are. */
int32_t time_problem(timing results[2], int *count, const timing_request *request);

/* The same on the CUDA device that device_select chose; data are filled in quickly. Errors may be device_message's. */
int32_t time_on_cuda(timing results[2], int *count, const timing_request *request);
int timing_by_size(const void *a, const void *b); /* of doubles, for qsort */

#endif
