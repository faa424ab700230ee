/* describe.h: the machine as the CUDA backend sees it, for dlattn_explain and `dlattn info`. */
#ifndef DLATTN_CUDA_DESCRIBE_H
#define DLATTN_CUDA_DESCRIBE_H

#include <stdint.h>

/* Lines of "key: value": driver, devices, copies of NVRTC, the folder of compiled kernels, kernels in the library. */
void dlattn__cuda_describe(char *text, int64_t text_bytes);

#endif
