// block_window.h: a query sees its own block of positions and the block_count - 1 blocks before it.
#ifndef DLATTN_SHARED_BLOCK_WINDOW_H
#define DLATTN_SHARED_BLOCK_WINDOW_H

#include "mask.h"

DLATTN_SHARED dlattn_interval dlattn_block_window_limits(const dlattn_mask *m, dlattn_i64 i) {
    dlattn_i64 block = dlattn_floor_div(dlattn_add_sat(i, m->q_position), m->block_size);
    dlattn_i64 first = dlattn_add_sat(dlattn_sub_sat(block, m->block_count), 1);
    return dlattn_interval_at(m, dlattn_mul_sat(first, m->block_size),
                              dlattn_mul_sat(dlattn_add_sat(block, 1), m->block_size));
}

#endif
