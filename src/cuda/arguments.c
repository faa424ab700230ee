/* arguments.c: problem and buffers as the struct that kernels are passed. */
#include "arguments.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "driver.h"
#include "error.h"

#define SAME(type) _Static_assert((int)DLATTN_T_##type == (int)DLATTN_TYPE_##type, "types of problem.h and params.h")
SAME(NONE);
SAME(F16);
SAME(BF16);
SAME(F32);
SAME(I32);
SAME(I64);
SAME(U8);

/* The operands, which have one name in problem, buffers and params. */
#define OPERANDS(X)                                                                                                  \
    X(q) X(k) X(v) X(out) X(dout) X(dq) X(dk) X(dv) X(lse) X(dlse) X(bias) X(dbias) X(mask) X(keep) X(alibi_slopes)  \
    X(sinks) X(dsinks) X(q_segments) X(kv_segments) X(cu_seqlens_q) X(cu_seqlens_k) X(seqlens_q) X(seqlens_k) X(block_table) \
    X(q_starts) X(k_starts) X(rng_state)

typedef struct operand_place {
    const char *name;
    size_t in_problem, in_buffers, in_params;
} operand_place;

#define PLACE(name) {#name, offsetof(problem, name), offsetof(buffers, name), offsetof(dlattn_params, name)},
static const operand_place places[] = {OPERANDS(PLACE)};
enum { NUM_PLACES = (int)(sizeof places / sizeof places[0]) };

static const operand *operand_at(const problem *p, int32_t n) {
    return (const operand *)((const char *)p + places[n].in_problem);
}

static const void *data_at(const buffers *x, int32_t n) {
    const void *data;
    memcpy(&data, (const char *)x + places[n].in_buffers, sizeof data);
    return data;
}

/* Room for a tile's round-up and for sums of two sizes. */
static const int64_t largest = INT32_MAX / 2;

static int32_t refuse(char *note, int64_t note_bytes, const char *what, int64_t size) {
    snprintf(note, (size_t)note_bytes, "%s is %" PRId64 ", expected at most %" PRId64 " on CUDA", what, size, largest);
    return DLATTN_ERR_UNSUPPORTED;
}

int32_t dlattn__arguments_fit(const problem *p, char *note, int64_t note_bytes) {
    char what[64];
    if (p->B > largest) return refuse(note, note_bytes, "batch", p->B);
    if (p->H > largest) return refuse(note, note_bytes, "query heads", p->H);
    if (p->tokens_k > largest) return refuse(note, note_bytes, "the number of keys", p->tokens_k);
    for (int32_t n = 0; n < NUM_PLACES; n++) {
        const operand *o = operand_at(p, n);
        for (int32_t d = 0; o->dtype && d < 4; d++) {
            if (o->extent[d] <= largest) continue;
            snprintf(what, sizeof what, "extent %d of %s", (int)d, places[n].name);
            return refuse(note, note_bytes, what, o->extent[d]);
        }
    }
    if ((double)(p->B + 1) * (double)p->H * (double)(p->M + p->q.extent[1] + 256) * 256 * 64 <= 0x1p62) return DLATTN_OK;
    snprintf(note, (size_t)note_bytes, "batch, heads and queries are too many to count");
    return DLATTN_ERR_UNSUPPORTED;
}

static void fill_view(dlattn_view *v, const operand *o, const void *data) {
    v->data = (dlattn_u64)(uintptr_t)data;
    v->dtype = o->dtype;
    v->reserved0 = 0;
    for (int32_t d = 0; d < 4; d++) {
        v->stride[d] = o->stride[d];
        v->extent[d] = (int)o->extent[d];
    }
}

dlattn_view dlattn__view(const operand *o, const void *data) {
    dlattn_view v;
    fill_view(&v, o, data);
    return v;
}

uint32_t dlattn__features(const problem *p) {
    uint32_t f = 0;
    if (dlattn__mask_kinds(p)) f |= DLATTN_FEATURE_INTERVAL;
    if (p->softcap > 0) f |= DLATTN_FEATURE_SOFTCAP;
    if (p->alibi_slopes.dtype) f |= DLATTN_FEATURE_ALIBI;
    if (p->bias.dtype) f |= DLATTN_FEATURE_BIAS;
    if (p->mask.dtype) f |= DLATTN_FEATURE_MASK;
    if (p->q_segments.dtype) f |= DLATTN_FEATURE_SEGMENTS;
    if (p->dropout_threshold) f |= DLATTN_FEATURE_DROPOUT;
    return f;
}

static void fill_masks(dlattn_params *out, const problem *p) {
    out->mask_kinds = dlattn__mask_kinds(p);
    out->top_left = (p->flags & DLATTN_TOP_LEFT) != 0;
    out->positions = (p->flags & DLATTN_POSITIONS) != 0;
    out->window_left = p->window_left;
    out->window_right = p->window_right;
    out->block_size = p->block_size;
    out->block_count = p->block_count;
    out->q_start = p->q_start;
    out->k_start = p->k_start;
}

void dlattn__arguments_fill(dlattn_params *out, const problem *p, const buffers *x) {
    memset(out, 0, sizeof *out);
    for (int32_t n = 0; n < NUM_PLACES; n++) {
        const operand *o = operand_at(p, n);
        if (!o->dtype) continue;
        fill_view((dlattn_view *)((char *)out + places[n].in_params), o, x ? data_at(x, n) : NULL); /* in place: copies stall */
    }
    out->B = (int)p->B;
    out->H = (int)p->H;
    out->G = (int)p->G;
    out->M = (int)p->M;
    out->N = (int)p->N;
    out->D = (int)p->D;
    out->E = (int)p->E;
    out->heads_per_group = p->G ? (int)(p->H / p->G) : 0;
    out->packed_q = p->packed_q;
    out->packed_k = p->packed_k;
    out->tokens_q = (int)p->q.extent[1];
    out->tokens_k = p->page && p->k.extent[0] == 0 ? 0 : (int)p->tokens_k; /* without a page there is no key */
    out->page = (int)p->page;
    fill_masks(out, p);
    out->features = dlattn__features(p);
    out->seed = p->seed;
    out->offset = p->offset;
    out->scale = (float)p->scale;
    out->softcap = (float)p->softcap;
    out->dropout_threshold = p->dropout_threshold;
    out->dropout_scale = p->dropout_threshold == 0 ? 1.0f
                         : p->dropout_threshold >= 256 ? 0.0f
                                                       : 256.0f / (float)(256 - p->dropout_threshold);
    out->splits = 1;
}

int32_t dlattn__memory_check(int32_t device_type, int32_t device_id, const char *name, const void *data) {
    unsigned int type = 0;
    int ordinal = -1;
    CUpointer_attribute wanted[2] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
    void *values[2] = {&type, &ordinal};
    if (!data) return DLATTN_OK;
    DLATTN_TRY(dlattn__cuda_check(dlattn__driver.cuPointerGetAttributes(2, wanted, values, (CUdeviceptr)(uintptr_t)data),
                                  "cuPointerGetAttributes", name));
    if (device_type == kDLCUDAManaged && type != 0) return DLATTN_OK;
    if (type != CU_MEMORYTYPE_DEVICE && type != CU_MEMORYTYPE_UNIFIED)
        return dlattn__fail(DLATTN_ERR_DEVICE, "%s's data is host memory, expected memory of CUDA device %d", name,
                            (int)device_id);
    if (ordinal != device_id)
        return dlattn__fail(DLATTN_ERR_DEVICE, "%s's data is memory of CUDA device %d, expected device %d", name, ordinal,
                            (int)device_id);
    return DLATTN_OK;
}

static bool is_empty(const operand *o) {
    return !o->extent[0] || !o->extent[1] || !o->extent[2] || !o->extent[3];
}

int32_t dlattn__arguments_check(const problem *p, const buffers *x) {
    for (int32_t n = 0; n < NUM_PLACES; n++) {
        const operand *o = operand_at(p, n);
        if (!o->dtype || is_empty(o)) continue;
        DLATTN_TRY(dlattn__memory_check(p->device_type, p->device_id, places[n].name, data_at(x, n)));
    }
    return DLATTN_OK;
}
