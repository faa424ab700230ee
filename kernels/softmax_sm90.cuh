// softmax_sm90.cuh: the online softmax of softmax.cuh, cut where products are under way: the sums in o must not be
// touched while the tensor cores add to them, so they are scaled later.
#ifndef DLATTN_SOFTMAX_SM90_CUH
#define DLATTN_SOFTMAX_SM90_CUH

#include "softmax.cuh"

// The references m of rows whose largest score lies more than `by` powers of two above it are raised, of those that `asked` names;
// then their o must be multiplied by their ratio. Was any of the warp's? SHIFTED: a score counts unit * score + its row's
// offset; m counts in these, and `factor` takes them to powers of two.
template <bool SHIFTED, int NT>
DEVICE bool raise_rows(const float (&s)[1][NT][4], float (&m)[1][2], float (&l)[1][2], float (&ratio)[1][2], float factor,
                       const float (&offset)[2], float unit, const bool (&asked)[2], float by) {
    float top[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float even = s[0][0][2 * half], odd = s[0][0][2 * half + 1];
#pragma unroll
        for (int n = 1; n < NT; n++) {
            even = fmaxf(even, s[0][n][2 * half]);
            odd = fmaxf(odd, s[0][n][2 * half + 1]);
        }
        top[half] = fmaxf(even, odd);
        if (SHIFTED) top[half] = fmaf(top[half], unit, offset[half]);
    }
    const bool raise = (asked[0] && (top[0] - m[0][0]) * factor > by) || (asked[1] && (top[1] - m[0][1]) * factor > by);
    if (!__any_sync(0xffffffffu, raise)) return false;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float old = m[0][half], largest = largest_of_quad(top[half]);
        const float now = asked[half] && (largest - old) * factor > by ? largest : old; // rows do not depend on each other
        ratio[0][half] = exp2_approx((old - (now == -INFINITE ? 0.0f : now)) * factor);
        m[0][half] = now;
        l[0][half] *= ratio[0][half];
    }
    return true;
}

// Scores to weights, relative to m, and their sums.
template <bool SHIFTED, int NT>
DEVICE void weigh_scores(float (&s)[1][NT][4], const float (&m)[1][2], float (&sum)[2], float factor, const float (&offset)[2],
                         float unit) {
    const float by = SHIFTED ? unit * factor : factor;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float shift = m[0][half] == -INFINITE ? 0.0f : (SHIFTED ? offset[half] - m[0][half] : -m[0][half]) * factor;
        float sums[2] = {0.0f, 0.0f};
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                float &x = s[0][n][2 * half + c];
                x = exp2_approx(fmaf(x, by, shift));
                sums[c] += x;
            }
        sum[half] = sums[0] + sums[1];
    }
}

// What a row's weights may sum up to, in a thread's part of a tile, before its reference must be raised. More would be as exact as long
// as nothing overflows (65504 in float16), but the log-sum-exp is the reference plus a logarithm, each with the rounding of its own size.
#define WEIGHTS_UP_TO 4096.0f

template <int ET>
DEVICE void scale_rows(float (&o)[1][ET][4], const float (&ratio)[1][2]) {
#pragma unroll
    for (int e = 0; e < ET; e++)
#pragma unroll
        for (int c = 0; c < 4; c++) o[0][e][c] *= ratio[0][c / 2];
}

// Weights rounded to the element type, as left operands of 16 keys each.
template <int NT>
DEVICE void pack_weights(u32 (&weights)[NT / 2][4], const float (&s)[NT][4]) {
#pragma unroll
    for (int k = 0; k < NT / 2; k++) pack_fragment(weights[k], &s[2 * k]);
}

#endif
