/* compile_variants.c: compiles every kernel of the table with the real NVRTC, for architectures that need not be here.
 *
 * usage: compile_variants [--threads N] [--verbose] [--everything] [--passed FOLDER] ARCH ...
 * ARCH: 75, 80, 86, 89, 90, 100, 120
 * Fails on an error, and in tuned kernels on spills, local memory or serialised wgmma (`spills` says in which).
 * --verbose prints each kernel's use of registers. --everything: each feature and type for each row and architecture, half
 * an hour of two cores; else what is_twin leaves. --passed: kernels that passed are remembered there by the digest of all
 * they are made of, and not compiled again. DLATTN_NVRTC says which NVRTC. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "compile.h"
#include "dlattn/dlattn.h"
#include "error.h"
#include "params.h"
#include "variants.h"

enum { MOST_REQUESTS = 4096, MOST_THREADS = 64, LOG_BYTES = 65536 };

static nvrtc_copies copies;
static nvrtc_choice choice; /* the copy and the architecture of this round */
static int32_t current_arch;
static kernel_request requests[MOST_REQUESTS];
static const variant *rows[MOST_REQUESTS];
static int32_t count;
static atomic_int next, failures;
static bool verbose, everything;
static const char *passed_folder;
static atomic_int known_to_pass;
static pthread_mutex_t print_lock = PTHREAD_MUTEX_INITIALIZER;

/* A message of ptxas that says that wgmma was serialised or registers were not given: C7507 to C7520, but for the two
 * that only inform. */
static bool serialised(const char *log) {
    for (const char *p = log; (p = strstr(p, "C75")); p++) {
        int code = atoi(p + 1);
        if (code >= 7507 && code <= 7520 && code != 7517 && code != 7519) return true;
    }
    return false;
}

static double seconds_since(const struct timespec *start) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) * 1e-9;
}

static void report(const kernel_request *r, const char *verdict, const kernel_usage *use, double seconds) {
    char name[400];
    dlattn__request_text(name, sizeof name, r);
    pthread_mutex_lock(&print_lock);
    printf("%s %s %s: %s, %.1f s", choice.arch, r->entry, name, verdict, seconds);
    if (use) printf(" (%d registers, %d bytes of stack, %d + %d spilled)", (int)use->registers, (int)use->stack_bytes,
                    (int)use->spill_store_bytes, (int)use->spill_load_bytes);
    printf("\n");
    fflush(stdout);
    pthread_mutex_unlock(&print_lock);
}

static int64_t value_of(const kernel_request *r, const char *name) {
    for (int32_t i = 0; i < r->count; i++)
        if (strcmp(r->defines[i].name, name) == 0) return r->defines[i].value;
    return 0;
}

/* Does the kernel spill more than it may? Where its tile was timed, plain or with an interval mask, as most calls are, or on
 * Hopper with segments or the mask tensor alone, it may not, but for the debt that its row tells. With more features
 * some values may have to wait in local memory; --verbose tells how many. */
static bool spills(const kernel_request *r, const variant *row, const kernel_usage *use) {
    const int64_t features = value_of(r, "FEATURES");
    const bool picked = row && row->tensor_maps && (features == DLATTN_FEATURE_SEGMENTS || features == DLATTN_FEATURE_MASK);
    const bool common = picked || (features & ~(int64_t)DLATTN_FEATURE_INTERVAL) == 0;
    if (!row || !row->bench[0] || current_arch != dlattn__variant_home(row) || !common) return false;
    return use->stack_bytes > row->stack_bytes || (row->stack_bytes == 0 && use->spill_store_bytes + use->spill_load_bytes > 0);
}

/* Did it pass? */
static bool compile_one(const kernel_request *r, const variant *row, char *log) {
    kernel_image image;
    kernel_usage use;
    const char *verdict = NULL;
    bool known = false;
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    if (dlattn__compile(&image, &choice, r, log, LOG_BYTES) != DLATTN_OK) {
        verdict = dlattn__error_text();
    } else {
        dlattn__image_release(&image);
        known = dlattn__log_usage(&use, log, r->entry);
        if (!known)
            verdict = "ptxas says nothing about this entry";
        else if (spills(r, row, &use))
            verdict = "spills or local memory in a tuned kernel";
        else if (row && row->tuned && serialised(log))
            verdict = "wgmma is serialised in a tuned kernel";
    }
    if (verdict) atomic_fetch_add(&failures, 1);
    if (verdict || verbose) report(r, verdict ? verdict : "ok", known ? &use : NULL, seconds_since(&start));
    return !verdict;
}

/* The file whose existence says that this kernel passed, as tuned or not. */
static void passed_path(char *path, size_t bytes, const kernel_request *r, bool tuned) {
    uint8_t key[SHA256_BYTES];
    dlattn__compile_key(key, &choice, r);
    int at = snprintf(path, bytes, "%s/%s.%s.", passed_folder, r->entry, tuned ? "tuned" : "plain");
    for (int i = 0; i < SHA256_BYTES; i++) at += snprintf(path + at, bytes - (size_t)at, "%02x", key[i]);
}

static void compile_new(const kernel_request *r, const variant *row, char *log) {
    char path[4096];
    if (passed_folder) {
        passed_path(path, sizeof path, r, row && row->tuned);
        if (access(path, F_OK) == 0) {
            atomic_fetch_add(&known_to_pass, 1);
            return;
        }
    }
    if (!compile_one(r, row, log) || !passed_folder) return;
    FILE *file = fopen(path, "w");
    if (file) fclose(file);
}

static void *work(void *unused) {
    (void)unused;
    char *log = malloc(LOG_BYTES);
    for (int n; log && (n = atomic_fetch_add(&next, 1)) < count;) compile_new(&requests[n], rows[n], log);
    if (!log) atomic_fetch_add(&failures, 1);
    free(log);
    return NULL;
}

/* Can the request be left out of three minutes? Each row is compiled plain for each architecture, and for all its head sizes
 * where it was timed and on the oldest it is for; elsewhere for the largest. Features are compiled for one architecture and
 * the head size that is used most: they change the source, which is the same for the others. So is float16 beside bfloat16,
 * which differ in one instruction, and rows for small problems but Hopper's, whose tiles need fewer registers than their
 * neighbours'. */
static bool is_twin(const kernel_request *r, const variant *row, int32_t arch) {
    if (!row || !row->tuned) return false;
    const int32_t home = dlattn__variant_home(row);
    const bool half = value_of(r, "TYPE") == DLATTN_T_F16 && row->types & 1u << DLATTN_T_BF16;
    if (arch != home && arch != row->first_arch && value_of(r, "HEAD_D") != row->head) return true;
    const bool lean = row->small && !row->tensor_maps;
    if (value_of(r, "FEATURES") != (int64_t)row->needed) return arch != home || row->head != 128 || half || lean;
    return half && (arch != home || row->head != 128);
}

static void drop_twins(int32_t arch) {
    int32_t kept = 0;
    for (int32_t i = 0; i < count; i++) {
        if (is_twin(&requests[i], rows[i], arch)) continue;
        requests[kept] = requests[i];
        rows[kept++] = rows[i];
    }
    count = kept;
}

static void compile_all(int32_t arch, int threads) {
    nvrtc_choice choices[DLATTN_MAX_NVRTCS];
    pthread_t handles[MOST_THREADS];
    struct timespec start;
    int before = atomic_load(&failures);
    /* The driver does not matter here: one that bears every copy. */
    if (dlattn__nvrtc_choose(choices, &copies, arch, 99000) == 0 || !choices[0].cubin) {
        printf("no NVRTC lists %d\n", (int)arch);
        atomic_fetch_add(&failures, 1);
        return;
    }
    choice = choices[0];
    current_arch = arch;
    count = dlattn__variants_requests(requests, rows, MOST_REQUESTS, arch);
    if (count < 1 || count > MOST_REQUESTS) {
        printf("%d requests for %d, expected 1 to %d\n", (int)count, (int)arch, MOST_REQUESTS);
        atomic_fetch_add(&failures, 1);
        return;
    }
    if (!everything) drop_twins(arch);
    atomic_store(&next, 0);
    atomic_store(&known_to_pass, 0);
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < threads; i++)
        if (pthread_create(&handles[i], NULL, work, NULL) != 0) abort();
    for (int i = 0; i < threads; i++) pthread_join(handles[i], NULL);
    printf("%s: %d kernels (%d passed before), %d failed, %.1f s, NVRTC %d.%d of %s\n", choice.arch, (int)count,
           atomic_load(&known_to_pass), atomic_load(&failures) - before, seconds_since(&start),
           (int)choice.copy->major, (int)choice.copy->minor, choice.copy->path);
}

int main(int argc, char **argv) {
    int threads = 1, done = 0;
    dlattn__nvrtc_find(&copies);
    for (int i = 0; i < copies.count; i++)
        if (!copies.copy[i].major) fprintf(stderr, "%s %s\n", copies.copy[i].path, copies.copy[i].reason);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            threads = atoi(argv[++i]);
            if (threads < 1 || threads > MOST_THREADS) threads = 1;
        } else if (strcmp(argv[i], "--passed") == 0 && i + 1 < argc) {
            passed_folder = argv[++i];
            mkdir(passed_folder, 0777);
        } else if (strcmp(argv[i], "--everything") == 0) {
            everything = true;
        } else if (strcmp(argv[i], "--verbose") == 0) {
            verbose = true;
        } else {
            compile_all(atoi(argv[i]), threads);
            done++;
        }
    }
    return done == 0 || atomic_load(&failures) > 0;
}
