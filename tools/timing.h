/* timing.h: times one problem through the public API. */
#ifndef DLATTN_TOOLS_TIMING_H
#define DLATTN_TOOLS_TIMING_H

#include <dlattn/dlattn.h>

#include "case.h"
#include "device_call.h"

struct instance;

typedef struct timing {
    const test_case *problem;
    const char *provider; /* whose code was timed; NULL: the library's */
    int32_t backward, threads, repeats; /* threads: as used; repeats: how many were timed */
    double ms, gflops;                  /* median; floating-point operations of the unmasked pairs alone */
    double peak_gflops;                 /* of the machine, same threads and kind of number; 0: not known */
    const char *peak_isa;               /* in which instructions; NULL: not known, or the device's */
    double read_gbs, peak_read_gbs;     /* bytes of k and v per second, and of a pure read; 0 where it is no decode */
    double host_us;                     /* CUDA: time of a call on the host; ms is then time on the device */
    int32_t cuda;
    char isa[64];                       /* CUDA: the device's name */
    double mean_abs;                    /* bench/run.c: of the results; 0: not looked at */
    double error_ratio;                 /* bench/run.c: error in units of what the accuracy rule allows; < 0: not judged */
} timing;

/* A forward or backward of someone else's. */
typedef int32_t timing_call(void *context, struct instance *x, int backward, const dlattn_exec *exec);

typedef struct timing_request {
    const test_case *problem;
    int32_t threads; /* 0: the library's default */
    int32_t repeats; /* 0: as many as fit into `budget` seconds, at least 5 */
    int32_t backward;
    double budget;
    device_options device;
    timing_call *call; /* NULL: the library */
    void *context;     /* of call */
} timing_request;

/* Fills the forward's timing and, where wanted, the backward's (backward = 1). Returns a status; the sentence is
 * dlattn_last_error's. *count says how many results there are. */
int32_t time_problem(timing results[2], int *count, const timing_request *request);

/* One pass on tensors that exist; the backward reads the out and lse of a forward. */
int32_t time_instance(timing *result, struct instance *x, int backward, const timing_request *request);

/* The result as one JSON object, as bench/README.md says. */
void timing_print_json(FILE *to, const timing *t);

/* The same on the CUDA device that device_select chose; data are filled in quickly. Errors may be device_message's. */
int32_t time_on_cuda(timing results[2], int *count, const timing_request *request);
int timing_by_size(const void *a, const void *b); /* of doubles, for qsort */

#endif
