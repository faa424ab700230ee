// causal.h: a query sees no later position: j' <= i'.
#ifndef DLATTN_SHARED_CAUSAL_H
#define DLATTN_SHARED_CAUSAL_H

#include "mask.h"

DLATTN_SHARED dlattn_interval dlattn_causal_limits(const dlattn_mask *m, dlattn_i64 i) {
    dlattn_i64 position = dlattn_add_sat(i, m->q_position);
    return dlattn_interval_at(m, DLATTN_I64_MIN, dlattn_add_sat(position, 1));
}

#endif
