/* check_visible.c: exactly which keys each query sees and which scores dropout keeps.
 *
 * A bound cannot see one wrong key in a long row. So every case also runs with q = k = 0 and without score terms: then
 * all visible weights are equal, lse is the logarithm of their number (plus the sink), and values that are 1 for a
 * single key turn out into the list of rows that see it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* The case with scores of zero. */
static test_case zeroed(const test_case *c) {
    test_case z = *c;
    z.inputs = ZERO_SCORES;
    z.bias = NULL;
    z.alibi = NULL;
    z.softcap = 0;
    z.gradients = NO_GRADIENTS;
    return z;
}

/* At most two neighbouring numbers of the dtype apart, or `slack` more. */
static int within_two_ulps(real x, real want, DLDataType dtype, real slack) {
    int exponent;
    if (isinf(want) || want == 0) return x == want;
    frexpl(want, &exponent);
    return fabsl(x - want) <= 2 * ldexpl(2 * (real)dtype_roundoff(dtype), exponent - 1) + slack;
}

/* A count is exact, but exp(sink) is rounded, and so is its sum with the count. Each rounding moves the sum by at most u
 * times itself, hence the logarithm by u: more than its own last places where it is near 0. */
static real sink_slack(int64_t count, DLDataType dtype) { return count > 0 ? 2 * (real)dtype_roundoff(dtype) : 0; }

static void expect_counts(check_report *report, const instance *x) {
    oracle_side queries, keys;
    const DLTensor *lse = &x->tensors[T_LSE].dl, *sinks = x->attention.sinks;
    for (int64_t b = 0; b < x->test->B; b++) {
        oracle_sides(&x->attention, b, &queries, &keys);
        for (int64_t h = 0; h < queries.heads; h++)
            for (int64_t i = 0; i < queries.length; i++) {
                int64_t count = 0, row = oracle_lse_row(&queries, b, h, i);
                for (int64_t j = 0; j < keys.length; j++) count += oracle_visible(&x->attention, b, h, i, j);
                real want = logl((real)count + (sinks ? expl(tensor_get(sinks, h)) : 0)), got = tensor_get(lse, row);
                if (within_two_ulps(got, want, lse->dtype, sinks ? sink_slack(count, lse->dtype) : 0)) continue;
                check_fail(report, "q = k = 0: lse of b %lld h %lld i %lld is %.9Lg, but %lld visible keys make %.9Lg",
                           (long long)b, (long long)h, (long long)i, got, (long long)count, want);
                return;
            }
    }
}

/* v[j][e] = 1 where j = first + e, for all b and g; 0 elsewhere. */
static void set_codes(instance *x, int64_t first, real value) {
    oracle_side queries, keys;
    int64_t E = x->test->E;
    for (int64_t b = 0; b < x->test->B; b++) {
        oracle_sides(&x->attention, b, &queries, &keys);
        for (int64_t g = 0; g < keys.heads; g++)
            for (int64_t e = 0; e < E && first + e < keys.length; e++)
                tensor_set(&x->tensors[T_V].dl, oracle_row(&keys, b, g, first + e) * E + e, value);
    }
}

static int expect_codes(check_report *report, const instance *x, int64_t first) {
    oracle_side queries, keys;
    int64_t E = x->test->E;
    for (int64_t b = 0; b < x->test->B; b++) {
        oracle_sides(&x->attention, b, &queries, &keys);
        for (int64_t h = 0; h < queries.heads; h++)
            for (int64_t i = 0; i < queries.length; i++)
                for (int64_t e = 0; e < E; e++) {
                    int64_t j = first + e;
                    int want = j < keys.length && oracle_visible(&x->attention, b, h, i, j) && oracle_kept(&x->attention, b, h, i, j);
                    real got = tensor_get(&x->tensors[T_OUT].dl, oracle_row(&queries, b, h, i) * E + e);
                    if (want ? got > 0 : got == 0) continue;
                    check_fail(report, "key j %lld of row b %lld h %lld i %lld is %s, its weight is %.6Lg", (long long)j, (long long)b,
                               (long long)h, (long long)i, want ? "visible and kept" : "hidden or dropped", got);
                    return 0;
                }
    }
    return 1;
}

void check_visibility(check_report *report, const test_case *c, const check_options *options) {
    test_case z = zeroed(c);
    oracle_side queries, keys;
    instance x;
    instance_make(&x, &z, options->seed);
    oracle_sides(&x.attention, 0, &queries, &keys);
    instance_poison(&x, T_OUT, T_LSE);
    for (int64_t b = 0; b < c->B; b++) { /* v = 0, where sequences are */
        oracle_side q, k;
        oracle_sides(&x.attention, b, &q, &k);
        for (int64_t g = 0; g < k.heads; g++)
            for (int64_t n = 0; n < k.length * c->E; n++)
                tensor_set(&x.tensors[T_V].dl, oracle_row(&k, b, g, n / c->E) * c->E + n % c->E, 0);
    }
    int running = 1;
    for (int64_t first = 0; running && first < keys.longest; first += c->E) {
        set_codes(&x, first, 1);
        running = !check_status(report, device_forward(&x.attention, &x.outputs, NULL), "dlattn_forward with q = k = 0");
        if (running && first == 0) expect_counts(report, &x);
        running = running && expect_codes(report, &x, first);
        set_codes(&x, first, 0);
    }
    instance_free(&x);
}

/* The CPU writes the same bytes, rows past the lengths included. */
static void expect_same_on_cpu(check_report *report, const instance *x, const DLTensor *keep, size_t bytes) {
    unsigned char *other = guarded_alloc(bytes);
    DLTensor tensor = *keep;
    tensor.data = other;
    int32_t status = dlattn_dropout_mask(&x->attention, &tensor, NULL);
    if (status) check_fail(report, "dlattn_dropout_mask on the CPU: %s", dlattn_last_error());
    else if (memcmp(other, keep->data, bytes)) check_fail(report, "dlattn_dropout_mask differs from the CPU's");
    guarded_free(other);
}

void check_dropout_mask(check_report *report, const instance *x) {
    oracle_side queries, keys;
    oracle_sides(&x->attention, 0, &queries, &keys);
    int64_t shape[4] = {x->test->B, x->test->H, queries.longest, keys.longest}, M = shape[2], N = shape[3];
    size_t bytes = (size_t)(shape[0] * shape[1] * M * N);
    unsigned char *keep = guarded_alloc(bytes);
    DLTensor tensor = {.data = keep, .device = {kDLCPU, 0}, .ndim = 4, .dtype = {kDLUInt, 8, 1}, .shape = shape};
    int right = !check_status(report, device_dropout_mask(&x->attention, &tensor, NULL), "dlattn_dropout_mask");
    for (int64_t b = 0; b < shape[0] && right; b++) {
        oracle_sides(&x->attention, b, &queries, &keys);
        for (int64_t at = 0; at < shape[1] * queries.length * keys.length && right; at++) {
            int64_t j = at % keys.length, i = at / keys.length % queries.length, h = at / keys.length / queries.length;
            right = keep[((b * shape[1] + h) * M + i) * N + j] == oracle_kept(&x->attention, b, h, i, j);
            if (!right)
                check_fail(report, "dlattn_dropout_mask: bit of b %lld h %lld i %lld j %lld is wrong", (long long)b, (long long)h,
                           (long long)i, (long long)j);
        }
    }
    if (!guarded_intact(keep, bytes)) check_fail(report, "dlattn_dropout_mask wrote outside its tensor");
    if (right && device_kind() != DEVICE_CPU) expect_same_on_cpu(report, x, &tensor, bytes);
    guarded_free(keep);
}
