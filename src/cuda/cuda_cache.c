/* cuda_cache.c: dlattn_kv_append and dlattn_rotary on the device. */
#include "cuda_cache.h"

#include <string.h>

#include "arguments.h"
#include "cache_params.h"
#include "error.h"
#include "launch.h"

enum { WARPS = 8 };

typedef struct named_data {
    const char *name;
    const void *data;
} named_data;

static int32_t check_memory(int32_t device_type, int32_t device_id, const named_data *all, int32_t count) {
    for (int32_t n = 0; n < count; n++) DLATTN_TRY(dlattn__memory_check(device_type, device_id, all[n].name, all[n].data));
    return DLATTN_OK;
}

static int32_t fits(const char *what, double warps, const operand *operands[], int32_t count) {
    bool small = warps / WARPS + 1 <= INT32_MAX;
    for (int32_t n = 0; n < count; n++)
        for (int32_t d = 0; d < 4; d++) small &= operands[n]->extent[d] <= INT32_MAX / 2;
    if (small) return DLATTN_OK;
    return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "%s has an extent too large for one launch on CUDA", what);
}

/* One warp for each of `warps` items. */
static int32_t launch_warps(const char *file, const char *entry, int64_t warps, void *params, const cuda_scope *scope,
                            const dlattn_exec *exec) {
    const cuda_step step = {.request = dlattn__plain_request(file, entry), .threads = WARPS * 32,
                            .blocks = (warps + WARPS - 1) / WARPS};
    CUfunction function;
    DLATTN_TRY(dlattn__function_get(&function, scope->context, scope->device, &step.request));
    return dlattn__launch(function, &step, params, NULL, exec->stream);
}

static bool in_units_of_16(const operand *o, const void *data) {
    const int64_t size = dlattn__size_of(o->dtype);
    bool whole = (uintptr_t)data % 16 == 0 && o->extent[3] * size % 16 == 0 && (o->stride[3] == 1 || o->extent[3] == 1);
    for (int32_t d = 0; d < 3; d++) whole &= o->stride[d] * size % 16 == 0;
    return whole;
}

static int32_t append_in_context(const append_problem *p, const append_buffers *x, const cuda_scope *scope,
                                 const dlattn_exec *exec) {
    const named_data all[] = {{"k_new", x->k_new}, {"v_new", x->v_new}, {"k_cache", x->k_cache}, {"v_cache", x->v_cache},
                              {"seqlens", x->seqlens}, {"block_table", x->block_table}, {"batch_index", x->batch_index}};
    const bool wide = in_units_of_16(&p->k_new, x->k_new) && in_units_of_16(&p->v_new, x->v_new) &&
                      in_units_of_16(&p->k_cache, x->k_cache) && in_units_of_16(&p->v_cache, x->v_cache);
    dlattn_append_params params;
    DLATTN_TRY(check_memory(p->device_type, p->device_id, all, sizeof all / sizeof all[0]));
    memset(&params, 0, sizeof params);
    params.k_new = dlattn__view(&p->k_new, x->k_new);
    params.v_new = dlattn__view(&p->v_new, x->v_new);
    params.k_cache = dlattn__view(&p->k_cache, x->k_cache);
    params.v_cache = dlattn__view(&p->v_cache, x->v_cache);
    params.seqlens = dlattn__view(&p->seqlens, x->seqlens);
    params.block_table = dlattn__view(&p->block_table, x->block_table);
    params.batch_index = dlattn__view(&p->batch_index, x->batch_index);
    params.B = (int)p->B, params.S = (int)p->S, params.G = (int)p->G, params.D = (int)p->D, params.E = (int)p->E;
    params.rows = (int)p->rows, params.tokens = (int)p->tokens, params.pages = (int)p->pages;
    params.element_bytes = (int)dlattn__size_of(p->k_new.dtype);
    params.unit = wide ? 16 : params.element_bytes;
    return launch_warps("kv_append.cu", "kv_append", p->B * p->S * p->G, &params, scope, exec);
}

int32_t dlattn__cuda_kv_append(const append_problem *p, const append_buffers *x, const dlattn_exec *exec) {
    const operand *operands[] = {&p->k_new, &p->v_new, &p->k_cache, &p->v_cache, &p->block_table};
    cuda_scope scope;
    if (p->B == 0 || p->S == 0 || p->G == 0 || p->rows == 0 || p->tokens == 0) return DLATTN_OK;
    if (p->block_table.dtype && p->pages == 0) return DLATTN_OK; /* no token has a place */
    DLATTN_TRY(fits("k_new or k_cache", (double)p->B * (double)p->S * (double)p->G, operands, 5));
    DLATTN_TRY(dlattn__cuda_enter(&scope, p->device_id, exec->stream));
    int32_t status = append_in_context(p, x, &scope, exec);
    dlattn__cuda_leave(&scope);
    return status;
}

static int32_t rotate_in_context(const rotary_problem *p, const rotary_buffers *x, const cuda_scope *scope,
                                 const dlattn_exec *exec) {
    const named_data all[] = {{"x", x->x}, {"cosines", x->cosines}, {"sines", x->sines}, {"starts", x->starts}, {"out", x->out}};
    dlattn_rotary_params params;
    DLATTN_TRY(check_memory(p->device_type, p->device_id, all, sizeof all / sizeof all[0]));
    memset(&params, 0, sizeof params);
    params.x = dlattn__view(&p->x, x->x);
    params.out = dlattn__view(&p->out, x->out);
    params.cosines = dlattn__view(&p->cosines, x->cosines);
    params.sines = dlattn__view(&p->sines, x->sines);
    params.starts = dlattn__view(&p->starts, x->starts);
    params.B = (int)p->B, params.S = (int)p->S, params.H = (int)p->H, params.D = (int)p->D;
    params.positions = (int)p->positions, params.pairs = (int)p->pairs;
    params.interleaved = p->interleaved, params.inverse = p->inverse;
    return launch_warps("rotary.cu", "rotary", p->B * p->S * p->H, &params, scope, exec);
}

int32_t dlattn__cuda_rotary(const rotary_problem *p, const rotary_buffers *x, const dlattn_exec *exec) {
    const operand *operands[] = {&p->x, &p->out, &p->cosines};
    cuda_scope scope;
    if (p->x.dtype == DLATTN_T_F64)
        return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "x is float64, which is rotated on the CPU only");
    if (p->B == 0 || p->S == 0 || p->H == 0 || p->D == 0) return DLATTN_OK;
    DLATTN_TRY(fits("x or cosines", (double)p->B * (double)p->S * (double)p->H, operands, 3));
    DLATTN_TRY(dlattn__cuda_enter(&scope, p->device_id, exec->stream));
    int32_t status = rotate_in_context(p, x, &scope, exec);
    dlattn__cuda_leave(&scope);
    return status;
}
