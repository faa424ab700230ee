// forward_segments_sm90.cuh: which tiles of keys the rows of forward_sm90's consumers see by segments.
//
// Part of forward_sm90.cu: uses its options and its map of shared memory.
#ifndef DLATTN_FORWARD_SEGMENTS_SM90_CUH
#define DLATTN_FORWARD_SEGMENTS_SM90_CUH

#include "forward_fetch_sm90.cuh"
#include "segment_spans_sm90.cuh"

// The scout's warp: narrows the job's and its consumers' tiles of keys to those between the first and the last that may share
// a segment with their rows, and finds those that wholly do. Lane g keeps what is found of consumer g.
DEVICE void find_segments(job *j, const dlattn_params &p) {
    const int lane = lane_id(), b = j->facts.s.b, begin = j->first, end = j->last;
    consumer_span own = {begin, end, 0, 0, 0, 0};
    if (INTERVAL && lane < CONSUMERS && j->facts.row0 + 64 * lane < j->facts.rows) own = j->of[lane];
    segment_span rows = span_of_none();
    if (lane < CONSUMERS)
        rows = ((const segment_span *)p.row_segments)[b * (p.row_tiles * CONSUMERS) + j->facts.row0 / SPAN_ROWS + lane];
    int first = end, last = begin, alike_first = 0, alike_last = 0;
#pragma unroll 1
    for (int tile = begin; tile < end; tile += 32) {
        segment_span keys = span_of_none();
        if (tile + lane < end) keys = ((const segment_span *)p.key_segments)[b * p.key_tiles + tile + lane];
#pragma unroll 1
        for (int g = 0; g < CONSUMERS; g++) {
            const segment_span theirs = {__shfl_sync(0xffffffffu, rows.lo, g), __shfl_sync(0xffffffffu, rows.hi, g),
                                         __shfl_sync(0xffffffffu, rows.set, g)};
            const u32 meets = __ballot_sync(0xffffffffu, spans_meet(theirs, keys));
            const u32 alike = __ballot_sync(0xffffffffu, spans_are_alike(theirs, keys));
            if (lane != g) continue;
            if (meets) {
                first = smaller(first, tile + __ffs((int)meets) - 1);
                last = tile + 32 - __clz((int)meets);
            }
            if (alike && alike_first == alike_last) alike_first = alike_last = tile + __ffs((int)alike) - 1;
            if (alike && alike_last >= tile) { // the run goes on
                const u32 rest = ~(alike >> (alike_last - tile));
                alike_last = rest ? alike_last + __ffs((int)rest) - 1 : tile + 32;
                alike_last = smaller(alike_last, tile + 32);
            }
        }
        __syncwarp();
    }
    own.first = larger(own.first, first);
    own.last = smaller(own.last, last);
    own.alike_first = alike_first;
    own.alike_last = alike_last;
    own.whole_first = INTERVAL ? larger(own.whole_first, own.alike_first) : own.alike_first;
    own.whole_last = INTERVAL ? smaller(own.whole_last, own.alike_last) : own.alike_last;
    const bool sees = lane < CONSUMERS && own.first < own.last;
    int low = sees ? own.first : end, high = sees ? own.last : begin;
#pragma unroll
    for (int other = 1; other < 4; other *= 2) {
        low = smaller(low, __shfl_xor_sync(0xffffffffu, low, other));
        high = larger(high, __shfl_xor_sync(0xffffffffu, high, other));
    }
    low = smaller(low, high); // no row sees a key
    if (!sees) own.first = own.last = low;
    __syncwarp();
    if (lane < CONSUMERS) j->of[lane] = own;
    if (lane == 0) {
        j->first = low;
        j->last = high;
    }
}

#endif
