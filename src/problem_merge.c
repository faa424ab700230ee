/* problem_merge.c: the results of a split problem, for dlattn_merge. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "reading.h"

/* lse is float32; float64 beside float64, or beside the float32 out of a float64 problem. */
static uint32_t lse_types(int32_t out_dtype) {
    uint32_t f32 = 1u << DLATTN_T_F32, f64 = 1u << DLATTN_T_F64;
    return out_dtype == DLATTN_T_F64 ? f64 : out_dtype == DLATTN_T_F32 ? f32 | f64 : f32;
}

/* out in the order [b, i or token, h, e], lse in [b, h, i or token]. */
static operand out_operand(const tensor *t, int32_t layout) {
    const int32_t from[2][2][4] = {{{0, 1, 2, 3}, {0, 2, 1, 3}}, {{-1, 0, 1, 2}, {-1, 1, 0, 2}}};
    return dlattn__tensor_operand(t, from[t->rank == 3][layout]);
}

static operand lse_operand(const tensor *t) {
    const int32_t from[2][4] = {{0, 1, 2, -1}, {-1, 0, 1, -1}};
    return dlattn__tensor_operand(t, from[t->rank == 2]);
}

static int32_t read_lse(tensor *t, const char *name, const DLTensor *dl, const tensor *out, const operand *o,
                        bool output) {
    bool packed = out->rank == 3;
    int32_t rank = out->rank - 1;
    role role = {name, packed ? "[H,T]" : "[B,H,M]", lse_types(out->dtype), rank, rank, output, true};
    const int64_t padded_shape[4] = {o->extent[0], o->extent[2], o->extent[1], -1};
    DLATTN_TRY(dlattn__tensor_read_beside(t, &role, dl, out));
    return dlattn__tensor_expect(t, padded_shape + packed, "its out's batch, heads and length");
}

static int32_t read_merged(merge_problem *p, tensor *out, tensor *lse, int32_t layout, const dlattn_outputs *merged) {
    role role = {"merged out", "[B,M,H,E], packed [T,H,E]", DLATTN_TYPES_FLOAT, 3, 4, true, true};
    DLATTN_TRY(dlattn__tensor_read(out, &role, merged->out));
    p->out = out_operand(out, layout);
    p->device_type = (int32_t)out->device.device_type;
    p->device_id = out->device.device_id;
    p->B = p->out.extent[0];
    p->M = p->out.extent[1];
    p->H = p->out.extent[2];
    p->E = p->out.extent[3];
    DLATTN_TRY(dlattn__head_size_check("merged out", "E", p->E));
    DLATTN_TRY(dlattn__tensor_no_self_overlap(out));
    if (!merged->lse) return DLATTN_OK;
    DLATTN_TRY(read_lse(lse, "merged lse", merged->lse, out, &p->out, true));
    p->lse = lse_operand(lse);
    DLATTN_TRY(dlattn__tensor_no_self_overlap(lse));
    return dlattn__tensor_no_alias(out, lse);
}

static int32_t read_part(merge_part *part, int64_t index, const dlattn_parts *d, const tensor *out, const tensor *lse) {
    char out_name[32], lse_name[32];
    tensor part_out, part_lse;
    snprintf(out_name, sizeof out_name, "out[%" PRId64 "]", index);
    snprintf(lse_name, sizeof lse_name, "lse[%" PRId64 "]", index);
    role role = {out_name, "as merged out", DLATTN_TYPES_FLOAT, out->rank, out->rank, false, true};
    DLATTN_TRY(dlattn__tensor_read_beside(&part_out, &role, d->out[index], out));
    DLATTN_TRY(dlattn__tensor_expect(&part_out, out->extent, "the shape of merged out"));
    part->out = out_operand(&part_out, d->layout);
    DLATTN_TRY(read_lse(&part_lse, lse_name, d->lse[index], &part_out, &part->out, false));
    part->lse = lse_operand(&part_lse);
    part->out_data = part_out.data;
    part->lse_data = part_lse.data;
    DLATTN_TRY(dlattn__tensor_no_alias(out, &part_out));
    DLATTN_TRY(dlattn__tensor_no_alias(out, &part_lse));
    if (!lse) return DLATTN_OK;
    DLATTN_TRY(dlattn__tensor_no_alias(lse, &part_out));
    return dlattn__tensor_no_alias(lse, &part_lse);
}

int32_t dlattn__problem_merge(merge_problem *p, merge_part *parts, void **out_data, void **lse_data,
                              const dlattn_parts *d, const dlattn_outputs *merged) {
    dlattn_outputs outputs;
    tensor out, lse;
    memset(p, 0, sizeof *p);
    DLATTN_TRY(dlattn__take_outputs(&outputs, merged, "merged"));
    DLATTN_TRY(read_merged(p, &out, &lse, d->layout, &outputs));
    p->count = d->count;
    for (int64_t i = 0; i < d->count; i++)
        DLATTN_TRY(read_part(&parts[i], i, d, &out, outputs.lse ? &lse : NULL));
    *out_data = (void *)(uintptr_t)out.data;
    *lse_data = outputs.lse ? (void *)(uintptr_t)lse.data : NULL;
    return DLATTN_OK;
}
