// forward_keys_sm80.cuh: which keys the rows of a block and of each warp see in forward_sm80, by interval masks and
// segments.
//
// Part of forward_sm80.cu: uses its options and its map of shared memory.
#ifndef DLATTN_FORWARD_KEYS_SM80_CUH
#define DLATTN_FORWARD_KEYS_SM80_CUH

#include "forward_rows_sm80.cuh"

// What some rows see: keys outside [lo, hi) are hidden from all of them, keys in [full_lo, full_hi) from none.
typedef struct key_range {
    int lo, hi, full_lo, full_hi;
} key_range;

DEVICE key_range joined(key_range a, key_range b) {
    key_range r = {smaller(a.lo, b.lo), larger(a.hi, b.hi), larger(a.full_lo, b.full_lo),
                   smaller(a.full_hi, b.full_hi)};
    return r;
}

// Every row's limits and what each warp's rows see to shared memory; returns what the tile's rows see.
DEVICE key_range find_ranges(unsigned char *memory, const dlattn_params &p, const sequence &s, int row0, int rows) {
    limits *row_limit = (limits *)(memory + LIMITS_AT);
    key_range *ranges = (key_range *)(memory + RANGES_AT), own = {0x7fffffff, 0, 0, 0x7fffffff};
    const dlattn_mask mask = mask_of(p, s);
    const int warp = (int)threadIdx.x / 32;
#pragma unroll
    for (int first = 0; first < 16 * MT; first += 32) {
        const int r = 16 * MT * warp + first + lane_id();
        if (first + lane_id() < 16 * MT) {
            const bool there = row0 + r < rows;
            limits seen = {0, 0};
            if (there) seen = row_limits(p, s, mask, query_of(p, row0 + r));
            row_limit[r] = seen;
            if (there) {
                key_range row = {seen.lo < seen.hi ? seen.lo : 0x7fffffff, seen.hi, seen.lo, seen.hi};
                own = joined(own, row);
            }
        }
    }
#pragma unroll
    for (int lane = 1; lane < 32; lane *= 2) {
        key_range other = {__shfl_xor_sync(0xffffffffu, own.lo, lane), __shfl_xor_sync(0xffffffffu, own.hi, lane),
                           __shfl_xor_sync(0xffffffffu, own.full_lo, lane),
                           __shfl_xor_sync(0xffffffffu, own.full_hi, lane)};
        own = joined(own, other);
    }
    if (lane_id() == 0) ranges[warp] = own;
    __syncthreads();
    key_range all = ranges[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) all = joined(all, ranges[w]);
    return all;
}

// With segments: each warp's range of them to shared memory; returns `seen` without the keys at both ends that lie
// outside the range of all rows.
DEVICE key_range meet_segments(key_range seen, unsigned char *memory, const dlattn_params &p, const score_context &c,
                               int row0, int rows) {
    segment_range *ranges = (segment_range *)(memory + SEGMENT_RANGES_AT), own = {DLATTN_I64_MAX, DLATTN_I64_MIN};
    key_range *hulls = (key_range *)(ranges + WARPS), hull = {0x7fffffff, 0, 0, 0};
    const int warp = (int)threadIdx.x / 32, row = row0 + 16 * MT * warp + lane_id();
    if (lane_id() < 16 * MT && row < rows)
        own.lo = own.hi = load_int(p.q_segments, c.q_segments_at + row * p.q_segments.stride[1]);
#pragma unroll
    for (int lane = 1; lane < 32; lane *= 2) {
        const i64 lo = __shfl_xor_sync(0xffffffffu, own.lo, lane), hi = __shfl_xor_sync(0xffffffffu, own.hi, lane);
        own.lo = lo < own.lo ? lo : own.lo;
        own.hi = hi > own.hi ? hi : own.hi;
    }
    if (lane_id() == 0) ranges[warp] = own;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        own.lo = ranges[w].lo < own.lo ? ranges[w].lo : own.lo;
        own.hi = ranges[w].hi > own.hi ? ranges[w].hi : own.hi;
    }
    // lo is huge when no key is seen.
#pragma unroll 4
    for (int j = smaller(seen.lo, seen.hi) + (int)threadIdx.x; j < seen.hi; j += THREADS) {
        const i64 segment = load_int(p.kv_segments, c.kv_segments_at + j * p.kv_segments.stride[1]);
        if (own.lo <= segment && segment <= own.hi) {
            hull.lo = smaller(hull.lo, j);
            hull.hi = j + 1;
        }
    }
#pragma unroll
    for (int lane = 1; lane < 32; lane *= 2) {
        hull.lo = smaller(hull.lo, __shfl_xor_sync(0xffffffffu, hull.lo, lane));
        hull.hi = larger(hull.hi, __shfl_xor_sync(0xffffffffu, hull.hi, lane));
    }
    if (lane_id() == 0) hulls[warp] = hull;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        hull.lo = smaller(hull.lo, hulls[w].lo);
        hull.hi = larger(hull.hi, hulls[w].hi);
    }
    return hull;
}

// Does this warp see any of the keys [j0, j0 + BN)? Its range is read anew each time: registers are scarce.
DEVICE bool reaches(const unsigned char *memory, int j0) {
    const key_range own = ((const key_range *)(memory + RANGES_AT))[thread_anew() / 32];
    return j0 < own.hi && j0 + BN > own.lo;
}

// Hides what the intervals hide, where they do: most tiles are free of it, most others at one end only.
DEVICE void hide_ends(float (&s)[MT][NT][4], const unsigned char *memory, int j0) {
    const key_range own = ((const key_range *)(memory + RANGES_AT))[thread_anew() / 32];
    if (j0 < own.full_lo) hide_before(s, (const limits *)(memory + LIMITS_AT), j0);
    if (j0 + BN > own.full_hi) hide_after(s, (const limits *)(memory + LIMITS_AT), j0);
}

#endif
