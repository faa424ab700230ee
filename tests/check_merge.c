/* check_merge.c: a problem split over its keys, merged again, is the whole: forward by dlattn_merge, backward as the
 * sum of its parts.
 *
 * Parts are views of k and v with POSITIONS saying where they start. Partial results are float32 (float64), as a ring
 * keeps them. The last part takes no sinks: only the first does. */
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { PARTS = 3 };

/* A tensor in own compact memory. */
typedef struct owned {
    DLTensor dl;
    int64_t shape[4];
} owned;

static void own(owned *o, const DLTensor *like, DLDataType dtype) {
    memcpy(o->shape, like->shape, (size_t)like->ndim * sizeof *o->shape);
    o->dl = (DLTensor){.device = {kDLCPU, 0}, .ndim = like->ndim, .dtype = dtype, .shape = o->shape};
    o->dl.data = guarded_alloc((size_t)(tensor_count(like) * dtype.bits / 8));
}

/* A view of `from` with [first, first + count) of dimension dim. */
typedef struct view {
    DLTensor dl;
    int64_t shape[4], strides[4];
} view;

static void narrow(view *to, const DLTensor *from, int32_t dim, int64_t first, int64_t count) {
    to->dl = *from;
    for (int32_t d = 0; d < from->ndim; d++) to->shape[d] = from->shape[d], to->strides[d] = tensor_stride(from, d);
    to->dl.shape = to->shape;
    to->dl.strides = to->strides;
    to->shape[dim] = count;
    to->dl.data = (unsigned char *)from->data + first * to->strides[dim] * tensor_item_bytes(from);
}

/* One part of the split: its problem and the tensors that the problem names. */
typedef struct part {
    dlattn_attention attention;
    view k, v, bias, mask, segments;
    owned out, lse, dq, dk, dv, dsinks;
    int64_t first, count;
} part;

static int can_split(const test_case *c) {
    int shifted = !(c->flags & (DLATTN_POSITIONS | DLATTN_TOP_LEFT)) && c->M != c->N;
    int clamped = (c->max_q > 0 && c->max_q < c->M) || (c->max_k > 0 && c->max_k < c->N);
    int at_the_end = c->k_start > INT64_MAX - c->N; /* a part would start past it */
    int ragged = c->packed_q || c->packed_k || c->use_q || c->use_k || c->start_tensors;
    int sizes = c->N >= PARTS && c->N <= 1000 && c->H > 0 && c->B > 0 && c->M > 0;
    int inputs = c->inputs == NORMAL || c->inputs == LARGE || c->inputs == MINUS_INF_BIAS;
    return sizes && inputs && !clamped && !at_the_end && !ragged &&
           !(c->dropout > 0 && shifted); /* dropout counts in positions, which the parts must then shift */
}

static void make_part(part *p, const instance *x, int64_t n) {
    const test_case *c = x->test;
    const dlattn_attention *whole = &x->attention;
    int32_t token_dim = c->layout ? 2 : 1;
    p->first = n * c->N / PARTS;
    p->count = (n + 1) * c->N / PARTS - p->first;
    p->attention = *whole;
    narrow(&p->k, whole->k, token_dim, p->first, p->count);
    narrow(&p->v, whole->v, token_dim, p->first, p->count);
    p->attention.k = &p->k.dl;
    p->attention.v = &p->v.dl;
    if (whole->bias && whole->bias->shape[whole->bias->ndim - 1] > 1) {
        narrow(&p->bias, whole->bias, whole->bias->ndim - 1, p->first, p->count);
        p->attention.bias = &p->bias.dl;
    }
    if (whole->mask && whole->mask->shape[whole->mask->ndim - 1] > 1) {
        narrow(&p->mask, whole->mask, whole->mask->ndim - 1, p->first, p->count);
        p->attention.mask = &p->mask.dl;
    }
    if (whole->kv_segments) {
        narrow(&p->segments, whole->kv_segments, 1, p->first, p->count);
        p->attention.kv_segments = &p->segments.dl;
    }
    if (!(whole->flags & DLATTN_POSITIONS)) p->attention.q_start = whole->flags & DLATTN_TOP_LEFT ? 0 : c->N - c->M;
    p->attention.flags = (whole->flags | DLATTN_POSITIONS) & ~(uint32_t)DLATTN_TOP_LEFT;
    if (!(whole->flags & DLATTN_POSITIONS)) p->attention.k_start = 0;
    p->attention.k_start += p->first;
    p->attention.max_seqlen_k = 0;
    if (n > 0) p->attention.sinks = NULL;
}

/* The forward of each part, then the merge. */
static int merge_forward(check_report *report, part *parts, instance *x, DLDataType wide) {
    const DLTensor *outs[PARTS], *lses[PARTS];
    for (int n = 0; n < PARTS; n++) {
        own(&parts[n].out, x->outputs.out, wide);
        own(&parts[n].lse, x->outputs.lse, x->outputs.lse->dtype);
        outs[n] = &parts[n].out.dl;
        lses[n] = &parts[n].lse.dl;
        dlattn_outputs outputs = {sizeof outputs, &parts[n].out.dl, &parts[n].lse.dl};
        if (check_status(report, device_forward(&parts[n].attention, &outputs, NULL), "forward of a part")) return 0;
    }
    dlattn_parts list = {.struct_size = sizeof list, .out = outs, .lse = lses, .count = PARTS, .layout = x->test->layout};
    return !check_status(report, device_merge(&list, &x->outputs, NULL), "dlattn_merge");
}

static int backward_of_part(check_report *report, part *p, instance *x, DLDataType wide) {
    own(&p->dq, x->attention.q, wide);
    own(&p->dk, &p->k.dl, wide);
    own(&p->dv, &p->v.dl, wide);
    dlattn_gradients g = {sizeof g, x->outputs.out, x->outputs.lse, x->gradients.dout, x->gradients.dlse, &p->dq.dl, &p->dk.dl,
                          &p->dv.dl, NULL, NULL};
    if (p->attention.sinks) {
        own(&p->dsinks, p->attention.sinks, x->gradients.dsinks->dtype);
        g.dsinks = &p->dsinks.dl;
    }
    return !check_status(report, device_backward(&p->attention, &g, NULL), "backward of a part");
}

/* Writes the parts' gradients into the instance's tensors: dq is their sum, dk and dv lie side by side. */
static void join_gradients(const part *parts, instance *x) {
    const DLTensor *dq = x->gradients.dq;
    int32_t token_dim = x->test->layout ? 2 : 1;
    for (int64_t n = 0, count = tensor_count(dq); n < count; n++) {
        real sum = 0;
        for (int p = 0; p < PARTS; p++) sum += tensor_get(&parts[p].dq.dl, n);
        tensor_set(dq, n, sum);
    }
    for (int p = 0; p < PARTS; p++) {
        view dk, dv;
        narrow(&dk, x->gradients.dk, token_dim, parts[p].first, parts[p].count);
        narrow(&dv, x->gradients.dv, token_dim, parts[p].first, parts[p].count);
        for (int64_t n = 0, count = tensor_count(&dk.dl); n < count; n++) tensor_set(&dk.dl, n, tensor_get(&parts[p].dk.dl, n));
        for (int64_t n = 0, count = tensor_count(&dv.dl); n < count; n++) tensor_set(&dv.dl, n, tensor_get(&parts[p].dv.dl, n));
    }
    if (parts[0].attention.sinks)
        for (int64_t h = 0; h < x->test->H; h++) tensor_set(x->gradients.dsinks, h, tensor_get(&parts[0].dsinks.dl, h));
}

static void free_part(part *p) {
    owned *all[] = {&p->out, &p->lse, &p->dq, &p->dk, &p->dv, &p->dsinks};
    for (unsigned n = 0; n < sizeof all / sizeof *all; n++) guarded_free(all[n]->dl.data);
}

void check_merge(check_report *report, const test_case *c, const check_truth *truth, const check_options *options) {
    part parts[PARTS];
    instance x;
    if (!can_split(c)) return;
    memset(parts, 0, sizeof parts);
    instance_make(&x, c, options->seed);
    DLDataType wide = {kDLFloat, (uint8_t)(c->dtype == F64 ? 64 : 32), 1};
    for (int64_t n = 0; n < PARTS; n++) make_part(&parts[n], &x, n);
    int right = merge_forward(report, parts, &x, wide);
    for (int id = T_OUT; right && id <= T_LSE; id++) check_tensor(report, &x, truth, id, "merged from parts: ");
    if (c->gradients != NO_GRADIENTS) {
        check_give_truth(&x, truth);
        for (int n = 0; n < PARTS && right; n++) right = backward_of_part(report, &parts[n], &x, wide);
        if (right) join_gradients(parts, &x);
        for (int id = T_DQ; right && id <= T_DV; id++) check_tensor(report, &x, truth, id, "merged from parts: ");
        if (right) check_tensor(report, &x, truth, T_DSINKS, "merged from parts: ");
    }
    for (int n = 0; n < PARTS; n++) free_part(&parts[n]);
    instance_free(&x);
}
