// backward_walk_sm80.cuh: which tiles of rows backward_sm80 visits where there are segments: those that may share one with the
// block's keys.
//
// Part of backward_sm80.cu. backward_prepare has left the least and the largest segment of every 32 rows in p.row_segments, so
// a tile is judged by the ranges of both sides; they need not be sorted.
#ifndef DLATTN_BACKWARD_WALK_SM80_CUH
#define DLATTN_BACKWARD_WALK_SM80_CUH

#include "backward_sm80.cuh"

// Tiles [first, end); bits of the 32 tiles around the present one: those that meet the keys, those of one segment with them.
typedef struct segment_walk {
    int first, end;
    u32 meets, one_segment;
} segment_walk;

// By a whole warp: the range of the block's keys, to shared memory.
DEVICE void find_key_range(const dlattn_params &p, const backward_context &c) {
    const bool wide = p.kv_segments.dtype == DLATTN_TYPE_I64;
    const i64 first = at(p.kv_segments, c.s.b);
    i64 lo = DLATTN_I64_MAX, hi = DLATTN_I64_MIN;
#pragma unroll
    for (int n = 0; n < BN; n += 32) { // all loads at once: keys past the end are the last one again
        const int key = c.j0 + n + lane_id() < c.s.N ? c.j0 + n + lane_id() : c.s.N - 1;
        const i64 index = first + key * p.kv_segments.stride[1];
        const i64 x = wide ? ((const i64 *)p.kv_segments.data)[index] : ((const int *)p.kv_segments.data)[index];
        lo = x < lo ? x : lo, hi = x > hi ? x : hi;
    }
    for (int other = 16; other > 0; other /= 2) {
        const i64 low = __shfl_xor_sync(0xffffffffu, lo, other), high = __shfl_xor_sync(0xffffffffu, hi, other);
        lo = low < lo ? low : lo, hi = high > hi ? high : hi;
    }
    i64 *range = (i64 *)(shared_bytes + KEY_RANGE_AT);
    if (lane_id() == 0) range[0] = lo, range[1] = hi;
}

// The bits of tiles [32 word, 32 word + 32).
DEVICE void look_at_word(const dlattn_params &p, const backward_context &c, segment_walk *w, int word) {
    const volatile i64 *keys = (const volatile i64 *)(shared_bytes + KEY_RANGE_AT);
    const int tile = 32 * word + lane_id();
    bool meets = false, one = false;
    if (tile >= w->first && tile < w->end) {
        const i64 *range = (const i64 *)p.row_segments + (c.s.b * (p.head_rows / 32) + (i64)tile * (BM / 32)) * 2;
        i64 lo = range[0], hi = range[1];
#pragma unroll
        for (int n = 1; n < BM / 32; n++) {
            lo = range[2 * n] < lo ? range[2 * n] : lo;
            hi = range[2 * n + 1] > hi ? range[2 * n + 1] : hi;
        }
        meets = lo <= keys[1] && keys[0] <= hi;
        one = meets && lo == hi && keys[0] == keys[1];
    }
    w->meets = __ballot_sync(0xffffffffu, meets);
    w->one_segment = __ballot_sync(0xffffffffu, one);
}

// To the next tile that meets the keys, of the next head after the last; there must be one.
DEVICE void walk_on(const dlattn_params &p, const backward_context &c, segment_walk *w, row_tile *tile) {
    const int before = tile->i0 / BM;
    int word = before >> 5;
    u32 later = w->meets & (0xfffffffeu << (before & 31));
#pragma unroll 1
    while (!later) {
        if (++word * 32 >= w->end) word = w->first >> 5, tile->h++;
        look_at_word(p, c, w, word);
        later = w->meets;
    }
    const int bit = __ffs((int)later) - 1;
    tile->i0 = (32 * word + bit) * BM;
    tile->one_segment = (w->one_segment >> bit & 1u) != 0;
}

// By the whole block: to the first tile that meets the keys; how many do.
DEVICE int start_walk(const dlattn_params &p, const backward_context &c, segment_walk *w, row_tile *tile) {
    static_assert(!((FEATURES) & DLATTN_FEATURE_SEGMENTS) || BM % 32 == 0, "ranges are those of 32 rows");
    if (warp_id() == 0) find_key_range(p, c);
    __syncthreads();
    segment_walk begins = *w;
    int count = 0, begin = 0;
#pragma unroll 2
    for (int word = w->first >> 5; 32 * word < w->end; word++) {
        look_at_word(p, c, w, word);
        if (count == 0) begins = *w, begin = word;
        count += __popc(w->meets);
    }
    if (count == 0) return 0;
    *w = begins;
    const int bit = __ffs((int)w->meets) - 1;
    tile->i0 = (32 * begin + bit) * BM;
    tile->one_segment = (w->one_segment >> bit & 1u) != 0;
    return count;
}

#endif
