/* device_driver.h: the few calls of the CUDA driver that the harness needs, from a libcuda opened at run time.
 *
 * The declarations are our own, so that the harness builds where no CUDA is. Handles are opaque pointers, device
 * addresses 64-bit numbers, results 0 or an error code. */
#ifndef DLATTN_TESTS_DEVICE_DRIVER_H
#define DLATTN_TESTS_DEVICE_DRIVER_H

#include <stddef.h>
#include <stdint.h>

enum { DEVICE_STREAM_NON_BLOCKING = 1, DEVICE_EVENT_DEFAULT = 0, DEVICE_CAPTURE_GLOBAL = 0 };
enum { DEVICE_ATTRIBUTE_MULTIPROCESSORS = 16, DEVICE_ATTRIBUTE_MAJOR = 75, DEVICE_ATTRIBUTE_MINOR = 76 };

/* name in libcuda, parameters */
#define DEVICE_DRIVER_CALLS(X)                                                             \
    X(cuInit, (unsigned flags))                                                            \
    X(cuGetErrorString, (int error, const char **text))                                    \
    X(cuDeviceGetCount, (int *count))                                                      \
    X(cuDeviceGet, (int *device, int ordinal))                                             \
    X(cuDeviceGetName, (char *name, int bytes, int device))                                \
    X(cuDeviceGetAttribute, (int *value, int attribute, int device))                       \
    X(cuDevicePrimaryCtxRetain, (void **context, int device))                              \
    X(cuCtxSetCurrent, (void *context))                                                    \
    X(cuMemAlloc_v2, (uint64_t *address, size_t bytes))                                    \
    X(cuMemFree_v2, (uint64_t address))                                                    \
    X(cuMemcpyHtoDAsync_v2, (uint64_t to, const void *from, size_t bytes, void *stream))   \
    X(cuMemcpyDtoHAsync_v2, (void *to, uint64_t from, size_t bytes, void *stream))         \
    X(cuMemcpyDtoDAsync_v2, (uint64_t to, uint64_t from, size_t bytes, void *stream))      \
    X(cuMemsetD8Async, (uint64_t to, unsigned char value, size_t bytes, void *stream))     \
    X(cuStreamCreate, (void **stream, unsigned flags))                                     \
    X(cuStreamSynchronize, (void *stream))                                                 \
    X(cuStreamBeginCapture_v2, (void *stream, int mode))                                   \
    X(cuStreamEndCapture, (void *stream, void **graph))                                    \
    X(cuGraphInstantiateWithFlags, (void **exec, void *graph, unsigned long long flags))   \
    X(cuGraphLaunch, (void *exec, void *stream))                                           \
    X(cuGraphExecDestroy, (void *exec))                                                    \
    X(cuGraphDestroy, (void *graph))                                                       \
    X(cuEventCreate, (void **event, unsigned flags))                                       \
    X(cuEventRecord, (void *event, void *stream))                                          \
    X(cuEventSynchronize, (void *event))                                                   \
    X(cuEventElapsedTime, (float *milliseconds, void *begin, void *end))                   \
    X(cuEventDestroy_v2, (void *event))

typedef struct device_driver {
#define X(name, parameters) int(*name) parameters;
    DEVICE_DRIVER_CALLS(X)
#undef X
} device_driver;

/* The table, or NULL with a sentence in `why`: no library, a call missing, no device. Opens it once. */
const device_driver *device_driver_open(char *why, size_t bytes);

#endif
