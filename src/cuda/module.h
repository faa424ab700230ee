/* module.h: a request's module, loaded into the current context: from the disk cache, or compiled. */
#ifndef DLATTN_CUDA_MODULE_H
#define DLATTN_CUDA_MODULE_H

#include "function.h"

/* Tries the copies of NVRTC from the best on until one makes a module that loads. The context is current, lies on
 * `device`, and the thread may make calls that a stream capture would forbid. Takes long; needs no lock.
 * Errors: DLATTN_ERR_COMPILE (the sentence lists every copy of NVRTC, its version and why not), DLATTN_ERR_CUDA,
 * DLATTN_ERR_OUT_OF_MEMORY, DLATTN_ERR_INTERNAL. */
int32_t dlattn__module_load(CUmodule *out, CUdevice device, const kernel_request *request);

#endif
