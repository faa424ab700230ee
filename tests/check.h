/* check.h: runs a case through the public API and judges every result.
 *
 * One file per kind of judgement: check.c (one case from end to end), check_bound.c (the accuracy rule),
 * check_bits.c (same bits for threads, workspaces and subsets), check_visible.c (exactly which keys are seen),
 * check_merge.c (a problem split over its keys). The calls go through device_call.h, so that the same judges serve the GPU. */
#ifndef DLATTN_TESTS_CHECK_H
#define DLATTN_TESTS_CHECK_H

#include "device_call.h"
#include "instance.h"
#include "oracle.h"

enum { CHECK_MAX_ISAS = 8, CHECK_MAX_THREADS = 8, CHECK_MESSAGE_BYTES = 400 };

typedef struct check_options {
    uint64_t seed;
    const char *isas[CHECK_MAX_ISAS]; /* values of the option cpu_isa, on CUDA of cuda_variant; "auto" leaves it unset */
    int32_t isa_count;
    int32_t repeats; /* CUDA: how often the same call must give the same bits */
    int32_t brief;   /* each kernel once: forward, backward, deterministic backward, dropout mask, merge of parts */
    int32_t threads[CHECK_MAX_THREADS];
    int32_t thread_count;
} check_options;

/* How far the worst row of one tensor is from what it may be. */
typedef struct check_bound {
    double ratio, error, allowed;
    int64_t row;
    int32_t judged;
} check_bound;

typedef struct check_report {
    const test_case *test;
    const char *isa;                /* being run */
    int32_t isa_number;             /* in the options */
    int32_t ran[CHECK_MAX_ISAS][2], refused[CHECK_MAX_ISAS][2]; /* forwards and backwards; refused: by a forced variant */
    check_bound bounds[T_COUNT];    /* worst over the instruction sets */
    const char *bound_isas[T_COUNT];
    int32_t failures;
    char message[CHECK_MESSAGE_BYTES]; /* of the first failure */
    double seconds;
} check_report;

void check_case(check_report *report, const test_case *c, const check_options *options);

/* ---- for the files of the check, and bench/run.c ----------------------------------------------------------------------------- */

typedef struct check_truth {
    oracle_result forward, reference, plain, plain_f32, rounding, narrowing;
    unsigned char *exempt[T_COUNT]; /* rows that a NaN or inf may have reached; NULL: none */
} check_truth;

void check_find_truth(check_truth *truth, instance *x); /* leaves the true out and lse in the instance */
void check_free_truth(check_truth *truth);
__attribute__((format(printf, 2, 3))) void check_fail(check_report *report, const char *format, ...);
/* Fails unless status is DLATTN_OK, or a forced variant refused the problem. Returns the status. */
int32_t check_status(check_report *report, int32_t status, const char *what);

/* What the oracle has for the elements of a tensor. narrowing may be NULL: nothing is narrowed. */
typedef struct check_expected {
    const real *reference, *plain, *rounding, *narrowing;
} check_expected;

/* Judges a tensor of the instance by the rule of check_bound.c; `what` begins the message of a failure. */
check_bound check_rows(const DLTensor *t, check_expected expected, const unsigned char *exempt);
void check_tensor(check_report *report, const instance *x, const check_truth *truth, int id, const char *what);

/* Writes the true out and lse, rounded, into the instance: what its backward is handed. So forward and backward are
 * judged apart, each as a function of its inputs. */
void check_give_truth(instance *x, const check_truth *truth);

void check_forward_bits(check_report *report, instance *x, const check_truth *truth, const check_options *options);
void check_backward_bits(check_report *report, instance *x, const check_truth *truth, const check_options *options);
void check_visibility(check_report *report, const test_case *c, const check_options *options);
void check_dropout_mask(check_report *report, const instance *x);
void check_merge(check_report *report, const test_case *c, const check_truth *truth, const check_options *options);

#endif
