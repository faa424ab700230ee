/* problem.c: DLPack -> problem and buffers: the order in which a call is validated. */
#include "problem.h"

#include <assert.h>
#include <string.h>

#include "error.h"
#include "reading.h"

int32_t dlattn__read(reading *r, tensor **out, const role *role, const DLTensor *dl) {
    assert(r->count < DLATTN_MAX_TENSORS);
    tensor *t = *out = &r->tensors[r->count];
    DLATTN_TRY(dlattn__tensor_read(t, role, dl));
    if (r->count > 0) DLATTN_TRY(dlattn__tensor_same_device(t, &r->tensors[0]));
    r->count++;
    return DLATTN_OK;
}

static void begin(reading *r, problem *p, buffers *x, const dlattn_attention *a, int32_t op, bool needs_data) {
    memset(p, 0, sizeof *p);
    memset(x, 0, sizeof *x);
    p->op = op;
    r->p = p;
    r->x = x;
    r->a = a;
    r->needs_data = r->needs_vector_data = needs_data;
    r->max_M = r->max_N = 0;
    r->count = 0;
}

static int32_t check_paged(const reading *r) {
    const dlattn_attention *a = r->a;
    if (!a->block_table) return DLATTN_OK;
    if (r->p->op == DLATTN_OP_BACKWARD)
        return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "block_table is given, expected NULL: paged keys have no backward");
    if (a->cu_seqlens_k)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "block_table and cu_seqlens_k are both given, expected at most one");
    if (!a->seqlens_k)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "seqlens_k is NULL, expected the length of each paged sequence [B]");
    return DLATTN_OK;
}

static int32_t read_attention(reading *r) {
    DLATTN_TRY(check_paged(r));
    DLATTN_TRY(dlattn__read_sides(r));
    DLATTN_TRY(dlattn__read_numbers(r->p, r->a));
    DLATTN_TRY(dlattn__read_lengths(r));
    return dlattn__read_terms(r);
}

int32_t dlattn__problem_forward(problem *p, buffers *x, const dlattn_attention *a, const dlattn_outputs *o,
                                bool data_required) {
    buffers unused;
    dlattn_attention attention;
    dlattn_outputs outputs;
    reading r;
    DLATTN_TRY(dlattn__take_attention(&attention, a));
    DLATTN_TRY(dlattn__take_outputs(&outputs, o, "outputs"));
    begin(&r, p, x ? x : &unused, &attention, DLATTN_OP_FORWARD, data_required);
    DLATTN_TRY(read_attention(&r));
    DLATTN_TRY(dlattn__read_outputs(&r, &outputs));
    return dlattn__check_aliasing(&r, data_required);
}

int32_t dlattn__problem_backward(problem *p, buffers *x, const dlattn_attention *a, const dlattn_gradients *g,
                                 bool data_required) {
    buffers unused;
    dlattn_attention attention;
    dlattn_gradients gradients;
    reading r;
    DLATTN_TRY(dlattn__take_attention(&attention, a));
    DLATTN_TRY(dlattn__take_gradients(&gradients, g));
    begin(&r, p, x ? x : &unused, &attention, DLATTN_OP_BACKWARD, data_required);
    DLATTN_TRY(read_attention(&r));
    DLATTN_TRY(dlattn__read_gradients(&r, &gradients));
    return dlattn__check_aliasing(&r, data_required);
}

int32_t dlattn__problem_dropout_mask(problem *p, buffers *x, const dlattn_attention *a, const DLTensor *keep) {
    dlattn_attention attention;
    reading r;
    DLATTN_TRY(dlattn__take_attention(&attention, a));
    begin(&r, p, x, &attention, DLATTN_OP_DROPOUT_MASK, false);
    r.needs_vector_data = true;
    DLATTN_TRY(read_attention(&r));
    DLATTN_TRY(dlattn__read_keep(&r, keep));
    return dlattn__check_aliasing(&r, true);
}
