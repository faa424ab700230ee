// forward_keys.cuh: which keys the rows of a block and of each warp see by interval masks.
//
// Part of forward_sm80.cu and forward_sm90.cu: uses their options and maps of shared memory.
#ifndef DLATTN_FORWARD_KEYS_CUH
#define DLATTN_FORWARD_KEYS_CUH

#include "forward_rows.cuh"

// What some rows see: keys outside [lo, hi) are hidden from all of them, keys in [full_lo, full_hi) from none.
typedef struct key_range {
    int lo, hi, full_lo, full_hi;
} key_range;

// The ends of a row's interval. A row that sees nothing keeps its crossed ends: where a tile needs one end only, that one
// hides all.
DEVICE limits ends_of_row(const dlattn_mask &mask, const sequence &s, int i) {
    const dlattn_interval v = dlattn_mask_ends(&mask, i); // lo is never below 0, hi never above N
    const limits ends = {v.lo < s.N ? (int)v.lo : s.N, v.hi > 0 ? (int)v.hi : 0};
    return ends;
}

// What `count` rows see whose ends lie in the lanes from `lane` on. Neither end of a row's interval falls from row to row, so
// the first and the last row tell of all.
DEVICE key_range range_of_lanes(const limits &ends, int lane, int count) {
    const int last = lane + count - 1 & 31;
    const key_range own = {__shfl_sync(0xffffffffu, ends.lo, lane), __shfl_sync(0xffffffffu, ends.hi, last),
                           __shfl_sync(0xffffffffu, ends.lo, last), __shfl_sync(0xffffffffu, ends.hi, lane)};
    const key_range nothing = {0x7fffffff, 0, 0, 0};
    return count > 0 ? own : nothing;
}

// Every row's limits and what each warp's rows see to shared memory; returns what the tile's rows see.
DEVICE key_range find_ranges(unsigned char *memory, const dlattn_params &p, const sequence &s, int row0, int rows) {
    key_range *ranges = (key_range *)(memory + RANGES_AT);
    const dlattn_mask mask = mask_of(p, s);
    const int warp = (int)threadIdx.x / 32, first = 16 * MT * warp, r = first + lane_id();
    limits ends = {0, 0};
    if (lane_id() < 16 * MT && row0 + r < rows) ends = ends_of_row(mask, s, query_of(p, row0 + r));
    if (lane_id() < 16 * MT) ((limits *)(memory + LIMITS_AT))[r] = ends;
    const key_range own = range_of_lanes(ends, 0, smaller(16 * MT, rows - row0 - first));
    if (lane_id() == 0) ranges[warp] = own;
    __syncthreads();
    key_range all = ranges[0];
    all.hi = ranges[smaller(WARPS - 1, (rows - row0 - 1) / (16 * MT))].hi;
    return all;
}

// By intervals. The warp's range is read anew each time: registers are scarce.
DEVICE int meet_keys(const unsigned char *memory, int j0) {
    const key_range own = ((const key_range *)(memory + RANGES_AT))[thread_anew() / 32];
    if (j0 >= own.hi || j0 + BN <= own.lo) return TILE_APART;
    return j0 >= own.full_lo && j0 + BN <= own.full_hi ? TILE_WHOLE : TILE_PARTLY;
}

// Hides what the intervals hide, where they do: mostly at one end only.
DEVICE void hide_ends(float (&s)[MT][NT][4], const unsigned char *memory, int j0) {
    const key_range own = ((const key_range *)(memory + RANGES_AT))[thread_anew() / 32];
    if (j0 < own.full_lo) hide_before(s, (const limits *)(memory + LIMITS_AT), j0);
    if (j0 + BN > own.full_hi) hide_after(s, (const limits *)(memory + LIMITS_AT), j0);
}

#endif
