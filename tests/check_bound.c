/* check_bound.c: the accuracy rule: how far a result may be from the truth.
 *
 *     per row (last axis): max|x - ref| <= 2*max|plain - ref| + u*max|ref|
 *
 * ref is the oracle in double (long double for float64), plain the formula evaluated step by step in the input dtype,
 * u the unit roundoff of the output dtype. Infinities and NaN must be where ref has them. */
#include <math.h>

#include "check.h"

static int finite_real(real value) { return value - value == 0; }

/* Infinities of the same sign, or both NaN. */
static int same_special(real x, real ref) { return ref != ref ? x != x : x == ref; }

static void judge_row(check_bound *worst, const DLTensor *t, const real *reference, const real *plain, int64_t row,
                      int exempt) {
    int64_t width = t->shape[t->ndim - 1];
    real error = 0, plain_error = 0, size = 0;
    for (int64_t n = row * width; n < (row + 1) * width; n++) {
        real x = tensor_get(t, n), ref = reference[n];
        if (exempt) { /* only that what cannot be finite is not */
            if (!finite_real(ref) && finite_real(x)) error = (real)INFINITY;
            continue;
        }
        if (!finite_real(ref)) {
            if (!same_special(x, ref)) error = (real)INFINITY;
            continue;
        }
        real difference = fabsl(x - ref), plain_difference = fabsl(plain[n] - ref);
        if (!finite_real(difference)) difference = (real)INFINITY;
        if (difference > error) error = difference;
        if (finite_real(plain_difference) && plain_difference > plain_error) plain_error = plain_difference;
        if (fabsl(ref) > size) size = fabsl(ref);
    }
    real allowed = 2 * plain_error + (real)dtype_roundoff(t->dtype) * size;
    double ratio = error == 0 ? 0 : allowed == 0 ? (double)INFINITY : (double)(error / allowed);
    if (ratio > worst->ratio || !worst->judged)
        *worst = (check_bound){ratio, (double)error, (double)allowed, row, 1};
}

check_bound check_rows(const DLTensor *t, const real *reference, const real *plain, const unsigned char *exempt) {
    check_bound worst = {0};
    int64_t count = tensor_count(t);
    if (count == 0) return worst;
    for (int64_t row = 0, rows = count / t->shape[t->ndim - 1]; row < rows; row++)
        judge_row(&worst, t, reference, plain, row, exempt && exempt[row]);
    return worst;
}

void check_record(check_report *report, int id, check_bound bound, const char *what) {
    if (bound.judged && (!report->bounds[id].judged || bound.ratio > report->bounds[id].ratio)) {
        report->bounds[id] = bound;
        report->bound_isas[id] = report->isa;
    }
    if (bound.ratio > 1)
        check_fail(report, "%s%s row %lld is off by %.3g, allowed %.3g (%.2f times)", what, tensor_names[id],
                   (long long)bound.row, bound.error, bound.allowed, bound.ratio);
}

static void pick(const oracle_result *from, int id, const real **to) {
    *to = id == T_OUT     ? from->out
          : id == T_LSE   ? from->lse
          : id == T_DQ    ? from->dq
          : id == T_DK    ? from->dk
          : id == T_DV    ? from->dv
          : id == T_DBIAS ? from->dbias
                          : from->dsinks;
}

void check_tensor(check_report *report, const instance *x, const check_truth *truth, int id) {
    const real *reference, *plain;
    if (!x->tensors[id].used) return;
    pick(&truth->reference, id, &reference);
    pick(id == T_LSE ? &truth->plain_f32 : &truth->plain, id, &plain);
    check_record(report, id, check_rows(&x->tensors[id].dl, reference, plain, truth->exempt[id]), "");
}
