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

static oracle_result ask(const instance *x, int32_t arithmetic) {
    const held_tensor *t = x->tensors;
    oracle_request request = {.attention = &x->attention, .arithmetic = arithmetic, .out_dtype = t[T_OUT].dl.dtype};
    return oracle_run(&request);
}

static void start(trial *t, const char *name) {
    memset(t, 0, sizeof *t);
    instance_make(&t->x, case_find(name), 1);
    t->truth.forward = ask(&t->x, ORACLE_REFERENCE);
    t->truth.reference = ask(&t->x, ORACLE_REFERENCE);
    t->truth.plain = ask(&t->x, ORACLE_PLAIN);
    t->truth.plain_f32 = ask(&t->x, ORACLE_PLAIN_F32);
    t->truth.rounding = ask(&t->x, ORACLE_ROUNDING);
    check_give_truth(&t->x, &t->truth);
}

static void stop(trial *t) {
    oracle_free(&t->truth.forward);
    oracle_free(&t->truth.reference);
    oracle_free(&t->truth.plain);
    oracle_free(&t->truth.plain_f32);
    oracle_free(&t->truth.rounding);
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
