/* check_bound.c: the accuracy rule: how far a result may be from the truth.
 *
 *     per row (last axis): max|x - ref| <= 2*max|plain - ref| + u*max|ref|
 *
 * ref is the oracle in double (long double for float64), plain the formula evaluated step by step in the input dtype,
 * u the unit roundoff of the output dtype. Infinities and NaN must be where ref has them.
 *
 * Where the library computes in no more digits than plain does (float32, float64), both errors are draws from the same
 * distribution, and in a short row plain's is near 0 by luck in every hundredth row; with a single visible key it is 0
 * always, for p is exp(0). So max|plain - ref| counts as no less than what one rounding of each step can cost: the
 * oracle's ORACLE_ROUNDING. That is an a-priori bound from the row's own terms, not a number found by trial.
 *
 * 16-bit inputs (and TF32): fast kernels and plain alike round p and ds to the input's type for the products, each on a
 * scale of its own; where plain's roundings happen to cancel, one such rounding of our own, ORACLE_NARROWING, is allowed.
 * In rows of fewer than eight elements (D = 1) luck rules 16-bit results too: there plain's error is that of all rows of the
 * tensor, in proportion to their rounding. */
#include <math.h>

#include "check.h"

enum { SHORT_ROW = 8 };

static int finite_real(real value) { return value - value == 0; }

/* Infinities of the same sign, or both NaN. */
static int same_special(real x, real ref) { return ref != ref ? x != x : x == ref; }

static real larger(real a, real b) { return b > a && finite_real(b) ? b : a; }

/* The largest values of a row. */
typedef struct row_maxima {
    real error, plain_error, rounding, narrowing, magnitude;
} row_maxima;

static row_maxima measure_row(const DLTensor *t, check_expected e, int64_t row, int exempt) {
    int64_t width = t->shape[t->ndim - 1];
    row_maxima m = {0};
    for (int64_t n = row * width; n < (row + 1) * width; n++) {
        real x = tensor_get(t, n), ref = e.reference[n];
        if (exempt || !finite_real(ref)) { /* an exempt row may be anything, but not finite where it cannot be */
            if (exempt ? !finite_real(ref) && finite_real(x) : !same_special(x, ref)) m.error = (real)INFINITY;
            continue;
        }
        if (!finite_real(x)) m.error = (real)INFINITY;
        m.error = larger(m.error, fabsl(x - ref));
        m.plain_error = larger(m.plain_error, fabsl(e.plain[n] - ref));
        m.rounding = larger(m.rounding, fabsl(e.rounding[n])); /* dk carries the sign of the scale */
        if (e.narrowing) m.narrowing = larger(m.narrowing, fabsl(e.narrowing[n]));
        m.magnitude = larger(m.magnitude, fabsl(ref));
    }
    return m;
}

/* plain's error in units of the row's rounding, where it is largest: for rows too short to have an error of their own. */
static real common_share(const DLTensor *t, check_expected e, int64_t rows, const unsigned char *exempt) {
    real share = 0;
    if (t->shape[t->ndim - 1] >= SHORT_ROW) return 0;
    for (int64_t row = 0; row < rows; row++) {
        row_maxima m = measure_row(t, e, row, exempt && exempt[row]);
        if (m.rounding > 0) share = larger(share, m.plain_error / m.rounding);
    }
    return share;
}

/* A result that is subnormal in its own dtype may be written as 0; float16's subnormals are normal float32 numbers and are
 * rounded like all others. */
static real flushed(DLDataType dtype) {
    const int half = dtype.code == kDLFloat && dtype.bits == 16;
    return half ? 0 : (real)dtype_least_normal(dtype);
}

static check_bound judge_row(const DLTensor *t, row_maxima m, real share, int64_t row) {
    real plain_error = larger(larger(m.plain_error, m.rounding), share * m.rounding);
    real magnitude = larger(m.magnitude, (real)dtype_least_normal(t->dtype)); /* below it, numbers are evenly spaced */
    real allowed = larger(2 * plain_error, m.narrowing + 2 * m.rounding) + (real)dtype_roundoff(t->dtype) * magnitude;
    if (m.magnitude > 0) allowed += flushed(t->dtype); /* a row of zeros is exact */
    double ratio = m.error == 0 ? 0 : allowed == 0 ? (double)INFINITY : (double)(m.error / allowed);
    return (check_bound){ratio, (double)m.error, (double)allowed, row, 1};
}

static const real *of(const oracle_result *from, int id) {
    switch (id) {
    case T_OUT: return from->out;
    case T_LSE: return from->lse;
    case T_DQ: return from->dq;
    case T_DK: return from->dk;
    case T_DV: return from->dv;
    case T_DBIAS: return from->dbias;
    default: return from->dsinks;
    }
}

check_bound check_rows(const DLTensor *t, check_expected e, const unsigned char *exempt) {
    check_bound worst = {0};
    int64_t count = tensor_count(t), rows = count ? count / t->shape[t->ndim - 1] : 0;
    real share = common_share(t, e, rows, exempt);
    for (int64_t row = 0; row < rows; row++) {
        check_bound bound = judge_row(t, measure_row(t, e, row, exempt && exempt[row]), share, row);
        if (bound.ratio > worst.ratio || !worst.judged) worst = bound;
    }
    return worst;
}

void check_tensor(check_report *report, const instance *x, const check_truth *truth, int id, const char *what) {
    if (!x->tensors[id].used) return;
    const oracle_result *plain = id == T_LSE ? &truth->plain_f32 : &truth->plain;
    const check_expected expected = {of(&truth->reference, id), of(plain, id), of(&truth->rounding, id), of(&truth->narrowing, id)};
    check_bound bound = check_rows(&x->tensors[id].dl, expected, truth->exempt[id]);
    if (bound.judged && (!report->bounds[id].judged || bound.ratio > report->bounds[id].ratio)) {
        report->bounds[id] = bound;
        report->bound_isas[id] = report->isa;
    }
    if (bound.ratio > 1)
        check_fail(report, "%s%s row %lld is off by %.3g, allowed %.3g (%.2f times)", what, tensor_names[id],
                   (long long)bound.row, bound.error, bound.allowed, bound.ratio);
}
