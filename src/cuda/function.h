/* function.h: from a request for a specialised kernel to a function that can be launched. */
#ifndef DLATTN_CUDA_FUNCTION_H
#define DLATTN_CUDA_FUNCTION_H

#include "driver.h"

enum { DLATTN_MAX_DEFINES = 16 };

/* One -DNAME=value. Names are string literals, so that requests compare by their bytes. */
typedef struct kernel_define {
    const char *name;
    int64_t value;
} kernel_define;

/* Which kernel, specialised how. Zeroed first: requests are compared by memcmp. */
typedef struct kernel_request {
    const char *file;   /* "forward_sm80.cu", a string literal */
    const char *entry;  /* the name of its extern "C" kernel, a string literal */
    int32_t smem_bytes; /* dynamic shared memory of every launch */
    int32_t count;      /* of defines */
    kernel_define defines[DLATTN_MAX_DEFINES];
} kernel_request;

/* The function in `context`, which is current and lies on `device`: from memory, from the disk cache or compiled, in
 * this order. A hit costs well under a microsecond and takes no lock. Legal while a stream is being captured.
 * Errors: DLATTN_ERR_COMPILE, DLATTN_ERR_CUDA, DLATTN_ERR_OUT_OF_MEMORY, with the kernel's name. */
int32_t dlattn__function_get(CUfunction *out, CUcontext context, CUdevice device, const kernel_request *request);

/* The same where it is in memory; else *out is NULL. */
int32_t dlattn__function_find(CUfunction *out, CUcontext context, const kernel_request *request);

#endif
