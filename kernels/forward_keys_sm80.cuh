// forward_keys_sm80.cuh: which keys the rows of a block and of each warp see by interval masks.
//
// Part of forward_sm80.cu and forward_sm90.cu: uses their options and maps of shared memory.
#ifndef DLATTN_FORWARD_KEYS_SM80_CUH
#define DLATTN_FORWARD_KEYS_SM80_CUH

#include "forward_rows_sm80.cuh"

// What some rows see: keys outside [lo, hi) are hidden from all of them, keys in [full_lo, full_hi) from none.
typedef struct key_range {
    int lo, hi, full_lo, full_hi;
} key_range;

// This warp's part of that: each of its rows' limits and what they see together to shared memory. Neither end of a row's
// interval falls from row to row, so the first and the last row tell of all.
DEVICE void find_own_range(unsigned char *memory, const dlattn_params &p, const sequence &s, int row0, int rows) {
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
}

// Every warp's; returns what the tile's rows see.
DEVICE key_range find_ranges(unsigned char *memory, const dlattn_params &p, const sequence &s, int row0, int rows) {
    const key_range *ranges = (const key_range *)(memory + RANGES_AT);
    find_own_range(memory, p, s, row0, rows);
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
