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
 * oracle's ORACLE_ROUNDING. That is an a-priori bound from the row's own terms, not a number found by trial; for 16-bit
 * inputs it is far below plain's error, and the rule stays as it is. */
#include <math.h>

#include "check.h"

static int finite_real(real value) { return value - value == 0; }

/* Infinities of the same sign, or both NaN. */
static int same_special(real x, real ref) { return ref != ref ? x != x : x == ref; }

/* What the oracle has for the elements of a tensor. */
typedef struct expected {
    const real *reference, *plain, *rounding;
} expected;

static real larger(real a, real b) { return b > a && finite_real(b) ? b : a; }

static check_bound judge_row(const DLTensor *t, expected e, int64_t row, int exempt) {
    int64_t width = t->shape[t->ndim - 1];
    real error = 0, plain_error = 0, magnitude = 0;
    for (int64_t n = row * width; n < (row + 1) * width; n++) {
        real x = tensor_get(t, n), ref = e.reference[n];
        if (exempt || !finite_real(ref)) { /* an exempt row may be anything, but not finite where it cannot be */
            if (exempt ? !finite_real(ref) && finite_real(x) : !same_special(x, ref)) error = (real)INFINITY;
            continue;
        }
        real difference = fabsl(x - ref);
        if (!finite_real(difference)) error = (real)INFINITY;
        error = larger(error, difference);
        plain_error = larger(plain_error, fabsl(e.plain[n] - ref));
        plain_error = larger(plain_error, fabsl(e.rounding[n])); /* dk carries the sign of the scale */
        magnitude = larger(magnitude, fabsl(ref));
    }
    real allowed = 2 * plain_error + (real)dtype_roundoff(t->dtype) * magnitude;
    double ratio = error == 0 ? 0 : allowed == 0 ? (double)INFINITY : (double)(error / allowed);
    return (check_bound){ratio, (double)error, (double)allowed, row, 1};
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

check_bound check_rows(const DLTensor *t, const real *reference, const real *plain, const real *rounding,
                       const unsigned char *exempt) {
    check_bound worst = {0};
    int64_t count = tensor_count(t);
    for (int64_t row = 0, rows = count ? count / t->shape[t->ndim - 1] : 0; row < rows; row++) {
        check_bound bound = judge_row(t, (expected){reference, plain, rounding}, row, exempt && exempt[row]);
        if (bound.ratio > worst.ratio || !worst.judged) worst = bound;
    }
    return worst;
}

void check_tensor(check_report *report, const instance *x, const check_truth *truth, int id, const char *what) {
    if (!x->tensors[id].used) return;
    const oracle_result *plain = id == T_LSE ? &truth->plain_f32 : &truth->plain;
    check_bound bound = check_rows(&x->tensors[id].dl, of(&truth->reference, id), of(plain, id), of(&truth->rounding, id),
                                   truth->exempt[id]);
    if (bound.judged && (!report->bounds[id].judged || bound.ratio > report->bounds[id].ratio)) {
        report->bounds[id] = bound;
        report->bound_isas[id] = report->isa;
    }
    if (bound.ratio > 1)
        check_fail(report, "%s%s row %lld is off by %.3g, allowed %.3g (%.2f times)", what, tensor_names[id],
                   (long long)bound.row, bound.error, bound.allowed, bound.ratio);
}
