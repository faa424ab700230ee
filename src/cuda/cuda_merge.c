/* cuda_merge.c: dlattn_merge on the device. */
#include "cuda_merge.h"

#include <string.h>

#include "arguments.h"
#include "error.h"
#include "launch.h"
#include "merge_params.h"

_Static_assert(sizeof(dlattn_merge_params) <= 4096, "what every device takes as parameters");

static int32_t check(const merge_problem *p, const merge_part *parts, const void *out, const void *lse) {
    DLATTN_TRY(dlattn__memory_check(p->device_type, p->device_id, "merged out", out));
    DLATTN_TRY(dlattn__memory_check(p->device_type, p->device_id, "merged lse", lse));
    for (int64_t n = 0; n < p->count; n++) {
        DLATTN_TRY(dlattn__memory_check(p->device_type, p->device_id, "out of a part", parts[n].out_data));
        DLATTN_TRY(dlattn__memory_check(p->device_type, p->device_id, "lse of a part", parts[n].lse_data));
    }
    return DLATTN_OK;
}

static void fill(dlattn_merge_params *out, const merge_problem *p, const merge_part *parts, const void *out_data,
                 const void *lse_data) {
    memset(out, 0, sizeof *out);
    out->out = dlattn__view(&p->out, out_data);
    if (p->lse.dtype) out->lse = dlattn__view(&p->lse, lse_data);
    out->B = (int)p->B;
    out->H = (int)p->H;
    out->M = (int)p->M;
    out->E = (int)p->E;
    out->count = (int)p->count;
    for (int64_t n = 0; n < p->count; n++) {
        dlattn_merge_part *part = &out->parts[n];
        part->out = (dlattn_u64)(uintptr_t)parts[n].out_data;
        part->lse = (dlattn_u64)(uintptr_t)parts[n].lse_data;
        part->out_dtype = parts[n].out.dtype;
        memcpy(part->out_stride, parts[n].out.stride, sizeof part->out_stride);
        memcpy(part->lse_stride, parts[n].lse.stride, sizeof part->lse_stride);
    }
}

static int32_t merge_in_context(const merge_problem *p, const merge_part *parts, void *out, void *lse,
                                const cuda_scope *scope, const dlattn_exec *exec) {
    const cuda_step step = {.request = dlattn__plain_request("merge.cu", "merge"), .threads = 256,
                            .blocks = (p->M + 7) / 8 * p->H * p->B};
    dlattn_merge_params params;
    CUfunction function;
    DLATTN_TRY(check(p, parts, out, lse));
    DLATTN_TRY(dlattn__function_get(&function, scope->context, scope->device, &step.request));
    fill(&params, p, parts, out, lse);
    return dlattn__launch(function, &step, &params, NULL, exec->stream);
}

static bool has_float64(const merge_problem *p, const merge_part *parts) {
    bool found = p->out.dtype == DLATTN_T_F64 || p->lse.dtype == DLATTN_T_F64;
    for (int64_t n = 0; n < p->count; n++) found |= parts[n].out.dtype == DLATTN_T_F64 || parts[n].lse.dtype == DLATTN_T_F64;
    return found;
}

int32_t dlattn__cuda_merge(const merge_problem *p, const merge_part *parts, void *out, void *lse,
                           const dlattn_exec *exec) {
    cuda_scope scope;
    if (p->count > DLATTN_MERGE_PARTS)
        return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "count is %lld parts, expected at most %d on CUDA",
                            (long long)p->count, DLATTN_MERGE_PARTS);
    if (has_float64(p, parts))
        return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "a part or the result is float64, which is merged on the CPU only");
    if ((double)p->B * (double)p->H * ((double)p->M / 8 + 1) > INT32_MAX || p->M > INT32_MAX / 2)
        return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "merged out has too many rows for one launch on CUDA");
    DLATTN_TRY(dlattn__cuda_enter(&scope, p->device_id, exec->stream));
    int32_t status = merge_in_context(p, parts, out, lse, &scope, exec);
    dlattn__cuda_leave(&scope);
    return status;
}
