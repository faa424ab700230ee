/* loader.h: dlopen and dlsym behind a table, so that tests can play any driver and any NVRTC. */
#ifndef DLATTN_CUDA_LOADER_H
#define DLATTN_CUDA_LOADER_H

#include <stdbool.h>

typedef struct dlattn__loader_table {
    /* The library of that file or soname, or NULL. loaded_only: only one that the process has already. */
    void *(*open)(const char *name, bool loaded_only);
    void *(*symbol)(void *library, const char *name); /* NULL: it has none */
    const char *(*error)(void);                       /* why the last open failed, in words */
    const char *(*path)(void *symbol);                /* the file that holds a symbol, "" when unknown */
} dlattn__loader_table;
extern dlattn__loader_table dlattn__loader;

#endif
