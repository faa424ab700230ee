// backward_walk.cuh: which tiles of rows a block of the backward visits where there are segments: those that may share one with
// the block's keys.
//
// Part of backward_sm80.cu and backward_sm90.cu: uses their options and maps of shared memory. backward_prepare has left the least and
// the largest segment of every 32 rows and keys, so a tile is judged by the ranges of both sides; they need not be sorted.
#ifndef DLATTN_BACKWARD_WALK_CUH
#define DLATTN_BACKWARD_WALK_CUH

#include "backward_parts.cuh"
#include "segment_ranges.cuh"

#ifndef WALK_KEYS
#define WALK_KEYS BN // keys that share a list of tiles
#endif

// Tiles [first, end); bits of the 32 tiles around the present one: those that meet the keys, those of one segment with them.
typedef struct segment_walk {
    int first, end;
    u32 meets, one_segment;
} segment_walk;

// By a whole warp: the bits of tiles [32 word, 32 word + 32).
DEVICE void look_at_word(const dlattn_params &p, const backward_context &c, segment_walk *w, int word) {
    const int tile = 32 * word + lane_id(), inside = tile < w->first ? w->first : tile < w->end ? tile : w->end - 1;
    const segment_meeting own = meeting_of<BM, WALK_KEYS>(p, c.s.b, inside * BM, c.j0 / WALK_KEYS * WALK_KEYS);
    w->meets = __ballot_sync(0xffffffffu, tile == inside && own.meets);
    w->one_segment = __ballot_sync(0xffffffffu, tile == inside && own.one_segment);
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

// By the whole block: to the first tile that meets the keys; how many do. Warps look at different words.
DEVICE int start_walk(const dlattn_params &p, const backward_context &c, segment_walk *w, row_tile *tile) {
    static_assert(!((FEATURES) & DLATTN_FEATURE_SEGMENTS) || (BM % 32 == 0 && WALK_KEYS % 32 == 0), "ranges are those of 32");
    volatile int *found = (volatile int *)(shared_bytes + WALK_AT);  // how many, and the first word with one
    if (threadIdx.x == 0) found[0] = 0, found[1] = w->end;
    __syncthreads();
    for (int word = (w->first >> 5) + warp_id(); 32 * word < w->end; word += WARPS) {
        look_at_word(p, c, w, word);
        if (lane_id() != 0 || !w->meets) continue;
        atomicAdd((int *)&found[0], __popc(w->meets));
        atomicMin((int *)&found[1], word);
    }
    __syncthreads();
    const int count = found[0], word = found[1];
    if (count == 0) return 0;
    look_at_word(p, c, w, word);
    const int bit = __ffs((int)w->meets) - 1;
    tile->i0 = (32 * word + bit) * BM;
    tile->one_segment = (w->one_segment >> bit & 1u) != 0;
    return count;
}

#endif
