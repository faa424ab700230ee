/* module.c: disk cache, NVRTC and driver in turn, until a module is loaded. */
#include "module.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "compile.h"
#include "dlattn/dlattn.h"
#include "disk_cache.h"
#include "embedded.h"
#include "error.h"
#include "options.h"

/* ---- loading an image ------------------------------------------------------------------------------------------------ */

/* Errors that speak of the image: another compiler's may do. Any other is the context's. */
static bool blames_image(CUresult result) {
    static const CUresult errors[] = {
        CUDA_ERROR_INVALID_IMAGE,          CUDA_ERROR_NO_BINARY_FOR_GPU,       CUDA_ERROR_INVALID_PTX,
        CUDA_ERROR_UNSUPPORTED_PTX_VERSION, CUDA_ERROR_JIT_COMPILER_NOT_FOUND, CUDA_ERROR_JIT_COMPILATION_DISABLED,
        CUDA_ERROR_INVALID_SOURCE};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (result == errors[i]) return true;
    return false;
}

/* *bad_image: it failed, and another image may not. */
static int32_t load_image(CUmodule *out, bool *bad_image, const kernel_image *image, const kernel_request *r) {
    char words[256] = "";
    CUjit_option options[2] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[2] = {words, (void *)(uintptr_t)(sizeof words - 1)};
    CUresult result = dlattn__driver.cuModuleLoadDataEx(out, image->bytes, 2, options, values);
    *bad_image = result != CUDA_SUCCESS && blames_image(result);
    if (words[0]) dlattn__log("the driver on %s: %s", r->file, words);
    return dlattn__cuda_check(result, "cuModuleLoadDataEx", r->file);
}

/* ---- one copy of NVRTC ----------------------------------------------------------------------------------------------- */

static double milliseconds_since(const struct timespec *start) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) * 1e3 + (double)(now.tv_nsec - start->tv_nsec) * 1e-6;
}

static void log_compiled(const nvrtc_choice *choice, const kernel_request *r, const char *why, double ms,
                         const char *log) {
    char name[400];
    kernel_usage usage;
    dlattn__request_text(name, sizeof name, r);
    dlattn__log("compiled %s for %s with NVRTC %d.%d (%s) in %.0f ms, since %s", name, choice->arch,
                (int)choice->copy->major, (int)choice->copy->minor, choice->copy->path, ms, why);
    if (dlattn__log_usage(&usage, log, r->entry))
        dlattn__log("%s: %d registers, %d bytes of stack, spilled %d bytes out and %d in", r->entry,
                    (int)usage.registers, (int)usage.stack_bytes, (int)usage.spill_store_bytes,
                    (int)usage.spill_load_bytes);
}

enum { LOG_BYTES = 16384 };

static int32_t compile_and_load(CUmodule *out, bool *try_next, const nvrtc_choice *choice, const kernel_request *r,
                                const uint8_t *key, const char *why) {
    kernel_image image;
    struct timespec start;
    char *log = dlattn__memory.allocate(LOG_BYTES);
    if (!log) return dlattn__fail(DLATTN_ERR_OUT_OF_MEMORY, "no host memory to compile %s", r->file);
    clock_gettime(CLOCK_MONOTONIC, &start);
    int32_t status = dlattn__compile(&image, choice, r, log, LOG_BYTES);
    *try_next = status == DLATTN_ERR_COMPILE;
    if (status == DLATTN_OK) {
        log_compiled(choice, r, why, milliseconds_since(&start), log);
        status = load_image(out, try_next, &image, r);
        if (status == DLATTN_OK) dlattn__disk_put(key, &image);
        dlattn__image_release(&image);
    }
    dlattn__memory.release(log);
    return status;
}

/* *try_next: it failed, and another copy may not. */
static int32_t load_by(CUmodule *out, bool *try_next, const nvrtc_choice *choice, const kernel_request *r) {
    uint8_t key[SHA256_BYTES];
    kernel_image image;
    char why[160];
    *try_next = false;
    dlattn__compile_key(key, choice, r);
    if (dlattn__disk_get(&image, why, sizeof why, key)) {
        bool bad_image;
        int32_t status = load_image(out, &bad_image, &image, r);
        dlattn__image_release(&image);
        if (status == DLATTN_OK) dlattn__log("%s for %s: from the disk cache", r->file, choice->arch);
        if (!bad_image) return status;
        snprintf(why, sizeof why, "the driver refuses what the disk cache had");
    }
    return compile_and_load(out, try_next, choice, r, key, why);
}

/* ---- all copies ------------------------------------------------------------------------------------------------------ */

/* What went wrong so far, as a text that grows. */
typedef struct complaint {
    int64_t at;
    char text[2048];
} complaint;

__attribute__((format(printf, 2, 3))) static void complain(complaint *c, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int64_t room = (int64_t)sizeof c->text - c->at, more = vsnprintf(c->text + c->at, (size_t)room, format, arguments);
    va_end(arguments);
    c->at += more < room ? more : room - 1;
}

static bool is_chosen(const nvrtc_copy *copy, const nvrtc_choice *choices, int32_t count) {
    for (int32_t i = 0; i < count; i++)
        if (choices[i].copy == copy) return true;
    return false;
}

/* The copies that could not even be tried. */
static void complain_of_rest(complaint *c, const nvrtc_copies *copies, const nvrtc_choice *choices, int32_t count) {
    for (int32_t i = 0; i < copies->count; i++) {
        const nvrtc_copy *copy = &copies->copy[i];
        if (is_chosen(copy, choices, count)) continue;
        if (copy->major)
            complain(c, "; %s (%d.%d) knows no architecture of this device", copy->path, (int)copy->major,
                     (int)copy->minor);
        else
            complain(c, "; %s %s", copy->path, copy->reason);
    }
}

static int32_t device_capability(int32_t *out, CUdevice device) {
    int major = 0, minor = 0;
    DLATTN_TRY(dlattn__cuda_check(
        dlattn__driver.cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device),
        "cuDeviceGetAttribute", NULL));
    DLATTN_TRY(dlattn__cuda_check(
        dlattn__driver.cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device),
        "cuDeviceGetAttribute", NULL));
    *out = major * 10 + minor;
    return DLATTN_OK;
}

/* *loaded: the library itself carries the kernel. A failure is one that no compiler mends. */
static int32_t load_embedded(CUmodule *out, bool *loaded, int32_t capability, const kernel_request *r) {
    kernel_image image;
    char arch[24];
    bool bad_image;
    *loaded = false;
    if (!dlattn__embedded_get(&image, arch, capability, r)) return DLATTN_OK;
    int32_t status = load_image(out, &bad_image, &image, r);
    if (bad_image) return DLATTN_OK;
    *loaded = status == DLATTN_OK;
    if (*loaded) dlattn__log("%s for %s: carried by the library", r->file, arch);
    return status;
}

int32_t dlattn__module_load(CUmodule *out, CUdevice device, const kernel_request *r) {
    nvrtc_copies copies;
    nvrtc_choice choices[DLATTN_MAX_NVRTCS];
    complaint c = {0, ""};
    int32_t capability = 0, status = DLATTN_ERR_COMPILE;
    bool loaded;
    DLATTN_TRY(device_capability(&capability, device));
    DLATTN_TRY(load_embedded(out, &loaded, capability, r));
    if (loaded) return DLATTN_OK;
    dlattn__nvrtc_find(&copies);
    int32_t count = dlattn__nvrtc_choose(choices, &copies, capability, dlattn__driver_version());
    if (count == 0)
        complain(&c, "%s needs NVRTC %d.0 or later (install PyPI's nvidia-cuda-nvrtc or the CUDA toolkit, or name the "
                 "file in DLATTN_NVRTC)", r->file, DLATTN_OLDEST_NVRTC);
    for (int32_t i = 0; i < count; i++) {
        bool try_next = false;
        status = load_by(out, &try_next, &choices[i], r);
        if (!try_next) return status; /* loaded, or a failure that no other compiler mends */
        complain(&c, "%s%s (%d.%d): %s", i ? "; " : "", choices[i].copy->path, (int)choices[i].copy->major,
                 (int)choices[i].copy->minor, dlattn__error_text());
        dlattn__log("%s", dlattn__error_text());
    }
    complain_of_rest(&c, &copies, choices, count);
    return dlattn__fail(DLATTN_ERR_COMPILE, "%s", c.text);
}
