/* workspace.h: the caller's workspace: is it good enough, and where the next piece of it lies. */
#ifndef DLATTN_WORKSPACE_H
#define DLATTN_WORKSPACE_H

#include "backend.h"

enum { DLATTN_WORKSPACE_ALIGNMENT = 16, DLATTN_CARVE_ALIGNMENT = 64 };

/* Fails (DLATTN_ERR_WORKSPACE) when exec's workspace is misaligned or below the plan's minimum. NULL passes on the
 * CPU, where the library takes host memory instead. */
int32_t dlattn__workspace_check(const plan *plan, const dlattn_exec *exec);

/* Memory handed out piece by piece, front to back. */
typedef struct carver {
    unsigned char *at;
    uint64_t bytes; /* left */
} carver;

/* `bytes` of memory aligned to DLATTN_CARVE_ALIGNMENT; NULL when not enough is left. */
void *dlattn__carve(carver *c, uint64_t bytes);

/* What a carve of `bytes` takes at most, whatever the alignment of the memory. */
static inline uint64_t dlattn__carve_bytes(uint64_t bytes) { return bytes + DLATTN_CARVE_ALIGNMENT - 1; }

#endif
