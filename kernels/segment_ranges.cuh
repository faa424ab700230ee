// segment_ranges.cuh: which tiles of scores segments leave empty, by the ranges that backward_prepare has left: the least
// and the largest segment of every 32 rows and keys. They need not be sorted.
#ifndef DLATTN_SEGMENT_RANGES_CUH
#define DLATTN_SEGMENT_RANGES_CUH

#include "mma.cuh"
#include "sequence.cuh"

// The range of `count` granules of 32 rows or keys, each its least and its largest segment.
DEVICE void join_ranges(const i64 *ranges, int count, i64 *lo, i64 *hi) {
    *lo = DLATTN_I64_MAX, *hi = DLATTN_I64_MIN;
#pragma unroll
    for (int n = 0; n < count; n++) {
        *lo = ranges[2 * n] < *lo ? ranges[2 * n] : *lo;
        *hi = ranges[2 * n + 1] > *hi ? ranges[2 * n + 1] : *hi;
    }
}

// May rows and keys share a segment? Are all of them of one?
typedef struct segment_meeting {
    bool meets, one_segment;
} segment_meeting;

// Of rows [i0, i0 + ROWS) of sequence b and keys [j0, j0 + KEYS). All that is read does not wait for each other.
template <int ROWS, int KEYS>
DEVICE segment_meeting meeting_of(const dlattn_params &p, int b, int i0, int j0) {
    static_assert(ROWS % 32 == 0 && KEYS % 32 == 0, "ranges are those of 32");
    i64 lo, hi, least, largest;
    join_ranges((const i64 *)p.row_segments + (b * (p.head_rows / 32) + i0 / 32) * 2, ROWS / 32, &lo, &hi);
    join_ranges((const i64 *)p.key_segments + (b * segment_ranges(p.N) + j0 / 32) * 2, KEYS / 32, &least, &largest);
    const bool meets = lo <= largest && least <= hi;
    const segment_meeting found = {meets, meets && lo == hi && least == largest};
    return found;
}

// The first tile of keys in [tile, end) that may share a segment with the rows from i0 on, else `end`. By whole warps.
template <int ROWS, int KEYS>
DEVICE int next_tile_that_meets(const dlattn_params &p, int b, int i0, int tile, int end) {
#pragma unroll 1
    for (; tile < end; tile += 32) {
        const int own = tile + lane_id();
        const u32 meets = __ballot_sync(0xffffffffu, own < end && meeting_of<ROWS, KEYS>(p, b, i0, own * KEYS).meets);
        if (meets) return tile + __ffs((int)meets) - 1;
    }
    return end;
}

#endif
