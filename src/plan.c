/* plan.c: asks the backends in order who computes a problem, and keeps the reasons of those who do not. */
#include <stdio.h>
#include <string.h>

#include "backend.h"
#include "error.h"
#include "tensor.h"

const backend *const dlattn__backends[] = {&dlattn__cpu_backend, NULL};

static const backend *backend_named(const char *name) {
    for (const backend *const *b = dlattn__backends; *b; b++)
        if (strcmp((*b)->name, name) == 0) return *b;
    return NULL;
}

static int32_t fail_without_cuda(void) {
    return dlattn__fail(DLATTN_ERR_UNSUPPORTED,
                        "q is on a CUDA device, but this build has no CUDA backend; expected kDLCPU or kDLCUDAHost");
}

int32_t dlattn__plan(plan *out, const problem *p, const dlattn_exec *exec) {
    char refusals[512];
    size_t at = 0;
    refusals[0] = 0;
    if (dlattn__device_is_cuda(p->device_type) && !backend_named("cuda")) return fail_without_cuda();
    for (const backend *const *b = dlattn__backends; *b; b++) {
        memset(out, 0, sizeof *out);
        out->backend = *b;
        out->problem = p;
        int32_t status = (*b)->consider(p, exec, out);
        if (status == DLATTN_OK) return DLATTN_OK;
        if (status != DLATTN_ERR_UNSUPPORTED && status != DLATTN_ERR_DEVICE)
            return dlattn__fail(status, "backend %s: %s", (*b)->name, out->note);
        if (at < sizeof refusals)
            at += (size_t)snprintf(refusals + at, sizeof refusals - at, "%s%s: %s", at ? "; " : "", (*b)->name,
                                   out->note);
    }
    return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "no backend computes this problem (%s)", refusals);
}

int32_t dlattn__backend_for(const backend **out, int32_t device_type) {
    *out = backend_named(dlattn__device_is_cuda(device_type) ? "cuda" : "cpu");
    if (*out) return DLATTN_OK;
    return fail_without_cuda();
}

bool dlattn__isa_available(const char *name) {
    for (const backend *const *b = dlattn__backends; *b; b++)
        if ((*b)->isa_available && (*b)->isa_available(name)) return true;
    return false;
}
