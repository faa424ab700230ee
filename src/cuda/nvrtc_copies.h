/* nvrtc_copies.h: our own declarations of NVRTC, and which of the copies on this machine compiles for a device. */
#ifndef DLATTN_CUDA_NVRTC_COPIES_H
#define DLATTN_CUDA_NVRTC_COPIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct _nvrtcProgram *nvrtcProgram; /* with nvrtc.h's tag */
typedef unsigned int nvrtcResult;

#define DLATTN_NVRTC_CONSTANTS(X) \
    X(NVRTC_SUCCESS, 0)           \
    X(NVRTC_ERROR_OUT_OF_MEMORY, 1) \
    X(NVRTC_ERROR_COMPILATION, 6) \
    X(NVRTC_ERROR_BUILTIN_OPERATION_FAILURE, 7)

#ifndef DLATTN_NVRTC_CONSTANT /* the comparison with nvrtc.h gives them names of its own */
#define DLATTN_NVRTC_CONSTANT(name, value) name = value,
#endif
enum { DLATTN_NVRTC_CONSTANTS(DLATTN_NVRTC_CONSTANT) };

/* Result, name, parameters. */
#define DLATTN_NVRTC_CALLS(X)                                                                                 \
    X(nvrtcResult, nvrtcVersion, (int *major, int *minor))                                                    \
    X(nvrtcResult, nvrtcGetNumSupportedArchs, (int *count))                                                   \
    X(nvrtcResult, nvrtcGetSupportedArchs, (int *archs))                                                      \
    X(const char *, nvrtcGetErrorString, (nvrtcResult result))                                                \
    X(nvrtcResult, nvrtcCreateProgram, (nvrtcProgram *program, const char *source, const char *name,          \
                                        int num_headers, const char *const *headers, const char *const *names)) \
    X(nvrtcResult, nvrtcDestroyProgram, (nvrtcProgram *program))                                              \
    X(nvrtcResult, nvrtcCompileProgram, (nvrtcProgram program, int num_options, const char *const *options))  \
    X(nvrtcResult, nvrtcGetProgramLogSize, (nvrtcProgram program, size_t *bytes))                             \
    X(nvrtcResult, nvrtcGetProgramLog, (nvrtcProgram program, char *log))                                     \
    X(nvrtcResult, nvrtcGetCUBINSize, (nvrtcProgram program, size_t *bytes))                                  \
    X(nvrtcResult, nvrtcGetCUBIN, (nvrtcProgram program, char *cubin))                                        \
    X(nvrtcResult, nvrtcGetPTXSize, (nvrtcProgram program, size_t *bytes))                                    \
    X(nvrtcResult, nvrtcGetPTX, (nvrtcProgram program, char *ptx))

#define DLATTN_NVRTC_MEMBER(result, name, parameters) result(*name) parameters;
typedef struct nvrtc_table {
    DLATTN_NVRTC_CALLS(DLATTN_NVRTC_MEMBER)
} nvrtc_table;
#undef DLATTN_NVRTC_MEMBER

enum { DLATTN_MAX_NVRTCS = 16, DLATTN_MAX_ARCHS = 64, DLATTN_OLDEST_NVRTC = 12 };

/* One copy of NVRTC, usable or not. */
typedef struct nvrtc_copy {
    nvrtc_table call;
    void *library;
    bool named;           /* by the option or by DLATTN_NVRTC, not found by ourselves */
    int32_t major, minor; /* 0: not usable, for `reason` */
    int32_t count;        /* of archs */
    int archs[DLATTN_MAX_ARCHS];
    char path[256], reason[160];
} nvrtc_copy;

typedef struct nvrtc_copies {
    int32_t count;
    nvrtc_copy copy[DLATTN_MAX_NVRTCS];
} nvrtc_copies;

/* Every copy there is, in this order: option "nvrtc", DLATTN_NVRTC, already loaded, the loader's path, CUDA_HOME and
 * CUDA_PATH, /usr/local/cuda. They stay loaded. Safe from any thread. */
void dlattn__nvrtc_find(nvrtc_copies *out);

/* A copy and what it is asked to make. */
typedef struct nvrtc_choice {
    const nvrtc_copy *copy;
    bool cubin;    /* machine code for the very device; else PTX, which the driver compiles */
    char arch[24]; /* "sm_90a", "compute_80" */
} nvrtc_choice;

/* "sm_86" or, without cubin, "compute_86". */
void dlattn__arch_name(char out[24], int32_t capability, bool cubin);

/* The copies that may serve a device of compute capability `capability` (86 for 8.6) under a driver of CUDA version
 * `driver` (12040 for 12.4), the best first: those that list the device and are not of a later major version than the
 * driver; those that must go through PTX; those of a later major version. Among equals one that was named comes
 * first, then the newest. Returns how many. */
int32_t dlattn__nvrtc_choose(nvrtc_choice out[DLATTN_MAX_NVRTCS], const nvrtc_copies *, int32_t capability,
                             int32_t driver);

#endif
