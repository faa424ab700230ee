/* host_time.c: what a CUDA call costs the host, with the real driver: from its entry to its first cuLaunchKernel, and whole.
 *
 * usage: host_time [--json FILE]
 *
 * Three problems. Up to the launch the driver's table holds a cuLaunchKernel that notes the time and launches nothing;
 * then the true one is put back and bursts of whole calls are timed on an idle device. Medians, in microseconds. Beside
 * them: what the driver itself takes for each call that lies before the launch. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <dlattn/dlattn.h>

#include "driver.h"
#include "loader.h"

enum { B = 2, S = 1024, H = 16, D = 128, ROUNDS = 2000, BURSTS = 40, BURST = 8 };

static CUstream stream;
static CUresult (*allocate)(CUdeviceptr *, size_t), (*make_stream)(CUstream *, unsigned int), (*wait)(CUstream);

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void expect(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "host_time: %s: %s\n", what, dlattn_last_error());
    exit(1);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, by_size);
    return values[count / 2];
}

/* ---- the device ------------------------------------------------------------------------------------------------------ */

/* Calls of the driver that the library does not make. */
static void *driver_call(const char *name) {
    void *library = dlattn__loader.open("libcuda.so.1", false);
    return library ? dlattn__loader.symbol(library, name) : NULL;
}

static void open_device(void) {
    CUcontext context;
    expect(dlattn__driver_open() == DLATTN_OK, "no driver");
    *(void **)&allocate = driver_call("cuMemAlloc_v2");
    *(void **)&make_stream = driver_call("cuStreamCreate");
    *(void **)&wait = driver_call("cuStreamSynchronize");
    expect(allocate && make_stream && wait, "libcuda lacks a call");
    expect(!dlattn__driver.cuDevicePrimaryCtxRetain(&context, 0) && !dlattn__driver.cuCtxPushCurrent(context), "no context");
    expect(!make_stream(&stream, 1), "no stream");
}

static void *device_memory(size_t bytes) {
    CUdeviceptr address = 0;
    expect(!allocate(&address, bytes), "no device memory");
    return (void *)(uintptr_t)address;
}

/* ---- a call ---------------------------------------------------------------------------------------------------------- */

typedef struct held {
    DLTensor dl;
    int64_t shape[4], strides[4];
} held;

static DLTensor *make(held *t, int rank, int code, int bits, int64_t e0, int64_t e1, int64_t e2, int64_t e3) {
    const int64_t extents[4] = {e0, e1, e2, e3};
    int64_t count = 1;
    for (int d = rank - 1; d >= 0; d--) {
        t->shape[d] = extents[d];
        t->strides[d] = count;
        count *= extents[d];
    }
    t->dl = (DLTensor){.data = device_memory((size_t)(count * bits / 8)), .device = {kDLCUDA, 0}, .ndim = rank, .shape = t->shape,
                       .strides = t->strides, .dtype = {(uint8_t)code, (uint8_t)bits, 1}};
    return &t->dl;
}

typedef struct subject {
    const char *name;
    bool backward;
    dlattn_attention attention;
    dlattn_outputs outputs;
    dlattn_gradients gradients;
    dlattn_exec exec;
    held q, k, v, out, lse, dout, dq, dk, dv;
} subject;

static void make_subject(subject *s, const char *name, int64_t kv_heads, bool causal, bool backward) {
    const int f = kDLBfloat;
    uint64_t bytes = 0;
    s->name = name;
    s->backward = backward;
    s->attention = (dlattn_attention){.struct_size = sizeof s->attention, .flags = causal ? DLATTN_CAUSAL : 0};
    s->attention.q = make(&s->q, 4, f, 16, B, S, H, D);
    s->attention.k = make(&s->k, 4, f, 16, B, S, kv_heads, D);
    s->attention.v = make(&s->v, 4, f, 16, B, S, kv_heads, D);
    s->outputs = (dlattn_outputs){sizeof s->outputs, make(&s->out, 4, f, 16, B, S, H, D), make(&s->lse, 3, kDLFloat, 32, B, H, S, 0)};
    s->exec = (dlattn_exec){.struct_size = sizeof s->exec, .stream = stream};
    if (!backward) return;
    s->gradients = (dlattn_gradients){.struct_size = sizeof s->gradients, .out = s->outputs.out, .lse = s->outputs.lse};
    s->gradients.dout = make(&s->dout, 4, f, 16, B, S, H, D);
    s->gradients.dq = make(&s->dq, 4, f, 16, B, S, H, D);
    s->gradients.dk = make(&s->dk, 4, f, 16, B, S, kv_heads, D);
    s->gradients.dv = make(&s->dv, 4, f, 16, B, S, kv_heads, D);
    expect(!dlattn_backward_workspace(&s->attention, &s->gradients, &s->exec, &bytes, NULL), name);
    s->exec.workspace = device_memory(bytes);
    s->exec.workspace_bytes = bytes;
}

static void call(subject *s) {
    int32_t status = s->backward ? dlattn_backward(&s->attention, &s->gradients, &s->exec)
                                 : dlattn_forward(&s->attention, &s->outputs, &s->exec);
    expect(status == DLATTN_OK, s->name);
}

/* ---- times ----------------------------------------------------------------------------------------------------------- */

static double first_launch; /* when; 0: none yet */

static CUresult note_launch(CUfunction function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                            unsigned int by, unsigned int bz, unsigned int smem, CUstream on, void **parameters, void **extra) {
    (void)function, (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)smem, (void)on, (void)parameters, (void)extra;
    if (first_launch == 0) first_launch = now_us();
    return CUDA_SUCCESS;
}

typedef struct host_times {
    double to_launch_us, without_launch_us, whole_us;
} host_times;

static host_times measure(subject *s) {
    static double to_launch[ROUNDS], without[ROUNDS], whole[BURSTS];
    const dlattn__driver_table table = dlattn__driver;
    call(s); /* compiles */
    dlattn__driver.cuLaunchKernel = note_launch;
    for (int n = -ROUNDS; n < ROUNDS; n++) { /* the first half warms up */
        first_launch = 0;
        const double start = now_us();
        call(s);
        const double end = now_us();
        if (n < 0) continue;
        to_launch[n] = first_launch - start;
        without[n] = end - start;
    }
    dlattn__driver = table;
    for (int n = 0; n < BURSTS; n++) {
        expect(!wait(stream), "the device");
        const double start = now_us();
        for (int c = 0; c < BURST; c++) call(s);
        whole[n] = (now_us() - start) / BURST;
    }
    expect(!wait(stream), "the device");
    return (host_times){median(to_launch, ROUNDS), median(without, ROUNDS), median(whole, BURSTS)};
}

#define TIME(result, statement)                                  \
    do {                                                         \
        const double start = now_us();                           \
        for (int n = 0; n < ROUNDS; n++) statement;              \
        result = (now_us() - start) / ROUNDS;                    \
    } while (0)

enum { DRIVER_CALLS = 6 };

static void measure_driver(double us[DRIVER_CALLS], const void *data) {
    CUpointer_attribute attributes[2] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
    unsigned int type;
    int ordinal;
    unsigned long long id;
    CUcontext context;
    CUdevice device;
    void *values[2] = {&type, &ordinal};
    const CUdeviceptr address = (CUdeviceptr)(uintptr_t)data;
    TIME(us[0], dlattn__driver.cuCtxGetCurrent(&context));
    TIME(us[1], dlattn__driver.cuStreamGetCtx(stream, &context));
    TIME(us[2], dlattn__driver.cuCtxGetDevice(&device));
    TIME(us[3], dlattn__driver.cuCtxGetId(context, &id));
    TIME(us[4], dlattn__driver.cuPointerGetAttributes(1, attributes + 1, values + 1, address));
    TIME(us[5], dlattn__driver.cuPointerGetAttributes(2, attributes, values, address));
}

int main(int argc, char **argv) {
    static const char *const driver_calls[DRIVER_CALLS] = {"cuCtxGetCurrent", "cuStreamGetCtx", "cuCtxGetDevice", "cuCtxGetId",
                                                           "cuPointerGetAttributes (1)", "cuPointerGetAttributes (2)"};
    static subject subjects[3];
    double driver[DRIVER_CALLS];
    char name[96] = "?";
    if (argc != 1 && (argc != 3 || strcmp(argv[1], "--json"))) return fprintf(stderr, "usage: host_time [--json FILE]\n"), 2;
    open_device();
    make_subject(&subjects[0], "forward", H, false, false);
    make_subject(&subjects[1], "forward, causal, 4 key heads", 4, true, false);
    make_subject(&subjects[2], "backward", H, false, true);
    FILE *json = argc == 3 ? fopen(argv[2], "w") : NULL;
    expect(argc == 1 || json, "the file cannot be written");
    dlattn__driver.cuDeviceGetName(name, sizeof name, 0);
    if (json) fprintf(json, "{\"device\": \"%s\", \"calls\": [", name);
    printf("%-32s %12s %16s %12s   us on the host, %s\n", "call", "to launch", "without launch", "whole", name);
    for (int n = 0; n < 3; n++) {
        host_times t = measure(&subjects[n]);
        printf("%-32s %12.2f %16.2f %12.2f\n", subjects[n].name, t.to_launch_us, t.without_launch_us, t.whole_us);
        if (json)
            fprintf(json, "%s\n {\"call\": \"%s\", \"to_launch_us\": %.3f, \"without_launch_us\": %.3f, \"whole_us\": %.3f}",
                    n ? "," : "", subjects[n].name, t.to_launch_us, t.without_launch_us, t.whole_us);
    }
    measure_driver(driver, subjects[0].q.dl.data);
    if (json) fprintf(json, "],\n \"driver_us\": {");
    for (int n = 0; n < DRIVER_CALLS; n++) {
        printf("%-32s %12.3f\n", driver_calls[n], driver[n]);
        if (json) fprintf(json, "%s\"%s\": %.3f", n ? ", " : "", driver_calls[n], driver[n]);
    }
    if (json) fprintf(json, "}}\n"), fclose(json);
    return 0;
}
