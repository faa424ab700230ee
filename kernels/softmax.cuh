// softmax.cuh: the online softmax on mma fragments: a running reference m and sum l of each row that a thread has
// a part of (rows g and g + 8 of each 16).
//
// Scores come in any unit; exp2(factor * (score - m)) is their weight, factor > 0. m is raised only when a score
// exceeds it by more than RAISE_BY powers of two: weights up to 2^RAISE_BY are as exact, and the products with o and l
// are saved.
#ifndef DLATTN_SOFTMAX_CUH
#define DLATTN_SOFTMAX_CUH

#include "mma.cuh"

#define RAISE_BY 8.0f

DEVICE float largest_of_quad(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

DEVICE float sum_of_quad(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// The references of rows whose largest score `top` (this thread's part of it) lies too far above, with what is relative
// to them.
template <int MT, int ET>
DEVICE void raise_references(const float (&top)[MT][2], float (&o)[MT][ET][4], float (&m)[MT][2], float (&l)[MT][2],
                             float factor) {
    bool raise = false;
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) raise |= (top[a][half] - m[a][half]) * factor > RAISE_BY;
    if (!__any_sync(0xffffffffu, raise)) return;
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float old = m[a][half], now = fmaxf(old, largest_of_quad(top[a][half]));
            float ratio = exp2_approx((old - (now == -INFINITE ? 0.0f : now)) * factor);
            m[a][half] = now;
            l[a][half] *= ratio;
#pragma unroll
            for (int e = 0; e < ET; e++) {
                o[a][e][2 * half] *= ratio;
                o[a][e][2 * half + 1] *= ratio;
            }
        }
}

// s: scores of 16 MT rows by 8 NT keys, replaced by weights. o: 16 MT rows by 8 ET columns, kept relative to m. l: this
// thread's part of the sums. -inf hides; a row that has seen nothing keeps m = -inf and weights 0; NaN reaches o and l.
template <int MT, int NT, int ET>
DEVICE void softmax_step(float (&s)[MT][NT][4], float (&o)[MT][ET][4], float (&m)[MT][2], float (&l)[MT][2],
                         float factor) {
    float top[MT][2];
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float x = s[a][0][2 * half];
#pragma unroll
            for (int n = 0; n < NT; n++) x = fmaxf(fmaxf(x, s[a][n][2 * half]), s[a][n][2 * half + 1]);
            top[a][half] = x;
        }
    raise_references(top, o, m, l, factor);
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float shift = m[a][half] == -INFINITE ? 0.0f : -m[a][half] * factor;
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int c = 2 * half; c < 2 * half + 2; c++) {
                    s[a][n][c] = exp2_approx(fmaf(s[a][n][c], factor, shift));
                    l[a][half] += s[a][n][c];
                }
        }
}

// The end of a row: its log-sum-exp (natural, with the sink when sunk) and what o is multiplied by.
// l: the whole sum.
typedef struct row_end {
    float lse, factor;
} row_end;

DEVICE row_end end_of_row(float m, float l, float factor, bool sunk, float sink) {
    row_end r = {-INFINITE, 0.0f};
    if (!(l == 0.0f)) {
        r.lse = m == -INFINITE ? l : fmaf(m * factor, LN_2, logf(l));
        r.factor = 1.0f / l;
    }
    if (sunk) {
        float top = fmaxf(r.lse, sink);
        if (!(top == -INFINITE)) {
            float own = expf(r.lse - top), lse = top + logf(own + expf(sink - top));
            if (!(l == 0.0f)) r.factor *= own / (own + expf(sink - top));
            r.lse = lse;
        }
    }
    return r;
}

#endif
