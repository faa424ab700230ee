// generic_gradient.cuh: the scores' gradient in one 64 x 64 tile, which every generic backward kernel recomputes.
//
//     p = exp(score - lse),  ds = p * (dp - delta)      with dropout p and dp are scaled or dropped first
#ifndef DLATTN_GENERIC_GRADIENT_CUH
#define DLATTN_GENERIC_GRADIENT_CUH

#include "generic_tile.cuh"

// One (sequence, query head).
typedef struct gradient_context {
    sequence s;
    score_context score;
    dlattn_philox_key key;
    int h, g;
} gradient_context;

DEVICE gradient_context gradient_context_of(const dlattn_params &p, const sequence &s, int h) {
    gradient_context c;
    c.s = s;
    c.score = score_context_of(p, s, h);
    c.key = {0, 0, 0};
    if (HAS(p, DLATTN_FEATURE_DROPOUT)) c.key = dropout_key(p);
    c.h = h;
    c.g = h / p.heads_per_group;
    return c;
}

// The thread's own elements of t->scores (products q.k) become p as it multiplies v, those of t->gradients (products
// dout.v) become ds: the gradient of the score, or with FOR_DOT of scale * q.k. Hidden elements are 0: they are
// selected, because dp may be anything where nobody looks. A p of NaN makes a ds of NaN.
template <bool FOR_DOT>
DEVICE void differentiate(tile_memory *t, const dlattn_params &p, const gradient_context &c, int i0, int j0) {
    const i64 row = row_of(p, c.s, c.h, i0);
    const float *lse2 = (const float *)p.lse2 + row, *delta = (const float *)p.delta + row;
#pragma unroll 1
    for (int n = 0; n < 16; n++) {
        const int r = own_row(n), i = i0 + r, j = j0 + own_column(n);
        float *score = t->scores + own_place(n), *gradient = t->gradients + own_place(n);
        float probability = 0.0f, ds = 0.0f;
        if (t->lo[r] <= j && j < t->hi[r] && element_visible(p, c.score, i, j)) {
            float derivative, keep = 1.0f, dp = *gradient;
            const float s = score_of(p, c.score, *score, i, j, &derivative);
            probability = exp2f(fmaf(s, LOG2_E, -lse2[r]));
            if (HAS(p, DLATTN_FEATURE_DROPOUT)) keep = dropout_factor(p, c.key, c.s, c.h, i, j);
            dp = keep == 0.0f ? 0.0f : dp * keep;
            ds = probability;
            if (probability > 0.0f) ds *= (dp - delta[r]) * (FOR_DOT ? derivative : 1.0f);
            probability = keep == 0.0f ? 0.0f : probability * keep;
        }
        *score = rounded(probability);
        *gradient = ds;
    }
}

// p into t->scores, ds into `gradients`, of the tile at rows i0 and keys j0. find_limits has been called for the rows.
template <bool FOR_DOT>
DEVICE void gradient_tile(fragment &gradients, tile_memory *t, const dlattn_params &p, const gradient_context &c,
                          int i0, int j0) {
    const int rows = c.s.M - i0, keys = c.s.N - j0;
    const i64 token = c.s.q_begin + i0, key_token = c.s.k_begin + j0;
    fragment scores;
    dot_tiles(scores, t, source_of(p.q, c.s.b, token, c.h, rows, p.D),
              source_of(p.k, c.s.b, key_token, c.g, keys, p.D));
    dot_tiles(gradients, t, source_of(p.dout, c.s.b, token, c.h, rows, p.E),
              source_of(p.v, c.s.b, key_token, c.g, keys, p.E));
    __syncthreads(); // t->gradients lies where dot_tiles has its operands
#pragma unroll
    for (int n = 0; n < 16; n++) {
        t->scores[own_place(n)] = scores[n];
        t->gradients[own_place(n)] = gradients[n];
    }
    differentiate<FOR_DOT>(t, p, c, i0, j0);
#pragma unroll
    for (int n = 0; n < 16; n++) gradients[n] = t->gradients[own_place(n)];
}

#endif
