/* driver.c: opens libcuda.so.1 and fills the table of driver calls. */
#include "driver.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "dlattn/dlattn.h"
#include "error.h"
#include "loader.h"
#include "options.h"

dlattn__driver_table dlattn__driver;

typedef CUresult (*get_proc_address)(const char *name, void **address, int version, unsigned long long flags,
                                     CUdriverProcAddressQueryResult *found);

static struct {
    pthread_mutex_t lock;
    atomic_bool done; /* what follows is final */
    int32_t status, version;
    char sentence[512];
} opened = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int32_t too_old(int version) {
    return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "the NVIDIA driver serves CUDA %d.%d, dlattn needs one that serves %d.%d"
                        " or later (525 or later): update the driver", version / 1000, version % 1000 / 10,
                        DLATTN_OLDEST_DRIVER / 1000, DLATTN_OLDEST_DRIVER % 1000 / 10);
}

/* Every call in the form it had in the oldest driver: its name alone could mean an older or a newer one. */
static int32_t fill_table(get_proc_address get) {
    static const struct {
        const char *name;
        size_t offset;
        bool optional;
    } calls[] = {
#define CALL(name, parameters) {#name, offsetof(dlattn__driver_table, name), false},
#define OPTIONAL(name, parameters) {#name, offsetof(dlattn__driver_table, name), true},
        DLATTN_DRIVER_CALLS(CALL) DLATTN_DRIVER_OPTIONAL_CALLS(OPTIONAL)
#undef CALL
#undef OPTIONAL
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        void *address = NULL;
        CUresult result = get(calls[i].name, &address, DLATTN_OLDEST_DRIVER, CU_GET_PROC_ADDRESS_DEFAULT, NULL);
        if (result != CUDA_SUCCESS) address = NULL;
        if (!address && !calls[i].optional)
            return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "libcuda.so.1 has no %s: update the NVIDIA driver",
                                calls[i].name);
        memcpy((char *)&dlattn__driver + calls[i].offset, &address, sizeof address);
    }
    return DLATTN_OK;
}

static int32_t open_driver(int32_t *version) {
    void *library = dlattn__loader.open("libcuda.so.1", false);
    if (!library)
        return dlattn__fail(DLATTN_ERR_DEVICE, "no CUDA driver: libcuda.so.1 cannot be opened (%.200s); install the"
                            " NVIDIA driver, in a container run it with GPU access", dlattn__loader.error());
    CUresult (*get_version)(int *) = NULL;
    get_proc_address get = NULL;
    void *symbol = dlattn__loader.symbol(library, "cuDriverGetVersion");
    memcpy(&get_version, &symbol, sizeof symbol);
    symbol = dlattn__loader.symbol(library, "cuGetProcAddress_v2"); /* since 12.0 */
    memcpy(&get, &symbol, sizeof symbol);
    int found = 0;
    if (!get_version || get_version(&found) != CUDA_SUCCESS)
        return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "libcuda.so.1 does not tell its version: is it NVIDIA's driver?");
    if (found < DLATTN_OLDEST_DRIVER || !get) return too_old(found);
    DLATTN_TRY(fill_table(get));

    CUresult result = dlattn__driver.cuInit(0);
    if (result == CUDA_ERROR_NO_DEVICE)
        return dlattn__fail(DLATTN_ERR_DEVICE, "the CUDA driver finds no GPU (is CUDA_VISIBLE_DEVICES empty?)");
    DLATTN_TRY(dlattn__cuda_check(result, "cuInit", NULL));
    *version = found;
    dlattn__log("CUDA driver %d.%d", found / 1000, found % 1000 / 10);
    return DLATTN_OK;
}

int32_t dlattn__driver_open(void) {
    if (!atomic_load_explicit(&opened.done, memory_order_acquire)) {
        pthread_mutex_lock(&opened.lock);
        if (!atomic_load_explicit(&opened.done, memory_order_relaxed)) {
            opened.version = 0;
            opened.status = open_driver(&opened.version);
            snprintf(opened.sentence, sizeof opened.sentence, "%s", opened.status ? dlattn__error_text() : "");
            atomic_store_explicit(&opened.done, true, memory_order_release);
        }
        pthread_mutex_unlock(&opened.lock);
    }
    return opened.status ? dlattn__fail(opened.status, "%s", opened.sentence) : DLATTN_OK;
}

int32_t dlattn__driver_version(void) {
    return atomic_load_explicit(&opened.done, memory_order_acquire) ? opened.version : 0;
}

void dlattn__driver_forget(void) { atomic_store(&opened.done, false); }

int32_t dlattn__cuda_check(CUresult result, const char *call, const char *object) {
    if (result == CUDA_SUCCESS) return DLATTN_OK;
    const char *name = NULL, *words = NULL;
    if (dlattn__driver.cuGetErrorName) dlattn__driver.cuGetErrorName(result, &name);
    if (dlattn__driver.cuGetErrorString) dlattn__driver.cuGetErrorString(result, &words);
    char number[24];
    snprintf(number, sizeof number, "error %u", result);
    return dlattn__fail(DLATTN_ERR_CUDA, "%s%s%s: %s (%s)", call, object ? " of " : "", object ? object : "",
                        name ? name : number, words ? words : "unknown to this driver");
}
