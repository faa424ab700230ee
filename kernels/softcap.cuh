// softcap.cuh: the softcap of a forward's tile of scores in mma fragments.
#ifndef DLATTN_SOFTCAP_CUH
#define DLATTN_SOFTCAP_CUH

#include "softmax.cuh"

// tanh: x + x^3 P(x^2) up to 1/2 (P interpolates at Chebyshev nodes, relative error 5.3e-8), 1 - 2 / (1 + exp(2x)) beyond.
#define TANH_1 -0.3333331108f
#define TANH_2 0.1333047649f
#define TANH_3 -0.05338711064f
#define TANH_4 0.01798874441f

DEVICE float tanh_of(float x) {
    const float y = fabsf(x), square = x * x;
    float large, small = fmaf(fmaf(fmaf(fmaf(TANH_4, square, TANH_3), square, TANH_2), square, TANH_1) * square, x, x);
    // One after the other, in registers that are soon free: all scores of a tile at once would need more than there
    // are.
    asm volatile("{\n\t.reg .f32 e;\n\t"
                 "ex2.approx.ftz.f32 e, %1;\n\t"
                 "add.ftz.f32 e, e, 0f3F800000;\n\t"
                 "rcp.approx.ftz.f32 e, e;\n\t"
                 "fma.rn.ftz.f32 %0, e, 0fC0000000, 0f3F800000;\n\t}"
                 : "=f"(large) : "f"(y * (2.0f * LOG2_E)));
    return y < 0.5f ? small : copysignf(large, x);
}

// s = unit * softcap * tanh(s * scale / softcap), 16 rows at a time. Where the whole warp stays below |x| = 1/2, it is s times
// a polynomial in s^2. (The tile at once would need more registers than there are, smaller pieces wait longer for each
// other.)
template <int MT, int NT>
DEVICE void cap_tile(float (&s)[MT][NT][4], float scale, float softcap, float unit) {
    asm volatile("" : "+f"(scale), "+f"(softcap)); // no constants kept through the loop
    const float inward = __fdividef(scale, softcap), square = inward * inward; // a call, as of the true division, made sm90 spill
    scale *= unit;
    softcap *= unit;
#pragma unroll
    for (int a = 0; a < MT; a++) {
        float tops[4] = {0.0f, 0.0f, 0.0f, 0.0f}; // four, so that each waits less for the last
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) tops[c] = fmaxf(tops[c], fabsf(s[a][n][c]));
        const float top = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
        if (__all_sync(0xffffffffu, top * fabsf(inward) < 0.5f && square < 1e8f)) {
            const float c1 = TANH_1 * square * scale, c2 = TANH_2 * square * square * scale;
            const float cube = square * square * square;
            const float c3 = TANH_3 * cube * scale, c4 = TANH_4 * cube * square * scale;
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    const float x = s[a][n][c], w = x * x;
                    s[a][n][c] = x * fmaf(fmaf(fmaf(fmaf(c4, w, c3), w, c2), w, c1), w, scale);
                }
        } else {
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int c = 0; c < 4; c++) s[a][n][c] = softcap * tanh_of(s[a][n][c] * inward);
        }
    }
}

// Scores capped a little: up to |x| = CAP_LITTLE, x = s * scale / softcap, tanh x is x + x^3 P(x^2) with P linear and a
// relative error of 1.3e-7.
#define CAP_LITTLE 0.2f
#define LITTLE_1 -0.3332969607f
#define LITTLE_2 0.1303796427f

// Are all scores of the tile capped a little, and does none of them raise a reference m, which is in powers of two? The
// largest |s| of a row answers both, as no capped score lies above it.
template <int MT, int NT>
DEVICE bool is_capped_little(const float (&s)[MT][NT][4], const float (&m)[MT][2], float scale, float softcap) {
    asm volatile("" : "+f"(scale), "+f"(softcap)); // no constants kept through the loop
    const float inward = fabsf(__fdividef(scale, softcap)), scale2 = fabsf(scale * LOG2_E);
    bool fits = inward > 1e-4f && inward < 1e4f && scale2 > 1e-10f; // powers of it neither vanish nor overflow
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = 0.0f;
#pragma unroll
            for (int n = 0; n < NT; n++)
                top = fmaxf(fmaxf(top, fabsf(s[a][n][2 * half])), fabsf(s[a][n][2 * half + 1]));
            fits = fits && top * inward < CAP_LITTLE && top * scale2 - m[a][half] < RAISE_BY;
        }
    return __all_sync(0xffffffffu, fits);
}

// Turns such a tile into weights.
template <int MT, int NT>
DEVICE void weigh_capped_little(float (&s)[MT][NT][4], const float (&m)[MT][2], float (&l)[MT][2], float scale,
                                float softcap) {
    asm volatile("" : "+f"(scale), "+f"(softcap));
    const float inward = __fdividef(scale, softcap), square = inward * inward, scale2 = scale * LOG2_E;
    const float c1 = LITTLE_1 * square * scale2, c2 = LITTLE_2 * square * square * scale2;
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const float x = s[a][n][c], w = x * x;
                s[a][n][c] = exp2_approx(fmaf(x, fmaf(fmaf(c2, w, c1), w, scale2), -m[a][c / 2]));
                l[a][c / 2] += s[a][n][c];
            }
}

#endif
