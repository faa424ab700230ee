// backward_scores_sm80.cuh: a tile of scores of backward_sm80, keys down and rows across: from q.k to p and ds as left operands.
//
// Part of backward_sm80.cu: uses its options, its map of shared memory and its contexts.
#ifndef DLATTN_BACKWARD_SCORES_SM80_CUH
#define DLATTN_BACKWARD_SCORES_SM80_CUH

#include "backward_parts.cuh"

// kept[n]: the dropout bits of 16 rows, as kept_of_block, turned so that this lane holds its own pairs of rows: key lane / 4
// of octet w, rows 2 (lane % 4) and the next of octet o; bit 2w + o, 16 + 2w + o for the second row.
DEVICE void dropout_bits(const dlattn_params &p, const backward_context &c, u32 kept[NT / 2], int h, int i, int j) {
    u32 head = (u32)(c.s.b * p.H + h);
    const volatile u32 *words = (const volatile u32 *)(shared_bytes + KEY_AT);
    const dlattn_philox_key philox = {words[0], words[1], words[2]};
    const sequence s = placed(c);
    i64 row = i + (p.positions ? s.q_position : 0), key = j + (p.positions ? s.k_position : 0);
    int g = lane_id() >> 2, t = lane_id() & 3;
#pragma unroll
    for (int n = 0; n < NT / 2; n++) {
        if (!words[3]) {
            kept[n] = transpose(kept_of_block(philox, head, row + 16 * n, key, p.dropout_threshold));
            if (WARP_KEYS % 32 != 0) kept[n] >>= (j & 16) >> 2;
            continue;
        }
        kept[n] = 0;
#pragma unroll 1
        for (int x = 0; x < MT * 8; x++) {
            int w = x >> 2, o = x >> 1 & 1, second = x & 1;
            u32 byte = dlattn_dropout_byte(&philox, head, row + 16 * n + 8 * o + 2 * t + second, key + 8 * w + g);
            kept[n] |= (u32)(byte >= (u32)p.dropout_threshold) << (2 * w + o + 16 * second);
        }
    }
}

#define ROW_STEP(n, x) (8 * (n) + ((x) & 1))        // from this lane's first row
#define KEY_STEP(m, x) (16 * (m) + 8 * ((x) >> 1))  // and first key

// Where the scores of a warp lie; i and j are this lane's own first row and key. masked: some of them are hidden.
typedef struct score_place {
    row_tile tile;
    int stage, i, j;
    bool masked;
} score_place;

// Is score x of (n, m) hidden? row: of the tile.
DEVICE bool is_hidden(const dlattn_params &p, const backward_context &c, const score_place &place, int n, int m, int x) {
    int row = place.i - place.tile.i0 + ROW_STEP(n, x), key = place.j - c.j0 + KEY_STEP(m, x);
    if (!inside_limits(((const u32 *)(shared_bytes + LIMITS_AT))[place.stage * BM + row], key)) return true;
    if (HAS(p, DLATTN_FEATURE_SEGMENTS) && ((const i64 *)(shared_bytes + Q_SEGMENTS_AT))[place.stage * BM + row] !=
                                               ((const i64 *)(shared_bytes + K_SEGMENTS_AT))[key])
        return true;
    return HAS(p, DLATTN_FEATURE_MASK) &&
           ((const unsigned char *)p.mask.data)[at(p.mask, c.s.b, place.tile.h, place.tile.i0 + row, c.j0 + key)] == 0;
}

// With these features hidden scores are found as bits, by a loop that holds few values. With softcap they become 0 after the
// exponents, which are used at once; else hidden exponents become -inf.
#define HIDDEN_BY_BITS (((FEATURES) & (DLATTN_FEATURE_SOFTCAP | DLATTN_FEATURE_MASK | DLATTN_FEATURE_SEGMENTS)) != 0)
#define HIDDEN_BIT(n, m, x) (((n) * MT + (m)) * 4 + (x))
static_assert(!HIDDEN_BY_BITS || NT * MT * 4 <= 32, "one word of bits");

DEVICE u32 hidden_bits(const dlattn_params &p, const backward_context &c, const score_place &place) {
    u32 bits = 0;
#pragma unroll 1
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int x = 0; x < 4; x++) bits |= (u32)is_hidden(p, c, place, n, m, x) << HIDDEN_BIT(n, m, x);
    return bits;
}

DEVICE void hide(const dlattn_params &p, const backward_context &c, float (*s)[NT][4], const score_place &place) {
    const u32 bits = HIDDEN_BY_BITS ? hidden_bits(p, c, place) : 0;
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int x = 0; x < 4; x++)
                if (HIDDEN_BY_BITS ? (bits >> HIDDEN_BIT(n, m, x) & 1u) != 0 : is_hidden(p, c, place, n, m, x)) s[m][n][x] = -INFINITE;
}

DEVICE bool is_kept(const u32 kept[NT / 2], int m, int n, int x) {
    return (kept[n >> 1] >> (4 * m + 2 * (x >> 1) + (n & 1) + 16 * (x & 1)) & 1u) != 0;
}

// s: q.k, becomes the exponent of p; with softcap at once p times the derivative of the score, p going to `packed`.
template <bool BENT_LITTLE>
DEVICE void exponents(const dlattn_params &p, const backward_context &c, float (*s)[NT][4], u32 (*packed)[NT / 2][4],
                      const u32 kept[NT / 2], const score_place &place) {
    const float *lse = (const float *)(shared_bytes + LSE_AT) + place.stage * BM + (place.i - place.tile.i0);
    score_context terms = score_context_of(p, HAS(p, DLATTN_FEATURE_ALIBI) ? placed(c) : c.s, place.tile.h);
    exponent_context e = exponent_context_of(p, terms);
    float distance = (float)dlattn_add_sat(terms.distance, (i64)place.i - place.j);
    const u32 bias_tile = shared_address(shared_bytes) + BIAS_AT + place.stage * BM * BN * 2;
    const int first_row = warp_id() % ROW_WARPS * WARP_ROWS, first_key = warp_id() / ROW_WARPS * WARP_KEYS;
    u32 words[MT][4];
#pragma unroll
    for (int n = 0; n < NT; n++) {
        float2 row_lse = *(const float2 *)(lse + 8 * n);
#pragma unroll
        for (int m = 0; m < MT; m++) {
            if (BIAS_TILE && n % 2 == 0)
                load_fragment_trans(words[m], fragment_address<BN>(bias_tile, lane_by_columns<BN>(), first_row + 8 * n,
                                                                   first_key + 16 * m));
            float y[4];
#pragma unroll
            for (int x = 0; x < 4; x++) {
                float bias = 0.0f, slope = 1.0f;
                int row = place.i + ROW_STEP(n, x), key = place.j + KEY_STEP(m, x);
                if (BIAS_TILE) bias = float_of_element((u16)(words[m][n % 2 * 2 + (x >> 1)] >> 16 * (x & 1)));
                else if (HAS(p, DLATTN_FEATURE_BIAS) && row < c.s.M && key < c.s.N)
                    bias = load_float(p.bias, terms.bias_at + row * p.bias.stride[2] + key * p.bias.stride[3]);
                const float exponent = exponent_of<BENT_LITTLE>(p, e, s[m][n][x], distance + (float)(ROW_STEP(n, x) - KEY_STEP(m, x)), bias,
                                             x & 1 ? row_lse.y : row_lse.x, &slope);
                s[m][n][x] = exponent;
                if (!HAS(p, DLATTN_FEATURE_SOFTCAP)) continue;
                y[x] = exp2_approx(exponent);
                s[m][n][x] = y[x] * slope;
                if (HAS(p, DLATTN_FEATURE_DROPOUT) && !is_kept(kept, m, n, x)) y[x] = 0.0f;
            }
            if (!HAS(p, DLATTN_FEATURE_SOFTCAP)) continue;
            packed[m][n >> 1][2 * (n & 1)] = pack(y[0], y[1]);
            packed[m][n >> 1][2 * (n & 1) + 1] = pack(y[2], y[3]);
        }
    }
}

// The largest absolute value of this lane's dot products.
DEVICE float largest(const float (*s)[NT][4]) {
    float tops[4] = {0.0f, 0.0f, 0.0f, 0.0f};  // four, so that each waits less for the last
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int x = 0; x < 4; x++) tops[x] = fmaxf(tops[x], fabsf(s[m][n][x]));
    return fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
}

// Hidden scores, after exponents with softcap.
DEVICE void blank_hidden(float (*s)[NT][4], u32 (*packed)[NT / 2][4], u32 hidden) {
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int x = 0; x < 4; x++) {
                if (!(hidden >> HIDDEN_BIT(n, m, x) & 1u)) continue;
                s[m][n][x] = 0.0f;
                packed[m][n >> 1][2 * (n & 1) + (x >> 1)] &= x & 1 ? 0x0000ffffu : 0xffff0000u;
            }
}

// From q.k in s to p times the derivative of the score, in place, and to p (after dropout's selection) as left operands.
DEVICE void probabilities(const dlattn_params &p, const backward_context &c, float (*s)[NT][4], u32 (*packed)[NT / 2][4],
                          const u32 kept[NT / 2], const score_place &place) {
    if (HAS(p, DLATTN_FEATURE_SOFTCAP)) {
        const exponent_context e = exponent_context_of(p, score_context_of(p, c.s, place.tile.h));
        if (__all_sync(0xffffffffu, bends_little(e, largest(s)))) exponents<true>(p, c, s, packed, kept, place);
        else exponents<false>(p, c, s, packed, kept, place);
        if (place.masked) blank_hidden(s, packed, hidden_bits(p, c, place));
        return;
    }
    exponents<false>(p, c, s, packed, kept, place);
    if (place.masked) hide(p, c, s, place);
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int m = 0; m < MT; m++) {
            float y[4];
#pragma unroll
            for (int x = 0; x < 4; x++) {
                y[x] = s[m][n][x] = exp2_approx(s[m][n][x]);
                if (HAS(p, DLATTN_FEATURE_DROPOUT) && !is_kept(kept, m, n, x)) y[x] = 0.0f;
            }
            packed[m][n >> 1][2 * (n & 1)] = pack(y[0], y[1]);
            packed[m][n >> 1][2 * (n & 1) + 1] = pack(y[2], y[3]);
        }
}

// ds = p (dp - delta), as left operands; dp of dropped scores is 0.
DEVICE void score_gradients(const dlattn_params &p, const float (*s)[NT][4], const float (*dp)[NT][4],
                            u32 (*packed)[NT / 2][4], const u32 kept[NT / 2], const float *delta) {
    int t = thread_anew() & 3;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        float2 row_delta = *(const float2 *)(delta + 8 * n + 2 * t);
#pragma unroll
        for (int m = 0; m < MT; m++) {
            float ds[4];
#pragma unroll
            for (int x = 0; x < 4; x++) {
                float y = dp[m][n][x];
                if (HAS(p, DLATTN_FEATURE_DROPOUT)) y = is_kept(kept, m, n, x) ? y * p.dropout_scale : 0.0f;
                ds[x] = s[m][n][x] * (y - (x & 1 ? row_delta.y : row_delta.x));
            }
            packed[m][n >> 1][2 * (n & 1)] = pack(ds[0], ds[1]);
            packed[m][n >> 1][2 * (n & 1) + 1] = pack(ds[2], ds[3]);
        }
    }
}

#endif
