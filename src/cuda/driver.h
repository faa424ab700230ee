/* driver.h: our own declarations of the CUDA driver calls we need, and the table they are called through.
 *
 * Nothing here needs CUDA's headers; tests/cuda/declarations.c compares every line with cuda.h where there is one.
 * The library opens libcuda.so.1 at first use; tests fill the table themselves. */
#ifndef DLATTN_CUDA_DRIVER_H
#define DLATTN_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

/* ---- types, with cuda.h's names and tags ---------------------------------------------------------------------------- */

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef unsigned int CUresult; /* the enumerations of cuda.h have no negative values, so they are unsigned int */
typedef unsigned int CUdevice_attribute, CUfunction_attribute, CUpointer_attribute;
typedef unsigned int CUstreamCaptureMode, CUstreamCaptureStatus, CUlaunchAttributeID, CUjit_option;
typedef unsigned int CUdriverProcAddressQueryResult;
typedef unsigned int CUtensorMapDataType, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion;
typedef unsigned int CUtensorMapFloatOOBfill;
typedef struct CUtensorMap_st CUtensorMap; /* tensor_map of kernels/shared/tensor_maps.h */
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;

typedef union CUlaunchAttributeValue {
    char pad[64];
    void *aligned; /* as the pointers among cuda.h's other members */
    struct {
        unsigned int x, y, z;
    } clusterDim;
    int programmaticStreamSerializationAllowed;
} CUlaunchAttributeValue;

typedef struct CUlaunchAttribute {
    CUlaunchAttributeID id;
    char pad[8 - sizeof(CUlaunchAttributeID)];
    CUlaunchAttributeValue value;
} CUlaunchAttribute;

typedef struct CUlaunchConfig {
    unsigned int gridDimX, gridDimY, gridDimZ;
    unsigned int blockDimX, blockDimY, blockDimZ;
    unsigned int sharedMemBytes;
    CUstream hStream;
    CUlaunchAttribute *attrs; /* NULL when numAttrs is 0 */
    unsigned int numAttrs;
} CUlaunchConfig;

/* ---- constants ------------------------------------------------------------------------------------------------------ */

#define DLATTN_DRIVER_CONSTANTS(X)                                     \
    X(CUDA_SUCCESS, 0)                                                 \
    X(CUDA_ERROR_INVALID_VALUE, 1)                                     \
    X(CUDA_ERROR_OUT_OF_MEMORY, 2)                                     \
    X(CUDA_ERROR_NO_DEVICE, 100)                                       \
    X(CUDA_ERROR_INVALID_IMAGE, 200)                                   \
    X(CUDA_ERROR_INVALID_CONTEXT, 201)                                 \
    X(CUDA_ERROR_NO_BINARY_FOR_GPU, 209)                               \
    X(CUDA_ERROR_INVALID_PTX, 218)                                     \
    X(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, 221)                          \
    X(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 222)                         \
    X(CUDA_ERROR_JIT_COMPILATION_DISABLED, 223)                        \
    X(CUDA_ERROR_INVALID_SOURCE, 300)                                  \
    X(CUDA_ERROR_NOT_FOUND, 500)                                       \
    X(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16)                    \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75)                \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76)                \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 97)       \
    X(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, 3)                           \
    X(CU_FUNC_ATTRIBUTE_NUM_REGS, 4)                                   \
    X(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 8)              \
    X(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, 2)                             \
    X(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, 9)                          \
    X(CU_MEMORYTYPE_HOST, 1)                                           \
    X(CU_MEMORYTYPE_DEVICE, 2)                                         \
    X(CU_MEMORYTYPE_UNIFIED, 4)                                        \
    X(CU_STREAM_CAPTURE_MODE_GLOBAL, 0)                                \
    X(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, 1)                          \
    X(CU_STREAM_CAPTURE_MODE_RELAXED, 2)                               \
    X(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, 4)                        \
    X(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, 6)        \
    X(CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 6)                              \
    X(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 9)                             \
    X(CU_TENSOR_MAP_INTERLEAVE_NONE, 0)                                \
    X(CU_TENSOR_MAP_SWIZZLE_128B, 3)                                   \
    X(CU_TENSOR_MAP_L2_PROMOTION_L2_256B, 3)                           \
    X(CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE, 0)                            \
    X(CU_JIT_ERROR_LOG_BUFFER, 5)                                      \
    X(CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, 6)                           \
    X(CU_GET_PROC_ADDRESS_DEFAULT, 0)

#ifndef DLATTN_DRIVER_CONSTANT /* the comparison with cuda.h gives them names of its own */
#define DLATTN_DRIVER_CONSTANT(name, value) name = value,
#endif
enum { DLATTN_DRIVER_CONSTANTS(DLATTN_DRIVER_CONSTANT) };

/* The oldest driver served, in cuda.h's numbers. Every call is asked for in the form it had then. */
enum { DLATTN_OLDEST_DRIVER = 12000 };

/* ---- calls: name, parameters; all return CUresult ------------------------------------------------------------------ */

#define DLATTN_DRIVER_CALLS(X)                                                                                  \
    X(cuInit, (unsigned int flags))                                                                             \
    X(cuDriverGetVersion, (int *version))                                                                       \
    X(cuGetErrorName, (CUresult error, const char **text))                                                      \
    X(cuGetErrorString, (CUresult error, const char **text))                                                    \
    X(cuDeviceGetCount, (int *count))                                                                           \
    X(cuDeviceGet, (CUdevice *device, int ordinal))                                                             \
    X(cuDeviceGetName, (char *name, int bytes, CUdevice device))                                                \
    X(cuDeviceTotalMem, (size_t *bytes, CUdevice device))                                                       \
    X(cuDeviceGetAttribute, (int *value, CUdevice_attribute attribute, CUdevice device))                        \
    X(cuDevicePrimaryCtxRetain, (CUcontext *context, CUdevice device))                                          \
    X(cuCtxGetCurrent, (CUcontext *context))                                                                    \
    X(cuCtxPushCurrent, (CUcontext context))                                                                    \
    X(cuCtxPopCurrent, (CUcontext *context))                                                                    \
    X(cuCtxGetDevice, (CUdevice *device))                                                                       \
    X(cuCtxGetId, (CUcontext context, unsigned long long *id))                                                  \
    X(cuStreamGetCtx, (CUstream stream, CUcontext *context))                                                    \
    X(cuThreadExchangeStreamCaptureMode, (CUstreamCaptureMode *mode))                                           \
    X(cuModuleLoadDataEx, (CUmodule *module, const void *image, unsigned int count, CUjit_option *options,      \
                           void **values))                                                                      \
    X(cuModuleGetFunction, (CUfunction *function, CUmodule module, const char *name))                           \
    X(cuFuncGetAttribute, (int *value, CUfunction_attribute attribute, CUfunction function))                    \
    X(cuFuncSetAttribute, (CUfunction function, CUfunction_attribute attribute, int value))                     \
    X(cuLaunchKernel, (CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,      \
                       unsigned int block_x, unsigned int block_y, unsigned int block_z,                        \
                       unsigned int smem_bytes, CUstream stream, void **parameters, void **extra))              \
    X(cuLaunchKernelEx, (const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra))   \
    X(cuMemsetD32Async, (CUdeviceptr address, unsigned int value, size_t count, CUstream stream))               \
    X(cuPointerGetAttributes, (unsigned int count, CUpointer_attribute *attributes, void **values,              \
                               CUdeviceptr address))

/* Those that only some kernels need: NULL where the driver has them not. */
#define DLATTN_DRIVER_OPTIONAL_CALLS(X)                                                                             \
    X(cuTensorMapEncodeTiled, (CUtensorMap *map, CUtensorMapDataType type, uint32_t rank, void *address,            \
                               const uint64_t *extents, const uint64_t *strides, const uint32_t *box,               \
                               const uint32_t *element_strides, CUtensorMapInterleave interleave,                   \
                               CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,                        \
                               CUtensorMapFloatOOBfill fill))

#define DLATTN_DRIVER_MEMBER(name, parameters) CUresult(*name) parameters;
typedef struct dlattn__driver_table {
    DLATTN_DRIVER_CALLS(DLATTN_DRIVER_MEMBER)
    DLATTN_DRIVER_OPTIONAL_CALLS(DLATTN_DRIVER_MEMBER)
} dlattn__driver_table;
#undef DLATTN_DRIVER_MEMBER

/* Filled by dlattn__driver_open; every use is `dlattn__driver.cuX(...)`. */
extern dlattn__driver_table dlattn__driver;

/* Opens the driver at the first call (the only slow one) and fills the table. When that fails, each later call fails
 * with the same sentence. Safe from any thread.
 * Errors: DLATTN_ERR_DEVICE (no driver, no GPU), DLATTN_ERR_UNSUPPORTED (too old a driver), DLATTN_ERR_CUDA. */
int32_t dlattn__driver_open(void);

/* The driver's CUDA version, 12040 for 12.4; 0 before it is open. */
int32_t dlattn__driver_version(void);

/* For tests: the next dlattn__driver_open begins anew. */
void dlattn__driver_forget(void);

/* DLATTN_OK for CUDA_SUCCESS; else DLATTN_ERR_CUDA with a sentence like
 * "cuLaunchKernel of forward_sm80: CUDA_ERROR_INVALID_VALUE (invalid argument)". object: a kernel's name, or NULL. */
int32_t dlattn__cuda_check(CUresult result, const char *call, const char *object);

#endif
