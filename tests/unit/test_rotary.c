/* test_rotary.c: dlattn_rotary: the formula in double, its inverse, in place, by pairs or halves, any dtype and strides. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "dlattn/dlattn.h"
#include "half.h"

enum { B = 2, S = 5, H = 3, D = 10, PAIRS = 3, POSITIONS = 9, COUNT = B * S * H * D };

typedef struct trial {
    float x[COUNT], out[COUNT], cosines[POSITIONS * PAIRS], sines[POSITIONS * PAIRS];
    uint16_t half_x[COUNT], half_out[COUNT];
    int64_t starts[B], shape[4], angle_shape[2], batch_shape[1];
    DLTensor tx, tout, tcosines, tsines, tstarts;
    char message[256];
    dlattn_exec exec;
    dlattn_rotation rotation;
} trial;

static DLTensor tensor_of(void *data, int64_t *shape, int32_t rank, int code, int bits) {
    return (DLTensor){.data = data, .device = {kDLCPU, 0}, .ndim = rank, .dtype = {(uint8_t)code, (uint8_t)bits, 1},
                      .shape = shape};
}

static double angle(int64_t position, int64_t pair) { return 0.7 * (double)position + 1.3 * (double)pair; }

static void start(trial *t) {
    memset(t, 0, sizeof *t);
    memcpy(t->shape, (int64_t[]){B, S, H, D}, sizeof t->shape);
    memcpy(t->angle_shape, (int64_t[]){POSITIONS, PAIRS}, sizeof t->angle_shape);
    t->batch_shape[0] = B;
    for (int n = 0; n < COUNT; n++) t->x[n] = (float)sin(1.0 + 0.37 * n);
    for (int n = 0; n < COUNT; n++) t->half_x[n] = dlattn__float_to_bf16(t->x[n]);
    for (int n = 0; n < POSITIONS * PAIRS; n++) {
        t->cosines[n] = (float)cos(angle(n / PAIRS, n % PAIRS));
        t->sines[n] = (float)sin(angle(n / PAIRS, n % PAIRS));
    }
    memset(t->out, 0xff, sizeof t->out);
    t->starts[0] = 1, t->starts[1] = POSITIONS - S;
    t->tx = tensor_of(t->x, t->shape, 4, kDLFloat, 32);
    t->tout = tensor_of(t->out, t->shape, 4, kDLFloat, 32);
    t->tcosines = tensor_of(t->cosines, t->angle_shape, 2, kDLFloat, 32);
    t->tsines = tensor_of(t->sines, t->angle_shape, 2, kDLFloat, 32);
    t->tstarts = tensor_of(t->starts, t->batch_shape, 1, kDLInt, 64);
    t->exec = (dlattn_exec){.struct_size = sizeof t->exec, .message = t->message, .message_bytes = sizeof t->message};
    t->rotation = (dlattn_rotation){.struct_size = sizeof t->rotation, .x = &t->tx, .cosines = &t->tcosines,
                                    .sines = &t->tsines, .starts = &t->tstarts, .out = &t->tout};
}

static void run(trial *t) { cr_assert_eq(dlattn_rotary(&t->rotation, &t->exec), DLATTN_OK, "%s", t->message); }

/* Element d of the row that begins at x, rotated: from the angles, in double. */
static double expected(const trial *t, const float *row, int64_t position, int64_t d) {
    const bool interleaved = t->rotation.interleaved;
    if (d >= 2 * PAIRS) return row[d];
    const int64_t pair = interleaved ? d / 2 : d % PAIRS;
    const bool second = interleaved ? d % 2 : d >= PAIRS;
    const double x = row[interleaved ? 2 * pair : pair], y = row[interleaved ? 2 * pair + 1 : pair + PAIRS];
    const double a = angle(position, pair) * (t->rotation.inverse ? -1 : 1);
    return second ? x * sin(a) + y * cos(a) : x * cos(a) - y * sin(a);
}

static double worst(const trial *t, const float *x, const float *out) {
    double most = 0;
    for (int64_t n = 0; n < COUNT; n++) {
        const int64_t d = n % D, s = n / D / H % S, b = n / D / H / S;
        const double error = fabs(out[n] - expected(t, x + n - d, (t->rotation.starts ? t->starts[b] : 0) + s, d));
        most = error <= most ? most : error; /* NaN stays */
    }
    return most;
}

/* |x|, |y| <= 1: the angles' float32 rounding and one of the result. */
static const double bound = 3 * 0x1p-24;

Test(rotary, is_the_formula_by_halves_and_by_pairs) {
    static trial t;
    for (int way = 0; way < 8; way++) {
        start(&t);
        t.rotation.interleaved = way & 1, t.rotation.inverse = way >> 1 & 1;
        if (way & 4) t.rotation.starts = NULL;
        run(&t);
        cr_expect_leq(worst(&t, t.x, t.out), bound, "way %d: %g", way, worst(&t, t.x, t.out));
    }
}

Test(rotary, in_place_is_the_same) {
    static trial t, apart;
    start(&t), start(&apart);
    t.rotation.out = &t.tx;
    run(&t), run(&apart);
    cr_expect(memcmp(t.x, apart.out, sizeof t.x) == 0);
}

Test(rotary, the_inverse_rotates_back) {
    static trial t;
    static float x[COUNT];
    start(&t);
    memcpy(x, t.x, sizeof x);
    t.rotation.out = &t.tx;
    run(&t);
    cr_expect(memcmp(x, t.x, sizeof x) != 0);
    t.rotation.inverse = 1;
    run(&t);
    for (int n = 0; n < COUNT; n++) cr_expect_leq(fabs((double)x[n] - t.x[n]), 2 * bound, "element %d", n);
}

Test(rotary, bfloat16_is_rounded_once) {
    static trial t;
    static float x[COUNT];
    start(&t);
    t.tx = tensor_of(t.half_x, t.shape, 4, kDLBfloat, 16), t.tout = tensor_of(t.half_out, t.shape, 4, kDLBfloat, 16);
    run(&t);
    for (int n = 0; n < COUNT; n++) x[n] = dlattn__bf16_to_float(t.half_x[n]);
    for (int64_t n = 0; n < COUNT; n++) {
        const double exact = expected(&t, x + n - n % D, t.starts[n / D / H / S] + n / D / H % S, n % D);
        cr_expect_leq(fabs(dlattn__bf16_to_float(t.half_out[n]) - exact), fabs(exact) * 0x1p-8 + bound, "element %d", (int)n);
    }
}

Test(rotary, layouts_and_strides_do_not_matter) {
    static trial t, plain;
    int64_t strides[4] = {S * H * D, D, H * D, 1};
    start(&t), start(&plain);
    t.shape[1] = H, t.shape[2] = S;
    t.tx.strides = t.tout.strides = strides;
    t.rotation.layout = DLATTN_BHSD;
    run(&t), run(&plain);
    cr_expect(memcmp(t.out, plain.out, sizeof t.out) == 0);
}

static void expect_refusal(trial *t, int32_t status, const char *sentence) {
    uint32_t bits;
    cr_expect_eq(dlattn_rotary(&t->rotation, &t->exec), status, "%s", sentence);
    cr_expect(strstr(t->message, sentence), "%s\nexpected: %s", t->message, sentence);
    memcpy(&bits, t->out, sizeof bits);
    cr_expect_eq(bits, UINT32_MAX, "out is untouched: %s", sentence);
}

Test(rotary, refusals) {
    static trial t;
    start(&t);
    t.starts[1] = POSITIONS - S + 1;
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "starts[1] is 5, expected 0 to 4 (5 tokens, 9 positions)");
    start(&t);
    t.rotation.starts = NULL, t.angle_shape[0] = S - 1;
    expect_refusal(&t, DLATTN_ERR_SHAPE, "cosines has 4 positions, expected at least x's 5 tokens");
    start(&t);
    t.angle_shape[0] = 3, t.angle_shape[1] = D / 2 + 1;
    expect_refusal(&t, DLATTN_ERR_SHAPE, "cosines has 6 pairs, expected at most 5, half of x's head size");
    start(&t);
    t.tcosines.dtype.bits = 16;
    expect_refusal(&t, DLATTN_ERR_DTYPE, "cosines has dtype float16, expected float32");
    start(&t);
    t.rotation.sines = NULL;
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "sines is NULL, expected a tensor [positions,R/2]");
    start(&t);
    t.tout.data = t.x + 1;
    expect_refusal(&t, DLATTN_ERR_SHAPE, "out overlaps x, expected memory of its own");
}
