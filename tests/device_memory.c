/* device_memory.c: the choice of a device, and copies of guarded memory there. */
#include "device_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

device_state device_now;

int32_t device_kind(void) { return device_now.options.kind; }
const char *device_message(void) { return device_now.message; }
int device_lost(void) { return device_now.lost; }
void device_capture(int on) { device_now.capture = on && device_now.driver; }

DLDevice device_id(void) {
    static const DLDeviceType types[] = {kDLCPU, kDLCUDAHost, kDLCUDA};
    return (DLDevice){types[device_now.options.kind], device_now.driver ? device_now.options.ordinal : 0};
}

int device_error(int error, const char *what) {
    const char *text = "unknown error";
    if (!error) return 0;
    device_now.driver->cuGetErrorString(error, &text);
    if (!device_now.lost) snprintf(device_now.message, sizeof device_now.message, "%s: CUDA error %d, %s", what, error, text);
    device_now.lost = 1;
    return 1;
}

/* ---- the choice ---------------------------------------------------------------------------------------------------- */

static size_t fence(void) { return device_now.options.tight ? 0 : GUARDED_FENCE; }

static void release(guarded_block *block) {
    uint64_t base = block->mirror - fence();
    block->mirror = 0;
    if (device_now.driver) device_error(device_now.driver->cuMemFree_v2(base), "cuMemFree");
    else free((void *)(uintptr_t)base);
}

int device_select(const device_options *options, char *why, size_t bytes) {
    void *context = NULL;
    int device = 0;
    device_now = (device_state){.options = *options};
    guarded_release_mirror = release;
    if (options->kind != DEVICE_CUDA) return 0;
    const device_driver *driver = device_driver_open(why, bytes);
    if (!driver) return 1;
    device_now.driver = driver;
    if (device_error(driver->cuDeviceGet(&device, options->ordinal), "cuDeviceGet") ||
        device_error(driver->cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain") ||
        device_error(driver->cuCtxSetCurrent(context), "cuCtxSetCurrent") ||
        device_error(driver->cuStreamCreate(&device_now.stream, DEVICE_STREAM_NON_BLOCKING), "cuStreamCreate"))
        return snprintf(why, bytes, "%s", device_now.message), 1;
    device_capture(1); /* until a check turns it off: so a process loads its first kernels while a stream is captured */
    return 0;
}

/* ---- copies -------------------------------------------------------------------------------------------------------- */

/* The copy starts at the same remainder of 128 as the original, so that alignment is what the case wants it to be. */
static void make_room(guarded_block *block) {
    size_t bytes = block->bytes + 2 * fence();
    if (device_now.driver) {
        uint64_t base = 0;
        if (device_error(device_now.driver->cuMemAlloc_v2(&base, bytes ? bytes : 1), "cuMemAlloc")) return;
        block->mirror = base + fence();
    } else {
        void *base = aligned_alloc(64, (bytes + 63) / 64 * 64);
        if (!base) abort();
        block->mirror = (uint64_t)(uintptr_t)base + fence();
    }
}

void *device_address(const void *host) {
    guarded_block *block = guarded_find(host);
    if (!block) abort(); /* a tensor of a check that is not in guarded memory */
    if (!block->mirror) make_room(block);
    return (void *)((uintptr_t)block->mirror + ((uintptr_t)host - (uintptr_t)block->memory));
}

int device_upload(const guarded_block *block) {
    const unsigned char *from = block->memory - fence();
    uint64_t to = block->mirror - fence();
    size_t bytes = block->bytes + 2 * fence();
    if (!block->mirror) return 1;
    if (device_now.driver)
        return device_error(device_now.driver->cuMemcpyHtoDAsync_v2(to, from, bytes, device_now.stream), "copy to the device");
    memcpy((void *)(uintptr_t)to, from, bytes);
    return 0;
}

int device_download(const guarded_block *block) {
    unsigned char *to = block->memory - fence();
    uint64_t from = block->mirror - fence();
    size_t bytes = block->bytes + 2 * fence();
    if (!block->mirror) return 1;
    if (device_now.driver)
        return device_error(device_now.driver->cuMemcpyDtoHAsync_v2(to, from, bytes, device_now.stream), "copy from the device");
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return 0;
}

int device_fill(const guarded_block *block, unsigned char value) {
    size_t bytes = block->bytes + 2 * fence();
    if (!block->mirror) return 1;
    return device_error(device_now.driver->cuMemsetD8Async(block->mirror - fence(), value, bytes, device_now.stream), "cuMemsetD8");
}

int device_wait(void) {
    return device_now.driver ? device_error(device_now.driver->cuStreamSynchronize(device_now.stream), "waiting for the stream") : 0;
}
