/* cuda_merge.h: dlattn_merge on the device. */
#ifndef DLATTN_CUDA_MERGE_H
#define DLATTN_CUDA_MERGE_H

#include "backend.h"

int32_t dlattn__cuda_merge(const merge_problem *p, const merge_part *parts, void *out, void *lse,
                           const dlattn_exec *exec);

#endif
