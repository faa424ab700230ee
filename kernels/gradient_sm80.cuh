// gradient_sm80.cuh: scores in mma fragments with rows down and keys across, for the kernels that own rows (backward_dq_sm80) or
// (i, j) tiles (dbias_sm80): exponents, hidden and dropped elements.
//
// A tile s[MT][NT][4] is 16 MT rows by 8 NT keys of one warp. `i` and `j` below are the lane's own first row and key: element
// c of (a, n) is row i + ROW_OF(a, c), key j + KEY_OF(n, c).
#ifndef DLATTN_GRADIENT_SM80_CUH
#define DLATTN_GRADIENT_SM80_CUH

#include "backward_parts.cuh"
#include "segment_ranges.cuh"

// Bias from global memory, clamped to the sequence.
typedef struct global_bias {
    DEVICE_MEMBER void row(u32 (&)[4], int, int) const {}
    DEVICE_MEMBER float of(const dlattn_params &p, const score_context &terms, const sequence &q, const u32 (&)[4], int row, int key,
                           int, int) const {
        return load_float(p.bias, terms.bias_at + smaller(row, q.M - 1) * p.bias.stride[2] +
                                      smaller(key, q.N - 1) * p.bias.stride[3]);
    }
} global_bias;

// 16-bit bias from a tile in shared memory: `at` is the warp's panel of it.
template <int COLS, int WIDTH>
struct tile_bias {
    panel<COLS, WIDTH> at;
    DEVICE_MEMBER void row(u32 (&words)[4], int a, int n) const {
        if (n % 2 == 0) load_fragment(words, at.at(16 * a, 8 * n));
    }
    DEVICE_MEMBER float of(const dlattn_params &, const score_context &, const sequence &, const u32 (&words)[4], int, int, int n,
                           int c) const {
        return float_of_element((u16)(words[n % 2 * 2 + c / 2] >> 16 * (c % 2)));
    }
};

// From q.k in s to the exponent of p. With softcap and SLOPED `scaled` is multiplied by the derivative of the score.
template <bool SLOPED, int MT, int NT, typename BIAS_SOURCE>
DEVICE void exponents_of(const dlattn_params &p, const sequence &q, const score_context &terms, const BIAS_SOURCE &bias_source,
                         float (&s)[MT][NT][4], float (&scaled)[MT][NT][4], const float (&lse2)[MT][2], int i, int j) {
    exponent_context e = exponent_context_of(p, terms);
    float distance = (float)dlattn_add_sat(terms.distance, (i64)i - j);
#pragma unroll
    for (int a = 0; a < MT; a++) {
        u32 words[4];
#pragma unroll
        for (int n = 0; n < NT; n++) {
            if (HAS(p, DLATTN_FEATURE_BIAS)) bias_source.row(words, a, n);
#pragma unroll
            for (int c = 0; c < 4; c++) {
                float bias = 0.0f, slope = 1.0f;
                if (HAS(p, DLATTN_FEATURE_BIAS))
                    bias = bias_source.of(p, terms, q, words, i + ROW_OF(a, c), j + KEY_OF(n, c), n, c);
                s[a][n][c] = exponent_of<false>(p, e, s[a][n][c], distance + (float)(ROW_OF(a, c) - KEY_OF(n, c)), bias,
                                         lse2[a][c / 2], &slope);
                if (SLOPED && HAS(p, DLATTN_FEATURE_SOFTCAP)) scaled[a][n][c] *= slope;
            }
        }
    }
}

// The exponents of keys outside each row's limits become -inf. `rows`: the limits of the warp's 16 MT rows.
template <int MT, int NT>
DEVICE void hide_outside(float (&s)[MT][NT][4], const limits *rows, int j) {
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const limits row = rows[16 * a + 8 * half + lane_id() / 4];
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int c = 2 * half; c < 2 * half + 2; c++)
                    if ((u32)(j - row.lo + KEY_OF(n, c)) >= (u32)(row.hi - row.lo)) s[a][n][c] = -INFINITE;
        }
}

// And those that the mask tensor or the segments hide.
template <int MT, int NT>
DEVICE void hide_elements(float (&s)[MT][NT][4], const dlattn_params &p, const score_context &terms, const sequence &q, int i, int j) {
    if (!MASKED_BY_ELEMENT) return;
#pragma unroll
    for (int a = 0; a < MT; a++) {
        u32 hidden[(NT + 7) / 8] = {0};  // by a loop that holds few values
#pragma unroll
        for (int word = 0; word < (NT + 7) / 8; word++)
#pragma unroll 1
            for (int n = 8 * word; n < 8 * word + 8 && n < NT; n++)
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    int row = smaller(i + ROW_OF(a, c), q.M - 1), key = smaller(j + KEY_OF(n, c), q.N - 1);
                    hidden[word] |= (u32)!element_visible(p, terms, row, key) << (4 * (n % 8) + c);
                }
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                if (hidden[n / 8] >> (4 * (n % 8) + c) & 1u) s[a][n][c] = -INFINITE;
    }
}

// Dropped elements become 0. Where the tile starts at i' a multiple of 16 and j' of 32, one Philox call is this lane's 16
// elements of a 16 x 32 block.
template <int MT, int NT>
DEVICE void drop_elements(float (&s)[MT][NT][4], const dlattn_params &p, const dlattn_philox_key &key, const sequence &q, int h,
                          int i, int j) {
    const i64 row = i + (p.positions ? q.q_position : 0), column = j + (p.positions ? q.k_position : 0);
    const i64 row0 = row - lane_id() / 4, column0 = column - lane_id() % 4 * 2;
    const bool aligned = NT % 4 == 0 && ((row0 & 15) | (column0 & 31)) == 0;
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int block = 0; block < (NT + 3) / 4; block++) {
            u32 kept = 0;  // bit 2w + o, and 16 + 2w + o for odd keys, as kept_of_block
            if (aligned)
                kept = kept_of_block(key, (u32)(q.b * p.H + h), row0 + 16 * a, column0 + 32 * block, p.dropout_threshold);
            else
#pragma unroll 1
                for (int x = 0; x < 16; x++) {
                    int w = x >> 2, o = x >> 1 & 1, odd = x & 1;
                    u32 byte = dlattn_dropout_byte(&key, (u32)(q.b * p.H + h), row + 16 * a + 8 * o, column + 32 * block + 8 * w + odd);
                    kept |= (u32)(byte >= (u32)p.dropout_threshold) << (2 * w + o + 16 * odd);
                }
#pragma unroll
            for (int n = 4 * block; n < 4 * block + 4 && n < NT; n++)
#pragma unroll
                for (int c = 0; c < 4; c++)
                    if (!(kept >> (2 * (n % 4) + c / 2 + 16 * (c % 2)) & 1u)) s[a][n][c] = 0.0f;
        }
}

#endif
