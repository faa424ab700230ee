/* check.c: one case from end to end: the truth, then forward, backward and every further judgement on each
 * instruction set. */
#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void check_fail(check_report *report, const char *format, ...) {
    va_list arguments;
    if (report->failures++) return;
    int at = snprintf(report->message, sizeof report->message, "%s: ", report->isa ? report->isa : "");
    va_start(arguments, format);
    vsnprintf(report->message + at, sizeof report->message - (size_t)at, format, arguments);
    va_end(arguments);
}

/* On CUDA a named variant is asked for cases that it need not take. */
static int check_forced(const check_report *report) {
    return device_kind() == DEVICE_CUDA && report->isa && strcmp(report->isa, "auto") != 0;
}

int32_t check_status(check_report *report, int32_t status, const char *what) {
    if (status != DLATTN_OK && !(status == DLATTN_ERR_UNSUPPORTED && check_forced(report)))
        check_fail(report, "%s returned %s: %s", what, dlattn_status_name(status),
                   *device_message() ? device_message() : dlattn_last_error());
    return status;
}

/* ---- the truth ---------------------------------------------------------------------------------------------------- */

/* Rows of T_OUT, T_DQ, T_DK, T_DV that share (b, kv head) with the trap. */
static void mark_exempt(const instance *x, check_truth *truth) {
    oracle_side queries, keys;
    if (x->tainted_b < 0) return;
    oracle_sides(&x->attention, x->tainted_b, &queries, &keys);
    int64_t group = queries.heads / keys.heads;
    for (int id = T_DQ; id <= T_DV; id++) {
        const oracle_side *side = id == T_DQ ? &queries : &keys;
        truth->exempt[id] = calloc((size_t)oracle_rows(side) + 1, 1);
        int64_t heads = id == T_DQ ? group : 1;
        for (int64_t h = x->tainted_g * heads; h < (x->tainted_g + 1) * heads; h++)
            for (int64_t i = 0; i < side->length; i++) truth->exempt[id][oracle_row(side, x->tainted_b, h, i)] = 1;
    }
    if (x->test->inputs == INF_IN_V) { /* out has the rows of dq; a NaN in q reaches no other row of out */
        truth->exempt[T_OUT] = malloc((size_t)oracle_rows(&queries) + 1);
        memcpy(truth->exempt[T_OUT], truth->exempt[T_DQ], (size_t)oracle_rows(&queries) + 1);
    }
}

static int32_t multiplies_tf32(const instance *x) {
    return device_kind() == DEVICE_CUDA && x->test->dtype == F32 && x->attention.flags & DLATTN_ALLOW_TF32;
}

static oracle_result run_oracle(const instance *x, int32_t arithmetic) {
    const held_tensor *t = x->tensors;
    int32_t backward = x->test->gradients != NO_GRADIENTS && arithmetic != ORACLE_PLAIN_F32;
    oracle_request request = {
        .attention = &x->attention, .arithmetic = arithmetic, .out_dtype = t[T_OUT].dl.dtype,
        .gradient_dtype = t[T_DQ].dl.dtype, .dbias_dtype = t[T_DBIAS].dl.dtype, .dsinks_dtype = t[T_DSINKS].dl.dtype,
        .given_out = &t[T_OUT].dl, .given_lse = &t[T_LSE].dl, .dout = backward ? &t[T_DOUT].dl : NULL,
        .dlse = backward && t[T_DLSE].used ? &t[T_DLSE].dl : NULL,
        .tf32 = multiplies_tf32(x)};
    return oracle_run(&request);
}

void check_give_truth(instance *x, const check_truth *truth) {
    instance_poison(x, T_OUT, T_LSE);
    for (int64_t n = 0, count = tensor_count(&x->tensors[T_OUT].dl); n < count; n++)
        tensor_set(&x->tensors[T_OUT].dl, n, truth->forward.out[n]);
    for (int64_t n = 0, count = tensor_count(&x->tensors[T_LSE].dl); n < count; n++)
        tensor_set(&x->tensors[T_LSE].dl, n, truth->forward.lse[n]);
}

void check_find_truth(check_truth *truth, instance *x) {
    memset(truth, 0, sizeof *truth);
    oracle_request forward = {.attention = &x->attention, .arithmetic = ORACLE_REFERENCE, .tf32 = multiplies_tf32(x)};
    truth->forward = oracle_run(&forward);
    check_give_truth(x, truth);
    truth->reference = run_oracle(x, ORACLE_REFERENCE);
    truth->plain = run_oracle(x, ORACLE_PLAIN);
    truth->plain_f32 = run_oracle(x, ORACLE_PLAIN_F32);
    truth->rounding = run_oracle(x, ORACLE_ROUNDING);
    truth->narrowing = run_oracle(x, ORACLE_NARROWING);
    mark_exempt(x, truth);
}

void check_free_truth(check_truth *truth) {
    oracle_free(&truth->forward);
    oracle_free(&truth->reference);
    oracle_free(&truth->plain);
    oracle_free(&truth->plain_f32);
    oracle_free(&truth->rounding);
    oracle_free(&truth->narrowing);
    for (int id = 0; id < T_COUNT; id++) free(truth->exempt[id]);
}

/* ---- the run ------------------------------------------------------------------------------------------------------ */

static void expect_untouched(check_report *report, const instance *x, const char *when) {
    char message[100];
    if (instance_untouched(x, message, sizeof message)) check_fail(report, "%s by %s", message, when);
}

/* How far the nearest number of the 16-bit dtype is. */
static real misfit(real value, int32_t dtype) {
    float single = (float)value;
    return fabsl(single - (dtype == BF16 ? bfloat_to_float(float_to_bfloat(single)) : half_to_float(float_to_half(single))));
}

/* float32 results of 16-bit inputs are written unrounded: some element needs more bits than the input dtype has, if the
 * truth says that there are many such, however p and ds are rounded (a row that sees one key needs none). */
static void expect_unrounded(check_report *report, const instance *x, const real *truth, const real *narrowing, int id) {
    const DLTensor *t = &x->tensors[id].dl;
    int64_t longer = 0, same = 1;
    if (!x->tensors[id].used || t->dtype.bits != 32 || x->tensors[T_Q].dl.dtype.bits != 16) return;
    for (int64_t n = 0, count = tensor_count(t); n < count; n++) {
        longer += misfit(truth[n], x->test->dtype) > fabsl(narrowing[n]);
        same = same && !(misfit(tensor_get(t, n), x->test->dtype) > 0);
    }
    if (same && longer > 20) check_fail(report, "%s is float32 but was rounded to the input dtype", tensor_names[id]);
}

/* Counts the call; 0 if it failed or was refused. */
static int accepted(check_report *report, int32_t status, int backward) {
    check_status(report, status, backward ? "dlattn_backward" : "dlattn_forward");
    int32_t(*count)[2] = status == DLATTN_ERR_UNSUPPORTED && check_forced(report) ? report->refused : report->ran;
    count[report->isa_number][backward]++;
    return status == DLATTN_OK;
}

static int run_forward(check_report *report, instance *x, const check_truth *truth) {
    instance_poison(x, T_OUT, T_LSE);
    if (!accepted(report, device_forward(&x->attention, &x->outputs, NULL), 0)) return 0;
    expect_untouched(report, x, "the forward");
    check_tensor(report, x, truth, T_OUT, "");
    check_tensor(report, x, truth, T_LSE, "");
    if (x->test->f32_out) expect_unrounded(report, x, truth->reference.out, truth->narrowing.out, T_OUT);
    return 1;
}

static int run_backward(check_report *report, instance *x, const check_truth *truth) {
    instance_poison(x, T_DQ, T_DSINKS);
    check_give_truth(x, truth);
    if (!accepted(report, device_backward(&x->attention, &x->gradients, NULL), 1)) return 0;
    expect_untouched(report, x, "the backward");
    for (int id = T_DQ; id <= T_DSINKS; id++) check_tensor(report, x, truth, id, "");
    if (x->test->f32_gradients) {
        expect_unrounded(report, x, truth->reference.dq, truth->narrowing.dq, T_DQ);
        expect_unrounded(report, x, truth->reference.dk, truth->narrowing.dk, T_DK);
        expect_unrounded(report, x, truth->reference.dv, truth->narrowing.dv, T_DV);
    }
    return 1;
}

static void run_on_isa(check_report *report, instance *x, const check_truth *truth, const check_options *options) {
    const test_case *c = x->test;
    if (options->brief) device_capture(0);
    int forward = run_forward(report, x, truth);
    if (!forward && !check_forced(report)) return;
    if (forward) check_forward_bits(report, x, truth, options);
    if (c->gradients != NO_GRADIENTS && run_backward(report, x, truth)) check_backward_bits(report, x, truth, options);
    if (forward && !options->brief) check_visibility(report, c, options);
    if (forward) check_merge(report, c, truth, options);
    if (c->dropout > 0) check_dropout_mask(report, x);
}

void check_case(check_report *report, const test_case *c, const check_options *options) {
    struct timespec start, end;
    instance x;
    check_truth truth;
    clock_gettime(CLOCK_MONOTONIC, &start);
    *report = (check_report){.test = c};
    instance_make(&x, c, options->seed);
    check_find_truth(&truth, &x);
    const char *option = device_kind() == DEVICE_CUDA ? "cuda_variant" : "cpu_isa";
    for (int32_t n = 0; n < options->isa_count && !device_lost(); n++) {
        report->isa = options->isas[n];
        report->isa_number = n;
        const char *value = strcmp(report->isa, "auto") ? report->isa : NULL; /* NULL: what the environment says */
        int32_t status = dlattn_set_option(option, value);
        if (status) check_fail(report, "setting %s: %s", option, dlattn_last_error());
        else run_on_isa(report, &x, &truth, options);
    }
    dlattn_set_option(option, NULL);
    check_free_truth(&truth);
    instance_free(&x);
    clock_gettime(CLOCK_MONOTONIC, &end);
    report->seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
}
