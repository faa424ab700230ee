/* exp2_tmpl.h: 2^x and tanh(x) on vectors, built from the vocabulary of simd.h.
 *
 * 2^x = 2^n * p(f) with n = round(x), f = x - n in [-1/2, 1/2], p(f) = 1 + f q(f). The constant term is exactly 1, so
 * that 2^0 is 1 and a row of equal scores sums to an exact count. q interpolates (2^f - 1)/f at Chebyshev nodes;
 * relative error of p: 5.1e-9 (float), 1.2e-19 (double). x = -inf gives 0, NaN gives NaN. */
#ifndef DLATTN_EXP2_TMPL_H
#define DLATTN_EXP2_TMPL_H

#include "simd.h"

#if REAL_IS_F64
static const real exp2_q[] = {2.57293241773623042e-11,  4.45581790833606449e-10, 7.05489730415549928e-9,
                              1.01780570877339411e-7,   1.32154868087055628e-6,  0.0000152527338415567726,
                              0.000154035303933707334,  0.00133335581464064707,  0.00961812910762847949,
                              0.055504108664821627,     0.240226506959100712,    0.693147180559945309};
#define EXP2_LOWEST ((real)-1090)
#else
static const real exp2_q[] = {0.0001545316295f, 0.001339086336f, 0.009618082557f,
                              0.05550357114f,   0.2402265076f,   0.693147188f};
#define EXP2_LOWEST ((real)-160)
#endif
#define EXP2_TERMS ((int)(sizeof exp2_q / sizeof exp2_q[0]))

/* q(f) = (2^f - 1) / f */
SIMD_INLINE v v_exp2_q(v f) {
    v q = v_set1(exp2_q[0]);
#pragma GCC unroll 12
    for (int i = 1; i < EXP2_TERMS; i++) q = v_fma(q, f, v_set1(exp2_q[i]));
    return q;
}

/* Where v_scale does not itself turn any n down to -inf into an exact 0, a lower clamp keeps n inside what it takes;
 * max(constant, x) lets NaN pass. */
SIMD_INLINE v v_exp2(v x) {
#ifndef SCALE_TAKES_ANY
    x = v_max(v_set1(EXP2_LOWEST), x);
#endif
    v n = v_round(x), f = v_sub(x, n);
    return v_scale(v_fma(v_exp2_q(f), f, v_set1(1)), n);
}

/* tanh(x) = e / (e + 2) with e = exp(2x) - 1 = 2^n (2^f - 1) + (2^n - 1): accurate near 0 as well. */
SIMD_INLINE v v_tanh(v x) {
    v y = v_mul(x, v_set1((real)2.885390081777926814)); /* 2 log2(e) */
    y = v_max(v_set1(-64), v_min(v_set1(64), y));       /* tanh is +-1 there; NaN passes */
    v n = v_round(y), power = v_scale(v_set1(1), n);
    v f = v_sub(y, n), e = v_fma(v_mul(v_exp2_q(f), f), power, v_sub(power, v_set1(1)));
    return v_div(e, v_add(e, v_set1(2)));
}

/* The derivative of tanh: 4 E / (1 + E)^2 with E = exp(-2|x|). 1 - tanh^2 would lose all digits where tanh is near 1. */
SIMD_INLINE v v_tanh_slope(v x) {
    v E = v_exp2(v_mul(v_abs(x), v_set1((real)-2.885390081777926814))), part = v_div(v_set1(2), v_add(E, v_set1(1)));
    return v_mul(v_mul(E, part), part);
}

#endif
