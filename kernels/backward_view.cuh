// backward_view.cuh: which rows see the keys of a block of the backward, and which parts of a tile they see whole.
//
// Part of backward_sm80.cu and backward_sm90.cu: uses their options and their maps of shared memory.
#ifndef DLATTN_BACKWARD_VIEW_CUH
#define DLATTN_BACKWARD_VIEW_CUH

#include "backward_parts.cuh"

// What the whole block knows.
typedef struct backward_context {
    sequence s;
    int g, j0;
    int first_row;  // of the first tile of each head
} backward_context;

// What is rarely needed waits in shared memory: registers are dearer. The sequence with its positions:
DEVICE sequence placed(const backward_context &c) {
    const volatile i64 *positions = (const volatile i64 *)(shared_bytes + POSITIONS_AT);
    sequence s = c.s;
    s.q_position = positions[0];
    s.k_position = positions[1];
    return s;
}

// A tile of rows under way: query head and first row; one_segment: its rows and the block's keys are all of one.
typedef struct row_tile {
    int h, i0;
    bool one_segment;
} row_tile;

// What the block knows of its interval mask, in shared memory (registers are dearer): find_row's four answers, rows
// [row[2], row[3]) seeing all of its keys, and the band, where the mask is one.
//
// Causal and window masks are a band: row i sees keys [i + first, i + end) of [0, N).
typedef struct block_view {
    int row[4];
    int is_band, first, end;
} block_view;

DEVICE const volatile block_view *view_found() { return (const volatile block_view *)(shared_bytes + VIEW_AT); }

// Rows [first, end) may see keys of a tile.
typedef struct row_range {
    int first, end;
} row_range;

// The first row of [0, M) whose interval 0: ends behind j0, 1: begins at j1 or later, 2: ends at j1 or later, 3: begins behind
// j0; M if there is none. A whole warp asks: 32 rows a round.
DEVICE int find_row(const dlattn_mask &m, int M, int which, int j0, int j1) {
    int lo = 0, hi = M;
    while (lo < hi) {
        int step = (hi - lo + 31) / 32, i = lo + lane_id() * step;
        bool reached = true;
        if (i < hi) {
            dlattn_interval r = dlattn_mask_ends(&m, i);
            reached = which == 0 ? r.hi > j0 : which == 1 ? r.lo >= j1 : which == 2 ? r.hi >= j1 : r.lo > j0;
        }
        u32 votes = __ballot_sync(0xffffffffu, reached);
        int k = votes ? __ffs((int)votes) - 1 : 32;
        int top = lo + k * step;
        lo = k == 0 ? lo : top - step + 1;
        hi = top < hi ? top : hi;
    }
    return lo;
}

// Is the mask a band? Not where sequences or positions are so large that sums would overflow.
DEVICE bool find_band(const dlattn_params &p, const sequence &s, int *first, int *end) {
    const i64 far = (i64)1 << 60, most = 1 << 29, distance = s.q_position - s.k_position;
    if (p.mask_kinds & ~(DLATTN_MASK_CAUSAL | DLATTN_MASK_WINDOW) || s.M > most || s.N > most || s.q_position > far ||
        s.q_position < -far || s.k_position > far || s.k_position < -far)
        return false;
    i64 lo = -most, hi = most;
    if (p.mask_kinds & DLATTN_MASK_CAUSAL) hi = distance + 1;
    if (p.mask_kinds & DLATTN_MASK_WINDOW) {
        if (p.window_left >= 0 && p.window_left < 4 * far) lo = distance - p.window_left;
        if (p.window_right >= 0 && p.window_right < 4 * far && distance + p.window_right < hi) hi = distance + p.window_right + 1;
    }
    *first = (int)clamp_to(lo, -most, most);
    *end = (int)clamp_to(hi, -most, most);
    return true;
}

DEVICE int row_inside(int i, int M) { return i < 0 ? 0 : i < M ? i : M; }

// The rows that may see keys of the block, by all of it.
DEVICE row_range rows_of_keys(const dlattn_params &p, const sequence &s, int j0) {
    row_range r = {0, s.M};
    if (!HAS(p, DLATTN_FEATURE_INTERVAL)) return r;
    block_view *found = (block_view *)(shared_bytes + VIEW_AT);
    const int j1 = j0 + BN;
    int first, end;
    if (find_band(p, s, &first, &end)) {
        if (threadIdx.x == 0) {
            found->row[0] = row_inside(j0 - end + 1, s.M);
            found->row[1] = row_inside(j1 - first, s.M);
            found->row[2] = j1 > s.N ? s.M : row_inside(j1 - end, s.M);
            found->row[3] = row_inside(j0 - first + 1, s.M);
            found->is_band = 1, found->first = first, found->end = end;
        }
    } else {
        const dlattn_mask m = mask_of(p, s);
        if (threadIdx.x == 0) found->is_band = 0;
        for (int which = warp_id(); which < 4; which += WARPS) {
            int row = find_row(m, s.M, which, j0, j1);
            if (lane_id() == 0) found->row[which] = row;
        }
    }
    __syncthreads();
    r.first = found->row[0], r.end = found->row[1];
    return r;
}

// Does something else than intervals hide elements of the tile?
DEVICE bool hides_elements(const dlattn_params &p, row_tile tile) {
    return HAS(p, DLATTN_FEATURE_MASK) || (HAS(p, DLATTN_FEATURE_SEGMENTS) && !tile.one_segment);
}

// Is no score hidden of ROWS rows from `row` of the tile on and KEYS keys from `key` of the block on?
template <int ROWS, int KEYS>
DEVICE bool sees_all(const dlattn_params &p, const backward_context &c, row_tile tile, int row, int key) {
    if (hides_elements(p, tile)) return false;
    if (!HAS(p, DLATTN_FEATURE_INTERVAL)) return c.j0 + BN <= c.s.N;
    const volatile block_view *found = view_found();
    if (!found->is_band) return tile.i0 >= found->row[2] && smaller(tile.i0 + BM, c.s.M) <= found->row[3];
    const int distance = c.j0 + key - tile.i0 - row;  // j - i of the first of them
    return distance - (ROWS - 1) >= found->first && distance + (KEYS - 1) < found->end && c.j0 + key + KEYS <= c.s.N;
}

// The keys of row `row` of the tile among the block's, in one word: the first in the low half, how many in the high half.
DEVICE u32 limits_of_row(const dlattn_params &p, const backward_context &c, row_tile tile, int row) {
    const volatile block_view *found = view_found();
    const int i = tile.i0 + row;
    limits r = {0, 0};
    if (HAS(p, DLATTN_FEATURE_INTERVAL) && found->is_band) {
        if (i < c.s.M) r.lo = i + found->first, r.hi = smaller(i + found->end, c.s.N);
    } else {
        const sequence s = placed(c);
        r = row_limits(p, s, mask_of(p, s), i);
    }
    const int lo = larger(0, smaller(r.lo - c.j0, BN)), hi = larger(lo, smaller(r.hi - c.j0, BN));
    return (u32)lo | (u32)(hi - lo) << 16;
}

DEVICE bool inside_limits(u32 word, int j) { return (u32)(j - (int)(word & 0xffffu)) < word >> 16; }

#endif
