// mask.h: what every mask is given, and the interval of keys an interval mask answers with.
//
// An interval mask is one function, limits(m, i): the keys row i may see are [lo, hi), and neither end falls when i
// grows. keep, span and full of a set of interval masks follow from that (masks.h). A mask without that form
// (segments, a dense tensor) is one function keep(...) asked per element.
#ifndef DLATTN_SHARED_MASK_H
#define DLATTN_SHARED_MASK_H

#include "../shared.h"

// Which interval masks are set.
#define DLATTN_MASK_CAUSAL 1u
#define DLATTN_MASK_WINDOW 2u
#define DLATTN_MASK_BLOCK_WINDOW 4u
#define DLATTN_MASK_POSITIVE 8u  // keys with j' < 0 are hidden

typedef struct dlattn_mask {
    dlattn_u32 kinds, reserved0;
    dlattn_i64 num_keys;                // N_b
    dlattn_i64 q_position, k_position;  // i' = i + q_position, j' = j + k_position
    dlattn_i64 window_left, window_right;
    dlattn_i64 block_size, block_count;
} dlattn_mask;

typedef struct dlattn_interval {
    dlattn_i64 lo, hi;  // keys [lo, hi) in local indices, unclamped; empty when hi <= lo
} dlattn_interval;

// Keys at positions [lo, hi) as local indices.
DLATTN_SHARED dlattn_interval dlattn_interval_at(const dlattn_mask *m, dlattn_i64 lo, dlattn_i64 hi) {
    dlattn_interval r;
    r.lo = lo == DLATTN_I64_MIN ? lo : dlattn_sub_sat(lo, m->k_position);
    r.hi = hi == DLATTN_I64_MAX ? hi : dlattn_sub_sat(hi, m->k_position);
    return r;
}

#endif
