/* test_merge.c: joining parts of a split problem: the formula, empty parts, NaN, any dtype and strides, any threads. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "half.h"

enum { B = 2, H = 3, M = 70, E = 5, PARTS = 3, ROWS = B * H * M };

/* [b, i, h, e] and [b, h, i] as problem.out and problem.lse stand, compact. */
static operand out_operand(int32_t dtype) { return (operand){dtype, 0, {B, M, H, E}, {M * H * E, H * E, E, 1}}; }
static operand lse_operand(int32_t dtype) { return (operand){dtype, 0, {B, H, M, 1}, {H * M, M, 1, 0}}; }

typedef struct trial {
    float out[PARTS][ROWS * E], lse[PARTS][ROWS], merged[ROWS * E], merged_lse[ROWS];
    merge_part parts[PARTS];
    merge_problem problem;
} trial;

static double pseudo_random(uint32_t n) { /* in [-1, 1) */
    n = (n ^ n >> 16) * 0x7feb352du;
    n = (n ^ n >> 15) * 0x846ca68bu;
    return (double)(n ^ n >> 16) / 0x1p31 - 1;
}

static void start(trial *t) {
    for (uint32_t part = 0; part < PARTS; part++) {
        for (uint32_t n = 0; n < ROWS * E; n++) t->out[part][n] = (float)pseudo_random(part * 100000 + n);
        for (uint32_t n = 0; n < ROWS; n++) t->lse[part][n] = (float)(4 * pseudo_random(7777777 + part * 1000 + n));
        t->parts[part] = (merge_part){out_operand(DLATTN_T_F32), lse_operand(DLATTN_T_F32), t->out[part], t->lse[part]};
    }
    memset(t->merged, 0xff, sizeof t->merged);
    memset(t->merged_lse, 0xff, sizeof t->merged_lse);
    t->problem = (merge_problem){kDLCPU, 0, B, H, M, E, PARTS, out_operand(DLATTN_T_F32), lse_operand(DLATTN_T_F32)};
}

static void run(trial *t, int32_t threads) {
    const dlattn_exec exec = {.struct_size = sizeof exec, .num_threads = threads};
    cr_assert_eq(dlattn__cpu_merge(&t->problem, t->parts, t->merged, t->merged_lse, &exec), DLATTN_OK);
}

static int64_t lse_index(int64_t row) { /* row = (b * M + i) * H + h, as out counts */
    int64_t h = row % H, i = row / H % M, b = row / H / M;
    return (b * H + h) * M + i;
}

static long double true_lse(const trial *t, int64_t row) {
    long double sum = 0;
    for (int part = 0; part < PARTS; part++) sum += expl(t->lse[part][lse_index(row)]);
    return logl(sum);
}

static long double true_out(const trial *t, int64_t row, int64_t e) {
    long double sum = 0;
    for (int part = 0; part < PARTS; part++)
        sum += expl(t->lse[part][lse_index(row)] - true_lse(t, row)) * t->out[part][row * E + e];
    return sum;
}

/* The sums run in double; one rounding to float is all that is left of them. */
Test(merge, is_the_formula) {
    static trial t;
    start(&t);
    run(&t, 1);
    for (int64_t row = 0; row < ROWS; row++) {
        const long double lse = true_lse(&t, row);
        cr_assert_leq(fabsl(t.merged_lse[lse_index(row)] - lse), 0x1p-24L * fabsl(lse) + 0x1p-50L, "lse of row %d", (int)row);
        for (int64_t e = 0; e < E; e++) {
            const long double out = true_out(&t, row, e);
            cr_assert_leq(fabsl(t.merged[row * E + e] - out), 0x1p-24L * fabsl(out) + 0x1p-50L, "row %d, e %d", (int)row, (int)e);
        }
    }
}

Test(merge, one_part_is_itself) {
    static trial t;
    start(&t);
    t.problem.count = 1;
    run(&t, 1);
    cr_assert(memcmp(t.merged, t.out[0], sizeof t.merged) == 0);
    cr_assert(memcmp(t.merged_lse, t.lse[0], sizeof t.merged_lse) == 0);
}

Test(merge, a_part_that_saw_nothing_is_left_out) {
    static trial t;
    start(&t);
    for (int64_t n = 0; n < ROWS; n++) t.lse[1][n] = t.lse[2][n] = -INFINITY;
    for (int64_t n = 0; n < ROWS * E; n++) t.out[1][n] = NAN; /* nobody promised to write it */
    run(&t, 1);
    cr_assert(memcmp(t.merged, t.out[0], sizeof t.merged) == 0);
    cr_assert(memcmp(t.merged_lse, t.lse[0], sizeof t.merged_lse) == 0);
}

Test(merge, a_row_that_is_empty_everywhere_is_0) {
    static trial t;
    const int64_t row = 17;
    start(&t);
    for (int part = 0; part < PARTS; part++) t.lse[part][lse_index(row)] = -INFINITY;
    run(&t, 1);
    cr_assert_eq(t.merged_lse[lse_index(row)], -INFINITY);
    for (int64_t e = 0; e < E; e++) cr_assert_eq(t.merged[row * E + e], 0);
    cr_assert(isfinite(t.merged_lse[lse_index(row + 1)]));
}

Test(merge, nan_reaches_its_row_alone) {
    static trial t, clean;
    const int64_t row = 200;
    start(&t);
    start(&clean);
    t.lse[2][lse_index(row)] = NAN;
    run(&t, 1);
    run(&clean, 1);
    cr_assert(isnan(t.merged_lse[lse_index(row)]));
    for (int64_t n = 0; n < ROWS * E; n++)
        cr_assert(n / E == row ? isnan(t.merged[n]) : t.merged[n] == clean.merged[n], "element %d", (int)n);
}

Test(merge, far_apart_and_far_out) {
    static trial t;
    start(&t);
    for (int64_t n = 0; n < ROWS; n++) { /* exp of none of them is a finite number other than 0 */
        t.lse[0][n] = -2e30f;
        t.lse[1][n] = 1e30f;
        t.lse[2][n] = -1e4f;
    }
    run(&t, 1);
    cr_assert(memcmp(t.merged, t.out[1], sizeof t.merged) == 0);
    cr_assert(memcmp(t.merged_lse, t.lse[1], sizeof t.merged_lse) == 0);
}

Test(merge, same_bits_for_any_number_of_threads) {
    static trial one, many;
    start(&one);
    run(&one, 1);
    for (int32_t threads = 2; threads <= 7; threads++) {
        start(&many);
        run(&many, threads);
        cr_assert(memcmp(one.merged, many.merged, sizeof one.merged) == 0, "%d threads", (int)threads);
        cr_assert(memcmp(one.merged_lse, many.merged_lse, sizeof one.merged_lse) == 0, "%d threads", (int)threads);
    }
}

/* Halves in, halves out: numbers that both halves hold exactly, and equal weights. */
static void merge_halves(int32_t dtype, uint16_t (*narrow)(float), float (*widen)(uint16_t)) {
    static uint16_t out[2][ROWS * E], merged[ROWS * E];
    static trial t;
    start(&t);
    for (int64_t n = 0; n < ROWS * E; n++) {
        out[0][n] = narrow((float)(n % 32));
        out[1][n] = narrow((float)(n % 32 + 2));
    }
    memset(t.lse, 0, sizeof t.lse);
    t.problem.count = 2;
    t.problem.out = out_operand(dtype);
    t.problem.lse = (operand){0}; /* not wanted */
    for (int part = 0; part < 2; part++) t.parts[part].out = out_operand(dtype), t.parts[part].out_data = out[part];
    const dlattn_exec exec = {.struct_size = sizeof exec};
    cr_assert_eq(dlattn__cpu_merge(&t.problem, t.parts, merged, NULL, &exec), DLATTN_OK);
    for (int64_t n = 0; n < ROWS * E; n++) cr_assert_eq(widen(merged[n]), (float)(n % 32 + 1), "element %d", (int)n);
}

Test(merge, halves) {
    merge_halves(DLATTN_T_F16, dlattn__float_to_f16, dlattn__f16_to_float);
    merge_halves(DLATTN_T_BF16, dlattn__float_to_bf16, dlattn__bf16_to_float);
}

Test(merge, doubles_keep_their_digits) {
    static double out[2][ROWS * E], lse[2][ROWS], merged[ROWS * E], merged_lse[ROWS];
    static trial t;
    start(&t);
    for (int64_t n = 0; n < ROWS * E; n++) out[0][n] = 1 + 0x1p-40, out[1][n] = 1 + 0x1.8p-39;
    t.problem.count = 2;
    t.problem.out = out_operand(DLATTN_T_F64);
    t.problem.lse = lse_operand(DLATTN_T_F64);
    for (int part = 0; part < 2; part++)
        t.parts[part] = (merge_part){out_operand(DLATTN_T_F64), lse_operand(DLATTN_T_F64), out[part], lse[part]};
    const dlattn_exec exec = {.struct_size = sizeof exec};
    cr_assert_eq(dlattn__cpu_merge(&t.problem, t.parts, merged, merged_lse, &exec), DLATTN_OK);
    for (int64_t n = 0; n < ROWS * E; n++) cr_assert_leq(fabs(merged[n] - (1 + 0x1p-39)), 0x1p-51);
    for (int64_t n = 0; n < ROWS; n++) cr_assert_leq(fabs(merged_lse[n] - log(2)), 0x1p-52);
}

Test(merge, strides) {
    static float wide[ROWS * E * 2], reversed_lse[ROWS];
    static trial t, compact;
    start(&compact);
    run(&compact, 1);
    start(&t);
    memset(wide, 0xff, sizeof wide);
    t.problem.out.stride[0] *= 2, t.problem.out.stride[1] *= 2, t.problem.out.stride[2] *= 2, t.problem.out.stride[3] = 2;
    t.problem.lse = (operand){DLATTN_T_F32, 0, {B, H, M, 1}, {-H * M, -M, -1, 0}};
    const dlattn_exec exec = {.struct_size = sizeof exec};
    cr_assert_eq(dlattn__cpu_merge(&t.problem, t.parts, wide, reversed_lse + ROWS - 1, &exec), DLATTN_OK);
    for (int64_t n = 0; n < ROWS * E; n++) {
        cr_assert_eq(wide[2 * n], compact.merged[n]);
        cr_assert(isnan(wide[2 * n + 1]), "wrote into a gap");
    }
    for (int64_t n = 0; n < ROWS; n++) cr_assert_eq(reversed_lse[ROWS - 1 - n], compact.merged_lse[n]);
}

Test(merge, nothing_to_do) {
    static trial t;
    float untouched = 3;
    start(&t);
    t.problem.M = 0;
    const dlattn_exec exec = {.struct_size = sizeof exec};
    cr_assert_eq(dlattn__cpu_merge(&t.problem, t.parts, &untouched, &untouched, &exec), DLATTN_OK);
    cr_assert_eq(untouched, 3);
}
