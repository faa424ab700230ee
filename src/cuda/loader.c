/* loader.c: dlopen and dlsym behind a table. */
#define _GNU_SOURCE
#include "loader.h"

#include <dlfcn.h>
#include <stddef.h>

/* RTLD_LOCAL: our copies of other projects' libraries must not serve anybody else's symbols. */
static void *open_library(const char *name, bool loaded_only) {
    return dlopen(name, RTLD_NOW | RTLD_LOCAL | (loaded_only ? RTLD_NOLOAD : 0));
}

static const char *last_error(void) {
    const char *text = dlerror();
    return text ? text : "no reason given";
}

static const char *path_of(void *symbol) {
    Dl_info found;
    return dladdr(symbol, &found) && found.dli_fname ? found.dli_fname : "";
}

dlattn__loader_table dlattn__loader = {open_library, dlsym, last_error, path_of};
