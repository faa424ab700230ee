// softmax_sm90.cuh: the online softmax of softmax_sm80.cuh, cut where products are under way: the sums in o must not be
// touched while the tensor cores add to them, so they are scaled later.
#ifndef DLATTN_SOFTMAX_SM90_CUH
#define DLATTN_SOFTMAX_SM90_CUH

#include "softmax_sm80.cuh"

// Scores to weights, relative to m, with their sums added to l. A row's reference m is raised when one of its scores lies
// more than RAISE_BY powers of two above it; then its o must be multiplied by its ratio. Was any of the warp's? SHIFTED: a
// score counts unit * score + its row's offset; m counts in these, and `factor` takes them to powers of two.
template <bool SHIFTED, int NT>
DEVICE bool weigh_scores(float (&s)[1][NT][4], float (&m)[1][2], float (&l)[1][2], float (&ratio)[1][2], float factor,
                         const float (&offset)[2], float unit) {
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
    const bool raise = (top[0] - m[0][0]) * factor > RAISE_BY || (top[1] - m[0][1]) * factor > RAISE_BY;
    const bool raised = __any_sync(0xffffffffu, raise);
    if (raised) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float old = m[0][half], largest = largest_of_quad(top[half]);
            const float now = (largest - old) * factor > RAISE_BY ? largest : old; // rows do not depend on each other
            ratio[0][half] = exp2_approx((old - (now == -INFINITE ? 0.0f : now)) * factor);
            m[0][half] = now;
            l[0][half] *= ratio[0][half];
        }
    }
    const float by = SHIFTED ? unit * factor : factor;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float shift = m[0][half] == -INFINITE ? 0.0f : (SHIFTED ? offset[half] - m[0][half] : -m[0][half]) * factor;
        float sums[2] = {l[0][half], 0.0f};
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                float &x = s[0][n][2 * half + c];
                x = exp2_approx(fmaf(x, by, shift));
                sums[c] += x;
            }
        l[0][half] = sums[0] + sums[1];
    }
    return raised;
}

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
