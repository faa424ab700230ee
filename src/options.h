/* options.h: process-wide settings: dlattn_set_option over the environment over the default. */
#ifndef DLATTN_OPTIONS_H
#define DLATTN_OPTIONS_H

#include <stdint.h>

/* The current value of option `name` ("num_threads", "cpu_isa", "log", "nvrtc", "cache_dir"): what dlattn_set_option
 * stored, else the environment variable (DLATTN_NUM_THREADS and so on; read at first use), else NULL. A value is
 * well-formed: num_threads a number from 0 to INT32_MAX, cpu_isa a name the header lists or "auto", log "0" or "1",
 * nvrtc and cache_dir a path, not empty; an environment variable that is not is as if unset. The pointer stays valid
 * for the life of the process. Safe from any thread, without a lock. */
const char *dlattn__option(const char *name);

/* The environment variable alone, or NULL. */
const char *dlattn__option_environment(const char *name);

/* Stores a value, or with NULL restores the default: the body of dlattn_set_option. Returns a status, its sentence
 * set. */
int32_t dlattn__option_set(const char *name, const char *value);

/* One line to stderr, only with DLATTN_LOG=1. */
__attribute__((format(printf, 1, 2))) void dlattn__log(const char *format, ...);

/* Host memory, so that tests can make it fail: malloc (64-byte aligned) and free behind a replaceable table. */
typedef struct dlattn__memory_table {
    void *(*allocate)(int64_t bytes); /* 64-byte aligned, NULL on failure */
    void (*release)(void *);
} dlattn__memory_table;
extern dlattn__memory_table dlattn__memory;

#endif
