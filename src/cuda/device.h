/* device.h: what a plan must know of a device, and the context a call runs in. */
#ifndef DLATTN_CUDA_DEVICE_H
#define DLATTN_CUDA_DEVICE_H

#include <stdbool.h>

#include "driver.h"

enum { DLATTN_OLDEST_ARCH = 75, DLATTN_ANY_DEVICE = -1 };

/* Architectures that variants are written and compile-checked for. */
#define DLATTN_ARCHS {75, 80, 86, 89, 90, 100, 120}

typedef struct cuda_device {
    int32_t arch;            /* 90 for compute capability 9.0 */
    int32_t multiprocessors;
    int32_t smem_bytes;      /* that one block may have */
    bool tensor_maps;        /* has it the copy engine and wgmma of 9.0, and its driver tensor maps? */
} cuda_device;

/* Facts of device `id`, read once. Errors: no driver, no such device, a device older than DLATTN_OLDEST_ARCH. */
int32_t dlattn__cuda_device(cuda_device *out, int32_t id);

/* A device as its data sheet has it, with as many multiprocessors as any: for bounds without a driver. */
cuda_device dlattn__cuda_device_like(int32_t arch);

/* The context of a call, current between enter and leave. */
typedef struct cuda_scope {
    CUcontext context;
    CUdevice device;
    bool pushed;
} cuda_scope;

/* The context of `stream`; for the default streams the current one if it lies on device `id`, else the primary one. */
int32_t dlattn__cuda_enter(cuda_scope *scope, int32_t id, void *stream);
void dlattn__cuda_leave(const cuda_scope *scope);

#endif
