/* host_on_device.c: the CUDA host side against a real driver and a real NVRTC: capture, a context that dies, processes that
 * race or are killed, and what the first call and each later one cost.
 *
 * usage: host_on_device                the whole test, in folders of its own under /tmp
 *        host_on_device --once FOLDER  one process: gets one function with that disk cache, prints the milliseconds */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dlattn/dlattn.h"
#include "error.h"
#include "function.h"
#include "loader.h"
#include "options.h"

static int failures;

static void expect(bool holds, const char *what) {
    printf("%s: %s%s%s\n", what, holds ? "ok" : "FAILED", holds ? "" : ", ", holds ? "" : dlattn__error_text());
    failures += !holds;
}

static double milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static kernel_request make_request(const char *file, const char *entry) {
    kernel_request r;
    memset(&r, 0, sizeof r);
    r.file = file;
    r.entry = entry;
    return r;
}

/* Driver calls that only this test makes. */
static void *driver_call(const char *name) {
    void *library = dlattn__loader.open("libcuda.so.1", false);
    void *call = library ? dlattn__loader.symbol(library, name) : NULL;
    if (!call) {
        printf("libcuda.so.1 has no %s\n", name);
        exit(1);
    }
    return call;
}

static bool open_device(CUcontext *context) {
    return dlattn__driver_open() == DLATTN_OK &&
           dlattn__cuda_check(dlattn__driver.cuDevicePrimaryCtxRetain(context, 0), "cuDevicePrimaryCtxRetain", NULL) == 0 &&
           dlattn__cuda_check(dlattn__driver.cuCtxPushCurrent(*context), "cuCtxPushCurrent", NULL) == 0;
}

static int run_once(const char *folder) {
    CUcontext context;
    CUfunction f;
    dlattn_set_option("cache_dir", folder);
    double start = milliseconds();
    if (!open_device(&context)) return printf("%s\n", dlattn__error_text()), 1;
    double opened = milliseconds();
    kernel_request r = make_request("combine.cu", "combine");
    if (dlattn__function_get(&f, context, 0, &r) != DLATTN_OK) return printf("%s\n", dlattn__error_text()), 1;
    printf("driver and context %.0f ms, function %.1f ms\n", opened - start, milliseconds() - opened);
    return 0;
}

/* Runs `format` with this program and the folder; the exit status. */
static int shell(const char *program, const char *format, const char *folder) {
    char command[1024];
    snprintf(command, sizeof command, format, program, folder, program, folder);
    fflush(stdout);
    return system(command);
}

static void test_processes(const char *program) {
    char folder[] = "/tmp/dlattn_host_XXXXXX", delay[200];
    if (!mkdtemp(folder)) abort();
    printf("-- first process compiles, second finds it on disk\n");
    expect(shell(program, "%s --once %s", folder) == 0, "cold");
    expect(shell(program, "%s --once %s", folder) == 0, "warm");
    printf("-- two processes at once on an empty folder\n");
    shell("true", "%s; rm -rf %s/*", folder);
    expect(shell(program, "(%s --once %s & %s --once %s & wait)", folder) == 0, "race");
    printf("-- killed at any moment\n");
    for (int i = 0; i < 8; i++) {
        shell("true", "%s; rm -rf %s/*", folder);
        snprintf(delay, sizeof delay, "timeout -s KILL 0.%03d %%s --once %%s >/dev/null 2>&1", 200 + 15 * i);
        shell(program, delay, folder);
        expect(shell(program, "%s --once %s", folder) == 0, "after a kill");
    }
    shell("true", "%s; rm -rf %s", folder);
}

static void test_hit(CUcontext context) {
    enum { CALLS = 1000000 };
    CUfunction f;
    kernel_request r = make_request("combine.cu", "combine");
    for (r.count = 0; r.count < 12; r.count++) r.defines[r.count] = (kernel_define){"UNUSED_NAME", r.count};
    r.count = 1;
    expect(dlattn__function_get(&f, context, 0, &r) == DLATTN_OK, "one definition");
    double start = milliseconds();
    for (int i = 0; i < CALLS; i++) dlattn__function_get(&f, context, 0, &r);
    printf("a hit takes %.0f ns\n", (milliseconds() - start) * 1e6 / CALLS);
}

static void test_capture(CUcontext context) {
    CUresult (*create)(CUstream *, unsigned int), (*begin)(CUstream, CUstreamCaptureMode), (*end)(CUstream, void **);
    *(void **)&create = driver_call("cuStreamCreate");
    *(void **)&begin = driver_call("cuStreamBeginCapture_v2");
    *(void **)&end = driver_call("cuStreamEndCapture");
    CUstream stream;
    CUfunction f;
    void *graph = NULL;
    kernel_request r = make_request("merge.cu", "merge");
    expect(create(&stream, 1) == CUDA_SUCCESS && begin(stream, CU_STREAM_CAPTURE_MODE_GLOBAL) == CUDA_SUCCESS, "capture begins");
    expect(dlattn__function_get(&f, context, 0, &r) == DLATTN_OK, "a module is loaded inside it");
    expect(end(stream, &graph) == CUDA_SUCCESS && graph, "capture ends well");
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    dlattn__driver.cuThreadExchangeStreamCaptureMode(&mode);
    expect(mode == CU_STREAM_CAPTURE_MODE_GLOBAL, "the thread's mode is as before");
}

static void test_reset(CUcontext *context) {
    CUresult (*reset)(CUdevice);
    *(void **)&reset = driver_call("cuDevicePrimaryCtxReset_v2");
    CUfunction f;
    CUcontext before = *context, popped;
    int registers = 0;
    kernel_request r = make_request("combine.cu", "combine");
    dlattn__driver.cuCtxPopCurrent(&popped);
    expect(reset(0) == CUDA_SUCCESS && open_device(context), "the primary context is reset and made again");
    printf("its handle is %s\n", before == *context ? "the same" : "another");
    expect(dlattn__function_get(&f, *context, 0, &r) == DLATTN_OK, "the function is loaded again");
    expect(dlattn__driver.cuFuncGetAttribute(&registers, CU_FUNC_ATTRIBUTE_NUM_REGS, f) == CUDA_SUCCESS && registers > 0,
           "and is alive");
}

int main(int argc, char **argv) {
    CUcontext context;
    char folder[] = "/tmp/dlattn_host_XXXXXX";
    if (argc == 3 && strcmp(argv[1], "--once") == 0) return run_once(argv[2]);
    test_processes(argv[0]);
    if (!mkdtemp(folder)) abort();
    dlattn_set_option("cache_dir", folder);
    expect(open_device(&context), "driver and context");
    if (failures) return 1;
    test_hit(context);
    test_capture(context);
    test_reset(&context);
    shell("true", "%s; rm -rf %s", folder);
    printf("%d failures\n", failures);
    return failures > 0;
}
