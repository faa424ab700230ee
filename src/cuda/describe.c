/* describe.c: the machine as the CUDA backend sees it, for dlattn_explain and `dlattn info`. */
#include "describe.h"

#include <string.h>

#include "device.h"
#include "disk_cache.h"
#include "dlattn/dlattn.h"
#include "embedded.h"
#include "error.h"
#include "explain.h"
#include "nvrtc_copies.h"
#include "options.h"
#include "variants.h"

static double mebibytes(uint64_t bytes) { return (double)bytes / (1 << 20); }

static void add_device(text *t, int32_t id) {
    char name[96] = "?";
    size_t bytes = 0;
    cuda_device facts;
    CUdevice device;
    if (dlattn__driver.cuDeviceGet(&device, id) == CUDA_SUCCESS) {
        dlattn__driver.cuDeviceGetName(name, sizeof name, device);
        dlattn__driver.cuDeviceTotalMem(&bytes, device);
    }
    const bool served = dlattn__cuda_device(&facts, id) == DLATTN_OK;
    dlattn__text_add(t, "device %d: %s, ", (int)id, name);
    if (served)
        dlattn__text_add(t, "compute capability %d.%d, %d multiprocessors, %.0f MiB\n", (int)facts.arch / 10, (int)facts.arch % 10,
                         (int)facts.multiprocessors, mebibytes(bytes));
    else
        dlattn__text_add(t, "%.0f MiB, not served: %s\n", mebibytes(bytes), dlattn__error_text());
}

/* What compiles for a device that is there, or else why a copy does not do. */
static void add_compilers(text *t) {
    nvrtc_copies *copies = dlattn__memory.allocate(sizeof *copies);
    if (!copies) return;
    dlattn__nvrtc_find(copies);
    if (copies->count == 0) dlattn__text_add(t, "nvrtc: none found\n");
    for (int32_t n = 0; n < copies->count; n++) {
        const nvrtc_copy *c = &copies->copy[n];
        if (c->major) dlattn__text_add(t, "nvrtc: %d.%d, %s%s\n", (int)c->major, (int)c->minor, c->path, c->named ? " (named)" : "");
        else dlattn__text_add(t, "nvrtc: not usable, %s: %s\n", c->path, c->reason);
    }
    dlattn__memory.release(copies);
}

static void add_kernels(text *t) {
    char folder[4096];
    int64_t files = 0, bytes = 0;
    const uint64_t carried = dlattn__archive_count(&dlattn__embedded);
    if (!dlattn__disk_folder(folder, sizeof folder)) {
        dlattn__text_add(t, "compiled kernels: kept nowhere, as there is neither HOME nor DLATTN_CACHE_DIR\n");
    } else {
        dlattn__disk_usage(&files, &bytes);
        dlattn__text_add(t, "compiled kernels: %lld files, %.1f MiB in %s\n", (long long)files, mebibytes((uint64_t)bytes), folder);
    }
    if (carried == 0)
        dlattn__text_add(t, "embedded kernels: none\n");
    else
        dlattn__text_add(t, "embedded kernels: %llu, %.1f MiB\n", (unsigned long long)carried,
                         mebibytes((uint64_t)(dlattn__embedded.end - dlattn__embedded.begin)));
}

/* What the option cuda_variant can force, in the order in which rows are asked. */
static void add_rows(text *t) {
    dlattn__text_add(t, "forward kernels (rows x keys x warps x stages, to head size):");
    const char *before = " ";
    for (int32_t n = 0; dlattn__variant_row(n); n++) {
        char name[DLATTN_VARIANT_NAME];
        const variant *v = dlattn__variant_row(n);
        if (v->kernel != DLATTN_KERNEL_FORWARD) continue;
        dlattn__variant_name(name, v);
        dlattn__text_add(t, "%s%s to %d", before, name, (int)v->head);
        before = ", ";
    }
    dlattn__text_add(t, "\n");
}

void dlattn__cuda_describe(char *out, int64_t out_bytes) {
    text t = {out, out_bytes};
    int count = 0;
    if (dlattn__driver_open() != DLATTN_OK || dlattn__driver.cuDeviceGetCount(&count) != CUDA_SUCCESS) {
        dlattn__text_add(&t, "devices: none (%s)\n", dlattn__error_text());
        add_kernels(&t);
        return;
    }
    const int32_t version = dlattn__driver_version();
    dlattn__text_add(&t, "driver: CUDA %d.%d\n", (int)version / 1000, (int)version % 1000 / 10);
    for (int32_t id = 0; id < count; id++) add_device(&t, id);
    add_compilers(&t);
    add_kernels(&t);
    add_rows(&t);
}
