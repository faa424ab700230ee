/* test_cuda_common.c: a library that carries the kernels of common calls compiles nothing for them, whatever their sizes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common_calls.h"
#include "embedded.h"
#include "fake_cuda.h"
#include "load.h"

enum { MOST_REQUESTS = 1024, IMAGE_BYTES = 16 };

static const cuda_scope scope = {.context = (CUcontext)8};

/* ---- an archive of all that a build would put into the library --------------------------------------------------------- */

static int by_key(const void *a, const void *b) {
    return memcmp(((const archive_record *)a)->key, ((const archive_record *)b)->key, SHA256_BYTES);
}

static kernel_archive archive_for(int32_t arch) {
    static kernel_request requests[MOST_REQUESTS];
    nvrtc_choice choice = {NULL, true, ""};
    const int32_t count = dlattn__common_requests(requests, MOST_REQUESTS, arch);
    cr_assert(count > 50 && count <= MOST_REQUESTS, "%d", (int)count);
    const size_t records = (size_t)count * sizeof(archive_record), bytes = ARCHIVE_HEAD + records + IMAGE_BYTES;
    char *archive = calloc(1, bytes);
    archive_record *r = (archive_record *)(archive + ARCHIVE_HEAD);
    const uint64_t number = (uint64_t)count;
    memcpy(archive, &number, sizeof number);
    dlattn__arch_name(choice.arch, arch, true);
    for (int32_t n = 0; n < count; n++) {
        dlattn__compile_key(r[n].key, &choice, &requests[n]);
        r[n].at = ARCHIVE_HEAD + records;
        r[n].size = IMAGE_BYTES;
    }
    qsort(r, (size_t)count, sizeof *r, by_key);
    strcpy(archive + ARCHIVE_HEAD + records, "carried");
    return (kernel_archive){archive, archive + bytes};
}

/* ---- calls ------------------------------------------------------------------------------------------------------------ */

static operand dense(int32_t dtype, int64_t e0, int64_t e1, int64_t e2, int64_t e3) {
    operand o = {.dtype = dtype, .extent = {e0, e1, e2, e3}, .stride = {e1 * e2 * e3, e2 * e3, e3, 1}};
    for (int d = 0; d < 4; d++)
        if (o.extent[d] == 1) o.stride[d] = 0;
    return o;
}

static problem make_call(int32_t op, int32_t dtype, int64_t B, int64_t H, int64_t G, int64_t M, int64_t N, int64_t D) {
    problem p;
    memset(&p, 0, sizeof p);
    p.op = op, p.dtype = dtype, p.device_type = kDLCUDA;
    p.B = B, p.H = H, p.G = G, p.M = M, p.N = p.tokens_k = N, p.D = p.E = D;
    p.scale = 0.1;
    p.q = p.out = dense(dtype, B, M, H, D);
    p.k = p.v = dense(dtype, B, N, G, D);
    p.lse = dense(DLATTN_T_F32, B, H, M, 1);
    if (op == DLATTN_OP_FORWARD) return p;
    p.dout = p.dq = p.q;
    p.dk = p.dv = p.k;
    return p;
}

static void pack(problem *p) {
    const int64_t B = p->B, M = p->M, N = p->N;
    *p = make_call(p->op, p->dtype, 1, p->H, p->G, B * M, B * N, p->D);
    p->B = B, p->M = M, p->N = N;
    p->packed_q = p->packed_k = 1;
    p->cu_seqlens_q = p->cu_seqlens_k = dense(DLATTN_T_I32, B + 1, 1, 1, 1);
}

static int32_t calls, multiprocessors, arch;

static void call(const problem *p, const char *what) {
    cuda_device device = dlattn__cuda_device_like(arch);
    CUfunction f[DLATTN_MAX_STEPS];
    cuda_schedule s;
    char note[256] = "";
    device.multiprocessors = multiprocessors;
    cr_assert_eq(dlattn__schedule(&s, p, NULL, &device, UINT64_MAX, note, sizeof note), DLATTN_OK, "%s", note);
    cr_assert_eq(dlattn__load_steps(f, &s, &scope), DLATTN_OK, "%s", dlattn_last_error());
    cr_expect_eq(fake_copies[0].compiles, 0, "sm_%d, %d multiprocessors, %s: %s of B %d H %d G %d M %d N %d D %d: %s", (int)arch,
                 (int)multiprocessors, what, p->op == DLATTN_OP_FORWARD ? "forward" : "backward", (int)p->B, (int)p->H, (int)p->G,
                 (int)p->M, (int)p->N, (int)p->D, fake.image);
    fake_copies[0].compiles = 0;
    calls++;
}

static void call_in_every_mask(const problem *plain, const char *what) {
    problem p = *plain;
    call(&p, what);
    p.flags = DLATTN_CAUSAL;
    call(&p, what);
    p.flags = DLATTN_WINDOW;
    p.window_left = 300;
    call(&p, what);
    p.flags |= DLATTN_CAUSAL | DLATTN_TOP_LEFT;
    call(&p, what);
}

static void call_sizes(int32_t op, int32_t dtype, int64_t D) {
    static const int32_t sizes[][5] = {{2, 16, 16, 1024, 1024}, {1, 12, 12, 640, 640}, {3, 32, 4, 3000, 3000}, {2, 24, 8, 12345, 12345},
                                       {1, 2, 1, 100, 700},     {7, 40, 8, 77, 77},    {4, 28, 4, 1500, 6000}, {1, 64, 8, 32768, 32768}};
    for (size_t n = 0; n < sizeof sizes / sizeof sizes[0]; n++) {
        const int32_t *z = sizes[n];
        problem p = make_call(op, dtype, z[0], z[1], z[2], z[3], z[4], D);
        call_in_every_mask(&p, "padded");
        p.seqlens_q = p.seqlens_k = dense(DLATTN_T_I32, p.B, 1, 1, 1);
        call_in_every_mask(&p, "with lengths");
        p = make_call(op, dtype, z[0], z[1], z[2], z[3], z[4], D);
        pack(&p);
        call_in_every_mask(&p, "packed");
    }
}

static void call_decoding(int32_t dtype, int64_t D) {
    static const int32_t sizes[][4] = {{1, 32, 8, 5000}, {16, 32, 32, 700}, {3, 64, 8, 20000}, {128, 40, 8, 3333}};
    for (size_t n = 0; n < sizeof sizes / sizeof sizes[0]; n++) {
        const int32_t *z = sizes[n];
        problem p = make_call(DLATTN_OP_FORWARD, dtype, z[0], z[1], z[2], 1, z[3], D);
        p.seqlens_k = dense(DLATTN_T_I32, p.B, 1, 1, 1);
        call(&p, "decoding");
        p.flags = DLATTN_CAUSAL;
        call(&p, "decoding");
        p.page = 16;
        const int64_t pages = (p.N + p.page - 1) / p.page;
        p.k = p.v = dense(dtype, p.B * pages, p.page, p.G, D);
        p.block_table = dense(DLATTN_T_I32, p.B, pages, 1, 1);
        call(&p, "decoding from pages");
    }
}

static void check(int32_t on_arch, const int32_t *processors, int32_t count) {
    arch = on_arch;
    fake_begin();
    fake.capability = arch;
    cr_assert_eq(dlattn__driver_open(), DLATTN_OK, "%s", dlattn_last_error());
    const kernel_archive before = dlattn__embedded;
    dlattn__embedded = archive_for(arch);
    calls = 0;
    for (int32_t n = 0; n < count; n++) {
        multiprocessors = processors[n];
        for (int32_t dtype = DLATTN_T_F16; dtype <= DLATTN_T_BF16; dtype++)
            for (int64_t D = 64; D <= 256; D *= 2) {
                call_sizes(DLATTN_OP_FORWARD, dtype, D);
                call_sizes(DLATTN_OP_BACKWARD, dtype, D);
                call_decoding(dtype, D);
            }
    }
    cr_expect_eq(calls, count * 2 * 3 * (2 * 8 * 12 + 4 * 3));
    multiprocessors = processors[0];
    problem rare = make_call(DLATTN_OP_FORWARD, DLATTN_T_BF16, 2, 16, 16, 1024, 1024, 128);
    rare.mask = dense(DLATTN_T_U8, 1, 1, 1024, 1024);
    cuda_device device = dlattn__cuda_device_like(arch);
    CUfunction f[DLATTN_MAX_STEPS];
    cuda_schedule s;
    char note[256];
    cr_assert_eq(dlattn__schedule(&s, &rare, NULL, &device, UINT64_MAX, note, sizeof note), DLATTN_OK);
    cr_assert_eq(dlattn__load_steps(f, &s, &scope), DLATTN_OK);
    cr_expect_eq(fake_copies[0].compiles, 1, "what is not carried is compiled, and this test sees it");
    free((char *)dlattn__embedded.begin);
    dlattn__embedded = before;
}

Test(cuda_common, hopper) { check(90, (const int32_t[]){114, 132}, 2); }
Test(cuda_common, ampere) { check(80, (const int32_t[]){108}, 1); }
Test(cuda_common, ada) { check(89, (const int32_t[]){76, 142}, 2); }
Test(cuda_common, blackwell) { check(120, (const int32_t[]){170}, 1); }
