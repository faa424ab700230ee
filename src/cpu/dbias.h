/* dbias.h: when the gradient of the bias needs a phase of its own, and how that phase is cut into items. */
#ifndef DLATTN_DBIAS_H
#define DLATTN_DBIAS_H

#include "problem.h"

/* An item of the phase: so many rows by so many keys of the bias' own index space; a broadcast dimension is one tile. */
#define DBIAS_ROWS 192
#define DBIAS_KEYS 256

/* dbias is summed over a dimension of extent 1, unless that is all there is. */
static inline bool dlattn__dbias_broadcast(const problem *p, int dimension) {
    const int64_t full[4] = {p->B, p->H, p->M, p->N};
    return p->dbias.extent[dimension] == 1 && full[dimension] != 1;
}

/* False: every score has its own element, and the main pass stores it. */
static inline bool dlattn__dbias_separate(const problem *p) {
    if (p->dbias.dtype == DLATTN_T_NONE) return false;
    for (int dimension = 0; dimension < 4; dimension++)
        if (dlattn__dbias_broadcast(p, dimension)) return true;
    return false;
}

/* Summed over the sequences alone, in numbers that sums may be kept in: the main pass can take the sequences one after the
 * other, the first writes and the others add. */
static inline bool dlattn__dbias_over_sequences(const problem *p) {
    if (p->dbias.dtype != (p->dtype == DLATTN_T_F64 ? DLATTN_T_F64 : DLATTN_T_F32) || p->B < 2) return false;
    return dlattn__dbias_broadcast(p, 0) && !dlattn__dbias_broadcast(p, 1) && !dlattn__dbias_broadcast(p, 2) &&
           !dlattn__dbias_broadcast(p, 3);
}

#endif
