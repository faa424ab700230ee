/* device.c: what a plan must know of a device, and the context a call runs in. */
#include "device.h"

#include <pthread.h>
#include <stdatomic.h>

#include "dlattn/dlattn.h"
#include "error.h"

enum { MAX_DEVICES = 64 };

typedef struct known_device {
    atomic_int known; /* the rest is written before it becomes 1 */
    cuda_device facts;
    CUdevice handle;
    CUcontext primary; /* retained for good at first use; NULL before */
} known_device;

static known_device devices[MAX_DEVICES];
static pthread_mutex_t devices_lock = PTHREAD_MUTEX_INITIALIZER;

static int32_t read_attribute(int32_t *out, CUdevice_attribute attribute, CUdevice device) {
    int value = 0;
    DLATTN_TRY(dlattn__cuda_check(dlattn__driver.cuDeviceGetAttribute(&value, attribute, device), "cuDeviceGetAttribute",
                                  "the device"));
    *out = value;
    return DLATTN_OK;
}

static int32_t read_device(known_device *d, int32_t id) {
    int count = 0;
    int32_t major, minor;
    DLATTN_TRY(dlattn__cuda_check(dlattn__driver.cuDeviceGetCount(&count), "cuDeviceGetCount", "the device"));
    if (id < 0 || id >= count)
        return dlattn__fail(DLATTN_ERR_DEVICE, "q is on CUDA device %d, expected 0 to %d, as this machine has %d", (int)id,
                            count - 1, count);
    DLATTN_TRY(dlattn__cuda_check(dlattn__driver.cuDeviceGet(&d->handle, id), "cuDeviceGet", "the device"));
    DLATTN_TRY(read_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, d->handle));
    DLATTN_TRY(read_attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, d->handle));
    DLATTN_TRY(read_attribute(&d->facts.multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, d->handle));
    DLATTN_TRY(read_attribute(&d->facts.smem_bytes, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, d->handle));
    d->facts.arch = 10 * major + minor;
    d->facts.tensor_maps = d->facts.arch == 90 && dlattn__driver.cuTensorMapEncodeTiled;
    if (d->facts.arch < DLATTN_OLDEST_ARCH)
        return dlattn__fail(DLATTN_ERR_DEVICE, "q's CUDA device %d has compute capability %d.%d, expected 7.5 or later",
                            (int)id, (int)major, (int)minor);
    return DLATTN_OK;
}

static int32_t known(known_device **out, int32_t id) {
    DLATTN_TRY(dlattn__driver_open());
    if (id < 0 || id >= MAX_DEVICES)
        return dlattn__fail(DLATTN_ERR_DEVICE, "q is on CUDA device %d, expected 0 to %d", (int)id, MAX_DEVICES - 1);
    known_device *d = *out = &devices[id];
    if (atomic_load_explicit(&d->known, memory_order_acquire)) return DLATTN_OK;
    pthread_mutex_lock(&devices_lock);
    int32_t status = d->known ? DLATTN_OK : read_device(d, id);
    if (status == DLATTN_OK) atomic_store_explicit(&d->known, 1, memory_order_release);
    pthread_mutex_unlock(&devices_lock);
    return status;
}

int32_t dlattn__cuda_device(cuda_device *out, int32_t id) {
    known_device *d = NULL;
    DLATTN_TRY(known(&d, id));
    *out = d->facts;
    return DLATTN_OK;
}

cuda_device dlattn__cuda_device_like(int32_t arch) {
    const int32_t kibibytes = arch == 75 ? 64 : arch == 80 ? 163 : arch == 90 || arch == 100 ? 227 : 99;
    return (cuda_device){.arch = arch, .multiprocessors = 256, .smem_bytes = kibibytes * 1024, .tensor_maps = arch == 90};
}

static int32_t primary_of(CUcontext *out, known_device *d) {
    pthread_mutex_lock(&devices_lock);
    int32_t status = DLATTN_OK;
    if (!d->primary)
        status = dlattn__cuda_check(dlattn__driver.cuDevicePrimaryCtxRetain(&d->primary, d->handle),
                                    "cuDevicePrimaryCtxRetain", "the device");
    *out = d->primary;
    pthread_mutex_unlock(&devices_lock);
    return status;
}

/* 0, 1 and 2 are the default streams: they belong to whatever context is current. */
static bool is_default_stream(const void *stream) { return (uintptr_t)stream <= 2; }

static int32_t push(cuda_scope *scope, CUcontext context) {
    DLATTN_TRY(dlattn__cuda_check(dlattn__driver.cuCtxPushCurrent(context), "cuCtxPushCurrent", "the stream's context"));
    scope->context = context;
    scope->pushed = true;
    return DLATTN_OK;
}

int32_t dlattn__cuda_enter(cuda_scope *scope, int32_t id, void *stream) {
    known_device *d = NULL;
    CUcontext current = NULL, wanted = NULL;
    CUdevice on;
    DLATTN_TRY(known(&d, id));
    *scope = (cuda_scope){.device = d->handle};
    DLATTN_TRY(dlattn__cuda_check(dlattn__driver.cuCtxGetCurrent(&current), "cuCtxGetCurrent", "the thread"));
    if (!is_default_stream(stream))
        DLATTN_TRY(dlattn__cuda_check(dlattn__driver.cuStreamGetCtx(stream, &wanted), "cuStreamGetCtx", "exec's stream"));
    if (wanted && wanted != current) DLATTN_TRY(push(scope, wanted));
    else scope->context = current;
    if (scope->context) {
        int32_t status = dlattn__cuda_check(dlattn__driver.cuCtxGetDevice(&on), "cuCtxGetDevice", "the context");
        if (status == DLATTN_OK && on == d->handle) return DLATTN_OK;
        if (status == DLATTN_OK && wanted)
            status = dlattn__fail(DLATTN_ERR_DEVICE, "stream belongs to CUDA device %d, expected q's device %d", (int)on,
                                  (int)id);
        if (status != DLATTN_OK) {
            dlattn__cuda_leave(scope);
            return status;
        }
    }
    DLATTN_TRY(primary_of(&wanted, d));
    return push(scope, wanted);
}

void dlattn__cuda_leave(const cuda_scope *scope) {
    CUcontext ignored;
    if (scope->pushed) dlattn__driver.cuCtxPopCurrent(&ignored);
}
