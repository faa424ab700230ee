/* problem_terms.c: what is added to the scores or hides them: numbers, bias, mask, slopes, sinks, segments. */
#include <inttypes.h>
#include <math.h>

#include "error.h"
#include "reading.h"

static int32_t read_scale(problem *p, const dlattn_attention *a) {
    if (!(a->flags & DLATTN_SCALE)) {
        if (a->scale != 0)
            return dlattn__fail(DLATTN_ERR_ARGUMENT,
                                "scale is %g without DLATTN_SCALE in flags, expected both or neither", a->scale);
        p->scale = 1 / sqrt((double)p->D);
        return DLATTN_OK;
    }
    if (!isfinite(a->scale))
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "scale is %g, expected a finite number", a->scale);
    p->scale = a->scale;
    return DLATTN_OK;
}

static int32_t read_softcap(problem *p, const dlattn_attention *a) {
    if (!(a->softcap >= 0) || isinf(a->softcap))
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "softcap is %g, expected 0 (off) or a positive finite number",
                            a->softcap);
    p->softcap = a->softcap;
    return DLATTN_OK;
}

static int32_t read_dropout(problem *p, const dlattn_attention *a) {
    if (!(a->dropout >= 0 && a->dropout <= 1))
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "dropout is %g, expected a probability from 0 to 1", a->dropout);
    p->dropout = a->dropout;
    double t = round(256 * a->dropout);
    p->dropout_threshold = a->dropout == 0 ? 0 : a->dropout == 1 ? 256 : t < 1 ? 1 : t > 255 ? 255 : (int32_t)t;
    p->seed = a->seed;
    p->offset = a->offset;
    return DLATTN_OK;
}

/* Fields of a mask that is off stay 0, so that equal problems have equal bytes. */
static int32_t read_windows(problem *p, const dlattn_attention *a) {
    if (a->flags & DLATTN_WINDOW) {
        p->window_left = a->window_left;
        p->window_right = a->window_right;
    }
    if (a->flags & DLATTN_BLOCK_WINDOW) {
        if (a->block_size < 1 || a->block_count < 1)
            return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s is %" PRId64 ", expected 1 or more with DLATTN_BLOCK_WINDOW",
                                a->block_size < 1 ? "block_size" : "block_count",
                                a->block_size < 1 ? a->block_size : a->block_count);
        p->block_size = a->block_size;
        p->block_count = a->block_count;
    }
    return DLATTN_OK;
}

int32_t dlattn__read_numbers(problem *p, const dlattn_attention *a) {
    p->flags = a->flags;
    DLATTN_TRY(read_scale(p, a));
    DLATTN_TRY(read_softcap(p, a));
    DLATTN_TRY(read_dropout(p, a));
    return read_windows(p, a);
}

/* Right-aligned to `full`, each extent that of `full` or 1. */
static int32_t read_broadcast(reading *r, operand *o, const void **data, const role *role, const DLTensor *dl,
                              const int64_t full[4]) {
    int32_t from[4];
    tensor *t;
    DLATTN_TRY(dlattn__read(r, &t, role, dl));
    for (int32_t d = 0; d < 4; d++) {
        from[d] = d - (4 - t->rank) < 0 ? -1 : d - (4 - t->rank);
        int64_t found = from[d] < 0 ? 1 : t->extent[from[d]];
        if (found == 1 || found == full[d]) continue;
        char found_text[DLATTN_SHAPE_TEXT], full_text[DLATTN_SHAPE_TEXT];
        return dlattn__fail(DLATTN_ERR_SHAPE,
                            "%s has shape %s, expected extents of %s = %s, or 1, aligned to the right", t->name,
                            dlattn__shape_text(found_text, t->extent, t->rank), role->shape,
                            dlattn__shape_text(full_text, full + 4 - t->rank, t->rank));
    }
    *o = dlattn__tensor_operand(t, from);
    *data = t->data;
    return DLATTN_OK;
}

static int32_t read_bias_and_mask(reading *r) {
    const dlattn_attention *a = r->a;
    problem *p = r->p;
    const int64_t full[4] = {p->B, p->H, r->max_M, r->max_N};
    role bias = {"bias", "[B,H,M,N]", 1u << p->dtype | 1u << DLATTN_T_F32, 1, 4, false, r->needs_data};
    role mask = {"mask", "[B,H,M,N]", DLATTN_TYPES_BOOL, 1, 4, false, r->needs_data};
    if (a->bias) DLATTN_TRY(read_broadcast(r, &p->bias, &r->x->bias, &bias, a->bias, full));
    if (a->mask) DLATTN_TRY(read_broadcast(r, &p->mask, &r->x->mask, &mask, a->mask, full));
    return DLATTN_OK;
}

static int32_t read_slopes_and_sinks(reading *r) {
    const dlattn_attention *a = r->a;
    problem *p = r->p;
    uint32_t types = 1u << p->dtype | 1u << DLATTN_T_F32;
    role slopes = {"alibi_slopes", "[H] or [B,H]", types, 1, 2, false, r->needs_data};
    role sinks = {"sinks", "[H]", types, 1, 1, false, r->needs_data};
    const int64_t heads[4] = {p->H, -1, -1, -1};
    const int32_t per_head[4] = {-1, 0, -1, -1}, per_batch_and_head[4] = {0, 1, -1, -1}, vector[4] = {0, -1, -1, -1};
    tensor *t;
    if (a->alibi_slopes) {
        DLATTN_TRY(dlattn__read(r, &t, &slopes, a->alibi_slopes));
        bool one_batch = t->rank == 2 && t->extent[0] == 1;
        const int64_t both[4] = {one_batch ? 1 : p->B, p->H, -1, -1};
        DLATTN_TRY(dlattn__tensor_expect(t, t->rank == 1 ? heads : both, "q's batch (or 1) and heads"));
        p->alibi_slopes = dlattn__tensor_operand(t, t->rank == 1 ? per_head : per_batch_and_head);
        r->x->alibi_slopes = t->data;
    }
    if (a->sinks) {
        DLATTN_TRY(dlattn__read(r, &t, &sinks, a->sinks));
        DLATTN_TRY(dlattn__tensor_expect(t, heads, "q's heads"));
        p->sinks = dlattn__tensor_operand(t, vector);
        r->x->sinks = t->data;
    }
    return DLATTN_OK;
}

static int32_t read_segment(reading *r, operand *o, const void **data, const role *role, const DLTensor *dl,
                            int64_t length) {
    const int64_t expected[4] = {r->p->B, length, -1, -1};
    const int32_t from[4] = {0, 1, -1, -1};
    tensor *t;
    DLATTN_TRY(dlattn__read(r, &t, role, dl));
    DLATTN_TRY(dlattn__tensor_expect(t, expected, "the batch and the length of its side"));
    *o = dlattn__tensor_operand(t, from);
    *data = t->data;
    return DLATTN_OK;
}

static int32_t read_segments(reading *r) {
    const dlattn_attention *a = r->a;
    problem *p = r->p;
    if (!a->q_segments && !a->kv_segments) return DLATTN_OK;
    if (!a->q_segments || !a->kv_segments)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s is NULL while %s is given, expected both or neither",
                            a->q_segments ? "kv_segments" : "q_segments", a->q_segments ? "q_segments" : "kv_segments");
    if (p->packed_q || p->packed_k)
        return dlattn__fail(DLATTN_ERR_ARGUMENT,
                            "q_segments is given with %s, expected padded q and k (packed sequences need no segments)",
                            p->packed_q ? "cu_seqlens_q" : "cu_seqlens_k");
    role q_role = {"q_segments", "[B,M]", DLATTN_TYPES_INT, 2, 2, false, r->needs_data};
    role kv_role = {"kv_segments", "[B,N]", DLATTN_TYPES_INT, 2, 2, false, r->needs_data};
    DLATTN_TRY(read_segment(r, &p->q_segments, &r->x->q_segments, &q_role, a->q_segments, p->q.extent[1]));
    return read_segment(r, &p->kv_segments, &r->x->kv_segments, &kv_role, a->kv_segments, p->tokens_k);
}

int32_t dlattn__read_terms(reading *r) {
    DLATTN_TRY(read_bias_and_mask(r));
    DLATTN_TRY(read_slopes_and_sinks(r));
    return read_segments(r);
}

int32_t dlattn__read_keep(reading *r, const DLTensor *keep) {
    problem *p = r->p;
    role role = {"keep", "[B,H,M,N]", DLATTN_TYPES_BOOL, 4, 4, true, true};
    const int64_t expected[4] = {p->B, p->H, r->max_M, r->max_N};
    const int32_t from[4] = {0, 1, 2, 3};
    tensor *t;
    DLATTN_TRY(dlattn__read(r, &t, &role, keep));
    DLATTN_TRY(dlattn__tensor_expect(t, expected, "batch, heads and longest sequences"));
    p->keep = dlattn__tensor_operand(t, from);
    r->x->keep = (void *)(uintptr_t)t->data;
    return DLATTN_OK;
}
