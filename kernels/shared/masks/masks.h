// masks.h: all interval masks together: limits, keep, span and full of a dlattn_mask.
#ifndef DLATTN_SHARED_MASKS_H
#define DLATTN_SHARED_MASKS_H

#include "block_window.h"
#include "causal.h"
#include "positive.h"
#include "window.h"

// One row per interval mask: its bit, its function.
#define DLATTN_INTERVAL_MASKS(X)                                \
    X(DLATTN_MASK_CAUSAL, dlattn_causal_limits)                 \
    X(DLATTN_MASK_WINDOW, dlattn_window_limits)                 \
    X(DLATTN_MASK_BLOCK_WINDOW, dlattn_block_window_limits)     \
    X(DLATTN_MASK_POSITIVE, dlattn_positive_limits)

// The ends of row i's interval as the masks and num_keys leave them: neither falls when i grows, and hi <= lo when the
// row sees nothing.
DLATTN_SHARED dlattn_interval dlattn_mask_ends(const dlattn_mask *m, dlattn_i64 i) {
    dlattn_interval r = {0, 0};
    r.hi = m->num_keys;
#define DLATTN_INTERSECT(bit, limits)                \
    if (m->kinds & (bit)) {                          \
        dlattn_interval part = limits(m, i);         \
        r.lo = part.lo > r.lo ? part.lo : r.lo;      \
        r.hi = part.hi < r.hi ? part.hi : r.hi;      \
    }
    DLATTN_INTERVAL_MASKS(DLATTN_INTERSECT)
#undef DLATTN_INTERSECT
    return r;
}

// The keys row i sees, inside [0, num_keys); {0, 0} when there is none.
DLATTN_SHARED dlattn_interval dlattn_mask_limits(const dlattn_mask *m, dlattn_i64 i) {
    dlattn_interval r = dlattn_mask_ends(m, i);
    if (r.hi <= r.lo) r.lo = r.hi = 0;
    return r;
}

DLATTN_SHARED int dlattn_mask_keep(const dlattn_mask *m, dlattn_i64 i, dlattn_i64 j) {
    dlattn_interval r = dlattn_mask_limits(m, i);
    return r.lo <= j && j < r.hi;
}

// Keys outside the answer are hidden from every row of [i0, i1), i0 < i1.
DLATTN_SHARED dlattn_interval dlattn_mask_span(const dlattn_mask *m, dlattn_i64 i0, dlattn_i64 i1) {
    dlattn_interval first = dlattn_mask_limits(m, i0), last = dlattn_mask_limits(m, i1 - 1), r;
    if (first.hi <= first.lo || last.hi <= last.lo) {  // an empty end says nothing about the rows between
        r.lo = 0;
        r.hi = m->num_keys;
        return r;
    }
    r.lo = first.lo;
    r.hi = last.hi;
    return r;
}

// Does every row of [i0, i1) see every key of [j0, j1)?
DLATTN_SHARED int dlattn_mask_full(const dlattn_mask *m, dlattn_i64 i0, dlattn_i64 i1, dlattn_i64 j0, dlattn_i64 j1) {
    dlattn_interval first = dlattn_mask_limits(m, i0), last = dlattn_mask_limits(m, i1 - 1);
    return first.lo <= j0 && last.lo <= j0 && j1 <= first.hi && j1 <= last.hi;
}

// Rows of [0, num_rows) outside the answer see no key of [j0, j1); empty when hi <= lo.
DLATTN_SHARED dlattn_interval dlattn_mask_rows(const dlattn_mask *m, dlattn_i64 num_rows, dlattn_i64 j0, dlattn_i64 j1) {
    dlattn_interval r;
    dlattn_i64 below = 0, above = num_rows; // the first row whose interval ends behind j0
    while (below < above) {
        dlattn_i64 i = below + (above - below) / 2;
        if (dlattn_mask_ends(m, i).hi > j0) above = i;
        else below = i + 1;
    }
    r.lo = below;
    above = num_rows; // the first row whose interval begins at j1 or later
    while (below < above) {
        dlattn_i64 i = below + (above - below) / 2;
        if (dlattn_mask_ends(m, i).lo >= j1) above = i;
        else below = i + 1;
    }
    r.hi = below;
    return r;
}

#endif
