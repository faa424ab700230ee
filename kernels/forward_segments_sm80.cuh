// forward_segments_sm80.cuh: which keys the rows of a block and of each warp see in forward_sm80 by segments.
//
// Part of forward_sm80.cu: uses its options and its map of shared memory.
#ifndef DLATTN_FORWARD_SEGMENTS_SM80_CUH
#define DLATTN_FORWARD_SEGMENTS_SM80_CUH

#include "forward_keys.cuh"

// What this thread finds among the keys that it looks at: a hull of those whose segment lies in a range, and their number.
typedef struct segment_hull {
    int lo, hi, count, unused;
} segment_hull;

// Widens the hull to this thread's keys of [begin, end) whose segment lies in [lo, lo + width]; many are read at once. T is
// the type of the segments, U the same unsigned.
template <typename T, typename U>
DEVICE void scan_segments(segment_hull *hull, const T *segments, i64 stride, int begin, int end, T lo, U width) {
    const int AT_ONCE = 16;
    for (int first = begin + (int)threadIdx.x; first < end; first += AT_ONCE * THREADS) {
        T found[AT_ONCE];
        const T *from = segments + first * stride;
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) {
            if (first + n * THREADS < end) found[n] = *from;
            from += THREADS * stride;
        }
        u32 inside = 0;
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++)
            if (first + n * THREADS < end && (U)found[n] - (U)lo <= width) inside |= 1u << n;
        if (inside == 0) continue;
        hull->lo = smaller(hull->lo, first + (__ffs((int)inside) - 1) * THREADS);
        hull->hi = first + (31 - __clz((int)inside)) * THREADS + 1; // not below what there is: the keys come in order
        hull->count += __popc(inside);
    }
}

// With segments: each warp's range of them to shared memory; returns `seen` without the keys at both ends that lie outside
// the range of all rows. full_lo and full_hi: the same where all rows see all of that, else nothing.
DEVICE key_range meet_segments(key_range seen, unsigned char *memory, const dlattn_params &p, const score_context &c,
                               int row0, int rows) {
    segment_range *ranges = (segment_range *)(memory + SEGMENT_RANGES_AT), own = {DLATTN_I64_MAX, DLATTN_I64_MIN};
    segment_hull *hulls = (segment_hull *)(ranges + WARPS), hull = {0x7fffffff, 0, 0, 0};
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
    const i64 stride = p.kv_segments.stride[1];
    const int begin = smaller(seen.lo, seen.hi); // lo is huge when no key is seen
    if (p.kv_segments.dtype == DLATTN_TYPE_I64) {
        const i64 *from = (const i64 *)p.kv_segments.data + c.kv_segments_at;
        scan_segments(&hull, from, stride, begin, seen.hi, own.lo, (u64)own.hi - (u64)own.lo);
    } else {
        const int *from = (const int *)p.kv_segments.data + c.kv_segments_at;
        const i64 lo = clamp_to(own.lo, -(1ll << 31), 1ll << 31), hi = clamp_to(own.hi, -(1ll << 31) - 1, (1ll << 31) - 1);
        if (lo <= hi) scan_segments(&hull, from, stride, begin, seen.hi, (int)lo, (u32)(hi - lo));
    }
#pragma unroll
    for (int lane = 1; lane < 32; lane *= 2) {
        hull.lo = smaller(hull.lo, __shfl_xor_sync(0xffffffffu, hull.lo, lane));
        hull.hi = larger(hull.hi, __shfl_xor_sync(0xffffffffu, hull.hi, lane));
        hull.count += __shfl_xor_sync(0xffffffffu, hull.count, lane);
    }
    if (lane_id() == 0) hulls[warp] = hull;
    __syncthreads();
    hull.count = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        hull.lo = smaller(hull.lo, hulls[w].lo);
        hull.hi = larger(hull.hi, hulls[w].hi);
        hull.count += hulls[w].count;
    }
    const bool all = own.lo == own.hi && hull.count == hull.hi - hull.lo;
    const key_range found = {hull.lo, hull.hi, all ? hull.lo : 0, all ? hull.hi : 0};
    return found;
}

// Do all rows of the block see all keys of the tile at j0, as far as segments go? `seen`: of meet_segments.
DEVICE bool are_alike(const key_range &seen, int j0) { return j0 >= seen.full_lo && j0 + BN <= seen.full_hi; }

#endif
