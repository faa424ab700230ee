// forward_segments_sm80.cuh: which keys the rows of a block and of each warp see in forward_sm80 by segments.
//
// Part of forward_sm80.cu: uses its options and its map of shared memory.
#ifndef DLATTN_FORWARD_SEGMENTS_SM80_CUH
#define DLATTN_FORWARD_SEGMENTS_SM80_CUH

#include "forward_keys_sm80.cuh"

// Widens the hull to this thread's keys of [begin, end) whose segment lies in [lo, hi]; many are read at once.
template <typename T>
DEVICE void scan_segments(key_range *hull, const T *segments, i64 stride, int begin, int end, i64 lo, i64 hi) {
    const int AT_ONCE = 16;
    for (int first = begin + (int)threadIdx.x; first < end; first += AT_ONCE * THREADS) {
        T found[AT_ONCE];
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) found[n] = segments[smaller(first + n * THREADS, end - 1) * stride];
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) {
            const int j = smaller(first + n * THREADS, end - 1);
            if (lo <= found[n] && found[n] <= hi) {
                hull->lo = smaller(hull->lo, j);
                hull->hi = larger(hull->hi, j + 1);
            }
        }
    }
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
    const i64 stride = p.kv_segments.stride[1];
    const int begin = smaller(seen.lo, seen.hi); // lo is huge when no key is seen
    if (p.kv_segments.dtype == DLATTN_TYPE_I64) {
        const i64 *from = (const i64 *)p.kv_segments.data + c.kv_segments_at;
        scan_segments(&hull, from, stride, begin, seen.hi, own.lo, own.hi);
    } else {
        const int *from = (const int *)p.kv_segments.data + c.kv_segments_at;
        scan_segments(&hull, from, stride, begin, seen.hi, own.lo, own.hi);
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

#endif
