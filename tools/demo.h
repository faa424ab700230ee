/* demo.h: attention layers of real models, run, timed and checked by `dlattn demo`.
 *
 * demo_layers.c is the table, demo_run.c makes a layer real and times it, demo_check.c judges slices of it against the
 * oracle, demo_plain.c is the formula that the speed-up is measured against, demo.c prints. */
#ifndef DLATTN_TOOLS_DEMO_H
#define DLATTN_TOOLS_DEMO_H

#include <dlattn/dlattn.h>

#include "case.h"

enum { DEMO_NAME_BYTES = 80, DEMO_SLICES = 3 };

/* One layer; a value head has the size of a key head. */
typedef struct demo_layer {
    const char *model, *what; /* what: sizes aside, all that is switched on */
    int64_t B, H, G, M, N, D;
    int32_t dtype; /* of case.h */
    uint32_t flags;
    int64_t window_left, block_size, block_count;
    double softcap;
    int32_t alibi, sinks, bias; /* bias: float32 [1,H,M,N], shared by the batch, with its gradient */
    const int64_t *lengths;     /* packed: B lengths; M = N = their sum */
    int32_t forward_only;
} demo_layer;

extern const demo_layer demo_layers[];
extern const int64_t demo_layer_count;

/* The lengths of sequence b and its first token in packed tensors. */
typedef struct demo_sequence {
    int64_t M, N, start;
} demo_sequence;
demo_sequence demo_sequence_of(const demo_layer *layer, int64_t b);

/* Which keys row i of a sequence sees: [first, end). All masks of the table have this form. */
void demo_span(const demo_layer *layer, demo_sequence s, int64_t i, int64_t *first, int64_t *end);
double demo_pairs(const demo_layer *layer);     /* visible (b, h, i, j) */
double demo_all_pairs(const demo_layer *layer); /* all of them */

/* A compact tensor with its memory. */
typedef struct demo_tensor {
    DLTensor dl;
    int64_t shape[4];
} demo_tensor;

/* Rows of one kv head of `count` sequences from b on: what the oracle can afford to compute again. */
typedef struct demo_slice {
    int64_t b, count, g, row, rows;
} demo_slice;

typedef struct demo_run {
    const demo_layer *layer;
    demo_tensor q, k, v, bias, slopes, sinks, cu, dout, out, lse, dq, dk, dv, dbias, dsinks;
    dlattn_attention attention;
    dlattn_outputs outputs;
    dlattn_gradients gradients;
    demo_slice slices[DEMO_SLICES];
    int64_t slice_count;
} demo_run;

/* What is known about a layer after its run. Seconds are medians. */
typedef struct demo_result {
    const demo_layer *layer;
    double forward_seconds, backward_seconds, plain_forward_seconds, plain_backward_seconds;
    double forward_gflops, backward_gflops, read_bytes, workspace_bytes, matrix_bytes;
    double error; /* worst error over what is allowed */
    int32_t threads, passed;
    char message[300];
} demo_result;

/* 0, or nonzero when memory is short. */
int demo_make(demo_run *run, const demo_layer *layer);
void demo_free(demo_run *run);
/* Runs forward and backward and times them; 0, or nonzero with a message in the result. */
int demo_time(demo_run *run, demo_result *result);
/* Compares the outputs with the oracle: error, passed, message. */
void demo_check(const demo_run *run, demo_result *result);
/* Times the plain formula on some rows and scales to the whole layer. */
void demo_plain(const demo_run *run, demo_result *result);
/* Copies `rows` token rows of one head, from `row` on of sequence b, to float. heads: of t. */
void demo_load(float *to, const demo_run *run, const DLTensor *t, int64_t heads, int64_t b, int64_t h, int64_t row,
               int64_t rows);

#endif
