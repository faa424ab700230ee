// window.h: a query sees positions from i' - left to i' + right; a negative bound is unlimited.
#ifndef DLATTN_SHARED_WINDOW_H
#define DLATTN_SHARED_WINDOW_H

#include "mask.h"

DLATTN_SHARED dlattn_interval dlattn_window_limits(const dlattn_mask *m, dlattn_i64 i) {
    dlattn_i64 position = dlattn_add_sat(i, m->q_position);
    dlattn_i64 lo = m->window_left < 0 ? DLATTN_I64_MIN : dlattn_sub_sat(position, m->window_left);
    dlattn_i64 hi = m->window_right < 0 ? DLATTN_I64_MAX
                                        : dlattn_add_sat(dlattn_add_sat(position, m->window_right), 1);
    return dlattn_interval_at(m, lo, hi);
}

#endif
