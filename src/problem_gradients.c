/* problem_gradients.c: what the forward writes, and what the backward reads and writes. */
#include "error.h"
#include "reading.h"

/* Outputs go through the readers of const data; the caller gave us a DLTensor * for them. */
static void *writable(const void *data) { return (void *)(uintptr_t)data; }

static uint32_t own_or_float32(int32_t dtype) { return 1u << dtype | 1u << DLATTN_T_F32; }

int32_t dlattn__read_outputs(reading *r, const dlattn_outputs *o) {
    problem *p = r->p;
    const void *out = NULL, *lse = NULL;
    DLATTN_TRY(dlattn__read_like_q(r, &p->out, &out, "out", o->out, true, true, own_or_float32(p->dtype)));
    if (o->lse) DLATTN_TRY(dlattn__read_lse(r, &p->lse, &lse, "lse", o->lse, true));
    r->x->out = writable(out);
    r->x->lse = writable(lse);
    return DLATTN_OK;
}

static int32_t read_from_forward(reading *r, const dlattn_gradients *g) {
    problem *p = r->p;
    const void *out = NULL, *lse = NULL;
    DLATTN_TRY(dlattn__read_like_q(r, &p->out, &out, "out", g->out, false, true, own_or_float32(p->dtype)));
    DLATTN_TRY(dlattn__read_lse(r, &p->lse, &lse, "lse", g->lse, false));
    DLATTN_TRY(dlattn__read_like_q(r, &p->dout, &r->x->dout, "dout", g->dout, false, true, 1u << p->dtype));
    if (g->dlse) DLATTN_TRY(dlattn__read_lse(r, &p->dlse, &r->x->dlse, "dlse", g->dlse, false));
    r->x->out = writable(out);
    r->x->lse = writable(lse);
    return DLATTN_OK;
}

static int32_t read_dq_dk_dv(reading *r, const dlattn_gradients *g) {
    problem *p = r->p;
    const void *dq = NULL, *dk = NULL, *dv = NULL;
    if (g->dq) DLATTN_TRY(dlattn__read_like_q(r, &p->dq, &dq, "dq", g->dq, true, false, own_or_float32(p->dtype)));
    if (g->dk) DLATTN_TRY(dlattn__read_like_k(r, &p->dk, &dk, "dk", g->dk, false));
    if (g->dv) DLATTN_TRY(dlattn__read_like_k(r, &p->dv, &dv, "dv", g->dv, true));
    r->x->dq = writable(dq);
    r->x->dk = writable(dk);
    r->x->dv = writable(dv);
    return DLATTN_OK;
}

/* dbias and dsinks have the very shape of what they are the gradient of. */
static int32_t read_like_parent(reading *r, operand *o, void **data, const char *name, const DLTensor *dl,
                                const char *parent_name, const DLTensor *parent, const operand *parent_operand,
                                const char *reason) {
    if (!dl) return DLATTN_OK;
    if (!parent)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s is wanted but %s is NULL, expected both or neither", name,
                            parent_name);
    role role = {name, reason, own_or_float32(parent_operand->dtype), parent->ndim, parent->ndim, true, r->needs_data};
    int64_t expected[4] = {-1, -1, -1, -1};
    int32_t from[4] = {-1, -1, -1, -1};
    tensor *t;
    DLATTN_TRY(dlattn__read(r, &t, &role, dl));
    for (int32_t d = 0; d < t->rank; d++) expected[d] = parent->shape[d];
    DLATTN_TRY(dlattn__tensor_expect(t, expected, reason));
    for (int32_t d = 0; d < t->rank; d++) from[parent_operand == &r->p->sinks ? d : 4 - t->rank + d] = d;
    *o = dlattn__tensor_operand(t, from);
    *data = writable(t->data);
    return DLATTN_OK;
}

int32_t dlattn__read_gradients(reading *r, const dlattn_gradients *g) {
    problem *p = r->p;
    DLATTN_TRY(read_from_forward(r, g));
    DLATTN_TRY(read_dq_dk_dv(r, g));
    DLATTN_TRY(read_like_parent(r, &p->dbias, &r->x->dbias, "dbias", g->dbias, "bias", r->a->bias, &p->bias,
                                "the shape of bias"));
    return read_like_parent(r, &p->dsinks, &r->x->dsinks, "dsinks", g->dsinks, "sinks", r->a->sinks, &p->sinks,
                            "the shape of sinks");
}
