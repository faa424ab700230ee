/* maps.c: tensor maps of q, k, v and dout for kernels that fetch tiles by the copy engine. */
#include "maps.h"

#include "dlattn/dlattn.h"
#include "error.h"

enum { PANEL_COLUMNS = 64, CONSUMER_ROWS = 64 }; /* of kernels/wgmma_sm90.cuh */

/* Limits of cuTensorMapEncodeTiled. */
static const int64_t largest_stride = (int64_t)1 << 39; /* in elements of two bytes */

static bool fits(const operand *o) {
    for (int32_t d = 0; d < 3; d++)
        if (o->extent[d] < 1 || o->stride[d] < 0 || o->stride[d] >= largest_stride) return false;
    return o->extent[3] >= 1 && (o->extent[1] == 1 || o->stride[1] > 0);
}

const char *dlattn__maps_refusal(const problem *p) {
    const bool described = fits(&p->q) && fits(&p->k) && fits(&p->v) && (!p->dout.dtype || fits(&p->dout));
    return described ? NULL : "strides that no tensor map has, or an empty tensor";
}

/* Dimensions from the inside: columns, rows, heads, batch. One of stride 0 has one place, and a stride that is never used. */
static int32_t fill(tensor_map *out, const operand *o, const void *data, int64_t box_rows, const char *name) {
    const uint64_t extents[4] = {(uint64_t)o->extent[3], (uint64_t)o->extent[1], o->stride[2] ? (uint64_t)o->extent[2] : 1,
                                 o->stride[0] ? (uint64_t)o->extent[0] : 1};
    const uint64_t strides[3] = {o->stride[1] ? 2 * (uint64_t)o->stride[1] : 16, o->stride[2] ? 2 * (uint64_t)o->stride[2] : 16,
                                 o->stride[0] ? 2 * (uint64_t)o->stride[0] : 16};
    const uint32_t box[4] = {PANEL_COLUMNS, (uint32_t)box_rows, 1, 1}, steps[4] = {1, 1, 1, 1};
    return dlattn__cuda_check(
        dlattn__driver.cuTensorMapEncodeTiled(
            (CUtensorMap *)(void *)out,
            o->dtype == DLATTN_T_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4,
            (void *)(uintptr_t)data, extents, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
            CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
        "cuTensorMapEncodeTiled", name);
}

int32_t dlattn__maps_fill(dlattn_maps *out, const problem *p, const buffers *x, const variant *v) {
    const int64_t rows = v->kernel == DLATTN_KERNEL_BACKWARD ? v->rows : CONSUMER_ROWS;
    DLATTN_TRY(fill(&out->q, &p->q, x->q, rows, "q"));
    if (v->kernel == DLATTN_KERNEL_BACKWARD) DLATTN_TRY(fill(&out->dout, &p->dout, x->dout, rows, "dout"));
    DLATTN_TRY(fill(&out->k, &p->k, x->k, v->keys, "k"));
    return fill(&out->v, &p->v, x->v, v->keys, "v");
}
