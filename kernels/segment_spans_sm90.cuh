// segment_spans_sm90.cuh: what segments_sm90 tells forward_sm90 of the segments of some rows or keys, so that whole tiles of keys
// need not be looked at.
#ifndef DLATTN_SEGMENT_SPANS_SM90_CUH
#define DLATTN_SEGMENT_SPANS_SM90_CUH

#include "sequence.cuh"

#define SPAN_ROWS 64 // rows of one span, as many as a consumer has

// The least and the largest segment, and a set of them all by their last six bits. The ends say little of segments in between
// that are not there: where rows of padding have segment 0 behind the last one, a tile of keys may hold 9 and 0, and nothing
// else. The set says little of more than 64 segments. Together they are exact for what is sorted, and nearly so for the rest.
// Ends that 32 bits do not hold are the nearest that they do.
typedef struct __align__(16) segment_span {
    int lo, hi; // lo > hi: none
    u64 set;
} segment_span;

DEVICE segment_span span_of_none() {
    const segment_span none = {0x7fffffff, (int)0x80000000u, 0};
    return none;
}

DEVICE int nearest_int(i64 x) { return x < -0x7fffffffll - 1 ? (int)0x80000000u : x > 0x7fffffffll ? 0x7fffffff : (int)x; }

DEVICE void widen(segment_span *span, i64 segment) {
    const int nearest = nearest_int(segment);
    span->lo = nearest < span->lo ? nearest : span->lo;
    span->hi = nearest > span->hi ? nearest : span->hi;
    span->set |= (u64)1 << (segment & 63);
}

// May some of the one and some of the other be equal?
DEVICE bool spans_meet(const segment_span &a, const segment_span &b) { return a.lo <= b.hi && b.lo <= a.hi && (a.set & b.set) != 0; }

// Are all of the one equal to all of the other?
DEVICE bool spans_are_alike(const segment_span &a, const segment_span &b) {
    return a.lo == a.hi && b.lo == b.hi && a.lo == b.lo && a.lo != 0x7fffffff && a.lo != (int)0x80000000u;
}

#endif
