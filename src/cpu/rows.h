/* rows.h: the query rows a work item handles, flattened over the heads that share a key/value head.
 *
 * All H/G query heads of one (b, g) read the same keys, so their rows are one list: row r is query r % M_b of head
 * g*(H/G) + r / M_b. Each row knows its visible interval of keys; masks without an interval form are applied per
 * element on top of it. */
#ifndef DLATTN_ROWS_H
#define DLATTN_ROWS_H

#include "problem.h"

typedef struct row {
    int64_t i;      /* query index inside its sequence */
    int64_t h;      /* query head */
    int64_t lo, hi; /* keys [lo, hi) pass every interval mask (0, 0: none) */
} row;

/* What is the same for all rows of one (b, g). */
typedef struct row_group {
    int64_t b, g;
    sequence sequence;
    int64_t rows;               /* M_b * (H/G) */
    const void *q_segments, *kv_segments; /* of sequence b; NULL when there are none */
    bool segments_sorted;       /* kv_segments never fall: then they are part of lo, hi */
    bool element_mask;          /* some mask is left to be applied per element */
} row_group;

row_group dlattn__row_group(const problem *p, const buffers *x, int64_t b, int64_t g);

/* Row j of k or v, for the group's sequence and head: in its page where keys are paged. */
const char *dlattn__key_row(const problem *p, const buffers *x, const operand *o, const void *data, const row_group *group,
                            int64_t j);

/* Do `count` keys from j on lie one stride after the other? Not where a page ends among them. */
static inline bool dlattn__keys_together(const problem *p, int64_t j, int64_t count) {
    return p->page == 0 || j % p->page + count <= p->page;
}

/* Copies `count` rows of k or v, n numbers each, compact. */
void dlattn__key_rows_copy(char *to, const problem *p, const buffers *x, const operand *o, const void *data,
                           const row_group *group, int64_t j, int64_t count, int64_t n);

/* Fills rows[0 .. count) with rows first, first + 1, ... of the group. */
void dlattn__rows_fill(row *rows, const problem *p, const row_group *group, int64_t first, int64_t count);

/* The union of the intervals of `count` rows; {0, 0} when none sees a key. */
typedef struct key_range {
    int64_t lo, hi;
} key_range;
key_range dlattn__rows_span(const row *rows, int64_t count);

/* keep[j - j0] = 1 where the per-element masks (mask tensor, unsorted segments) let row r see key j, j0 <= j < j1. */
void dlattn__rows_keep(uint8_t *keep, const problem *p, const buffers *x, const row_group *group, const row *r,
                       int64_t j0, int64_t j1);

#endif
