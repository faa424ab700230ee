// scores_sm80.cuh: what happens to a tile of scores in mma fragments: score terms, masks and dropout, as scores.cuh says them
// element by element.
//
// A tile s[MT][NT][4] is 16 MT rows by 8 NT keys of one warp. `i` and `j` below are the thread's own first row and key:
// element c of (a, n) is row i + 16 a + 8 (c / 2), key j + 8 n + c % 2.
#ifndef DLATTN_SCORES_SM80_CUH
#define DLATTN_SCORES_SM80_CUH

#include "mma_sm80.cuh"
#include "scores.cuh"

#define EACH_SCORE(MT, NT)                          \
    _Pragma("unroll") for (int a = 0; a < MT; a++)  \
    _Pragma("unroll") for (int n = 0; n < NT; n++)  \
    _Pragma("unroll") for (int c = 0; c < 4; c++)

#define ROW_OF(a, c) (16 * (a) + 8 * ((c) / 2))
#define KEY_OF(n, c) (8 * (n) + (c) % 2)

// Do the features change the score beyond its scale, and do they hide single elements?
#define FEATURES_SCORED (DLATTN_FEATURE_SOFTCAP | DLATTN_FEATURE_ALIBI | DLATTN_FEATURE_BIAS)
#define FEATURES_ELEMENT (DLATTN_FEATURE_MASK | DLATTN_FEATURE_SEGMENTS)

DEVICE int smaller(int a, int b) { return a < b ? a : b; }
DEVICE int larger(int a, int b) { return a > b ? a : b; }

// tanh: x + x^3 P(x^2) up to 1/2 (P interpolates at Chebyshev nodes, relative error 5.3e-8), 1 - 2 / (1 + exp(2x)) beyond.
DEVICE float tanh_of(float x) {
    float y = fabsf(x), square = x * x, power, inverse;
    float small = fmaf(0.01798874441f, square, -0.05338711064f);
    small = fmaf(small, square, 0.1333047649f);
    small = fmaf(small, square, -0.3333331108f);
    small = fmaf(small * square, x, x);
    power = exp2_approx(y * (2.0f * LOG2_E));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(power + 1.0f));
    return y < 0.5f ? small : copysignf(fmaf(-2.0f, inverse, 1.0f), x);
}

// s: q.k, becomes the score in natural units. Rows >= M and keys >= N get some number.
template <int MT, int NT>
DEVICE void score_tile(float (&s)[MT][NT][4], const dlattn_params &p, const score_context &context, int i, int j, int M, int N) {
    if (HAS(p, DLATTN_FEATURE_SOFTCAP)) {
        const float inward = p.scale / p.softcap, softcap = p.softcap;
        EACH_SCORE(MT, NT) s[a][n][c] = softcap * tanh_of(s[a][n][c] * inward);
    } else {
        EACH_SCORE(MT, NT) s[a][n][c] *= p.scale;
    }
    if (HAS(p, DLATTN_FEATURE_ALIBI)) {
        const i64 distance = context.distance + i - j;
        if (distance > -(1 << 23) && distance < 1 << 23) { // then single precision counts exactly
            const float first = (float)(int)distance, slope = context.slope;
            EACH_SCORE(MT, NT) s[a][n][c] -= slope * fabsf(first + (float)(ROW_OF(a, c) - KEY_OF(n, c)));
        } else {
            EACH_SCORE(MT, NT) {
                const i64 d = distance + (ROW_OF(a, c) - KEY_OF(n, c));
                s[a][n][c] -= context.slope * (float)(d < 0 ? -d : d);
            }
        }
    }
    if (HAS(p, DLATTN_FEATURE_BIAS)) {
        EACH_SCORE(MT, NT) {
            const int row = smaller(i + ROW_OF(a, c), M - 1), key = smaller(j + KEY_OF(n, c), N - 1);
            s[a][n][c] += load_float(p.bias, context.bias_at + row * p.bias.stride[2] + key * p.bias.stride[3]);
        }
    }
}

// Hides keys outside each row's limits. `rows`: the limits of the warp's 16 MT rows.
template <int MT, int NT>
DEVICE void hide_outside(float (&s)[MT][NT][4], const limits *rows, int j) {
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const limits row = rows[16 * a + 8 * half + lane_id() / 4];
            const u32 count = (u32)(row.hi - row.lo);
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int c = 2 * half; c < 2 * half + 2; c++)
                    if ((u32)(j - row.lo + KEY_OF(n, c)) >= count) s[a][n][c] = -INFINITE;
        }
}

// Hides keys from N on.
template <int MT, int NT>
DEVICE void hide_past(float (&s)[MT][NT][4], int j, int N) {
    EACH_SCORE(MT, NT) if (j + KEY_OF(n, c) >= N) s[a][n][c] = -INFINITE;
}

// Hides what the mask tensor and the segments hide.
template <int MT, int NT>
DEVICE void hide_elements(float (&s)[MT][NT][4], const dlattn_params &p, const score_context &context, int i, int j, int M, int N) {
    if (HAS(p, DLATTN_FEATURE_SEGMENTS)) {
        i64 own[MT][2];
#pragma unroll
        for (int a = 0; a < MT; a++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                own[a][half] = load_int(p.q_segments, context.q_segments_at +
                                                          smaller(i + ROW_OF(a, 2 * half), M - 1) * p.q_segments.stride[1]);
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int odd = 0; odd < 2; odd++) {
                const int key = smaller(j + KEY_OF(n, odd), N - 1);
                const i64 segment = load_int(p.kv_segments, context.kv_segments_at + key * p.kv_segments.stride[1]);
#pragma unroll
                for (int a = 0; a < MT; a++) {
                    if (own[a][0] != segment) s[a][n][odd] = -INFINITE;
                    if (own[a][1] != segment) s[a][n][odd + 2] = -INFINITE;
                }
            }
    }
    if (HAS(p, DLATTN_FEATURE_MASK)) {
        const unsigned char *mask = (const unsigned char *)p.mask.data + context.mask_at;
        EACH_SCORE(MT, NT) {
            const int row = smaller(i + ROW_OF(a, c), M - 1), key = smaller(j + KEY_OF(n, c), N - 1);
            if (!mask[row * p.mask.stride[2] + key * p.mask.stride[3]]) s[a][n][c] = -INFINITE;
        }
    }
}

// Dropped elements become 0; kept ones are left to be scaled with their row. Where the tile starts at i' a multiple of 16
// and j' of 32, the four words of one Philox call are this thread's 16 elements of a 16 x 32 block, in order.
template <int MT, int NT>
DEVICE void drop_tile(float (&s)[MT][NT][4], const dlattn_params &p, const dlattn_philox_key &key, const sequence &q, int h,
                      int i, int j) {
    const i64 row = i + (p.positions ? q.q_position : 0) - lane_id() / 4;
    const i64 column = j + (p.positions ? q.k_position : 0) - lane_id() % 4 * 2;
    const bool aligned = NT % 4 == 0 && (row & 15) == 0 && (column & 31) == 0;
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int block = 0; block < (NT + 3) / 4; block++) {
            if (aligned) {
                u32 words[4] = {(u32)(column >> 5) * 32u + block * 32u + lane_id(), (u32)(row >> 4) + a, (u32)(q.b * p.H + h),
                                key.offset_low};
                dlattn_philox(words, key.k0, key.k1);
#pragma unroll
                for (int n = 0; n < 4 && 4 * block + n < NT; n++)
#pragma unroll
                    for (int c = 0; c < 4; c++)
                        if ((int)((words[n] >> 8 * c) & 255u) < p.dropout_threshold) s[a][4 * block + n][c] = 0.0f;
            } else {
                u32 dropped = 0; // bit 4 n + c: a loop that is not unrolled cannot index s
#pragma unroll 1
                for (int bit = 0; bit < 16; bit++) {
                    const int n = 4 * block + bit / 4, c = bit % 4;
                    if (dropout_factor(p, key, q, h, i + ROW_OF(a, c), j + KEY_OF(n, c)) == 0.0f) dropped |= 1u << bit;
                }
#pragma unroll
                for (int n = 0; n < 4 && 4 * block + n < NT; n++)
#pragma unroll
                    for (int c = 0; c < 4; c++)
                        if (dropped >> (4 * n + c) & 1u) s[a][4 * block + n][c] = 0.0f;
            }
        }
}

#endif
