/* common_calls.h: what a library that carries compiled kernels should carry, so that common calls need no compiler. */
#ifndef DLATTN_CUDA_COMMON_CALLS_H
#define DLATTN_CUDA_COMMON_CALLS_H

#include "function.h"

/* The kernels of common calls on devices of an architecture: float16 and bfloat16, usual head sizes, full, causal and window
 * masks, grouped heads, padded, packed and (few rows) paged, training, prefill and decoding; each score term in training; appending
 * to a key cache, merging, rotating.
 * Returns how many there are; `out` has room for `capacity`. */
int32_t dlattn__common_requests(kernel_request *out, int32_t capacity, int32_t arch);

#endif
