/* provider.h: attention of any shared object that has the entry points of dlattn.h, called through libffi. */
#ifndef DLATTN_BENCH_PROVIDER_H
#define DLATTN_BENCH_PROVIDER_H

#include <ffi.h>

#include <dlattn/dlattn.h>

#include "instance.h"

/* A provider exports dlattn_forward, with the signature that bindings/abi.json has for it, and may export
 * dlattn_backward. It answers DLATTN_ERR_UNSUPPORTED to what it has not got. So another build of libdlattn.so is one. */
typedef struct provider {
    char name[64]; /* the file's, without its folder and what follows the first dot */
    void *library;
    void (*entries[2])(void); /* forward; backward or NULL */
    ffi_cif cif;
} provider;

/* 0, or nonzero after a sentence on stderr. */
int provider_open(provider *p, const char *file);

/* A timing_call whose context is the provider. */
int32_t provider_call(void *context, instance *x, int backward, const dlattn_exec *exec);

#endif
