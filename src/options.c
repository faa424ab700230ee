/* options.c: process-wide settings, the log line and the host memory table. */
#define _POSIX_C_SOURCE 200809L
#include "options.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "error.h"

enum { MOST_BYTES = 4096 }; /* of a path; the other values are short */

typedef struct option {
    const char *name, *variable, *expected; /* expected: for the sentence */
    bool (*well_formed)(const char *value);
    const char *environment;      /* a copy, since setenv may free what getenv returned; NULL when unset */
    _Atomic(const char *) stored; /* NULL: not set */
} option;

static bool is_count(const char *value) {
    size_t digits = strspn(value, "0123456789");
    return digits > 0 && digits <= 10 && !value[digits] && strtoll(value, NULL, 10) <= INT32_MAX;
}

static bool is_isa(const char *value) {
    static const char *const names[] = {"scalar", "avx2", "avx512", "avx512bf16", "amx", "neon", "auto"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(value, names[i]) == 0) return true;
    return false;
}

static bool is_switch(const char *value) { return strcmp(value, "0") == 0 || strcmp(value, "1") == 0; }

static bool is_path(const char *value) { return value[0] && strnlen(value, MOST_BYTES) < MOST_BYTES; }

/* Two to four short numbers with an x between: 128x64. */
static bool are_sizes(const char *value) {
    for (int count = 1;; count++) {
        const size_t digits = strspn(value, "0123456789");
        if (digits == 0 || digits > 4) return false;
        value += digits;
        if (!*value) return count >= 2 && count <= 4;
        if (*value++ != 'x') return false;
    }
}

static bool is_variant(const char *value) {
    static const char *const families[] = {"generic", "sm80", "sm90"};
    if (strcmp(value, "auto") == 0) return true;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        const size_t length = strlen(families[i]);
        if (strncmp(value, families[i], length) != 0) continue;
        return !value[length] || (value[length] == ':' && are_sizes(value + length + 1));
    }
    return false;
}

static option options[] = {
    {"num_threads", "DLATTN_NUM_THREADS", "a number from 0 to 2147483647", is_count, NULL, NULL},
    {"cpu_isa", "DLATTN_CPU_ISA", "scalar, avx2, avx512, avx512bf16, amx, neon or auto", is_isa, NULL, NULL},
    {"log", "DLATTN_LOG", "0 or 1", is_switch, NULL, NULL},
    {"nvrtc", "DLATTN_NVRTC", "the path of libnvrtc.so or of its folder", is_path, NULL, NULL},
    {"cuda_variant", "DLATTN_CUDA_VARIANT", "auto, generic, sm80 or sm90, or one of these with a tile (sm80:128x64)", is_variant,
     NULL, NULL},
    {"cache_dir", "DLATTN_CACHE_DIR", "the path of a folder", is_path, NULL, NULL},
};
static const char expected_names[] = "num_threads, cpu_isa, log, nvrtc, cuda_variant or cache_dir";
enum { NUM_OPTIONS = (int)(sizeof options / sizeof options[0]) };

static pthread_once_t environment_once = PTHREAD_ONCE_INIT;

static void read_environment(void) {
    for (int i = 0; i < NUM_OPTIONS; i++) {
        const char *value = getenv(options[i].variable);
        if (value && options[i].well_formed(value)) options[i].environment = strdup(value); /* for good */
    }
}

static option *find(const char *name) {
    for (int i = 0; i < NUM_OPTIONS; i++)
        if (strcmp(name, options[i].name) == 0) return &options[i];
    return NULL;
}

const char *dlattn__option(const char *name) {
    option *o = find(name);
    if (!o) return NULL;
    const char *stored = atomic_load_explicit(&o->stored, memory_order_acquire);
    return stored ? stored : dlattn__option_environment(name);
}

const char *dlattn__option_environment(const char *name) {
    option *o = find(name);
    pthread_once(&environment_once, read_environment);
    return o ? o->environment : NULL;
}

/* Values are kept for the life of the process, each text once, because readers hold the pointer without a lock. */
typedef struct kept_value {
    struct kept_value *next;
    char text[];
} kept_value;

static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static kept_value *kept;

static const char *keep(const char *text) {
    pthread_mutex_lock(&kept_lock);
    kept_value *v = kept;
    while (v && strcmp(v->text, text) != 0) v = v->next;
    if (!v && (v = dlattn__memory.allocate((int64_t)(sizeof *v + strlen(text) + 1)))) {
        strcpy(v->text, text);
        v->next = kept;
        kept = v;
    }
    pthread_mutex_unlock(&kept_lock);
    return v ? v->text : NULL;
}

int32_t dlattn__option_set(const char *name, const char *value) {
    if (!name) return dlattn__fail(DLATTN_ERR_ARGUMENT, "name is NULL, expected %s", expected_names);
    option *o = find(name);
    if (!o)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "option \"%.40s\" is unknown, expected %s", name, expected_names);
    const char *text = NULL;
    if (value) {
        if (!o->well_formed(value))
            return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s is \"%.40s\", expected %s", name, value, o->expected);
        if (o->well_formed == is_isa && strcmp(value, "auto") != 0 && !dlattn__isa_available(value))
            return dlattn__fail(DLATTN_ERR_UNSUPPORTED,
                                "cpu_isa is %s, which this machine or this build lacks; dlattn info lists what it has",
                                value);
        text = keep(value);
        if (!text) return dlattn__fail(DLATTN_ERR_OUT_OF_MEMORY, "no memory to store option %s", name);
    }
    atomic_store_explicit(&o->stored, text, memory_order_release);
    return DLATTN_OK;
}

void dlattn__log(const char *format, ...) {
    const char *on = dlattn__option("log");
    if (!on || strcmp(on, "1") != 0) return;
    char line[640];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    fprintf(stderr, "dlattn: %s\n", line);
}

static void *allocate_aligned(int64_t bytes) {
    void *memory = NULL;
    if (bytes < 0 || (uint64_t)bytes > SIZE_MAX / 2) return NULL;
    return posix_memalign(&memory, 64, bytes ? (size_t)bytes : 1) == 0 ? memory : NULL;
}

dlattn__memory_table dlattn__memory = {allocate_aligned, free};
