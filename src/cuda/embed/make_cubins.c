/* make_cubins.c: a program of the build: compiles the kernels of common calls (common_calls.h) for given architectures into an
 * archive that the library then carries (embedded.h), so that its users need no compiler for them.
 *
 * usage: make_cubins [--file KERNEL.cu] [--jobs N] [--times 1] OUT ARCH ...
 *     --file: only the kernels of that file
 *     --jobs: so many at a time; else as many as there are processors
 *     --times: a line for each kernel, with the milliseconds that it took (bench/first_call.py) */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common_calls.h"
#include "dlattn/dlattn.h"
#include "embedded.h"
#include "error.h"
#include "options.h"

enum { MOST_REQUESTS = 4096, MOST_KERNELS = 16384, MOST_JOBS = 16, STACK_BYTES = 16 << 20 }; /* a job takes some 200 MB */

typedef struct kernel {
    archive_record record;
    kernel_image image;
    nvrtc_choice choice;
    kernel_request request;
} kernel;

static kernel kernels[MOST_KERNELS];
static int32_t count;
static atomic_int next_kernel;
static bool tells_times;

static void give_up(const char *sentence) {
    fprintf(stderr, "make_cubins: %s\n", sentence);
    exit(1);
}

static int by_key(const void *a, const void *b) {
    return memcmp(((const kernel *)a)->record.key, ((const kernel *)b)->record.key, SHA256_BYTES);
}

static bool has_key(const uint8_t *key) {
    for (int32_t i = 0; i < count; i++)
        if (memcmp(kernels[i].record.key, key, SHA256_BYTES) == 0) return true;
    return false;
}

/* Two entries of one file are one image. */
static void add_kernel(const nvrtc_choice *choice, const kernel_request *r) {
    nvrtc_choice any = *choice;
    uint8_t key[SHA256_BYTES];
    any.copy = NULL;
    dlattn__compile_key(key, &any, r);
    if (has_key(key)) return;
    if (count == MOST_KERNELS) give_up("too many kernels");
    kernel *k = &kernels[count++];
    memcpy(k->record.key, key, sizeof key);
    k->choice = *choice;
    k->request = *r;
}

static void add_arch(const nvrtc_copies *copies, int32_t arch, const char *file) {
    static kernel_request requests[MOST_REQUESTS];
    nvrtc_choice choices[DLATTN_MAX_NVRTCS];
    /* The users' drivers are not known here; a later one serves every cubin of its major version and the one before. */
    if (dlattn__nvrtc_choose(choices, copies, arch, 99000) == 0 || !choices[0].cubin)
        give_up("no NVRTC here knows this architecture (see DLATTN_NVRTC)");
    int32_t found = dlattn__common_requests(requests, MOST_REQUESTS, arch);
    if (found > MOST_REQUESTS) give_up("too many kernels");
    for (int32_t i = 0; i < found; i++)
        if (!file || strcmp(requests[i].file, file) == 0) add_kernel(&choices[0], &requests[i]);
}

static void compile_one(kernel *k) {
    struct timespec start, end;
    char name[400];
    clock_gettime(CLOCK_MONOTONIC, &start);
    if (dlattn__compile(&k->image, &k->choice, &k->request, NULL, 0) != DLATTN_OK) give_up(dlattn__error_text());
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (!tells_times) return;
    dlattn__request_text(name, sizeof name, &k->request);
    printf("%s %s in %.0f ms\n", k->choice.arch, name,
           (double)(end.tv_sec - start.tv_sec) * 1e3 + (double)(end.tv_nsec - start.tv_nsec) * 1e-6);
}

static void *compile_some(void *unused) {
    for (int32_t n; (n = atomic_fetch_add(&next_kernel, 1)) < count;) compile_one(&kernels[n]);
    return unused;
}

static void compile_all(int64_t jobs) {
    pthread_t threads[MOST_JOBS];
    pthread_attr_t attributes;
    int64_t helpers = 0;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    while (helpers + 1 < jobs && helpers < MOST_JOBS &&
           pthread_create(&threads[helpers], &attributes, compile_some, NULL) == 0)
        helpers++;
    compile_some(NULL);
    while (helpers > 0) pthread_join(threads[--helpers], NULL);
    pthread_attr_destroy(&attributes);
}

static void write_bytes(FILE *out, const void *bytes, size_t size) {
    if (fwrite(bytes, 1, size, out) != size) give_up("the archive cannot be written");
}

static uint64_t align(uint64_t at) { return (at + ARCHIVE_ALIGN - 1) / ARCHIVE_ALIGN * ARCHIVE_ALIGN; }

static uint64_t write_archive(const char *path) {
    static const char zeros[ARCHIVE_ALIGN];
    const uint64_t head[ARCHIVE_HEAD / 8] = {(uint64_t)count};
    uint64_t at = ARCHIVE_HEAD + (uint64_t)count * sizeof(archive_record);
    FILE *out = fopen(path, "wb");
    if (!out) give_up("the archive cannot be made");
    qsort(kernels, (size_t)count, sizeof kernels[0], by_key);
    for (int32_t i = 0; i < count; i++) {
        kernels[i].record.at = align(at);
        kernels[i].record.size = (uint64_t)kernels[i].image.size;
        at = kernels[i].record.at + kernels[i].record.size;
    }
    write_bytes(out, head, sizeof head);
    for (int32_t i = 0; i < count; i++) write_bytes(out, &kernels[i].record, sizeof kernels[i].record);
    uint64_t written = ARCHIVE_HEAD + (uint64_t)count * sizeof(archive_record);
    for (int32_t i = 0; i < count; i++) {
        write_bytes(out, zeros, kernels[i].record.at - written);
        write_bytes(out, kernels[i].image.bytes, kernels[i].record.size);
        written = kernels[i].record.at + kernels[i].record.size;
    }
    if (fclose(out) != 0) give_up("the archive cannot be written");
    return at;
}

/* Each kernel is found again in what lies on the disk. */
static void verify(const char *path, uint64_t bytes) {
    char *archive = malloc(bytes);
    FILE *in = fopen(path, "rb");
    if (!archive || !in || fread(archive, 1, bytes, in) != bytes) give_up("the archive cannot be read");
    fclose(in);
    const kernel_archive all = {archive, archive + bytes};
    for (int32_t i = 0; i < count; i++) {
        kernel_image found;
        if (!dlattn__archive_find(&found, &all, kernels[i].record.key) ||
            found.size != kernels[i].image.size || memcmp(found.bytes, kernels[i].image.bytes, (size_t)found.size) != 0)
            give_up("the archive does not hold what was put in");
    }
    free(archive);
}

int main(int argc, char **argv) {
    static nvrtc_copies copies;
    const char *file = NULL;
    int64_t jobs = sysconf(_SC_NPROCESSORS_ONLN);
    int i = 1;
    for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        if (strcmp(argv[i], "--file") == 0) file = argv[i + 1];
        else if (strcmp(argv[i], "--jobs") == 0) jobs = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--times") == 0) tells_times = atoi(argv[i + 1]) != 0;
        else give_up("no such option");
    }
    if (argc < i + 2) give_up("usage: make_cubins [--file KERNEL.cu] [--jobs N] [--times 1] OUT ARCH ...");
    const char *path = argv[i++];
    dlattn__nvrtc_find(&copies);
    for (; i < argc; i++) add_arch(&copies, atoi(argv[i]), file);
    if (count == 0) give_up("no kernel");
    compile_all(jobs);
    uint64_t bytes = write_archive(path);
    verify(path, bytes);
    printf("%d kernels, %.1f MB: %s\n", (int)count, (double)bytes * 1e-6, path);
    return 0;
}
