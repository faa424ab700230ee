/* test_oracle.c: the oracle itself: its gradients against finite differences, Philox against the published vector, its
 * 16-bit numbers against all their values. */
#include <criterion/criterion.h>

#include <math.h>

#include "instance.h"
#include "oracle.h"

/* sum dout*out + sum dlse*lse over finite lse: its gradient is what the backward computes. */
static real loss(const instance *x) {
    const dlattn_gradients *g = &x->gradients;
    oracle_request request = {.attention = &x->attention, .out_dtype = g->out->dtype, .arithmetic = ORACLE_REFERENCE};
    oracle_result result = oracle_run(&request);
    real total = 0;
    for (int64_t n = 0, count = tensor_count(g->out); n < count; n++)
        if (result.out[n] != 0) total += tensor_get(g->dout, n) * result.out[n];
    for (int64_t n = 0, count = tensor_count(g->lse); n < count; n++)
        if (g->dlse && !isinf(result.lse[n])) total += tensor_get(g->dlse, n) * result.lse[n];
    oracle_free(&result);
    return total;
}

/* Central differences with step h: the error is h^2 times a third derivative (of order 10 here, weighted by about 100
 * terms), plus 1e-18/h from rounding: below 1e-6 for h = 1e-5. */
static void expect_derivative(instance *x, int id, const real *gradient, int64_t stride) {
    const DLTensor *t = &x->tensors[id].dl;
    const double h = 1e-5;
    for (int64_t n = 0, count = tensor_count(t); n < count; n += stride) {
        real value = tensor_get(t, n);
        if (value != value || isinf(value)) continue;
        tensor_set(t, n, value + h);
        real high = loss(x), top = tensor_get(t, n);
        tensor_set(t, n, value - h);
        real low = loss(x), bottom = tensor_get(t, n);
        tensor_set(t, n, value);
        real numeric = (high - low) / (top - bottom);
        cr_assert(fabsl(numeric - gradient[n]) <= 1e-6L * (1 + fabsl(numeric)), "%s: d%s[%lld] is %Lg, differences give %Lg",
                  x->test->name, tensor_names[id], (long long)n, gradient[n], numeric);
    }
}

static void expect_derivatives(const test_case *c) {
    instance x;
    instance_make(&x, c, 1);
    oracle_request request = {.attention = &x.attention, .dout = x.gradients.dout, .dlse = x.gradients.dlse,
                              .out_dtype = x.gradients.out->dtype, .gradient_dtype = x.gradients.dq->dtype};
    oracle_result result = oracle_run(&request);
    expect_derivative(&x, T_Q, result.dq, 7);
    expect_derivative(&x, T_K, result.dk, 7);
    expect_derivative(&x, T_V, result.dv, 7);
    if (c->bias) expect_derivative(&x, T_BIAS, result.dbias, 11);
    if (c->sinks) expect_derivative(&x, T_SINKS, result.dsinks, 1);
    oracle_free(&result);
    instance_free(&x);
}

/* Cases of the table, made smaller and float64. */
Test(oracle, gradients_equal_finite_differences) {
    static const char *const names[] = {"plain_f64", "causal_bottom_right_m_gt_n", "bias_broadcast_batch_head_dbias",
                                        "bias_broadcast_rows_dbias", "softcap_f64", "sinks_rows_without_keys", "dropout_f64",
                                        "alibi_per_batch_and_head", "segments_shuffled", "packed_gaps_between_sequences",
                                        "heads_first_layout", "bias_minus_inf_rows_with_sinks", "scale_negative"};
    for (unsigned n = 0; n < sizeof names / sizeof *names; n++) {
        const test_case *found = case_find(names[n]);
        cr_assert(found, "%s", names[n]);
        test_case c = *found;
        c.dtype = F64;
        c.D = 4;
        c.E = 3;
        expect_derivatives(&c);
    }
}

Test(oracle, gradients_equal_finite_differences_with_everything) {
    test_case c = *case_find("everything_together_f64");
    c.M = 9;
    c.N = 11;
    c.D = 4;
    c.E = 3;
    c.block_size = 3;
    c.q_used[0] = 9, c.q_used[1] = 6;
    c.k_used[0] = 8, c.k_used[1] = 11;
    c.q_starts[0] = 2, c.q_starts[1] = 4;
    expect_derivatives(&c);
}

/* The byte of (0, 0, i, j): the number of thresholds from 1 to 255 that it passes. */
static unsigned byte_of(dlattn_attention *a, int64_t i, int64_t j) {
    unsigned passed = 0;
    for (int t = 1; t < 256; t++) {
        a->dropout = t / 256.0;
        passed += (unsigned)oracle_kept(a, 0, 0, i, j);
    }
    return passed;
}

/* Random123's known answers for philox4x32-10: counter and key all zero, and all ones. With counter word 0 equal to
 * (j/32)*32 + (i%8)*4 + (j%8)/2 = 0, the sixteen bytes are those of i in {0, 8} and j in {0, 1, 8, 9, 16, ...}. */
Test(oracle, philox_gives_the_published_words) {
    static const uint32_t expected[4] = {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u};
    instance x;
    test_case c = *case_find("dropout");
    c.seed = c.offset = 0;
    instance_make(&x, &c, 1);
    for (int word = 0; word < 4; word++) {
        uint32_t got = 0;
        for (int byte = 0; byte < 4; byte++) got |= byte_of(&x.attention, byte / 2 * 8, word * 8 + byte % 2) << 8 * byte;
        cr_assert(got == expected[word], "word %d is %08x, published is %08x", word, got, expected[word]);
    }
    instance_free(&x);
}

Test(oracle, half_numbers_survive_conversion) {
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float half = half_to_float((uint16_t)bits), bfloat = bfloat_to_float((uint16_t)bits);
        if (half == half) cr_assert(float_to_half(half) == bits, "half %04x", bits);
        else cr_assert(half_to_float(float_to_half(half)) != half);
        if (bfloat == bfloat) cr_assert(float_to_bfloat(bfloat) == bits, "bfloat %04x", bits);
        else cr_assert(bfloat_to_float(float_to_bfloat(bfloat)) != bfloat);
    }
}

/* Ten bits of fraction: 1 + n/1024 are numbers, the next float goes back, and what lies in the middle goes away from 0. */
Test(oracle, tf32_numbers_have_ten_bits) {
    for (int n = 0; n < 1024; n++)
        for (int sign = -1; sign <= 1; sign += 2) {
            const float x = (float)sign * (1 + (float)n / 1024), next = (float)sign * (1 + (float)(n + 1) / 1024), middle = (x + next) / 2;
            cr_assert(float_to_tf32(x) == x);
            cr_assert(float_to_tf32(nextafterf(middle, 0)) == x);
            cr_assert(float_to_tf32(middle) == next);
        }
    cr_assert(float_to_tf32(0) == 0 && isinf(float_to_tf32(INFINITY)) && isnan(float_to_tf32(NAN)));
}

/* Between two neighbours, the nearer one; in the middle, the even one. */
Test(oracle, half_numbers_round_to_nearest_even) {
    for (uint32_t bits = 0; bits < 0x7bff; bits++) {
        float low = half_to_float((uint16_t)bits), high = half_to_float((uint16_t)(bits + 1)), middle = (low + high) / 2;
        cr_assert(float_to_half(nextafterf(middle, low)) == bits);
        cr_assert(float_to_half(nextafterf(middle, high)) == bits + 1);
        cr_assert(float_to_half(middle) == bits + (bits & 1));
    }
    cr_assert(float_to_half(65519.99f) == 0x7bff);
    cr_assert(float_to_half(65520.0f) == 0x7c00);
}
