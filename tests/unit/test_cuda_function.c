/* test_cuda_function.c: from a request to a function: memory cache, capture, threads, and every way to fail. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_cuda.h"
#include "function.h"
#include "options.h"
#include "source.h"

static const CUcontext context_1 = (CUcontext)8, context_2 = (CUcontext)16;

static void begin(void) {
    fake_begin();
    cr_assert_eq(dlattn__driver_open(), DLATTN_OK, "%s", dlattn_last_error());
}

/* A request for any file that the library carries; the fake NVRTC does not read it. */
static kernel_request make_request(int64_t head) {
    kernel_request r;
    memset(&r, 0, sizeof r);
    r.file = dlattn__source_file(0)->path;
    r.entry = "kernel";
    r.count = 2;
    r.defines[0] = (kernel_define){"HEAD", head};
    r.defines[1] = (kernel_define){"CAUSAL", -1};
    return r;
}

static int32_t get(CUfunction *out, CUcontext context, int64_t head) {
    kernel_request r = make_request(head);
    return dlattn__function_get(out, context, 0, &r);
}

static void expect_sentence(int32_t status, int32_t expected, const char *words) {
    cr_expect_eq(status, expected, "%d: %s", (int)status, dlattn_last_error());
    cr_expect(strstr(dlattn_last_error(), words), "\"%s\" lacks \"%s\"", dlattn_last_error(), words);
}

/* ---- hits and misses -------------------------------------------------------------------------------------------------- */

Test(cuda_function, made_once_per_context_and_request) {
    CUfunction first, again, other;
    begin();
    cr_assert_eq(get(&first, context_1, 64), DLATTN_OK, "%s", dlattn_last_error());
    cr_expect(strstr(fake.image, " by 13.0 -arch=sm_90a --std=c++17 -default-device"), "%s", fake.image);
    cr_expect(strstr(fake.image, " -DHEAD=64 -DCAUSAL=-1"), "%s", fake.image);
    cr_expect_not(strstr(fake.image, "fast"), "%s", fake.image);
    cr_assert_eq(get(&again, context_1, 64), DLATTN_OK);
    cr_expect_eq(first, again);
    cr_assert_eq(get(&other, context_1, 128), DLATTN_OK);
    cr_expect_neq(first, other);
    cr_assert_eq(get(&other, context_2, 64), DLATTN_OK);
    cr_expect_neq(first, other, "another context, another handle");
    cr_expect_eq(fake_copies[0].compiles, 3);
    cr_expect_eq(fake.loads, 3);
}

/* What the library says on stderr while it gets a function. */
static void get_logged(char *text, size_t bytes, int64_t head) {
    char path[] = "/tmp/dlattn_log_XXXXXX";
    const int file = mkstemp(path), before = dup(STDERR_FILENO);
    CUfunction f;
    cr_assert(file >= 0 && before >= 0 && dup2(file, STDERR_FILENO) >= 0);
    const int32_t status = get(&f, context_1, head);
    dup2(before, STDERR_FILENO);
    const ssize_t length = pread(file, text, bytes - 1, 0);
    close(file), close(before), unlink(path);
    cr_assert(status == DLATTN_OK && length >= 0, "%s", dlattn_last_error());
    text[length] = 0;
}

Test(cuda_function, the_log_says_what_is_compiled_and_why) {
    char text[4096];
    begin();
    get_logged(text, sizeof text, 64);
    cr_expect_str_eq(text, "", "silent unless it is asked to speak");
    dlattn_set_option("log", "1");
    get_logged(text, sizeof text, 64);
    cr_expect_str_eq(text, "", "nothing to say of a hit");
    get_logged(text, sizeof text, 128);
    dlattn_set_option("log", NULL);
    static const char *const words[] = {"dlattn: compiled ", " -DHEAD=128 -DCAUSAL=-1 for sm_90a with NVRTC 13.0 (libnvrtc.so.13) in ",
                                        " ms, since "};
    for (size_t n = 0; n < sizeof words / sizeof *words; n++) cr_expect(strstr(text, words[n]), "\"%s\" is not in %s", words[n], text);
}

Test(cuda_function, entries_of_one_file_share_a_module) {
    begin();
    CUfunction a, b;
    kernel_request r = make_request(64);
    cr_assert_eq(dlattn__function_get(&a, context_1, 0, &r), DLATTN_OK);
    r.entry = "other_kernel";
    cr_assert_eq(dlattn__function_get(&b, context_1, 0, &r), DLATTN_OK);
    cr_expect_neq(a, b);
    cr_expect_eq(fake.loads, 1);
}

Test(cuda_function, a_context_that_died_leaves_no_handle) {
    CUfunction before, after;
    begin();
    cr_assert_eq(get(&before, context_1, 64), DLATTN_OK);
    fake.epoch++; /* a new context at the same address */
    cr_assert_eq(get(&after, context_1, 64), DLATTN_OK);
    cr_expect_neq(before, after);
    cr_expect_eq(fake.loads, 2);
    expect_sentence(get(&after, NULL, 64), DLATTN_ERR_CUDA, "cuCtxGetId of kernel");
    cr_expect_null(after);
}

Test(cuda_function, large_shared_memory_is_allowed) {
    CUfunction f;
    begin();
    kernel_request r = make_request(64);
    r.smem_bytes = 48 * 1024;
    cr_assert_eq(dlattn__function_get(&f, context_1, 0, &r), DLATTN_OK);
    cr_expect_eq(fake.sets, 0);
    r.smem_bytes = 100000;
    cr_assert_eq(dlattn__function_get(&f, context_1, 0, &r), DLATTN_OK);
    cr_expect_eq(fake.smem_bytes, 100000);
    r.smem_bytes = 60000; /* the same function: the larger share must stay */
    cr_assert_eq(dlattn__function_get(&f, context_1, 0, &r), DLATTN_OK);
    cr_expect_eq(fake.smem_bytes, 100000);
    fake.smem_result = CUDA_ERROR_INVALID_VALUE;
    r.smem_bytes = 300000;
    expect_sentence(dlattn__function_get(&f, context_1, 0, &r), DLATTN_ERR_CUDA,
                    "cuFuncSetAttribute (dynamic shared memory) of kernel");
    cr_expect_null(f);
}

/* ---- stream capture --------------------------------------------------------------------------------------------------- */

Test(cuda_function, loading_is_legal_under_capture) {
    CUfunction f;
    begin();
    cr_assert_eq(get(&f, context_1, 64), DLATTN_OK);
    cr_expect_eq(fake_mode, CU_STREAM_CAPTURE_MODE_GLOBAL, "put back");
    fake.refused = "HEAD=65";
    cr_expect_neq(get(&f, context_1, 65), DLATTN_OK);
    cr_expect_eq(fake_mode, CU_STREAM_CAPTURE_MODE_GLOBAL, "put back after a failure");
    fake_mode = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    cr_assert_eq(get(&f, context_1, 66), DLATTN_OK);
    cr_expect_eq(fake_mode, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    cr_expect_eq(fake.loads, 3);
    cr_expect_eq(fake.forbidden_loads, 0);
}

/* ---- threads ---------------------------------------------------------------------------------------------------------- */

typedef struct job {
    int64_t head;
    CUfunction function;
    int32_t status;
} job;

static void *run_job(void *argument) {
    job *j = argument;
    j->status = get(&j->function, context_1, j->head);
    return NULL;
}

static void run_jobs(job *jobs, int count) {
    pthread_t threads[8];
    for (int i = 0; i < count; i++) cr_assert_eq(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

Test(cuda_function, threads_do_not_compile_the_same_twice) {
    begin();
    fake.milliseconds = 50;
    job jobs[8] = {{0}};
    for (int i = 0; i < 8; i++) jobs[i].head = i % 2 ? 32 : 96;
    run_jobs(jobs, 8);
    for (int i = 0; i < 8; i++) {
        cr_expect_eq(jobs[i].status, DLATTN_OK);
        cr_expect_eq(jobs[i].function, jobs[i % 2].function);
    }
    cr_expect_neq(jobs[0].function, jobs[1].function);
    cr_expect_eq(fake_copies[0].compiles, 2);
    cr_expect_eq(fake.forbidden_loads, 0);
}

Test(cuda_function, a_failure_in_one_thread_is_one_in_all) {
    begin();
    fake.milliseconds = 20;
    fake_copies[0].result = NVRTC_ERROR_COMPILATION;
    job jobs[4] = {{64, NULL, 0}, {64, NULL, 0}, {64, NULL, 0}, {64, NULL, 0}};
    run_jobs(jobs, 4);
    for (int i = 0; i < 4; i++) cr_expect_eq(jobs[i].status, DLATTN_ERR_COMPILE);
    fake_copies[0].result = NVRTC_SUCCESS; /* a failure is not remembered */
    run_jobs(jobs, 4);
    for (int i = 0; i < 4; i++) cr_expect_eq(jobs[i].status, DLATTN_OK);
}

/* ---- failures --------------------------------------------------------------------------------------------------------- */

Test(cuda_function, compile_error) {
    CUfunction f;
    begin();
    fake_copies[0].result = NVRTC_ERROR_COMPILATION;
    fake_copies[0].log = "a.cuh(3): warning #177-D: unused\n\na.cuh(7): error: expected a \";\"\nb.cu(1): error: more\n";
    expect_sentence(get(&f, context_1, 64), DLATTN_ERR_COMPILE, "a.cuh(7): error: expected a \";\"");
    cr_expect(strstr(dlattn_last_error(), "-DHEAD=64 -DCAUSAL=-1 for sm_90a, NVRTC 13.0"), "%s", dlattn_last_error());
    cr_expect_not(strstr(dlattn_last_error(), "more"), "the first error only: %s", dlattn_last_error());
    cr_expect_null(f);
    fake_copies[0].log = "";
    expect_sentence(get(&f, context_1, 64), DLATTN_ERR_COMPILE, "NVRTC_ERROR_COMPILATION");
}

Test(cuda_function, no_nvrtc) {
    CUfunction f;
    begin();
    fake_copies[0].name = NULL;
    expect_sentence(get(&f, context_1, 64), DLATTN_ERR_COMPILE, "needs NVRTC 12.0 or later");
    expect_sentence(get(&f, context_1, 64), DLATTN_ERR_COMPILE, "DLATTN_NVRTC");
    expect_sentence(get(&f, context_1, 64), DLATTN_ERR_COMPILE, "libnvrtc.so.13 cannot be opened: no such file");
    fake_copies[0].name = "libnvrtc.so.13"; /* installed meanwhile */
    cr_expect_eq(get(&f, context_1, 64), DLATTN_OK, "%s", dlattn_last_error());
}

Test(cuda_function, what_does_not_load_is_made_by_the_next_copy) {
    CUfunction f;
    begin();
    fake_copy(1, "libnvrtc.so.12", 12, 4);
    fake.refused = "by 13.0";
    cr_assert_eq(get(&f, context_1, 64), DLATTN_OK, "%s", dlattn_last_error());
    cr_expect(strstr(fake.image, "by 12.4"), "%s", fake.image);
    cr_expect_eq(fake_copies[0].compiles, 1);
    cr_expect_eq(fake_copies[1].compiles, 1);

    fake.refused = "by 1";
    fake_copy(2, "/opt/old.so", 11, 8);
    dlattn_set_option("nvrtc", "/opt/old.so");
    int32_t status = get(&f, context_1, 65);
    expect_sentence(status, DLATTN_ERR_COMPILE, "libnvrtc.so.13 (13.0): cuModuleLoadDataEx of");
    expect_sentence(status, DLATTN_ERR_COMPILE, "CUDA_ERROR_INVALID_IMAGE");
    expect_sentence(status, DLATTN_ERR_COMPILE, "; libnvrtc.so.12 (12.4): ");
    expect_sentence(status, DLATTN_ERR_COMPILE, "; /opt/old.so is version 11.8, older than 12.0");
    dlattn_set_option("nvrtc", NULL);
}

Test(cuda_function, a_device_that_no_copy_knows) {
    CUfunction f;
    begin();
    fake.capability = 121;
    cr_assert_eq(get(&f, context_1, 64), DLATTN_OK, "%s", dlattn_last_error());
    cr_expect(strstr(fake.image, "-arch=compute_120 "), "%s", fake.image);
    fake.capability = 70;
    expect_sentence(get(&f, context_1, 65), DLATTN_ERR_COMPILE, "libnvrtc.so.13 (13.0) knows no architecture");
}

/* What is the context's fault is not tried again with another compiler. */
Test(cuda_function, other_driver_errors_end_it) {
    CUfunction f;
    begin();
    fake_copy(1, "libnvrtc.so.12", 12, 4);
    fake.refused = "HEAD";
    fake.load_result = CUDA_ERROR_OUT_OF_MEMORY;
    expect_sentence(get(&f, context_1, 64), DLATTN_ERR_CUDA, "cuModuleLoadDataEx of");
    cr_expect_eq(fake_copies[1].compiles, 0);
    fake.refused = NULL;
    fake.function_result = CUDA_ERROR_NOT_FOUND;
    expect_sentence(get(&f, context_1, 64), DLATTN_ERR_CUDA, "cuModuleGetFunction of kernel");
    fake.function_result = CUDA_SUCCESS;
    cr_expect_eq(get(&f, context_1, 64), DLATTN_OK, "%s", dlattn_last_error());
}

Test(cuda_function, no_such_file) {
    CUfunction f;
    begin();
    kernel_request r = make_request(64);
    r.file = "no_such.cu";
    expect_sentence(dlattn__function_get(&f, context_1, 0, &r), DLATTN_ERR_INTERNAL, "no kernel file no_such.cu");
}

static dlattn__memory_table real_memory;
static atomic_int allocations_left;

static void *allocate_or_fail(int64_t bytes) {
    return atomic_fetch_sub(&allocations_left, 1) > 0 ? real_memory.allocate(bytes) : NULL;
}

Test(cuda_function, memory_that_cannot_be_had) {
    CUfunction f;
    begin();
    real_memory = dlattn__memory;
    dlattn__memory.allocate = allocate_or_fail;
    int failures = 0;
    for (int n = 0; n < 20; n++) {
        allocations_left = n;
        int32_t status = get(&f, context_1, 64);
        if (status == DLATTN_OK) break;
        failures++;
        cr_expect_eq(status, DLATTN_ERR_OUT_OF_MEMORY, "%d: %s", n, dlattn_last_error());
        cr_expect_null(f);
        cr_expect_eq(fake_mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
    }
    dlattn__memory = real_memory;
    cr_expect_geq(failures, 3);
    cr_expect_eq(get(&f, context_1, 64), DLATTN_OK);
}

/* ---- with the disk cache ---------------------------------------------------------------------------------------------- */

static int run(const char *format, const char *folder) {
    char command[256];
    snprintf(command, sizeof command, format, folder);
    return system(command);
}

Test(cuda_function, disk_cache) {
    char folder[] = "/tmp/dlattn_function_XXXXXX";
    CUfunction f;
    begin();
    cr_assert_not_null(mkdtemp(folder));
    dlattn_set_option("cache_dir", folder);
    cr_assert_eq(get(&f, context_1, 64), DLATTN_OK);
    cr_assert_eq(get(&f, context_2, 64), DLATTN_OK);
    cr_expect_eq(fake_copies[0].compiles, 1, "the second context finds the first one's image");
    cr_expect_eq(fake.loads, 2);

    cr_assert_eq(run("for f in %s/*; do truncate -s 100 $f; done", folder), 0);
    fake.epoch++;
    cr_assert_eq(get(&f, context_1, 64), DLATTN_OK);
    cr_assert_eq(get(&f, context_2, 64), DLATTN_OK);
    cr_expect_eq(fake_copies[0].compiles, 2, "a damaged file is compiled again, once");

    fake_copies[0].minor = 1;
    fake.epoch++;
    cr_assert_eq(get(&f, context_1, 64), DLATTN_OK);
    cr_expect_eq(fake_copies[0].compiles, 3, "another NVRTC, another key");
    fake.capability = 80;
    fake.epoch++;
    cr_assert_eq(get(&f, context_1, 64), DLATTN_OK);
    cr_expect_eq(fake_copies[0].compiles, 4, "another device, another key");

    fake.epoch++;
    fake.refused = "HEAD=64"; /* the driver refuses what the cache has: it is compiled, and refused, again */
    cr_expect_eq(get(&f, context_1, 64), DLATTN_ERR_COMPILE);
    cr_expect_eq(fake_copies[0].compiles, 5);
    dlattn_set_option("cache_dir", NULL);
    cr_expect_eq(run("rm -rf %s", folder), 0);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LARGEST_HIT_NS 20000.0
#else
#define LARGEST_HIT_NS 200.0
#endif

Test(cuda_function, a_hit_takes_well_under_a_microsecond) {
    enum { CALLS = 100000 };
    CUfunction f;
    struct timespec start, end;
    begin();
    cr_assert_eq(get(&f, context_1, 64), DLATTN_OK);
    kernel_request r = make_request(64);
    double best = 1e9;
    for (int run = 0; run < 5; run++) {
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (int i = 0; i < CALLS; i++) dlattn__function_get(&f, context_1, 0, &r);
        clock_gettime(CLOCK_MONOTONIC, &end);
        double ns = ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) / CALLS;
        best = ns < best ? ns : best;
    }
    cr_log_info("a hit takes %.0f ns, the driver's own cuCtxGetId apart", best);
    cr_expect_lt(best, LARGEST_HIT_NS);
    cr_expect_eq(fake.loads, 1);
}
