// sequence.cuh: one sequence of the batch as the device reads it, its mask, and where its rows lie in the workspace.
//
// The host has not looked at the lengths, so they are clamped here: no access leaves a tensor, whatever they hold.
#ifndef DLATTN_SEQUENCE_CUH
#define DLATTN_SEQUENCE_CUH

#include "element.cuh"
#include "shared/masks/masks.h"
#include "shared/philox.h"

typedef struct sequence {
    int b, M, N;                // used rows and keys
    i64 q_begin, k_begin;       // first token (0 when padded)
    i64 q_position, k_position; // i' = i + q_position, j' = j + k_position
} sequence;

DEVICE i64 clamp_to(i64 x, i64 lo, i64 hi) { return x < lo ? lo : x > hi ? hi : x; }

// One side of sequence b: its first token and its used length, at most `longest`.
DEVICE void read_side(i64 *begin, int *length, int b, const dlattn_view &cu_seqlens, const dlattn_view &seqlens,
                      i64 tokens, i64 longest) {
    i64 first = 0, used = tokens;
    if (cu_seqlens.data) {
        first = clamp_to(load_int(cu_seqlens, at(cu_seqlens, b)), 0, tokens);
        used = clamp_to(load_int(cu_seqlens, at(cu_seqlens, b + 1)), first, tokens) - first;
    }
    if (seqlens.data) used = clamp_to(load_int(seqlens, at(seqlens, b)), 0, used);
    *begin = first;
    *length = (int)(used < longest ? used : longest);
}

DEVICE sequence read_sequence(const dlattn_params &p, int b) {
    sequence s;
    s.b = b;
    read_side(&s.q_begin, &s.M, b, p.cu_seqlens_q, p.seqlens_q, p.tokens_q, p.M);
    read_side(&s.k_begin, &s.N, b, p.cu_seqlens_k, p.seqlens_k, p.tokens_k, p.N);
    if (p.positions) {
        s.q_position = p.q_starts.data ? load_int(p.q_starts, at(p.q_starts, b)) : p.q_start;
        s.k_position = p.k_starts.data ? load_int(p.k_starts, at(p.k_starts, b)) : p.k_start;
    } else {
        s.q_position = p.top_left ? 0 : (i64)s.N - s.M;
        s.k_position = 0;
    }
    return s;
}

DEVICE dlattn_mask mask_of(const dlattn_params &p, const sequence &s) {
    dlattn_mask m;
    m.kinds = p.mask_kinds;
    m.reserved0 = 0;
    m.num_keys = s.N;
    m.q_position = s.q_position;
    m.k_position = s.k_position;
    m.window_left = p.window_left;
    m.window_right = p.window_right;
    m.block_size = p.block_size;
    m.block_count = p.block_count;
    return m;
}

// The number of row i of (sequence, head h) in the workspace's arrays. A sequence's first row is a multiple of
// DLATTN_ROW_ALIGNMENT, and its rows up to the next such multiple belong to it alone.
DEVICE i64 row_of(const dlattn_params &p, const sequence &s, int h, int i) {
    if (!p.packed_q) return ((i64)s.b * p.H + h) * p.head_rows + i;
    i64 start = (s.q_begin + (i64)DLATTN_ROW_ALIGNMENT * s.b) / DLATTN_ROW_ALIGNMENT * DLATTN_ROW_ALIGNMENT;
    return h * p.head_rows + start + i;
}

// How many ranges of segments of 32 keys a sequence has in the workspace: those of whole tiles.
DEVICE i64 segment_ranges(int keys) { return ((i64)keys + DLATTN_ROW_ALIGNMENT - 1) / DLATTN_ROW_ALIGNMENT * (DLATTN_ROW_ALIGNMENT / 32); }

DEVICE dlattn_philox_key dropout_key(const dlattn_params &p) {
    u64 seed = p.seed, offset = p.offset;
    if (p.rng_state.data && p.rng_state.extent[0] == 2) {
        seed = (u64)load_int(p.rng_state, 0);
        offset = (u64)load_int(p.rng_state, at(p.rng_state, 1));
    } else if (p.rng_state.data) {
        const u32 *words = (const u32 *)p.rng_state.data;
        seed = words[0] | (u64)words[at(p.rng_state, 1)] << 32;
        offset = words[at(p.rng_state, 2)] | (u64)words[at(p.rng_state, 3)] << 32;
    }
    return dlattn_philox_make_key(seed, offset);
}

#endif
