/* workspace.c: the caller's workspace: is it good enough for a plan? */
#include "workspace.h"

#include <inttypes.h>

#include "error.h"
#include "tensor.h"

int32_t dlattn__fail_workspace(uint64_t found, uint64_t least, uint64_t best) {
    return dlattn__fail(DLATTN_ERR_WORKSPACE,
                        "workspace has %" PRIu64 " bytes, expected at least %" PRIu64 " (%" PRIu64 " at best)", found, least, best);
}

int32_t dlattn__workspace_check(const plan *plan, const dlattn_exec *exec) {
    if (!exec->workspace) {
        if (exec->workspace_bytes == 0 || !dlattn__device_is_host(plan->problem->device_type)) return DLATTN_OK; /* see cuda_run */
        return dlattn__fail(DLATTN_ERR_WORKSPACE,
                            "workspace is NULL, expected an address, as workspace_bytes is %" PRIu64,
                            exec->workspace_bytes);
    }
    if ((uintptr_t)exec->workspace % DLATTN_WORKSPACE_ALIGNMENT)
        return dlattn__fail(DLATTN_ERR_WORKSPACE,
                            "workspace lies at %d past a multiple of 16, expected 16-byte alignment",
                            (int)((uintptr_t)exec->workspace % DLATTN_WORKSPACE_ALIGNMENT));
    if (exec->workspace_bytes < plan->minimum_bytes)
        return dlattn__fail_workspace(exec->workspace_bytes, plan->minimum_bytes, plan->workspace_bytes);
    return DLATTN_OK;
}
