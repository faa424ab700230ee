/* cache.h: what a decoding step does beside attention, after validation: new tokens into a cache of keys and values, and
 * rotation by position. Plain data, as in problem.h. */
#ifndef DLATTN_CACHE_H
#define DLATTN_CACHE_H

#include "problem.h"

/* Token s of sequence b goes to token t = seqlens[b] + s of row batch_index[b] of the caches; where they are paged, to
 * token t % tokens of page block_table[b, t / tokens]. */
typedef struct append_problem {
    int32_t device_type, device_id;
    int64_t B, S, G, D, E;
    int64_t rows, tokens;    /* of the caches: sequences or pages, and the tokens of one */
    int64_t pages;           /* a sequence can have; 0: not paged */
    operand k_new, v_new;    /* [b, s, g, d|e] */
    operand k_cache, v_cache; /* [row, token, g, d|e] */
    operand seqlens, block_table, batch_index; /* [b], [b, page], [b] */
} append_problem;

typedef struct append_buffers {
    const void *k_new, *v_new, *seqlens, *block_table, *batch_index;
    void *k_cache, *v_cache;
} append_buffers;

/* x[b, s, h, :] is rotated by the angles of position starts[b] + s. */
typedef struct rotary_problem {
    int32_t device_type, device_id;
    int64_t B, S, H, D;
    int64_t positions, pairs; /* extents of cosines and sines */
    operand x, out;           /* [b, s, h, d] */
    operand cosines, sines;   /* [position, pair] */
    operand starts;           /* [b] */
    int32_t interleaved, inverse;
} rotary_problem;

typedef struct rotary_buffers {
    const void *x, *cosines, *sines, *starts;
    void *out;
} rotary_buffers;

/* DLPack -> problem and buffers, with all validation that needs no tensor data. */
int32_t dlattn__problem_cache(append_problem *p, append_buffers *x, const dlattn_cache *cache);
int32_t dlattn__problem_rotation(rotary_problem *p, rotary_buffers *x, const dlattn_rotation *rotation);

#endif
