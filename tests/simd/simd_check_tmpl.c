/* simd_check_tmpl.c: every operation of one vocabulary, and the dropout bits, against plain C; compiled once per
 * instruction set and kind.
 *
 * u is the unit roundoff, 2^-24 or 2^-53. Bits must be equal, except for exp2 and tanh, whose bounds are derived where
 * they are tested, and for NaN, which must be NaN. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "dropout_tmpl.h"
#include "exp2_tmpl.h"
#include "half.h"

/* How many checks failed; prints each. */
int NAME(simd_check)(void);

static int failures;

static __attribute__((format(printf, 1, 2))) void fail(const char *format, ...) {
    va_list arguments;
    if (++failures > 20) return;
    printf("%s %s: ", DLATTN_STRING(DLATTN_ISA), DLATTN_STRING(DLATTN_REAL));
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

static bool same(real a, real b) { return (a != a && b != b) || (a == b && signbit(a) == signbit(b)); }
static bool has_fma(void) { return L > 1; } /* the scalar vocabulary rounds twice, on purpose */

static real first(v x) {
    real lanes[L];
    v_store(lanes, x);
    return lanes[0];
}

static const real specials[] = {0,    -0.0f,     1,         -1,   0.5f, -1.5f,         2.5f, 3.5f, -7.25f, 1e-3f,
                                1e4f, -123456.f, 1048575.f, 1e-20f, 3e38f, -REAL_MAX, -INFINITY, INFINITY, NAN, 1e-39f};
enum { SPECIALS = sizeof specials / sizeof *specials };

static void check_pair(real x, real y, real z) {
    real got[L];
    v a = v_set1(x), b = v_set1(y), c = v_set1(z);
#define CHECK(name, expression, expected)                                                                     \
    do {                                                                                                      \
        v_store(got, expression);                                                                             \
        for (int lane = 0; lane < L; lane++)                                                                  \
            if (!same(got[lane], (real)(expected)))                                                           \
                fail("%s(%g, %g, %g)[%d] = %g, expected %g", name, (double)x, (double)y, (double)z, lane,     \
                     (double)got[lane], (double)(real)(expected));                                            \
    } while (0)
    CHECK("add", v_add(a, b), x + y);
    CHECK("sub", v_sub(a, b), x - y);
    CHECK("mul", v_mul(a, b), x * y);
    CHECK("div", v_div(a, b), x / y);
    if (x != 0 || y != 0) { /* which zero comes out is not promised */
        CHECK("max", v_max(a, b), x > y ? x : y);
        CHECK("min", v_min(a, b), x < y ? x : y);
    }
    CHECK("select", v_select(vm_lt(a, b), a, c), x < y ? x : z);
    if (x == x) CHECK("abs", v_add(v_abs(a), v_zero()), x < 0 ? -x : x + 0);
    if (fabs((double)x) <= 1 << 20) CHECK("round", v_add(v_round(a), v_zero()), nearbyint((double)x) + 0.0);
    real fma_expected = REAL_IS_F64 ? (real)fma(x, y, z) : (real)fmaf((float)x, (float)y, (float)z);
    real fnma_expected = REAL_IS_F64 ? (real)fma(-x, y, z) : (real)fmaf(-(float)x, (float)y, (float)z);
    CHECK("fma", v_fma(a, b, c), has_fma() ? fma_expected : x * y + z);
    CHECK("fnma", v_fnma(a, b, c), has_fma() ? fnma_expected : z - x * y);
#undef CHECK
}

static void check_elementwise(void) {
    for (int i = 0; i < SPECIALS; i++)
        for (int j = 0; j < SPECIALS; j++)
            for (int k = 0; k < SPECIALS; k++) check_pair(specials[i], specials[j], specials[k]);
}

static void check_lanes(void) {
    real in[L + 2], out[L + 2];
    uint8_t bytes[L];
    for (int64_t n = -1; n <= L + 1; n++) {
        for (int i = 0; i < L + 2; i++) in[i] = (real)(i + 1), out[i] = -7;
        v_store_n(out, v_load_n(in, n), n);
        for (int i = 0; i < L + 2; i++)
            if (out[i] != (i < n && i < L ? in[i] : -7)) fail("store_n or load_n with n = %d, lane %d", (int)n, i);
        v_store(out, v_load_n(in, n));
        for (int i = 0; i < L; i++)
            if (out[i] != (i < n ? in[i] : 0)) fail("load_n with n = %d, lane %d is %g", (int)n, i, (double)out[i]);
        v_store(out, v_select(vm_first(n), v_set1(1), v_zero()));
        for (int i = 0; i < L; i++)
            if (out[i] != (i < n)) fail("vm_first(%d), lane %d", (int)n, i);
    }
    for (int repeat = 0; repeat < 64; repeat++) {
        static const uint8_t values[] = {0, 1, 128, 255};
        for (int i = 0; i < L; i++) bytes[i] = values[rand() & 3];
        v_store(out, v_select(vm_bytes(bytes), v_set1(1), v_zero()));
        for (int i = 0; i < L; i++)
            if (out[i] != (bytes[i] != 0)) fail("vm_bytes, lane %d, byte %d", i, bytes[i]);
        int sum = 0, top = -1000;
        for (int i = 0; i < L; i++) {
            int number = rand() % 2001 - 1000;
            in[i] = (real)number;
            sum += number;
            if (number > top) top = number;
        }
        if (v_hsum(v_load(in)) != (real)sum) fail("hsum");
        if (v_hmax(v_load(in)) != (real)top) fail("hmax");
    }
    v rows[L];
    real sums[L] = {0};
    for (int r = 0; r < L; r++) {
        for (int i = 0; i < L; i++) sums[r] += in[i] = (real)(rand() % 2001 - 1000);
        rows[r] = v_load(in);
    }
    v_store(out, v_sums(rows));
    for (int r = 0; r < L; r++)
        if (out[r] != sums[r]) fail("sums, lane %d", r);
    v_store(out, v_iota());
    for (int i = 0; i < L; i++)
        if (out[i] != (real)i) fail("iota, lane %d", i);
}

static void check_scale(void) {
    static const real factors[] = {1, 0.7071f, 1.4142f, -0.75f};
    const int lowest = REAL_IS_F64 ? -1300 : -400, highest = REAL_IS_F64 ? 970 : 103;
    for (int i = 0; i < 4; i++) {
        for (int n = lowest; n <= highest; n++) {
            real got = first(v_scale(v_set1(factors[i]), v_set1((real)n)));
            real exact = (real)ldexp((double)factors[i], n);
            if (got != exact) fail("scale(%g, %d) = %a, expected %a", (double)factors[i], n, (double)got, (double)exact);
        }
    }
    real got = first(v_scale(v_set1(NAN), v_set1(NAN)));
    if (got == got) fail("scale(NaN, NaN) = %g", (double)got);
}

#if REAL_IS_F64
typedef long double wide;
#define WIDE_EXP2 exp2l
#define WIDE_TANH tanhl
#define UNIT 0x1p-53L
#else
typedef double wide;
#define WIDE_EXP2 exp2
#define WIDE_TANH tanh
#define UNIT 0x1p-24
#endif

/* p = 1 + y, y = f q(f), |y| <= 0.293 for f < 0 and 0.415 for f > 0. q carries 1.25 u (its last fma, and the one before
 * times f c2/c1 < 0.2), y 2.25 u of |y|; the sum rounds by u/2 (p < 1) or u (p >= 1). Relative: at most
 * (2.25 * 0.293 + 0.5) / 0.707 = 1.64 u, and 0.1 u of the polynomial. Without fma q carries 2.4 u: 2.2 u. */
static void check_exp2(void) {
    const wide bound = has_fma() ? 1.75 : 2.3;
    wide worst = 0;
    for (double x = -120; x <= 103; x += 0.00037) {
        wide exact = WIDE_EXP2((wide)(real)x), got = first(v_exp2(v_set1((real)x)));
        wide error = (got > exact ? got - exact : exact - got) / exact / UNIT;
        if (!(error <= bound)) fail("exp2(%.17g) is off by %g u", x, (double)error);
        if (error > worst) worst = error;
    }
    for (int n = -149; n <= 103; n++)
        if (first(v_exp2(v_set1((real)n))) != (real)ldexp(1, n)) fail("exp2(%d) is not exact", n);
    static const real zeros[] = {-INFINITY, -REAL_MAX, -100000, -1200};
    for (int i = 0; i < 4; i++)
        if (!same(first(v_exp2(v_set1(zeros[i]))), 0)) fail("exp2(%g) is not 0", (double)zeros[i]);
    real got = first(v_exp2(v_set1(NAN)));
    if (got == got) fail("exp2(NaN) = %g", (double)got);
    printf("%s %s: exp2 within %.2f u", DLATTN_STRING(DLATTN_ISA), DLATTN_STRING(DLATTN_REAL), (double)worst);
}

/* 2 u from y = x * 2 log2(e) (x tanh' / tanh <= 1). e = 2^n frac + (2^n - 1): worst for n = 1, frac = -0.293, where
 * (2.25 * 0.586 / 0.414 + 1) u = 4.2 u reach tanh times 2 / (e + 2) = 0.83, or n = -1, where 2.6 u times 1.48; and 2 u
 * of the last sum and quotient. Together 7.9 u; without fma frac carries 3.4 u and its product rounds: 11.5 u. */
static void check_tanh(void) {
    const wide bound = has_fma() ? 7.9 : 11.5;
    wide worst = 0;
    for (double x = 1e-6; x <= 30; x += x < 0.001 ? 1e-7 : 0.00017) {
        wide exact = WIDE_TANH((wide)(real)x), got = first(v_tanh(v_set1((real)x)));
        wide negative = first(v_tanh(v_set1(-(real)x)));
        wide error = (got > exact ? got - exact : exact - got) / exact / UNIT;
        wide other = (negative > -exact ? negative + exact : -exact - negative) / exact / UNIT;
        if (other > error) error = other;
        if (!(error <= bound)) fail("tanh(%.17g) is off by %g u", x, (double)error);
        if (error > worst) worst = error;
    }
    if (first(v_tanh(v_zero())) != 0) fail("tanh(0)");
    if (first(v_tanh(v_set1(INFINITY))) != 1 || first(v_tanh(v_set1(-INFINITY))) != -1) fail("tanh(inf)");
    real got = first(v_tanh(v_set1(NAN)));
    if (got == got) fail("tanh(NaN) = %g", (double)got);
    printf(", tanh within %.2f u\n", (double)worst);
}

/* y = -2|x| log2(e) is off by 2 u, which moves E = 2^y by 4|x| u beside exp2's own error; that reaches the result times
 * (1 - E)/(1 + E) <= 1. The sum and the quotient round once each and count twice, then two products round. */
static void check_tanh_slope(void) {
    for (double x = 0; x <= 30; x += 0.00017) {
        wide E = WIDE_EXP2(-2 * (wide)(real)x * (wide)1.44269504088896340735992468100189214L), exact = 4 * E / ((1 + E) * (1 + E));
        wide got = first(v_tanh_slope(v_set1((real)x))), error = (got > exact ? got - exact : exact - got) / exact / UNIT;
        if (!(error <= 4 * (wide)x + (has_fma() ? 1.75 : 2.3) + 6)) fail("slope of tanh(%.17g) is off by %g u", x, (double)error);
        if (first(v_tanh_slope(v_set1(-(real)x))) != got) fail("slope of tanh(-%.17g) is another", x);
    }
    if (first(v_tanh_slope(v_set1(INFINITY))) != 0) fail("slope of tanh(inf)");
    real got = first(v_tanh_slope(v_set1(NAN)));
    if (got == got) fail("slope of tanh(NaN) = %g", (double)got);
}

/* The value of 16 bits by the formats' definitions. */
static double half_value(uint32_t bits, int fraction_bits, int exponent_bits) {
    const uint32_t fraction = bits & ((1u << fraction_bits) - 1), top = (1u << exponent_bits) - 1;
    const uint32_t exponent = bits >> fraction_bits & top;
    const int bias = (1 << (exponent_bits - 1)) - 1;
    double x = exponent == top ? (fraction ? NAN : INFINITY)
               : exponent ? ldexp(1 + ldexp(fraction, -fraction_bits), (int)exponent - bias)
                          : ldexp(fraction, 1 - bias - fraction_bits);
    return bits >> 15 ? -x : x;
}

static void check_half_loads(void) {
    real got[2][L];
    for (uint32_t bits = 0; bits < 65536; bits++) {
        uint16_t in[L];
        for (int i = 0; i < L; i++) in[i] = (uint16_t)(bits + (uint32_t)i);
        v_store(got[0], v_load_f16(in));
        v_store(got[1], v_load_bf16(in));
        for (int i = 0; i < L; i++) {
            if (!same(got[0][i], (real)half_value(in[i], 10, 5))) fail("load_f16(%04x)", in[i]);
            if (!same(got[1][i], (real)half_value(in[i], 7, 8))) fail("load_bf16(%04x)", in[i]);
        }
    }
}

#if !REAL_IS_F64
static void check_split(void) {
    uint16_t in[2 * L];
    real got[2][L];
    v even, odd;
    for (int i = 0; i < 2 * L; i++) in[i] = (uint16_t)(0x3f80 + 37 * i);
    v_split_bf16(in, &even, &odd);
    v_store(got[0], even);
    v_store(got[1], odd);
    for (int i = 0; i < 2 * L; i++)
        if (!same(got[i % 2][i / 2], (real)half_value(in[i], 7, 8))) fail("split_bf16, number %d", i);
}

static void check_store(real x, uint16_t expected, bool bf16) {
    uint16_t got[L];
    if (bf16) v_store_bf16(got, v_set1(x));
    else v_store_f16(got, v_set1(x));
    uint16_t scalar = bf16 ? dlattn__float_to_bf16(x) : dlattn__float_to_f16(x);
    for (int i = 0; i < L; i++)
        if (got[i] != expected || scalar != expected)
            fail("%s(%a) = %04x, in plain C %04x, expected %04x", bf16 ? "bf16" : "f16", (double)x, got[i], scalar,
                 expected);
}

/* Each number, the middle between it and the next, and the floats beside the middle. */
static void check_half_stores(void) {
    for (int bf16 = 0; bf16 <= 1; bf16++) {
        const int fraction_bits = bf16 ? 7 : 10, exponent_bits = bf16 ? 8 : 5;
        const uint32_t infinity = ((1u << exponent_bits) - 1) << fraction_bits;
        for (uint32_t sign = 0; sign < 65536; sign += 32768) {
            for (uint32_t bits = 0; bits < infinity; bits++) {
                double value = half_value(bits, fraction_bits, exponent_bits);
                double next = bits + 1 < infinity ? half_value(bits + 1, fraction_bits, exponent_bits)
                                                  : ldexp(1, 1 << (exponent_bits - 1)); /* rounds to infinity from half way */
                float middle = (float)((value + next) / 2), s = sign ? -1 : 1;
                check_store(s * (float)value, (uint16_t)(sign | bits), bf16);
                if ((double)middle != (value + next) / 2) continue; /* bfloat16's smallest: no float between */
                check_store(s * middle, (uint16_t)(sign | (bits + (bits & 1))), bf16);
                check_store(s * nextafterf(middle, 0), (uint16_t)(sign | bits), bf16);
                check_store(s * nextafterf(middle, INFINITY), (uint16_t)(sign | (bits + 1)), bf16);
            }
            check_store(sign ? -INFINITY : INFINITY, (uint16_t)(sign | infinity), bf16);
            check_store(sign ? -FLT_MAX : FLT_MAX, (uint16_t)(sign | infinity), bf16);
        }
    }
    uint16_t got[L];
    float nans[] = {NAN, -NAN, dlattn__float_from_bits(0x7f800001u), dlattn__float_from_bits(0xffffffffu)};
    for (int i = 0; i < 4; i++) {
        v_store_bf16(got, v_set1(nans[i]));
        if (!isnan(half_value(got[0], 7, 8)) || !isnan(half_value(dlattn__float_to_bf16(nans[i]), 7, 8))) fail("bf16(NaN)");
        v_store_f16(got, v_set1(nans[i]));
        if (!isnan(half_value(got[0], 10, 5)) || !isnan(half_value(dlattn__float_to_f16(nans[i]), 10, 5))) fail("f16(NaN)");
    }
}
#endif

static void check_transpose(void) {
    enum { LDS = L + 3, LDD = L + 5 };
    elem src[L * LDS], dst[L * LDD], before[L * LDD];
    for (int i = 0; i < L * LDS; i++) src[i] = (elem)(i + 1);
    for (int i = 0; i < L * LDD; i++) before[i] = dst[i] = (elem)0;
    transpose_block(dst, LDD, src, LDS);
    for (int c = 0; c < L; c++)
        for (int r = 0; r < LDD; r++)
            if (dst[c * LDD + r] != (r < L ? src[r * LDS + c] : before[c * LDD + r])) fail("transpose (%d, %d)", r, c);
}

#if REAL_IS_BF16
static void check_bf16_pairs(void) {
    elem a[L], b[L], packed[L];
    uint16_t even[L], odd[L];
    real c[L], x[L], y[L], got[L];
    for (int repeat = 0; repeat < 100; repeat++) {
        for (int i = 0; i < L; i++) {
            x[i] = (real)(rand() % 200001 - 100000) * (real)0.37;
            y[i] = (real)(rand() % 200001 - 100000) * (real)0.0013;
            even[i] = dlattn__float_to_bf16((float)(rand() % 255 - 127)); /* small: every sum below is exact */
            odd[i] = dlattn__float_to_bf16((float)(rand() % 255 - 127));
            c[i] = (real)(rand() % 1000);
        }
        v_pair_store(a, v_pair_rows(even, odd));
        v_pair_store(b, v_pair_rows(odd, odd));
        v_store(got, v_pair_fma(v_pair_load(a), v_pair_load(b), v_load(c)));
        v_pair_store(packed, v_pair_set1(&a[L - 1]));
        for (int i = 0; i < L; i++) {
            real lo = dlattn__bf16_to_float(even[i]), hi = dlattn__bf16_to_float(odd[i]);
            if (a[i] != (even[i] | (uint32_t)odd[i] << 16)) fail("pair_rows, lane %d", i);
            if (got[i] != c[i] + lo * hi + hi * hi) fail("pair_fma, lane %d", i);
            if (packed[i] != a[L - 1]) fail("pair_set1, lane %d", i);
        }
        v_pair_store(packed, v_pair_pack(v_load(x), v_load(y)));
        for (int i = 0; i < L; i++)
            if (packed[i] != (dlattn__float_to_bf16(x[i]) | (uint32_t)dlattn__float_to_bf16(y[i]) << 16))
                fail("pair_pack, lane %d", i);
        v_pair_store(packed, v_pair_natural(v_load(x), v_load(y)));
        for (int i = 0; i < 2 * L; i++)
            if (((uint16_t *)packed)[i] != dlattn__float_to_bf16(i < L ? x[i] : y[i - L])) fail("pair_natural, %d", i);
    }
}
#endif

/* dropout_tile against the specification: any rows, keys and positions, and nothing written outside the tile. */
static void check_dropout(void) {
    enum { ROWS = 40, WIDTH = 400, UNTOUCHED = 9 };
    static uint8_t keep[ROWS][WIDTH];
    row rows[ROWS];
    dropout_spec d = {.key = dlattn_philox_make_key(0x123456789abcdefu, 0x1122334455667788u), .first_head = 3};
    for (int repeat = 0; repeat < 200; repeat++) {
        const int64_t count = 1 + rand() % (ROWS - 1), first = rand() % 1000, M = repeat % 3 ? 1 + rand() % 60 : 100000;
        const int64_t j0 = repeat & 4 ? rand() % 500 : rand() % 8 * 32, n = rand() % 300;
        d.q_position = repeat & 1 ? rand() % 3000 - 1500 : 0;
        d.k_position = repeat & 1 ? rand() % 3000 - 1500 : 0;
        d.threshold = 1 + rand() % 256;
        for (int64_t r = 0; r < count; r++) rows[r] = (row){.i = (first + r) % M, .h = (first + r) / M};
        memset(keep, UNTOUCHED, sizeof keep);
        dropout_tile(keep[0], WIDTH, &d, rows, count, j0, n);
        for (int64_t r = 0; r < ROWS; r++) {
            for (int64_t c = 0; c < WIDTH; c++) {
                int expected = UNTOUCHED;
                if (r < count && c < n)
                    expected = dlattn_dropout_byte(&d.key, d.first_head + (dlattn_u32)rows[r].h, rows[r].i + d.q_position,
                                                   j0 + c + d.k_position) >= (dlattn_u32)d.threshold;
                if (keep[r][c] != expected) fail("dropout of row %d, key %d", (int)r, (int)c);
            }
        }
    }
}

int NAME(simd_check)(void) {
    check_elementwise();
    check_lanes();
    check_scale();
    check_exp2();
    check_tanh();
    check_tanh_slope();
    check_half_loads();
    check_transpose();
    check_dropout();
#if !REAL_IS_F64
    check_half_stores();
    check_split();
#endif
#if REAL_IS_BF16
    check_bf16_pairs();
#endif
    return failures;
}
