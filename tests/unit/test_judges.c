/* test_judges.c: what judges the library is itself judged: each mistake that it should see, it sees. */
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#include "check.h"
#include "pairs.h"

/* A case with its truth, as check_case makes it, with the true results in the outputs. */
typedef struct trial {
    instance x;
    check_truth truth;
    check_report report;
} trial;

static oracle_result ask_forward(const instance *x, int32_t tf32) {
    oracle_request request = {.attention = &x->attention, .arithmetic = ORACLE_REFERENCE, .tf32 = tf32};
    return oracle_run(&request);
}

static oracle_result ask(const instance *x, int32_t arithmetic, int32_t tf32) {
    const held_tensor *t = x->tensors;
    oracle_request request = {.attention = &x->attention, .arithmetic = arithmetic, .tf32 = tf32, .out_dtype = t[T_OUT].dl.dtype,
                              .gradient_dtype = t[T_DQ].dl.dtype, .dbias_dtype = t[T_DBIAS].dl.dtype,
                              .dsinks_dtype = t[T_DSINKS].dl.dtype, .given_out = &t[T_OUT].dl, .given_lse = &t[T_LSE].dl,
                              .dout = &t[T_DOUT].dl, .dlse = t[T_DLSE].used ? &t[T_DLSE].dl : NULL};
    return oracle_run(&request);
}

static void start_products(trial *t, const char *name, int32_t tf32) {
    memset(t, 0, sizeof *t);
    instance_make(&t->x, case_find(name), 1);
    t->truth.forward = ask_forward(&t->x, tf32);
    check_give_truth(&t->x, &t->truth);
    t->truth.reference = ask(&t->x, ORACLE_REFERENCE, tf32);
    t->truth.plain = ask(&t->x, ORACLE_PLAIN, tf32);
    t->truth.plain_f32 = ask(&t->x, ORACLE_PLAIN_F32, tf32);
    t->truth.rounding = ask(&t->x, ORACLE_ROUNDING, tf32);
    t->truth.narrowing = ask(&t->x, ORACLE_NARROWING, tf32);
}

static void start(trial *t, const char *name) { start_products(t, name, 0); }

static void stop(trial *t) {
    oracle_free(&t->truth.forward);
    oracle_free(&t->truth.reference);
    oracle_free(&t->truth.plain);
    oracle_free(&t->truth.plain_f32);
    oracle_free(&t->truth.rounding);
    oracle_free(&t->truth.narrowing);
    instance_free(&t->x);
}

static int32_t failures(trial *t, int id) {
    t->report = (check_report){.isa = "test"};
    check_tensor(&t->report, &t->x, &t->truth, id, "");
    return t->report.failures;
}

Test(judges, the_truth_passes_and_an_error_fails) {
    static const char *const names[] = {"plain", "plain_f16", "plain_bf16", "plain_f64", "decode_one_row", "packed_both"};
    static const double errors[] = {1e-5, 2e-2, 1e-1, 1e-13, 1e-5, 1e-5};
    for (unsigned n = 0; n < sizeof names / sizeof *names; n++) {
        trial t;
        start(&t, names[n]);
        cr_assert(failures(&t, T_OUT) == 0, "%s: %s", names[n], t.report.message);
        cr_assert(failures(&t, T_LSE) == 0, "%s: %s", names[n], t.report.message);
        const DLTensor *out = &t.x.tensors[T_OUT].dl;
        tensor_set(out, 5, tensor_get(out, 5) + (real)errors[n]);
        cr_assert(failures(&t, T_OUT) == 1, "%s: an error of %g passed", names[n], errors[n]);
        stop(&t);
    }
}

Test(judges, infinities_and_nan_must_be_where_they_belong) {
    trial t;
    start(&t, "causal_bottom_right_m_gt_n");
    const DLTensor *lse = &t.x.tensors[T_LSE].dl, *out = &t.x.tensors[T_OUT].dl;
    cr_assert(failures(&t, T_LSE) == 0);
    cr_assert(tensor_get(lse, 0) == -(real)INFINITY);
    tensor_set(lse, 0, -1e30L);
    cr_assert(failures(&t, T_LSE) == 1);
    tensor_set(lse, 0, (real)INFINITY);
    cr_assert(failures(&t, T_LSE) == 1);
    tensor_set(out, 3, (real)NAN);
    cr_assert(failures(&t, T_OUT) == 1);
    tensor_set(out, 3, 1e-30L); /* a row without keys is 0, not nearly 0 */
    cr_assert(failures(&t, T_OUT) == 1);
    stop(&t);
}

/* Writes reference + times * narrowing: all that roundings of p and ds may do at most, or a multiple of it. */
static void write_narrowed(trial *t, int id, real times) {
    const oracle_result *r = &t->truth.reference, *n = &t->truth.narrowing;
    const real *reference = id == T_OUT ? r->out : id == T_DQ ? r->dq : id == T_DK ? r->dk : r->dv;
    const real *narrowing = id == T_OUT ? n->out : id == T_DQ ? n->dq : id == T_DK ? n->dk : n->dv;
    const DLTensor *to = &t->x.tensors[id].dl;
    for (int64_t x = 0, count = tensor_count(to); x < count; x++) tensor_set(to, x, reference[x] + times * narrowing[x]);
}

/* The same for the narrow type TF32. */
Test(judges, one_rounding_to_tf32_passes_and_two_fail) {
    static const int ids[] = {T_OUT, T_DQ, T_DK, T_DV};
    trial t;
    start_products(&t, "tf32_few_keys", 1);
    for (unsigned m = 0; m < sizeof ids / sizeof *ids; m++) {
        write_narrowed(&t, ids[m], 1);
        cr_assert(failures(&t, ids[m]) == 0, "%s", t.report.message);
        write_narrowed(&t, ids[m], 2);
        cr_assert(failures(&t, ids[m]) == 1, "twice the rounding of %s passed", tensor_names[ids[m]]);
    }
    stop(&t);
}

/* In rows of few keys plain's roundings cancel now and then; there one rounding of each p and ds is what may be, not two. */
Test(judges, one_rounding_of_the_weights_passes_and_two_fail) {
    static const char *const names[] = {"few_keys_f32_outputs_f16", "few_keys_f32_outputs_bf16"};
    static const int ids[] = {T_OUT, T_DQ, T_DK, T_DV};
    for (unsigned n = 0; n < sizeof names / sizeof *names; n++) {
        trial t;
        start(&t, names[n]);
        for (unsigned m = 0; m < sizeof ids / sizeof *ids; m++) {
            write_narrowed(&t, ids[m], 0);
            cr_assert(failures(&t, ids[m]) == 0, "%s: %s", names[n], t.report.message);
            write_narrowed(&t, ids[m], 1);
            cr_assert(failures(&t, ids[m]) == 0, "%s: %s", names[n], t.report.message);
            write_narrowed(&t, ids[m], 2);
            cr_assert(failures(&t, ids[m]) == 1, "%s: twice the rounding of %s passed", names[n], tensor_names[ids[m]]);
        }
        stop(&t);
    }
}

static real rounded(real p, int32_t dtype) {
    return dtype == BF16 ? bfloat_to_float(float_to_bfloat((float)p)) : half_to_float(float_to_half((float)p));
}

/* out as a kernel that rounds exp(s - max) to the type once, and sums it unrounded. One batch, no score terms. */
static void write_kernel_out(trial *t, int32_t dtype) {
    const test_case *c = t->x.test;
    const dlattn_attention *a = &t->x.attention;
    oracle_side queries, keys;
    oracle_sides(a, 0, &queries, &keys);
    for (int64_t row = 0; row < c->H * c->M; row++) {
        const int64_t h = row / c->M, i = row % c->M, g = h / (c->H / c->G);
        real s[64], top = -(real)INFINITY, total = 0;
        cr_assert(c->N <= 64 && c->E <= 64);
        for (int64_t j = 0; j < c->N; j++) {
            s[j] = oracle_visible(a, 0, h, i, j) ? 0 : -(real)INFINITY;
            for (int64_t d = 0; d < c->D && s[j] == s[j]; d++)
                s[j] += tensor_get(a->q, oracle_row(&queries, 0, h, i) * c->D + d) *
                        tensor_get(a->k, oracle_row(&keys, 0, g, j) * c->D + d) / sqrtl((real)c->D);
            if (s[j] > top) top = s[j];
        }
        for (int64_t j = 0; j < c->N; j++) total += expl(s[j] - top);
        for (int64_t e = 0; e < c->E; e++) {
            real sum = 0;
            for (int64_t j = 0; j < c->N; j++)
                sum += rounded(expl(s[j] - top), dtype) * tensor_get(a->v, oracle_row(&keys, 0, g, j) * c->E + e);
            tensor_set(&t->x.tensors[T_OUT].dl, oracle_row(&queries, 0, h, i) * c->E + e, sum / total);
        }
    }
}

Test(judges, weights_of_the_input_type_pass_and_coarser_ones_fail) {
    trial t;
    start(&t, "few_keys_f32_outputs_f16");
    write_kernel_out(&t, F16);
    cr_assert(failures(&t, T_OUT) == 0, "%s", t.report.message);
    write_kernel_out(&t, BF16);
    cr_assert(failures(&t, T_OUT) == 1, "weights rounded to bfloat16 passed");
    stop(&t);
}

/* Long rows are judged by plain's own error, as ever: there the sum of independent roundings is far below it. */
Test(judges, narrowing_does_not_matter_in_long_rows) {
    trial t;
    start(&t, "decode_gqa_long_keys_bf16");
    write_narrowed(&t, T_OUT, 0);
    cr_assert(failures(&t, T_OUT) == 0, "%s", t.report.message);
    check_bound with = t.report.bounds[T_OUT];
    oracle_free(&t.truth.narrowing);
    t.truth.narrowing = ask(&t.x, ORACLE_REFERENCE, 0);
    for (int64_t n = 0, count = tensor_count(&t.x.tensors[T_OUT].dl); n < count; n++) t.truth.narrowing.out[n] = 0;
    cr_assert(failures(&t, T_OUT) == 0, "%s", t.report.message);
    cr_assert(t.report.bounds[T_OUT].allowed == with.allowed);
    stop(&t);
}

/* The products of all inputs rounded to `bits` bits of fraction. */
static void write_products(trial *t, const char *name, int bits) {
    static const int ids[] = {T_Q, T_K, T_V};
    instance x;
    instance_make(&x, case_find(name), 1);
    for (unsigned m = 0; m < sizeof ids / sizeof *ids; m++)
        for (int64_t n = 0, count = tensor_count(&x.tensors[ids[m]].dl); n < count; n++) {
            const float value = (float)tensor_get(&x.tensors[ids[m]].dl, n);
            tensor_set(&x.tensors[ids[m]].dl, n, bits == 10 ? float_to_tf32(value) : bfloat_to_float(float_to_bfloat(value)));
        }
    oracle_result result = ask_forward(&x, 0);
    for (int64_t n = 0, count = tensor_count(&x.tensors[T_OUT].dl); n < count; n++) tensor_set(&t->x.tensors[T_OUT].dl, n, result.out[n]);
    for (int64_t n = 0, count = tensor_count(&x.tensors[T_LSE].dl); n < count; n++) tensor_set(&t->x.tensors[T_LSE].dl, n, result.lse[n]);
    oracle_free(&result);
    instance_free(&x);
}

Test(judges, tf32_products_pass_where_allowed_and_coarser_ones_fail) {
    static const char *const names[] = {"tf32_plain", "tf32_causal", "tf32_odd_sizes"};
    for (unsigned n = 0; n < sizeof names / sizeof *names; n++) {
        trial t;
        start_products(&t, names[n], 1);
        write_products(&t, names[n], 10);
        cr_assert(failures(&t, T_OUT) == 0 && failures(&t, T_LSE) == 0, "%s: %s", names[n], t.report.message);
        write_products(&t, names[n], 7);
        cr_assert(failures(&t, T_OUT) == 1 && failures(&t, T_LSE) == 1, "%s: products of bfloat16 passed", names[n]);
        stop(&t);
        start(&t, names[n]);
        write_products(&t, names[n], 10);
        cr_assert(failures(&t, T_OUT) == 1 && failures(&t, T_LSE) == 1, "%s: TF32 passed for float32", names[n]);
        stop(&t);
    }
}

Test(judges, writes_outside_of_tensors_are_seen) {
    static const char *const names[] = {"plain", "gaps_in_strides", "negative_strides", "interleaved_dqkv_views", "byte_offset"};
    for (unsigned n = 0; n < sizeof names / sizeof *names; n++) {
        instance x;
        char message[100];
        instance_make(&x, case_find(names[n]), 1);
        cr_assert(instance_untouched(&x, message, sizeof message) == 0, "%s: %s", names[n], message);
        const buffer *out = &x.buffers[x.tensors[T_OUT].buffer], *q = &x.buffers[x.tensors[T_Q].buffer];
        out->memory[out->bytes] = 0;
        cr_assert(instance_untouched(&x, message, sizeof message), "%s: a write behind out", names[n]);
        out->memory[out->bytes] = 0xFF;
        q->memory[0] ^= 1;
        cr_assert(instance_untouched(&x, message, sizeof message), "%s: a write into q", names[n]);
        q->memory[0] ^= 1;
        cr_assert(instance_untouched(&x, message, sizeof message) == 0, "%s: %s", names[n], message);
        instance_free(&x);
    }
}

Test(judges, writes_into_gaps_are_seen) {
    instance x;
    char message[100];
    instance_make(&x, case_find("gaps_in_strides"), 1);
    const DLTensor *out = &x.tensors[T_OUT].dl;
    cr_assert(tensor_stride(out, 3) == 2);
    *(tensor_address(out, 0) + tensor_item_bytes(out)) = 0;
    cr_assert(instance_untouched(&x, message, sizeof message));
    instance_free(&x);
}

/* The interval form of every mask against the oracle, one pair after the other. */
Test(judges, counted_pairs_are_the_visible_ones) {
    for (int64_t n = 0; n < test_case_count; n++) {
        const test_case *c = &test_cases[n];
        oracle_side queries, keys;
        instance x;
        double visible = 0;
        instance_make(&x, c, 1);
        for (int64_t b = 0; b < c->B; b++) {
            oracle_sides(&x.attention, b, &queries, &keys);
            for (int64_t h = 0; h < c->H; h++)
                for (int64_t i = 0; i < queries.length; i++)
                    for (int64_t j = 0; j < keys.length; j++) visible += oracle_visible(&x.attention, b, h, i, j);
        }
        cr_assert(count_pairs(&x.attention) == visible, "%s: counted %.0f, visible are %.0f", c->name, count_pairs(&x.attention), visible);
        instance_free(&x);
    }
}
