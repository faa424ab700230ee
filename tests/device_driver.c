/* device_driver.c: opens libcuda and finds its calls. */
#include "device_driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t at; /* where in the table */
} calls[] = {
#define X(name, parameters) {#name, offsetof(device_driver, name)},
    DEVICE_DRIVER_CALLS(X)
#undef X
};

static int find_calls(device_driver *table, void *library, char *why, size_t bytes) {
    for (size_t n = 0; n < sizeof calls / sizeof *calls; n++) {
        void *address = dlsym(library, calls[n].name);
        if (!address) return snprintf(why, bytes, "the CUDA driver has no %s: it is too old", calls[n].name), 1;
        memcpy((char *)table + calls[n].at, &address, sizeof address);
    }
    return 0;
}

const device_driver *device_driver_open(char *why, size_t bytes) {
    static device_driver table;
    static int ready;
    const char *text = "unknown error";
    int count = 0, error;
    if (ready) return &table;
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return snprintf(why, bytes, "no CUDA device: the driver is not installed (%s)", dlerror()), NULL;
    if (find_calls(&table, library, why, bytes)) return NULL;
    if ((error = table.cuInit(0)) || (error = table.cuDeviceGetCount(&count))) {
        table.cuGetErrorString(error, &text);
        return snprintf(why, bytes, "no CUDA device: the driver says \"%s\"", text), NULL;
    }
    if (count == 0) return snprintf(why, bytes, "no CUDA device: the driver is there and finds none"), NULL;
    ready = 1;
    return &table;
}
