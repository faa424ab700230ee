/* fake_cuda.h: a driver and copies of NVRTC that exist only in the test, behind dlattn__loader.
 *
 * fake_begin() starts each test: one GPU of capability 9.0, one NVRTC 13.0, no disk cache. An image is a text that names
 * the NVRTC, the file and the options that made it, so that tests see what was compiled. */
#ifndef DLATTN_TESTS_FAKE_CUDA_H
#define DLATTN_TESTS_FAKE_CUDA_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dlattn/dlattn.h"
#include "driver.h"
#include "loader.h"
#include "nvrtc_copies.h"

/* ---- what tests set and read ----------------------------------------------------------------------------------------- */

enum { FAKE_COPIES = 4, FAKE_IMAGE_BYTES = 512 };

typedef struct fake_nvrtc {
    const char *name; /* the file or soname that opens it; NULL: there is no such copy */
    int major, minor, archs[8], num_archs;
    bool loaded;         /* the process has it already */
    const char *missing; /* this function */
    nvrtcResult result;  /* of compiling */
    const char *log;
    atomic_int compiles;
} fake_nvrtc;

static fake_nvrtc fake_copies[FAKE_COPIES];

static struct {
    bool no_library;
    const char *missing; /* a driver call */
    int version, capability;
    CUresult init_result, load_result, function_result, smem_result, push_result;
    const char *refused; /* the driver refuses images that contain this, with load_result */
    int milliseconds;    /* that a compilation takes */
    atomic_int loads, forbidden_loads, inits, sets, pushes, pops; /* pushes: of contexts */
    int smem_bytes;      /* allowed to the last function */
    char image[FAKE_IMAGE_BYTES]; /* the last one that was loaded */
    unsigned long long epoch;     /* of context ids: each test has contexts of its own */
    atomic_ulong functions;       /* handles given out */
} fake;

static pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER; /* of image, while threads run */
static _Thread_local CUstreamCaptureMode fake_mode; /* GLOBAL: as if this thread were capturing */

/* ---- the driver ------------------------------------------------------------------------------------------------------- */

static CUresult fake_cuInit(unsigned int flags) {
    fake.inits += flags == 0;
    return fake.init_result;
}

static CUresult fake_cuDriverGetVersion(int *version) {
    *version = fake.version;
    return CUDA_SUCCESS;
}

static CUresult fake_cuGetErrorName(CUresult error, const char **text) {
    *text = error == CUDA_ERROR_INVALID_IMAGE ? "CUDA_ERROR_INVALID_IMAGE" : NULL;
    return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult fake_cuGetErrorString(CUresult error, const char **text) {
    *text = error == CUDA_ERROR_INVALID_IMAGE ? "device kernel image is invalid" : NULL;
    return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult fake_cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    (void)device;
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? fake.capability / 10 : fake.capability % 10;
    return CUDA_SUCCESS;
}

static CUresult fake_cuCtxGetId(CUcontext context, unsigned long long *id) {
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    *id = (unsigned long long)(uintptr_t)context + (fake.epoch << 32);
    return CUDA_SUCCESS;
}

static CUresult fake_cuCtxPushCurrent(CUcontext context) {
    if (!context || fake.push_result != CUDA_SUCCESS) return fake.push_result;
    atomic_fetch_add(&fake.pushes, 1);
    return CUDA_SUCCESS;
}

static CUresult fake_cuCtxPopCurrent(CUcontext *context) {
    *context = NULL;
    atomic_fetch_add(&fake.pops, 1);
    return CUDA_SUCCESS;
}

static CUresult fake_cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
    CUstreamCaptureMode before = fake_mode;
    fake_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

static CUresult fake_cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, CUjit_option *options,
                                        void **values) {
    if (fake_mode != CU_STREAM_CAPTURE_MODE_RELAXED) atomic_fetch_add(&fake.forbidden_loads, 1);
    atomic_fetch_add(&fake.loads, 1);
    if (fake.refused && strstr(image, fake.refused)) {
        for (unsigned int i = 0; i < count; i++)
            if (options[i] == CU_JIT_ERROR_LOG_BUFFER) strcpy(values[i], "ptxas fatal: not this one");
        return fake.load_result;
    }
    pthread_mutex_lock(&fake_lock);
    snprintf(fake.image, sizeof fake.image, "%s", (const char *)image);
    pthread_mutex_unlock(&fake_lock);
    *module = (CUmodule)&fake;
    return CUDA_SUCCESS;
}

static CUresult fake_cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    (void)module, (void)name;
    if (fake_mode != CU_STREAM_CAPTURE_MODE_RELAXED) atomic_fetch_add(&fake.forbidden_loads, 1);
    *function = (CUfunction)(uintptr_t)(atomic_fetch_add(&fake.functions, 1) + 1);
    return fake.function_result;
}

static CUresult fake_cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
    (void)function;
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES ? fake.smem_bytes : 0;
    return CUDA_SUCCESS;
}

static CUresult fake_cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    (void)function;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_INVALID_VALUE;
    atomic_fetch_add(&fake.sets, 1);
    if (fake.smem_result == CUDA_SUCCESS) fake.smem_bytes = value;
    return fake.smem_result;
}

/* Calls that no test of the host side makes. */
static CUresult fake_other(void) { return CUDA_ERROR_NOT_FOUND; }

#define FAKE_CALLS(X)                                                                                              \
    X(cuInit) X(cuDriverGetVersion) X(cuGetErrorName) X(cuGetErrorString) X(cuDeviceGetAttribute) X(cuCtxGetId)    \
    X(cuThreadExchangeStreamCaptureMode) X(cuModuleLoadDataEx) X(cuModuleGetFunction) X(cuFuncGetAttribute)        \
    X(cuFuncSetAttribute) X(cuCtxPushCurrent) X(cuCtxPopCurrent)

static CUresult fake_get_proc_address(const char *name, void **address, int version, unsigned long long flags,
                                      CUdriverProcAddressQueryResult *found) {
    (void)found;
    if (version != DLATTN_OLDEST_DRIVER || flags != CU_GET_PROC_ADDRESS_DEFAULT) return CUDA_ERROR_INVALID_VALUE;
    if (fake.missing && strcmp(name, fake.missing) == 0) return CUDA_ERROR_NOT_FOUND;
    *address = (void *)fake_other;
#define FAKE_FIND(call) if (strcmp(name, #call) == 0) *address = (void *)fake_##call;
    FAKE_CALLS(FAKE_FIND)
    return CUDA_SUCCESS;
}

/* ---- NVRTC; a program is the copy that made it and its source -------------------------------------------------------- */

struct _nvrtcProgram {
    fake_nvrtc *copy;
    char file[64], image[FAKE_IMAGE_BYTES];
};

#define FAKE_COPY(n)                                                                                               \
    static nvrtcResult fake_version_##n(int *major, int *minor) {                                                  \
        *major = fake_copies[n].major;                                                                             \
        *minor = fake_copies[n].minor;                                                                             \
        return NVRTC_SUCCESS;                                                                                      \
    }                                                                                                              \
    static nvrtcResult fake_num_archs_##n(int *count) {                                                            \
        *count = fake_copies[n].num_archs;                                                                         \
        return NVRTC_SUCCESS;                                                                                      \
    }                                                                                                              \
    static nvrtcResult fake_archs_##n(int *archs) {                                                                \
        memcpy(archs, fake_copies[n].archs, (size_t)fake_copies[n].num_archs * sizeof archs[0]);                   \
        return NVRTC_SUCCESS;                                                                                      \
    }                                                                                                              \
    static nvrtcResult fake_create_##n(nvrtcProgram *program, const char *source, const char *name, int num_headers, \
                                       const char *const *headers, const char *const *names) {                     \
        *program = calloc(1, sizeof **program);                                                                    \
        (*program)->copy = &fake_copies[n];                                                                        \
        snprintf((*program)->file, sizeof (*program)->file, "%s", name);                                           \
        return source && num_headers > 0 && headers && names ? NVRTC_SUCCESS : NVRTC_ERROR_OUT_OF_MEMORY;          \
    }
FAKE_COPY(0)
FAKE_COPY(1)
FAKE_COPY(2)
FAKE_COPY(3)

static const char *fake_nvrtcGetErrorString(nvrtcResult result) {
    return result == NVRTC_ERROR_COMPILATION ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR unknown";
}

static nvrtcResult fake_nvrtcDestroyProgram(nvrtcProgram *program) {
    free(*program);
    *program = NULL;
    return NVRTC_SUCCESS;
}

static nvrtcResult fake_nvrtcCompileProgram(nvrtcProgram program, int count, const char *const *options) {
    fake_nvrtc *copy = program->copy;
    struct timespec pause = {0, fake.milliseconds * 1000000L};
    nanosleep(&pause, NULL);
    atomic_fetch_add(&copy->compiles, 1);
    int at = snprintf(program->image, FAKE_IMAGE_BYTES, "%s by %d.%d", program->file, copy->major, copy->minor);
    for (int i = 0; i < count; i++)
        at += snprintf(program->image + at, (size_t)(FAKE_IMAGE_BYTES - at), " %s", options[i]);
    return copy->result;
}

static nvrtcResult fake_nvrtcGetProgramLogSize(nvrtcProgram program, size_t *bytes) {
    *bytes = program->copy->log ? strlen(program->copy->log) + 1 : 1;
    return NVRTC_SUCCESS;
}

static nvrtcResult fake_nvrtcGetProgramLog(nvrtcProgram program, char *log) {
    strcpy(log, program->copy->log ? program->copy->log : "");
    return NVRTC_SUCCESS;
}

static nvrtcResult fake_image_size(nvrtcProgram program, size_t *bytes) {
    *bytes = strlen(program->image) + 1;
    return NVRTC_SUCCESS;
}

static nvrtcResult fake_image(nvrtcProgram program, char *image) {
    strcpy(image, program->image);
    return NVRTC_SUCCESS;
}

#define FAKE_OWN(n) {(void *)fake_version_##n, (void *)fake_num_archs_##n, (void *)fake_archs_##n, (void *)fake_create_##n}
static void *const fake_own[FAKE_COPIES][4] = {FAKE_OWN(0), FAKE_OWN(1), FAKE_OWN(2), FAKE_OWN(3)};

static void *fake_nvrtc_symbol(fake_nvrtc *copy, const char *name) {
    static const char *const own[] = {"nvrtcVersion", "nvrtcGetNumSupportedArchs", "nvrtcGetSupportedArchs",
                                      "nvrtcCreateProgram"};
    static const struct {
        const char *name;
        void *function;
    } shared[] = {{"nvrtcGetErrorString", (void *)fake_nvrtcGetErrorString},
                  {"nvrtcDestroyProgram", (void *)fake_nvrtcDestroyProgram},
                  {"nvrtcCompileProgram", (void *)fake_nvrtcCompileProgram},
                  {"nvrtcGetProgramLogSize", (void *)fake_nvrtcGetProgramLogSize},
                  {"nvrtcGetProgramLog", (void *)fake_nvrtcGetProgramLog},
                  {"nvrtcGetCUBINSize", (void *)fake_image_size},
                  {"nvrtcGetCUBIN", (void *)fake_image},
                  {"nvrtcGetPTXSize", (void *)fake_image_size},
                  {"nvrtcGetPTX", (void *)fake_image}};
    if (copy->missing && strcmp(name, copy->missing) == 0) return NULL;
    for (int i = 0; i < 4; i++)
        if (strcmp(name, own[i]) == 0) return fake_own[copy - fake_copies][i];
    for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++)
        if (strcmp(name, shared[i].name) == 0) return shared[i].function;
    return NULL;
}

/* ---- the loader ------------------------------------------------------------------------------------------------------- */

static void *fake_open(const char *name, bool loaded_only) {
    if (strcmp(name, "libcuda.so.1") == 0) return fake.no_library ? NULL : &fake;
    for (fake_nvrtc *c = fake_copies; c < fake_copies + FAKE_COPIES; c++)
        if (c->name && strcmp(c->name, name) == 0 && (!loaded_only || c->loaded)) return c;
    return NULL;
}

static void *fake_symbol(void *library, const char *name) {
    if (library != &fake) return fake_nvrtc_symbol(library, name);
    if (fake.missing && strcmp(name, fake.missing) == 0) return NULL;
    if (strcmp(name, "cuDriverGetVersion") == 0) return (void *)fake_cuDriverGetVersion;
    return strcmp(name, "cuGetProcAddress_v2") == 0 ? (void *)fake_get_proc_address : NULL;
}

static const char *fake_error(void) { return "no such file"; }

static const char *fake_path(void *symbol) {
    for (int n = 0; n < FAKE_COPIES; n++)
        if (fake_own[n][0] == symbol) return fake_copies[n].name;
    return "";
}

/* Copy n of NVRTC, with the architectures that its version knows. */
static inline void fake_copy(int n, const char *name, int major, int minor) {
    static const int archs_13[] = {75, 80, 86, 89, 90, 100, 120}, archs_12[] = {50, 75, 80, 86, 89, 90};
    fake_nvrtc *c = &fake_copies[n];
    memset(c, 0, sizeof *c);
    c->name = name;
    c->major = major;
    c->minor = minor;
    c->num_archs = major >= 13 ? 7 : 6;
    memcpy(c->archs, major >= 13 ? archs_13 : archs_12, (size_t)c->num_archs * sizeof c->archs[0]);
}

static inline void fake_begin(void) {
    static const char *const variables[] = {"DLATTN_NVRTC", "DLATTN_CACHE_DIR", "CUDA_HOME", "CUDA_PATH"};
    for (int i = 0; i < 4; i++) unsetenv(variables[i]);
    unsigned long long epoch = fake.epoch + 1;
    memset(&fake, 0, sizeof fake);
    memset(fake_copies, 0, sizeof fake_copies);
    fake.epoch = epoch;
    fake.version = 13000;
    fake.capability = 90;
    fake.load_result = CUDA_ERROR_INVALID_IMAGE;
    fake_copy(0, "libnvrtc.so.13", 13, 0);
    fake_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    dlattn__loader = (dlattn__loader_table){fake_open, fake_symbol, fake_error, fake_path};
    dlattn_set_option("nvrtc", NULL);
    dlattn_set_option("cache_dir", "/dev/null/none"); /* a folder that cannot be */
    dlattn__driver_forget();
}

#endif
