// forward_hide_sm90.cuh: what the mask tensor and segments hide of a consumer's tile of scores in forward_sm90. It is found out
// while the tile's products are under way, as bits; the scores themselves are there only afterwards.
//
// A warp gathers words of 32 keys of a row, then each thread picks what it needs of them: reading an element's own byte or segment
// each took too many loads. Part of forward_sm90.cu: uses its options and its map of shared memory.
#ifndef DLATTN_FORWARD_HIDE_SM90_CUH
#define DLATTN_FORWARD_HIDE_SM90_CUH

#include "forward_fetch_sm90.cuh"

// Which of a thread's scores are hidden. Row g and row g + 8: bit 8 (n % 4) + 2 (n / 4) + c % 2 is element c of block n.
typedef struct hidden_scores {
    u32 of[2];
} hidden_scores;

#define KEY_WORDS ((BN + 31) / 32)
static_assert(!(SEGMENTS || MASKED) || NT <= 16, "32 bits for a row's scores in a thread");

DEVICE int lane_anew() { return thread_anew() % 32; }

// This thread's bits of a row's.
DEVICE u32 own_bits(const u32 (&words)[KEY_WORDS]) {
    const int first = lane_anew() % 4 * 2;
    u32 bits = 0;
#pragma unroll
    for (int w = 0; w < KEY_WORDS; w++) bits |= (words[w] >> first & 0x03030303u) << 2 * w;
    return bits;
}

DEVICE void hide_marked(float (&s)[MT][NT][4], const hidden_scores &hidden) {
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            if (hidden.of[c / 2] >> (n % 4 * 8 + n / 4 * 2 + c % 2) & 1u) s[0][n][c] = -INFINITE;
}

// Segments --------------------------------------------------------------------------------------------------------------

// A warp's 16 rows have few segments, mostly one: each is compared with all keys at once. row: this thread's first.
template <typename T>
DEVICE void mark_others(hidden_scores *hidden, const T *keys, i64 stride, const i64 (&own)[2], int j0, int N) {
    i64 segments[KEY_WORDS];
#pragma unroll
    for (int w = 0; w < KEY_WORDS; w++) segments[w] = keys[smaller(j0 + 32 * w + lane_anew(), N - 1) * stride];
    bool left[2] = {true, true};
    for (;;) {
        const u32 waiting = __ballot_sync(0xffffffffu, left[0] || left[1]);
        if (!waiting) break;
        const i64 segment = __shfl_sync(0xffffffffu, left[0] ? own[0] : own[1], __ffs((int)waiting) - 1);
        u32 words[KEY_WORDS];
#pragma unroll
        for (int w = 0; w < KEY_WORDS; w++) words[w] = __ballot_sync(0xffffffffu, segments[w] != segment);
        const u32 bits = own_bits(words);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            if (own[half] != segment) continue;
            hidden->of[half] |= bits;
            left[half] = false;
        }
    }
}

DEVICE void mark_other_segments(hidden_scores *hidden, const dlattn_params &p, const loop_facts &facts, int row, int j0) {
    const dlattn_view &q = p.q_segments, &k = p.kv_segments;
    i64 own[2];
#pragma unroll
    for (int half = 0; half < 2; half++) own[half] = load_int(q, at(q, facts.s.b, smaller(row + 8 * half, facts.s.M - 1)));
    const i64 from = at(k, facts.s.b);
    if (k.dtype == DLATTN_TYPE_I64) mark_others(hidden, (const i64 *)k.data + from, k.stride[1], own, j0, facts.s.N);
    else mark_others(hidden, (const int *)k.data + from, k.stride[1], own, j0, facts.s.N);
}

// The mask tensor -------------------------------------------------------------------------------------------------------

// Which of 16 bytes are not 0.
DEVICE u32 bits_of_bytes(const uint4 &x) {
    const u32 word[4] = {x.x, x.y, x.z, x.w};
    u32 bits = 0;
#pragma unroll
    for (int n = 0; n < 4; n++) { // the upper bit of each byte that is not 0; then a product brings the four together
        const u32 upper = ((word[n] & 0x7f7f7f7fu) + 0x7f7f7f7fu | word[n]) & 0x80808080u;
        bits |= upper * 0x00204081u >> 28 << 4 * n;
    }
    return bits;
}

// Rows are aligned 16-byte pieces (schedule.c sees to that): the four threads of a row read it, and tell each other.
DEVICE u32 masked_by_pieces(const unsigned char *row, int left) {
    const int lane = lane_anew(), PIECES = BN / 16;
    uint4 x[2];
#pragma unroll
    for (int n = 0; n < 2; n++) {
        const int piece = lane % 4 + 4 * n;
        x[n] = make_uint4(0, 0, 0, 0);
        if (piece < PIECES && 16 * piece < left) x[n] = *(const uint4 *)(row + 16 * piece);
    }
    const u32 bits = bits_of_bytes(x[0]) | bits_of_bytes(x[1]) << 16;
    u32 of[4], words[KEY_WORDS];
#pragma unroll
    for (int n = 0; n < 4; n++) of[n] = __shfl_sync(0xffffffffu, bits, lane & 28 | n);
#pragma unroll
    for (int w = 0; w < KEY_WORDS; w++) words[w] = __byte_perm(of[w % 2 * 2], of[w % 2 * 2 + 1], w < 2 ? 0x5410 : 0x7632);
    return ~own_bits(words);
}

// The end of a sequence inside a piece: 32 keys of a row at a time, one each lane.
DEVICE void mark_masked_elements(hidden_scores *hidden, const unsigned char *mask, const dlattn_params &p, int row0, int j0, int M, int N) {
    const int lane = lane_anew();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u32 own = 0;
#pragma unroll 1
        for (int r = 0; r < 8; r++) {
            const unsigned char *row = mask + smaller(row0 + 8 * half + r, M - 1) * p.mask.stride[2];
            u32 words[KEY_WORDS];
#pragma unroll
            for (int w = 0; w < KEY_WORDS; w++)
                words[w] = __ballot_sync(0xffffffffu, !row[smaller(j0 + 32 * w + lane, N - 1) * p.mask.stride[3]]);
            const u32 bits = own_bits(words);
            if (lane / 4 == r) own = bits;
        }
        hidden->of[half] |= own;
    }
}

// row: this thread's first.
DEVICE void mark_masked(hidden_scores *hidden, const dlattn_params &p, const loop_facts &facts, int row, int j0) {
    const unsigned char *mask = (const unsigned char *)p.mask.data + at(p.mask, facts.s.b, facts.h);
    const int left = facts.s.N - j0;
    if (left >= BN || left % 16 == 0) {
#pragma unroll
        for (int half = 0; half < 2; half++)
            hidden->of[half] |= masked_by_pieces(mask + smaller(row + 8 * half, facts.s.M - 1) * p.mask.stride[2] + j0, left);
        return;
    }
    mark_masked_elements(hidden, mask, p, row - lane_anew() / 4, j0, facts.s.M, facts.s.N);
}

#endif
