/* bits_on_device.c: the bits of a forward on a CUDA device: the same in each of 1000 calls, and, in tensors of more than 2^31 elements,
 * those of a call on a slice that begins beyond that mark.
 *
 * usage: bits_on_device [REPEATS [SCALE]]    1000 and 1; with a SCALE above 1 lengths are divided by it, and there is nothing large
 *
 * Data repeat after a prime number of elements, so that an address cut to 31 or 32 bits meets others. Ends with 77 (skipped)
 * where there is no device, or too little memory. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dlattn/dlattn.h>

#include "device_driver.h"
#include "element.h"

enum { SKIPPED = 77, PERIOD = 8388617 }; /* a prime */
static const int64_t mark = INT64_C(1) << 31;

static const device_driver *driver;
static void *stream;
static int failures;

static void need(int error, const char *what) {
    if (!error) return;
    printf("%s: CUDA error %d\n", what, error);
    exit(error == 2 ? SKIPPED : 1); /* 2: out of memory */
}

static uint64_t allocate(int64_t elements) {
    uint64_t at = 0;
    need(driver->cuMemAlloc_v2(&at, 2 * (size_t)elements), "cuMemAlloc");
    return at;
}

/* Random bfloat16 of about unit size, PERIOD of them again and again. */
static uint64_t filled(int64_t elements, uint64_t seed) {
    const uint64_t at = allocate(elements);
    const int64_t first = elements < PERIOD ? elements : PERIOD;
    uint16_t *values = malloc(2 * (size_t)first);
    if (!values) abort();
    for (int64_t n = 0; n < first; n++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        values[n] = float_to_bfloat((float)(int32_t)(seed >> 32) * 0x1p-30f);
    }
    need(driver->cuMemcpyHtoDAsync_v2(at, values, 2 * (size_t)first, stream), "copy");
    need(driver->cuStreamSynchronize(stream), "copy");
    free(values);
    for (int64_t done = first; done < elements; done += first) {
        const int64_t count = elements - done < first ? elements - done : first;
        need(driver->cuMemcpyDtoDAsync_v2(at + 2 * (uint64_t)done, at, 2 * (size_t)count, stream), "copy on the device");
    }
    return at;
}

typedef struct shape {
    int64_t B, M, N, H, D;
    int64_t window_left; /* < 0: all keys */
    int causal;
} shape;

typedef struct addresses {
    uint64_t q, k, v, out;
} addresses;

static DLTensor tensor(uint64_t data, int64_t *extents) {
    return (DLTensor){.data = (void *)(uintptr_t)data, .device = {kDLCUDA, 0}, .ndim = 4, .dtype = {kDLBfloat, 16, 1}, .shape = extents};
}

static uint64_t workspace;
enum { WORKSPACE_BYTES = 64 << 20 };

static void forward(const shape *s, const addresses *at) {
    int64_t queries[4] = {s->B, s->M, s->H, s->D}, keys[4] = {s->B, s->N, s->H, s->D};
    const DLTensor q = tensor(at->q, queries), k = tensor(at->k, keys), v = tensor(at->v, keys);
    DLTensor out = tensor(at->out, queries);
    const dlattn_attention a = {.struct_size = sizeof a, .q = &q, .k = &k, .v = &v, .window_left = s->window_left,
                                .flags = (s->causal ? DLATTN_CAUSAL : 0) | (s->window_left < 0 ? 0 : DLATTN_WINDOW), .window_right = -1};
    const dlattn_outputs outputs = {.struct_size = sizeof outputs, .out = &out};
    const dlattn_exec exec = {.struct_size = sizeof exec, .stream = stream, .workspace = (void *)(uintptr_t)workspace,
                              .workspace_bytes = WORKSPACE_BYTES};
    if (dlattn_forward(&a, &outputs, &exec)) {
        printf("dlattn_forward: %s\n", dlattn_last_error());
        exit(1);
    }
    need(driver->cuStreamSynchronize(stream), "the forward");
}

static uint16_t *fetched(uint64_t from, int64_t elements) {
    uint16_t *values = malloc(2 * (size_t)elements);
    if (!values) abort();
    need(driver->cuMemcpyDtoHAsync_v2(values, from, 2 * (size_t)elements, stream), "copy");
    need(driver->cuStreamSynchronize(stream), "copy");
    return values;
}

static void compare(const char *what, uint64_t whole, uint64_t slice, int64_t elements) {
    uint16_t *a = fetched(whole, elements), *b = fetched(slice, elements);
    int64_t differ = 0, dull = 0;
    for (int64_t n = 0; n < elements; n++) {
        const float value = bfloat_to_float(b[n]);
        differ += a[n] != b[n];
        dull += !(value > 0 || value < 0); /* NaN, or what nobody wrote */
    }
    const int bad = differ > 0 || dull > elements / 100;
    printf("%s: %s, %lld of %lld elements differ\n", what, bad ? "FAILED" : "ok", (long long)differ, (long long)elements);
    failures += bad;
    free(a);
    free(b);
}

static void release(const addresses *at) {
    driver->cuMemFree_v2(at->q), driver->cuMemFree_v2(at->k), driver->cuMemFree_v2(at->v), driver->cuMemFree_v2(at->out);
}

/* The last of many sequences, and the first, beside a call of one sequence. */
static void test_many_sequences(void) {
    const shape whole = {.B = 131, .M = 1024, .N = 1024, .H = 128, .D = 128, .window_left = -1};
    const int64_t one = whole.M * whole.H * whole.D, all = whole.B * one;
    const addresses at = {filled(all, 1), filled(all, 2), filled(all, 3), allocate(all)};
    shape single = whole;
    addresses part = {.out = allocate(one)};
    if (all < mark) abort();
    single.B = 1;
    need(driver->cuMemsetD8Async(at.out, 0, 2 * (size_t)all, stream), "cuMemsetD8");
    forward(&whole, &at);
    for (int64_t b = 0; b < whole.B; b += whole.B - 1) {
        const uint64_t offset = 2 * (uint64_t)(b * one);
        part.q = at.q + offset, part.k = at.k + offset, part.v = at.v + offset;
        forward(&single, &part);
        compare(b ? "the last of many sequences" : "the first of many sequences", at.out + offset, part.out, one);
    }
    driver->cuMemFree_v2(part.out);
    release(&at);
}

/* A window at the end of one long sequence, beside a call on its last keys, which begin at a multiple of every tile. */
static void test_long_sequence(void) {
    enum { KEPT = 8192, STEP = 8960 /* of 64, 80, 112 and 128 */ };
    const shape whole = {.B = 1, .M = 256, .N = KEPT + 121 * STEP, .H = 16, .D = 128, .window_left = 4095, .causal = 1};
    const int64_t row = whole.H * whole.D, keys = whole.N * row, queries = whole.M * row;
    const addresses at = {filled(queries, 4), filled(keys, 5), filled(keys, 6), allocate(queries)};
    shape end = whole;
    const uint64_t offset = 2 * (uint64_t)((whole.N - KEPT) * row);
    const addresses part = {at.q, at.k + offset, at.v + offset, allocate(queries)};
    if (keys < mark || offset < 2 * (uint64_t)mark) abort();
    end.N = KEPT;
    forward(&whole, &at);
    forward(&end, &part);
    compare("the end of a long sequence", at.out, part.out, queries);
    driver->cuMemFree_v2(part.out);
    release(&at);
}

/* Each call into memory full of other bits. */
static void test_repeats(const shape *s, long repeats) {
    const int64_t queries = s->B * s->M * s->H * s->D, keys = s->B * s->N * s->H * s->D;
    const addresses at = {filled(queries, 7), filled(keys, 8), filled(keys, 9), allocate(queries)};
    uint16_t *first = NULL;
    long differ = 0;
    for (long n = 0; n < repeats; n++) {
        need(driver->cuMemsetD8Async(at.out, (unsigned char)(n % 2 ? 0x55 : 0xff), 2 * (size_t)queries, stream), "cuMemsetD8");
        forward(s, &at);
        uint16_t *now = fetched(at.out, queries);
        if (first) differ += memcmp(now, first, 2 * (size_t)queries) != 0;
        if (first) free(now);
        else first = now;
    }
    const int64_t middle = queries / 2;
    const int dull = !(bfloat_to_float(first[middle]) > 0 || bfloat_to_float(first[middle]) < 0);
    printf("%ld calls, M %lld N %lld H %lld D %lld%s%s: ", repeats, (long long)s->M, (long long)s->N, (long long)s->H, (long long)s->D,
           s->causal ? " causal" : "", s->window_left < 0 ? "" : " window");
    printf("%s, %ld have other bits than the first\n", differ || dull ? "FAILED" : "ok", differ);
    failures += differ > 0 || dull;
    free(first);
    release(&at);
}

/* More tiles than multiprocessors, so that a counter hands them out; few rows on many keys, which are cut into pieces. */
static void test_all_repeats(long repeats, int64_t scale) {
    static const shape shapes[] = {
        {1, 2048, 2048, 16, 64, -1, 1},  {1, 2048, 2048, 16, 128, -1, 1}, {2, 1000, 1000, 8, 128, -1, 0}, {1, 1500, 1500, 8, 256, -1, 1},
        {1, 1024, 1024, 8, 192, -1, 0},  {1, 4096, 4096, 8, 64, 511, 1},  {1, 16, 8192, 8, 128, -1, 0},
    };
    for (size_t n = 0; n < sizeof shapes / sizeof *shapes; n++) {
        shape s = shapes[n];
        s.M = (s.M + scale - 1) / scale;
        s.N = (s.N + scale - 1) / scale;
        test_repeats(&s, repeats);
    }
}

int main(int argc, char **argv) {
    const long repeats = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
    const int64_t scale = argc > 2 ? strtol(argv[2], NULL, 10) : 1;
    char why[300];
    void *context = NULL;
    int device = 0, major = 0;
    driver = device_driver_open(why, sizeof why);
    if (!driver) return printf("skipped: %s\n", why), SKIPPED;
    need(driver->cuDeviceGet(&device, 0), "cuDeviceGet");
    need(driver->cuDeviceGetAttribute(&major, DEVICE_ATTRIBUTE_MAJOR, device), "cuDeviceGetAttribute");
    need(driver->cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
    need(driver->cuCtxSetCurrent(context), "cuCtxSetCurrent");
    need(driver->cuStreamCreate(&stream, DEVICE_STREAM_NON_BLOCKING), "cuStreamCreate");
    if (repeats < 1 || scale < 1) return printf("usage: bits_on_device [REPEATS [SCALE]]\n"), 2;
    workspace = allocate(WORKSPACE_BYTES / 2);
    test_all_repeats(repeats, scale);
    if (scale > 1) return failures > 0;
    /* One kernel for whole and slice: else their bits could differ. */
    if (dlattn_set_option("cuda_variant", major == 9 ? "sm90" : "sm80")) return printf("%s\n", dlattn_last_error()), 1;
    test_many_sequences();
    test_long_sequence();
    return failures > 0;
}
