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

// Every row's limits and what each warp's rows see to shared memory; returns what the tile's rows see. Neither end of a
// row's interval falls from row to row, so the first and the last row tell of all.
DEVICE key_range find_ranges(unsigned char *memory, const dlattn_params &p, const sequence &s, int row0, int rows) {
    key_range *ranges = (key_range *)(memory + RANGES_AT);
    const dlattn_mask mask = mask_of(p, s);
    const int warp = (int)threadIdx.x / 32, first = 16 * MT * warp, r = first + lane_id();
    limits ends = {0, 0};
    if (lane_id() < 16 * MT && row0 + r < rows) {
        const dlattn_interval v = dlattn_mask_ends(&mask, query_of(p, row0 + r)); // lo is never below 0, hi never above N
        ends.lo = v.lo < s.N ? (int)v.lo : s.N;
        ends.hi = v.hi > 0 ? (int)v.hi : 0;
    }
    // A row that sees nothing keeps its crossed ends: where a tile needs one end only, that one hides all.
    if (lane_id() < 16 * MT) ((limits *)(memory + LIMITS_AT))[r] = ends;
    const int last = smaller(16 * MT, rows - row0 - first) - 1; // below 0: the warp has no row
    const key_range own = {__shfl_sync(0xffffffffu, ends.lo, 0), __shfl_sync(0xffffffffu, ends.hi, last & 31),
                           __shfl_sync(0xffffffffu, ends.lo, last & 31), __shfl_sync(0xffffffffu, ends.hi, 0)};
    const key_range nothing = {0x7fffffff, 0, 0, 0};
    if (lane_id() == 0) ranges[warp] = last < 0 ? nothing : own;
    __syncthreads();
    key_range all = ranges[0];
    all.hi = ranges[smaller(WARPS - 1, (rows - row0 - 1) / (16 * MT))].hi;
    return all;
}

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

// By intervals. The warp's range is read anew each time: registers are scarce.
DEVICE int meet_keys(const unsigned char *memory, int j0) {
    const key_range own = ((const key_range *)(memory + RANGES_AT))[thread_anew() / 32];
    if (j0 >= own.hi || j0 + BN <= own.lo) return TILE_APART;
    return j0 >= own.full_lo && j0 + BN <= own.full_hi ? TILE_WHOLE : TILE_PARTLY;
}

// Hides what the intervals hide, where they do: mostly at one end only.
DEVICE void hide_ends(float (&s)[MT][NT][4], const unsigned char *memory, int j0) {
    const int warp = thread_anew() / 32;
    const key_range own = ((const key_range *)(memory + RANGES_AT))[warp];
    const limits *rows = (const limits *)(memory + LIMITS_AT) + 16 * MT * warp;
    if (j0 < own.full_lo) hide_before(s, rows, j0, own.full_lo);
    if (j0 + BN > own.full_hi) hide_after(s, rows, j0, own.full_hi);
}

#endif
