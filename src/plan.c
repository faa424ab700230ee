/* plan.c: asks the backend of a problem's device how it would compute it, and tells why it would not. */
#include <string.h>

#include "backend.h"
#include "error.h"
#include "tensor.h"

const backend *const dlattn__backends[] = {&dlattn__cpu_backend, &dlattn__cuda_backend, NULL};

int32_t dlattn__fail_refused(int32_t status, const backend *b, const char *reason) {
    if (status != DLATTN_ERR_UNSUPPORTED) return dlattn__fail(status, "%s", reason);
    return dlattn__fail(status, "no backend computes this problem (%s: %s)", b->name, reason);
}

int32_t dlattn__plan(plan *out, const problem *p, const buffers *x, const dlattn_exec *exec) {
    const backend *b;
    DLATTN_TRY(dlattn__backend_for(&b, p->device_type));
    memset(out, 0, sizeof *out);
    out->backend = b;
    out->problem = p;
    out->buffers = x;
    int32_t status = b->consider(p, exec, out);
    return status == DLATTN_OK ? DLATTN_OK : dlattn__fail_refused(status, b, out->note);
}

int32_t dlattn__backend_for(const backend **out, int32_t device_type) {
    for (const backend *const *b = dlattn__backends; *b; b++) {
        *out = *b;
        if ((*b)->serves(device_type)) return DLATTN_OK;
    }
    return dlattn__fail(DLATTN_ERR_DEVICE, "q is on a device of type %d, which this build does not serve", (int)device_type);
}

bool dlattn__isa_available(const char *name) {
    for (const backend *const *b = dlattn__backends; *b; b++)
        if ((*b)->isa_available && (*b)->isa_available(name)) return true;
    return false;
}
