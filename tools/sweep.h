/* sweep.h: every forward kernel on many shapes, beside the one that the library chooses. */
#ifndef DLATTN_TOOLS_SWEEP_H
#define DLATTN_TOOLS_SWEEP_H

#include <stdio.h>

#include "device_call.h"
#include "sweep_shapes.h"

enum { SWEEP_MOST_ROWS = 48, SWEEP_NAME = 64 };

/* What was measured of one shape: kernels in the library's order, times in microseconds. */
typedef struct sweep_result {
    sweep_shape shape;
    char chosen[SWEEP_NAME];
    int32_t count;
    char rows[SWEEP_MOST_ROWS][SWEEP_NAME];
    double us[SWEEP_MOST_ROWS];
} sweep_result;

typedef struct sweep_request {
    device_options device;
    int64_t count, jobs; /* of shapes; of processes that compile */
    uint64_t seed;
    const char *commit;
} sweep_request;

/* Writes the JSON to `to` and the judgement to stderr; an exit code. */
int run_sweep(FILE *to, const sweep_request *r);

/* How many of the results have the chosen kernel within 5 % of the best. */
typedef struct sweep_judgement {
    int64_t shapes, within;
    double worst; /* time of the chosen kernel by that of the best */
} sweep_judgement;

double sweep_loss(const sweep_result *r); /* the same for one shape; infinite where the chosen one was not timed */
sweep_judgement sweep_judge(const sweep_result *results, int64_t count);
void sweep_print(FILE *to, const sweep_request *r, const sweep_result *results, int64_t count);

#endif
