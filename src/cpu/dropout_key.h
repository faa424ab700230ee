/* dropout_key.h: the Philox key of a call: its seed and offset, or what rng_state holds. */
#ifndef DLATTN_DROPOUT_KEY_H
#define DLATTN_DROPOUT_KEY_H

#include "philox.h"
#include "problem.h"

/* rng_state is seed and offset, or with I32 their halves, low first. */
static inline dlattn_philox_key dlattn__dropout_key(const problem *p, const buffers *x) {
    const operand *o = &p->rng_state;
    uint64_t seed = p->seed, offset = p->offset;
    if (o->dtype == DLATTN_T_I32) {
        const uint32_t *half = x->rng_state;
        const int64_t stride = o->stride[0];
        seed = half[0] | (uint64_t)half[stride] << 32;
        offset = half[2 * stride] | (uint64_t)half[3 * stride] << 32;
    } else if (o->dtype == DLATTN_T_I64) {
        const uint64_t *word = x->rng_state;
        seed = word[0];
        offset = word[o->stride[0]];
    }
    return dlattn_philox_make_key(seed, offset);
}

/* A start as dropout sees it: the byte of (i, j) repeats every 2^36 rows and every 2^32 keys, so that sums of starts
 * near the ends of int64 need not overflow. */
static inline int64_t dlattn__dropout_start(int64_t start) { return start & ((INT64_C(1) << 36) - 1); }

#endif
