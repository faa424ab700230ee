// positive.h: keys before position 0 are hidden (left padding under explicit positions).
#ifndef DLATTN_SHARED_POSITIVE_H
#define DLATTN_SHARED_POSITIVE_H

#include "mask.h"

DLATTN_SHARED dlattn_interval dlattn_positive_limits(const dlattn_mask *m, dlattn_i64 i) {
    (void)i;
    return dlattn_interval_at(m, 0, DLATTN_I64_MAX);
}

#endif
