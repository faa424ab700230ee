// backward_scores_sm90.cuh: a consumer's tile of scores of backward_sm90, keys down and rows across: from q.k to the weights and
// to ds.
//
// Part of backward_sm90.cu and backward_wide_sm90.cu: uses their options and their map of shared memory.
#ifndef DLATTN_BACKWARD_SCORES_SM90_CUH
#define DLATTN_BACKWARD_SCORES_SM90_CUH

#include "backward_fetch_sm90.cuh"
#include "backward_parts.cuh"

#define ROW_STEP(n, x) (8 * (n) + ((x) & 1)) // from this lane's first row
#define KEY_STEP(x) (8 * ((x) >> 1))         // and first key, of score x of step n

// Where this lane's scores lie: its first row of the tile, and key of the block.
typedef struct lane_place {
    int row, key;
} lane_place;

DEVICE lane_place place_of_lane() {
    const int thread = thread_anew();
    const lane_place place = {thread % 4 * 2, thread / 32 * 16 + thread % 32 / 4};
    return place;
}

// ALiBi's -slope2 |i' - j'| of a lane's scores. Of a tile on one side of the diagonal, where it is linear, lse2 has the row's part
// taken off already, and of_key is that of the lane's two keys. Else slope2 and the distance of the lane's first score.
typedef struct lane_slope {
    float of_key[2], slope2, distance;
} lane_slope;

// What score x of step n has beside q.k, in powers of two, lse2 taken off.
template <bool LINEAR>
DEVICE float term_of(const lane_slope &a, float lse, int n, int x) {
    if (!ALIBI) return -lse;
    if (!LINEAR) return fmaf(-a.slope2, fabsf(a.distance + (float)(ROW_STEP(n, x) - KEY_STEP(x))), -lse);
    return a.of_key[x >> 1] - lse;
}

// With softcap p times the derivative of the score waits for dp beside p itself. Of many rows that would need more registers than
// there are, so it waits packed.
#define BENT_PACKED (SOFTCAP && NT > 8)

// The largest absolute value of this lane's dot products.
DEVICE float largest(const float (&s)[NT][4]) {
    float tops[4] = {0.0f, 0.0f, 0.0f, 0.0f}; // four, so that each waits less for the last
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int x = 0; x < 4; x++) tops[x] = fmaxf(tops[x], fabsf(s[n][x]));
    return fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
}

// x, as the assembler does not know, but only after y; zero is 0. It holds back what follows from x: the assembler would begin so many
// scores at once that registers do not suffice.
DEVICE float after(float x, u32 y, u32 zero) { return __uint_as_float(__float_as_uint(x) | (y & zero)); }

// The words that leave_kept left for this lane, of 16 rows each.
DEVICE const u32 *kept_words(int stage) {
    const int thread = WARPS == BN / 16 + 4 ? thread_anew() : thread_anew() % (2 * BN); // of those that share keys
    return (const u32 *)(shared_bytes + KEPT_AT) + stage * (BM * BN / 16) + thread / 64 * 32 + thread % 32;
}

// Word k of them: bit 0 is score 0 of step 2 k.
DEVICE u32 kept_of_rows(const u32 *words, int k) { return DROPOUT ? words[k * BN] >> (thread_anew() / 32 % 2 * 4) : 0; }

DEVICE float where_kept(u32 kept, int n, int x, float y) {
    return !DROPOUT || (kept >> (2 * (x >> 1) + (n & 1) + 16 * (x & 1)) & 1u) != 0 ? y : 0.0f;
}

// s: q.k, becomes p; with softcap p times the derivative of the score, or that goes to `bent`, and p itself to `weights`.
template <bool LINEAR, bool BENT_LITTLE>
DEVICE void exponentials(float (&s)[NT][4], u32 (&weights)[NT / 2][4], u32 (&bent)[NT / 2][4], exponent_context e, const lane_slope &a,
                         const float *lse, u32 zero, const u32 *kept_words) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const float2 of_rows = *(const float2 *)(lse + 8 * n);
        const u32 kept = SOFTCAP ? kept_of_rows(kept_words, n / 2) : 0;
        float y[4];
#pragma unroll
        for (int x = 0; x < 4; x++) {
            const float term = term_of<LINEAR>(a, x & 1 ? of_rows.y : of_rows.x, n, x);
            float derivative;
            y[x] = exp2_approx(SOFTCAP ? capped<BENT_LITTLE>(e, s[n][x], term, &derivative) : fmaf(s[n][x], e.scale2, term));
            s[n][x] = SOFTCAP ? y[x] * derivative : y[x];
            if (SOFTCAP) y[x] = where_kept(kept, n, x, y[x]);
        }
        if (!SOFTCAP) continue;
        u32 *const both = &weights[n / 2][n % 2 * 2], *const other = &bent[n / 2][n % 2 * 2];
        both[0] = pack(y[0], y[1]), both[1] = pack(y[2], y[3]);
        u32 all = both[0] | both[1];
        if (BENT_PACKED) {
            other[0] = pack(s[n][0], s[n][1]), other[1] = pack(s[n][2], s[n][3]);
            all |= other[0] | other[1];
        } else {
            all |= __float_as_uint(s[n][0]) | __float_as_uint(s[n][1]) | __float_as_uint(s[n][2]) | __float_as_uint(s[n][3]);
        }
        if (BENT_LITTLE) e.little[2] = after(e.little[2], all, zero), e.bent[1] = after(e.bent[1], all, zero);
        else e.cap_in = after(e.cap_in, all, zero);
    }
}

// s += by |distance|, in place: what a tile on the diagonal has of ALiBi.
DEVICE void add_distances(float (&s)[NT][4], const lane_slope &a, float by) {
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int x = 0; x < 4; x++)
            s[n][x] = fmaf(by, fabsf(a.distance + (float)(ROW_STEP(n, x) - KEY_STEP(x))), s[n][x]);
}

DEVICE exponent_context context_of_exponents(const dlattn_params &p) {
    const score_context terms = {};
    return exponent_context_of(p, terms);
}

// The same for any slope.
template <bool BENT_LITTLE>
DEVICE void weigh(const dlattn_params &p, float (&s)[NT][4], u32 (&weights)[NT / 2][4], u32 (&bent)[NT / 2][4], int stage) {
    const lane_place place = place_of_lane();
    const exponent_context e = context_of_exponents(p);
    const float *lse = (const float *)(shared_bytes + LSE_AT) + stage * BM + place.row;
    const u32 zero = SOFTCAP ? (u32)note_of(stage)->own_keys >> 31 : 0; // there is a key
    lane_slope a = {{0.0f, 0.0f}, 0.0f, 0.0f};
    if (!ALIBI) {
        exponentials<true, BENT_LITTLE>(s, weights, bent, e, a, lse, zero, kept_words(stage));
        return;
    }
    const volatile tile_note *const note = note_of(stage);
    const float step = note->key_slope;
    a.of_key[0] = step * (float)place.key, a.of_key[1] = step * (float)(place.key + KEY_STEP(2));
    if (uniform(note->crossed)) {
        a.slope2 = note->slope2;
        a.distance = note->distance + (float)(place.row - place.key);
        if (SOFTCAP) {
            exponentials<false, BENT_LITTLE>(s, weights, bent, e, a, lse, zero, kept_words(stage));
            return;
        }
        add_distances(s, a, __fdividef(-a.slope2, e.scale2));
    }
    exponentials<true, BENT_LITTLE>(s, weights, bent, e, a, lse, zero, kept_words(stage));
}

// Hidden scores become 0, and their weights.
DEVICE void blank_hidden(float (&s)[NT][4], u32 (&weights)[NT / 2][4], u32 (&bent)[NT / 2][4],
                         int stage) {
    const lane_place place = place_of_lane();
    // Of two rows at once: their limits, or with segments the bits of 32 keys, this lane's turned to the front.
    const int word = SEGMENTS ? stage * (BN / 32) + place.key / 32 : stage;
    const u64 *rows = (const u64 *)(shared_bytes + LIMITS_AT + (word * BM + place.row) * 4);
    const int own_keys = INTERVAL || SEGMENTS ? 0 : note_of(stage)->own_keys;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const u64 both = INTERVAL || SEGMENTS ? rows[4 * n] >> (SEGMENTS ? place.key % 32 : 0) : 0;
#pragma unroll
        for (int x = 0; x < 4; x++) {
            const int j = place.key + KEY_STEP(x);
            const u32 of_row = (u32)(x & 1 ? both >> 32 : both);
            if (SEGMENTS ? (of_row >> KEY_STEP(x) & 1u) != 0 : INTERVAL ? inside_limits(of_row, j) : j < own_keys) continue;
            s[n][x] = 0.0f;
            const u32 others = x & 1 ? 0x0000ffffu : 0xffff0000u;
            if (SOFTCAP) weights[n / 2][n % 2 * 2 + (x >> 1)] &= others;
            if (BENT_PACKED) bent[n / 2][n % 2 * 2 + (x >> 1)] &= others;
        }
    }
}

// From q.k in s to p times the derivative of the score, in place; with softcap to p as left operands too.
DEVICE void weigh_tile(const dlattn_params &p, float (&s)[NT][4], u32 (&weights)[NT / 2][4], u32 (&bent)[NT / 2][4], int stage) {
    if (SOFTCAP && !__all_sync(0xffffffffu, bends_little(context_of_exponents(p), largest(s)))) weigh<false>(p, s, weights, bent, stage);
    else weigh<true>(p, s, weights, bent, stage);
    if (!(note_of(stage)->seen >> uniform((int)threadIdx.x / 32) & 1u)) blank_hidden(s, weights, bent, stage);
}

// To p as left operands.
DEVICE void pack_weights(const float (&s)[NT][4], u32 (&weights)[NT / 2][4], int stage) {
    const u32 *const words = kept_words(stage);
#pragma unroll
    for (int k = 0; k < NT / 2; k++) {
        if (SOFTCAP) continue;
        const u32 kept = kept_of_rows(words, k);
        float y[2][4];
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int x = 0; x < 4; x++) y[n][x] = where_kept(kept, n, x, s[2 * k + n][x]);
        pack_fragment(weights[k], y);
    }
}

// Both.
DEVICE void probabilities(const dlattn_params &p, float (&s)[NT][4], u32 (&weights)[NT / 2][4], u32 (&bent)[NT / 2][4], int stage) {
    weigh_tile(p, s, weights, bent, stage);
    pack_weights(s, weights, stage);
}

// Two neighbours that were packed.
DEVICE float2 unpack(u32 both) {
    if (TYPE == DLATTN_TYPE_BF16) return make_float2(__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000u));
    return make_float2(float_of_element((u16)both), float_of_element((u16)(both >> 16)));
}

// ds = p (dp - delta), as left operands; p: times the derivative of the score.
DEVICE void score_gradients(u32 (&ds)[NT / 2][4], float (&p)[NT][4], const u32 (&bent)[NT / 2][4], const float (&dp)[NT][4], int stage,
                            float dropout_scale) {
    const float *delta = (const float *)(shared_bytes + DELTA_AT) + stage * BM + thread_anew() % 4 * 2;
    const u32 *const words = kept_words(stage);
#pragma unroll
    for (int k = 0; k < NT / 2; k++) {
        const u32 kept = kept_of_rows(words, k);
#pragma unroll
        for (int n = 2 * k; n < 2 * k + 2; n++) {
            const float2 of_rows = *(const float2 *)(delta + 8 * n);
            if (BENT_PACKED) {
                const float2 one = unpack(bent[k][n % 2 * 2]), other = unpack(bent[k][n % 2 * 2 + 1]);
                p[n][0] = one.x, p[n][1] = one.y, p[n][2] = other.x, p[n][3] = other.y;
            }
#pragma unroll
            for (int x = 0; x < 4; x++) {
                const float delta_of_row = x & 1 ? of_rows.y : of_rows.x;
                p[n][x] *= DROPOUT ? fmaf(where_kept(kept, n, x, dp[n][x]), dropout_scale, -delta_of_row) : dp[n][x] - delta_of_row;
            }
        }
        pack_fragment(ds[k], &p[2 * k]);
    }
}

#endif
