/* workspace.h: the caller's workspace: is it good enough for a plan? */
#ifndef DLATTN_WORKSPACE_H
#define DLATTN_WORKSPACE_H

#include "backend.h"

enum { DLATTN_WORKSPACE_ALIGNMENT = 16 };

/* Fails (DLATTN_ERR_WORKSPACE) when exec's workspace is misaligned or below the plan's minimum. NULL passes on the
 * CPU, where the library takes host memory instead. */
int32_t dlattn__workspace_check(const plan *plan, const dlattn_exec *exec);

/* The sentence of a workspace of `found` bytes. */
int32_t dlattn__fail_workspace(uint64_t found, uint64_t least, uint64_t best);

#endif
