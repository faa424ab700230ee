/* cuda_backend.c: the CUDA backend: plans a call, checks what it is handed and launches it. It never waits for the device. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "arguments.h"
#include "cuda_cache.h"
#include "cuda_merge.h"
#include "describe.h"
#include "error.h"
#include "explain.h"
#include "launch.h"
#include "load.h"
#include "maps.h"
#include "nvrtc_copies.h"
#include "tensor.h"
#include "workspace.h"

/* A refusal's reason goes into the plan; what failed below has set the sentence. */
static int32_t refuse(plan *out, int32_t status, const char *reason) {
    snprintf(out->note, sizeof out->note, "%s", reason);
    return status;
}

static void take_workspace(plan *out, const cuda_workspace *w) {
    if (w->total > out->workspace_bytes) out->workspace_bytes = w->total;
    if (w->least > out->minimum_bytes) out->minimum_bytes = w->least;
}

/* Without a device id, a bound: the largest need of all architectures. */
static int32_t consider_any(const problem *p, plan *out) {
    static const int32_t archs[] = DLATTN_ARCHS;
    for (size_t n = 0; n < sizeof archs / sizeof archs[0]; n++) {
        cuda_workspace bound;
        DLATTN_TRY(dlattn__schedule_bound(&bound, p, archs[n], out->note, sizeof out->note));
        take_workspace(out, &bound);
    }
    return DLATTN_OK;
}

static int32_t cuda_consider(const problem *p, const dlattn_exec *exec, plan *out) {
    cuda_device device;
    cuda_schedule best;
    (void)exec;
    if (p->dtype == DLATTN_T_F64) return refuse(out, DLATTN_ERR_UNSUPPORTED, "float64 is computed on the CPU only");
    DLATTN_TRY(dlattn__arguments_fit(p, out->note, sizeof out->note));
    out->num_threads = 1;
    if (p->device_id == DLATTN_ANY_DEVICE) return consider_any(p, out);
    int32_t status = dlattn__cuda_device(&device, p->device_id);
    if (status != DLATTN_OK) return refuse(out, status, dlattn__error_text());
    if (out->buffers) return DLATTN_OK; /* run makes the one schedule, for the workspace and the addresses that are there */
    DLATTN_TRY(dlattn__schedule(&best, p, NULL, &device, UINT64_MAX, out->note, sizeof out->note));
    take_workspace(out, &best.workspace);
    return DLATTN_OK;
}

static void cuda_tell(plan *out) {
    cuda_device device;
    cuda_schedule s;
    char unused[8];
    if (out->problem->device_id == DLATTN_ANY_DEVICE) {
        snprintf(out->note, sizeof out->note, "any CUDA device: bounds");
        return;
    }
    if (dlattn__cuda_device(&device, out->problem->device_id) != DLATTN_OK ||
        dlattn__schedule(&s, out->problem, NULL, &device, UINT64_MAX, unused, sizeof unused) != DLATTN_OK)
        return;
    text t = {out->note, sizeof out->note};
    dlattn__text_add(&t, "sm_%d, keys in %d pieces:", (int)device.arch, (int)s.splits);
    for (int32_t n = 0; n < s.step_count; n++) dlattn__text_add(&t, " %s", s.steps[n].request.entry);
    if (s.main) {
        char name[DLATTN_VARIANT_NAME];
        dlattn__variant_name(name, s.main);
        dlattn__text_add(&t, "; tile %d x %d, %d warps (%s)", (int)s.main->rows, (int)s.main->keys, (int)s.main->warps, name);
    }
}

static int32_t run_in_context(const problem *p, const buffers *x, const cuda_schedule *s, const cuda_scope *scope,
                              const dlattn_exec *exec) {
    CUfunction functions[DLATTN_MAX_STEPS];
    dlattn_params params;
    dlattn_maps maps;
    DLATTN_TRY(dlattn__arguments_check(p, x));
    DLATTN_TRY(dlattn__load_steps(functions, s, scope));
    dlattn__arguments_fill(&params, p, x);
    if (s->main && s->main->tensor_maps) DLATTN_TRY(dlattn__maps_fill(&maps, p, x, s->main));
    return dlattn__launch_steps(functions, s, &params, &maps, exec->workspace, exec->stream);
}

/* Even the smallest schedule has no room. */
static __attribute__((noinline, cold)) int32_t fail_room(const problem *p, const cuda_device *device, const cuda_schedule *s,
                                                         const dlattn_exec *exec) {
    cuda_schedule best;
    char unused[8];
    if (!exec->workspace)
        return dlattn__fail(DLATTN_ERR_WORKSPACE, "workspace is NULL, expected at least %" PRIu64 " bytes of device memory",
                            s->workspace.total);
    if (dlattn__schedule(&best, p, NULL, device, UINT64_MAX, unused, sizeof unused) != DLATTN_OK) best = *s;
    return dlattn__fail_workspace(exec->workspace_bytes, s->workspace.total, best.workspace.total);
}

static int32_t cuda_run(const plan *plan, const dlattn_exec *exec) {
    const problem *p = plan->problem;
    const uint64_t there = exec->workspace ? exec->workspace_bytes : 0;
    cuda_device device;
    cuda_schedule s;
    cuda_scope scope;
    char note[256];
    DLATTN_TRY(dlattn__cuda_device(&device, p->device_id));
    int32_t status = dlattn__schedule(&s, p, plan->buffers, &device, exec->workspace_bytes, note, sizeof note);
    if (status != DLATTN_OK) return dlattn__fail_refused(status, plan->backend, note);
    if (s.workspace.total > there) return fail_room(p, &device, &s, exec);
    DLATTN_TRY(dlattn__cuda_enter(&scope, p->device_id, exec->stream));
    status = run_in_context(p, plan->buffers, &s, &scope, exec);
    dlattn__cuda_leave(&scope);
    return status;
}

static int32_t cuda_prepare(const plan *plan, const dlattn_exec *exec) {
    const problem *p = plan->problem;
    CUfunction functions[DLATTN_MAX_STEPS];
    cuda_device device;
    cuda_schedule s;
    cuda_scope scope;
    char note[256];
    if (p->device_id == DLATTN_ANY_DEVICE)
        return dlattn__fail(DLATTN_ERR_DEVICE, "q is on CUDA device -1, expected a device to prepare for");
    DLATTN_TRY(dlattn__cuda_device(&device, p->device_id));
    if (dlattn__schedule(&s, p, NULL, &device, exec->workspace ? exec->workspace_bytes : UINT64_MAX, note, sizeof note) !=
        DLATTN_OK)
        return dlattn__fail(DLATTN_ERR_INTERNAL, "the plan no longer holds: %s", note);
    DLATTN_TRY(dlattn__cuda_enter(&scope, p->device_id, exec->stream));
    int32_t status = dlattn__load_steps(functions, &s, &scope);
    dlattn__cuda_leave(&scope);
    return status;
}

static int32_t write_dropout_mask(const problem *p, const buffers *x, const cuda_scope *scope, const dlattn_exec *exec) {
    const int64_t *extent = p->keep.extent;
    const int64_t blocks = (extent[0] * extent[1] * extent[2] * extent[3] + 255) / 256;
    const cuda_step step = {.request = dlattn__plain_request("dropout_mask.cu", "dropout_mask"),
                            .blocks = blocks < 65536 ? blocks : 65536, .threads = 256};
    CUfunction function;
    dlattn_params params;
    DLATTN_TRY(dlattn__arguments_check(p, x));
    DLATTN_TRY(dlattn__function_get(&function, scope->context, scope->device, &step.request));
    dlattn__arguments_fill(&params, p, x);
    return dlattn__launch(function, &step, &params, NULL, exec->stream);
}

static int32_t cuda_dropout_mask(const problem *p, const buffers *x, const dlattn_exec *exec) {
    cuda_scope scope;
    char note[128];
    if (dlattn__arguments_fit(p, note, sizeof note) != DLATTN_OK)
        return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "%s", note);
    DLATTN_TRY(dlattn__cuda_enter(&scope, p->device_id, exec->stream));
    int32_t status = write_dropout_mask(p, x, &scope, exec);
    dlattn__cuda_leave(&scope);
    return status;
}

const backend dlattn__cuda_backend = {
    .name = "cuda",
    .serves = dlattn__device_is_cuda,
    .consider = cuda_consider,
    .tell = cuda_tell,
    .run = cuda_run,
    .merge = dlattn__cuda_merge,
    .dropout_mask = cuda_dropout_mask,
    .kv_append = dlattn__cuda_kv_append,
    .rotary = dlattn__cuda_rotary,
    .describe = dlattn__cuda_describe,
    .prepare = cuda_prepare,
};
