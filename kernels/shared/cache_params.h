// cache_params.h: what the kernels `kv_append` and `rotary` are told, passed by value.
#ifndef DLATTN_SHARED_CACHE_PARAMS_H
#define DLATTN_SHARED_CACHE_PARAMS_H

#include "params.h"

// Operands as in src/cache.h; rows of k and v are copied in units of `unit` bytes (1 element: any strides).
typedef struct dlattn_append_params {
    dlattn_view k_new, v_new, k_cache, v_cache;   // [b or row, token, g, d|e]
    dlattn_view seqlens, block_table, batch_index; // the last two may be absent
    int B, S, G, D, E;
    int rows, tokens, pages; // of the caches; pages 0: not paged
    int element_bytes, unit;
} dlattn_append_params;

typedef struct dlattn_rotary_params {
    dlattn_view x, out;         // [b, s, h, d]
    dlattn_view cosines, sines; // [position, pair]
    dlattn_view starts;         // may be absent
    int B, S, H, D;
    int positions, pairs, interleaved, inverse;
} dlattn_rotary_params;

#endif
