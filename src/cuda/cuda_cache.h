/* cuda_cache.h: dlattn_kv_append and dlattn_rotary on the device. */
#ifndef DLATTN_CUDA_CACHE_H
#define DLATTN_CUDA_CACHE_H

#include "backend.h"

int32_t dlattn__cuda_kv_append(const append_problem *p, const append_buffers *x, const dlattn_exec *exec);
int32_t dlattn__cuda_rotary(const rotary_problem *p, const rotary_buffers *x, const dlattn_exec *exec);

#endif
