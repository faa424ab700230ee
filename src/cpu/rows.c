/* rows.c: rows of a work item: their visible intervals and their per-element masks. */
#include "rows.h"

#include <string.h>

#include "cpu.h"
#include "masks/masks.h"

static dlattn_mask interval_mask(const problem *p, const sequence *s) {
    dlattn_mask m = {0};
    m.kinds = dlattn__mask_kinds(p);
    m.num_keys = s->N;
    m.q_position = s->q_position;
    m.k_position = s->k_position;
    m.window_left = p->window_left;
    m.window_right = p->window_right;
    m.block_size = p->block_size;
    m.block_count = p->block_count;
    return m;
}

static int64_t segment_at(const operand *o, const void *ids, int64_t index) {
    int64_t offset = index * o->stride[1];
    return o->dtype == DLATTN_T_I32 ? ((const int32_t *)ids)[offset] : ((const int64_t *)ids)[offset];
}

/* First key whose segment is not below `id` (sorted segments). */
static int64_t segment_lower_bound(const operand *o, const void *ids, int64_t count, int64_t id) {
    int64_t lo = 0, hi = count;
    while (lo < hi) {
        int64_t middle = lo + (hi - lo) / 2;
        if (segment_at(o, ids, middle) < id) lo = middle + 1;
        else hi = middle;
    }
    return lo;
}

row_group dlattn__row_group(const problem *p, const buffers *x, int64_t b, int64_t g) {
    row_group group = {0};
    group.b = b;
    group.g = g;
    group.sequence = dlattn__sequence(p, x, b);
    group.rows = p->G > 0 ? group.sequence.M * (p->H / p->G) : 0;
    group.element_mask = p->mask.dtype != DLATTN_T_NONE;
    if (p->kv_segments.dtype != DLATTN_T_NONE) {
        group.q_segments = dlattn__at(&p->q_segments, x->q_segments, b, 0, 0, 0);
        group.kv_segments = dlattn__at(&p->kv_segments, x->kv_segments, b, 0, 0, 0);
        group.segments_sorted = true;
        for (int64_t j = 1; j < group.sequence.N && group.segments_sorted; j++)
            group.segments_sorted = segment_at(&p->kv_segments, group.kv_segments, j - 1) <=
                                    segment_at(&p->kv_segments, group.kv_segments, j);
        if (!group.segments_sorted) group.element_mask = true;
    }
    return group;
}

const char *dlattn__key_row(const problem *p, const buffers *x, const operand *o, const void *data, const row_group *group,
                            int64_t j) {
    if (p->page == 0) return dlattn__at(o, data, group->b, group->sequence.k_begin + j, group->g, 0);
    const int64_t page = dlattn__read_page(&p->block_table, x->block_table, group->b, j / p->page);
    return dlattn__at(o, data, page, j % p->page, group->g, 0);
}

void dlattn__key_rows_copy(char *to, const problem *p, const buffers *x, const operand *o, const void *data,
                           const row_group *group, int64_t j, int64_t count, int64_t n) {
    const int64_t bytes = dlattn__size_of(o->dtype), step = o->stride[3] * bytes;
    const bool together = o->stride[3] == 1 || n == 1;
    for (int64_t r = 0; r < count; r++, to += n * bytes) {
        const char *from = dlattn__key_row(p, x, o, data, group, j + r);
        if (together) memcpy(to, from, (size_t)(n * bytes));
        else
            for (int64_t d = 0; d < n; d++) memcpy(to + d * bytes, from + d * step, (size_t)bytes);
    }
}

void dlattn__rows_fill(row *rows, const problem *p, const row_group *group, int64_t first, int64_t count) {
    const sequence *s = &group->sequence;
    const dlattn_mask mask = interval_mask(p, s);
    const bool by_segment = group->kv_segments && group->segments_sorted;
    int64_t known_id = 0, known_lo = 0, known_hi = -1; /* neighbours mostly share their segment */
    for (int64_t n = 0; n < count; n++) {
        row *r = &rows[n];
        r->h = group->g * (p->H / p->G) + (first + n) / s->M;
        r->i = (first + n) % s->M;
        dlattn_interval keys = dlattn_mask_limits(&mask, r->i);
        r->lo = keys.lo;
        r->hi = keys.hi;
        if (!by_segment) continue;
        int64_t id = segment_at(&p->q_segments, group->q_segments, r->i);
        if (known_hi < 0 || id != known_id) {
            known_id = id;
            known_lo = segment_lower_bound(&p->kv_segments, group->kv_segments, s->N, id);
            known_hi = id == INT64_MAX ? s->N
                                       : segment_lower_bound(&p->kv_segments, group->kv_segments, s->N, id + 1);
        }
        r->lo = r->lo > known_lo ? r->lo : known_lo;
        r->hi = r->hi < known_hi ? r->hi : known_hi;
        if (r->hi <= r->lo) r->lo = r->hi = 0;
    }
}

key_range dlattn__rows_span(const row *rows, int64_t count) {
    key_range span = {0, 0};
    for (int64_t n = 0; n < count; n++) {
        if (rows[n].hi <= rows[n].lo) continue;
        if (span.hi == 0 || rows[n].lo < span.lo) span.lo = rows[n].lo;
        if (rows[n].hi > span.hi) span.hi = rows[n].hi;
    }
    return span;
}

void dlattn__rows_keep(uint8_t *keep, const problem *p, const buffers *x, const row_group *group, const row *r,
                       int64_t j0, int64_t j1) {
    const int64_t n = j1 - j0;
    if (p->mask.dtype != DLATTN_T_NONE) {
        const uint8_t *mask = (const uint8_t *)dlattn__at(&p->mask, x->mask, group->b, r->h, r->i, j0);
        const int64_t stride = p->mask.stride[3];
        if (stride == 1) memcpy(keep, mask, n > 0 ? (size_t)n : 0);
        else
            for (int64_t j = 0; j < n; j++) keep[j] = mask[j * stride];
    } else {
        memset(keep, 1, n > 0 ? (size_t)n : 0);
    }
    if (group->kv_segments && !group->segments_sorted) {
        const int64_t id = segment_at(&p->q_segments, group->q_segments, r->i);
        for (int64_t j = 0; j < n; j++)
            if (segment_at(&p->kv_segments, group->kv_segments, j0 + j) != id) keep[j] = 0;
    }
}
