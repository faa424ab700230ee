/* maps.c: tensor maps of q, k, v, dout and the bias for kernels that fetch tiles by the copy engine. */
#include "maps.h"

#include "dlattn/dlattn.h"
#include "error.h"

enum { PANEL_COLUMNS = 64, CONSUMER_ROWS = 64 }; /* of kernels/wgmma_sm90.cuh */

/* Limits of cuTensorMapEncodeTiled. */
static const int64_t largest_stride = (int64_t)1 << 39; /* in elements of two bytes */

/* Which dimension of an operand counts rows, and which heads. */
typedef struct axes {
    int32_t row, head;
} axes;
static const axes of_tokens = {1, 2}, of_scores = {2, 1};

static bool fits(const operand *o, axes at) {
    for (int32_t d = 0; d < 3; d++)
        if (o->extent[d] < 1 || o->stride[d] < 0 || o->stride[d] >= largest_stride) return false;
    return o->extent[3] >= 1 && (o->extent[at.row] == 1 || o->stride[at.row] > 0);
}

const char *dlattn__maps_refusal(const problem *p) {
    if (!fits(&p->q, of_tokens) || !fits(&p->k, of_tokens) || !fits(&p->v, of_tokens) || (p->dout.dtype && !fits(&p->dout, of_tokens)))
        return "strides that no tensor map has, or an empty tensor";
    if (p->bias.dtype && (!fits(&p->bias, of_scores) || p->bias.extent[2] < p->M))
        return "a bias that broadcasts over rows, or with strides that no tensor map has";
    return NULL;
}

/* Dimensions from the inside: columns, rows, heads, batch. One of stride 0 has one place, and a stride that is never used. */
static int32_t fill(tensor_map *out, const operand *o, axes at, const void *data, int64_t box_rows, const char *name) {
    const int64_t row = o->stride[at.row], head = o->stride[at.head], batch = o->stride[0];
    const uint64_t extents[4] = {(uint64_t)o->extent[3], (uint64_t)o->extent[at.row], head ? (uint64_t)o->extent[at.head] : 1,
                                 batch ? (uint64_t)o->extent[0] : 1};
    const uint64_t strides[3] = {row ? 2 * (uint64_t)row : 16, head ? 2 * (uint64_t)head : 16, batch ? 2 * (uint64_t)batch : 16};
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
    const bool backward = v->kernel == DLATTN_KERNEL_BACKWARD;
    const int64_t rows = backward ? v->rows : CONSUMER_ROWS;
    DLATTN_TRY(fill(&out->q, &p->q, of_tokens, x->q, rows, "q"));
    if (backward) DLATTN_TRY(fill(&out->dout, &p->dout, of_tokens, x->dout, rows, "dout"));
    if (!backward && p->bias.dtype) DLATTN_TRY(fill(&out->bias, &p->bias, of_scores, x->bias, rows, "bias"));
    DLATTN_TRY(fill(&out->k, &p->k, of_tokens, x->k, v->keys, "k"));
    return fill(&out->v, &p->v, of_tokens, x->v, v->keys, "v");
}
