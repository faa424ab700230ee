/* launch.c: puts the steps of a schedule on a stream. */
#include "launch.h"

#include "error.h"

enum { OLDEST_EARLY = 12030 }; /* before, such a launch could not be captured in a graph */

static int32_t launch_early(CUfunction function, const cuda_step *step, void **parameters, CUstream stream) {
    CUlaunchAttribute early = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                               .value.programmaticStreamSerializationAllowed = 1};
    const CUlaunchConfig config = {.gridDimX = (unsigned int)step->blocks, .gridDimY = 1, .gridDimZ = 1,
                                   .blockDimX = (unsigned int)step->threads, .blockDimY = 1, .blockDimZ = 1,
                                   .sharedMemBytes = (unsigned int)step->request.smem_bytes, .hStream = stream,
                                   .attrs = &early, .numAttrs = 1};
    return dlattn__cuda_check(dlattn__driver.cuLaunchKernelEx(&config, function, parameters, NULL), "cuLaunchKernelEx",
                              step->request.entry);
}

int32_t dlattn__launch(CUfunction function, const cuda_step *step, void *arguments, dlattn_maps *maps, CUstream stream) {
    void *parameters[2] = {arguments, maps};
    if (step->blocks == 0) return DLATTN_OK;
    if (step->early && dlattn__driver_version() >= OLDEST_EARLY) return launch_early(function, step, parameters, stream);
    return dlattn__cuda_check(dlattn__driver.cuLaunchKernel(function, (unsigned int)step->blocks, 1, 1,
                                                            (unsigned int)step->threads, 1, 1,
                                                            (unsigned int)step->request.smem_bytes, stream, parameters,
                                                            NULL),
                              "cuLaunchKernel", step->request.entry);
}

static void lay_out(dlattn_params *params, const cuda_schedule *s, void *workspace) {
    const uint64_t base = (uint64_t)(uintptr_t)workspace;
    params->delta = base + s->workspace.delta;
    params->lse2 = base + s->workspace.lse2;
    params->dq_sum = base + s->workspace.dq_sum;
    params->finished = base + s->workspace.finished;
    params->partial_out = base + s->workspace.partial_out;
    params->partial_lse = base + s->workspace.partial_lse;
    params->row_segments = s->spans ? base + s->workspace.row_segments : 0;
    params->key_segments = s->spans ? base + s->workspace.key_segments : 0;
    params->next_tile = s->counts ? base + s->workspace.next_tile : 0;
    params->row_count = s->row_count;
    params->head_rows = s->head_rows;
    params->splits = s->splits;
    params->dq_columns = s->dq_columns;
}

static int32_t clear_counter(const dlattn_params *params, CUstream stream) {
    return dlattn__cuda_check(dlattn__driver.cuMemsetD32Async((CUdeviceptr)params->next_tile, 0, 1, stream), "cuMemsetD32Async",
                              "the counter");
}

int32_t dlattn__launch_steps(const CUfunction *functions, const cuda_schedule *s, dlattn_params *params,
                             dlattn_maps *maps, void *workspace, CUstream stream) {
    lay_out(params, s, workspace);
    if (s->counts && !s->spans) DLATTN_TRY(clear_counter(params, stream));
    for (int32_t n = 0; n < s->step_count; n++) {
        params->row_tiles = s->steps[n].row_tiles;
        params->key_tiles = s->steps[n].key_tiles;
        DLATTN_TRY(dlattn__launch(functions[n], &s->steps[n], params, maps, stream));
    }
    return DLATTN_OK;
}
