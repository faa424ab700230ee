/* test_guard_pages.c: no kernel reads or writes before the first or past the last element of any tensor, and offsets
 * past 2^31 elements are computed in 64 bits.
 *
 * Memory is mapped so that a page nobody may touch lies right behind (or right before) every buffer; what is past a
 * vector's end is then a fault, not luck. Results must have the bits they have in ordinary memory. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "instance.h"
#include "random_case.h"

static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512bf16", "amx", "neon"};

/* A buffer between two pages without access: it ends (or begins) where one of them begins (or ends). */
typedef struct fenced {
    unsigned char *mapping, *at;
    size_t mapping_bytes;
} fenced;

static fenced fence(size_t bytes, int at_end) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    fenced f = {.mapping_bytes = inner + 2 * page};
    f.mapping = mmap(NULL, f.mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(f.mapping != MAP_FAILED, "no memory for %zu bytes", bytes);
    cr_assert(inner == 0 || mprotect(f.mapping + page, inner, PROT_READ | PROT_WRITE) == 0, "mprotect failed");
    f.at = f.mapping + page + (at_end ? inner - bytes : 0);
    return f;
}

static void unfence(const fenced *f) { munmap(f->mapping, f->mapping_bytes); }

/* Moves every buffer of x and the tensors that lie in it. */
static void move_buffers(instance *x, unsigned char *const to[]) {
    for (int id = 0; id < T_COUNT; id++) {
        held_tensor *t = &x->tensors[id];
        if (t->used) t->dl.data = to[t->buffer] + ((unsigned char *)t->dl.data - x->buffers[t->buffer].memory);
    }
    for (int n = 0; n < x->buffer_count; n++) x->buffers[n].memory = to[n];
}

/* Forward and backward in a workspace whose end is fenced too. */
static void run(instance *x, int fenced_workspace) {
    uint64_t bytes = 0, least = 0;
    dlattn_exec exec = {.struct_size = sizeof exec, .num_threads = 2};
    int backward = x->test->gradients != NO_GRADIENTS;
    instance_poison(x, T_OUT, T_DSINKS);
    for (int pass = 0; pass <= backward; pass++) {
        fenced f = {0};
        if (fenced_workspace) {
            int32_t asked = pass ? dlattn_backward_workspace(&x->attention, &x->gradients, &exec, &bytes, &least)
                                 : dlattn_forward_workspace(&x->attention, &x->outputs, &exec, &bytes, &least);
            cr_assert_eq(asked, DLATTN_OK, "%s: %s", x->test->name, dlattn_last_error());
            f = fence((size_t)(bytes + 15) / 16 * 16, 1);
            exec.workspace = f.at;
            exec.workspace_bytes = bytes;
        }
        int32_t status = pass ? dlattn_backward(&x->attention, &x->gradients, &exec)
                              : dlattn_forward(&x->attention, &x->outputs, &exec);
        cr_assert_eq(status, DLATTN_OK, "%s: %s", x->test->name, dlattn_last_error());
        if (fenced_workspace) unfence(&f);
    }
}

static void check_fenced(const test_case *c, const char *isa) {
    instance x;
    fenced fences[T_COUNT];
    unsigned char *home[T_COUNT], *away[T_COUNT], *expected[T_COUNT];
    instance_make(&x, c, 1);
    run(&x, 0);
    int count = x.buffer_count;
    for (int n = 0; n < count; n++) {
        home[n] = x.buffers[n].memory;
        expected[n] = malloc(x.buffers[n].bytes);
        memcpy(expected[n], home[n], x.buffers[n].bytes);
    }
    for (int at_end = 0; at_end < 2; at_end++) {
        for (int n = 0; n < count; n++) {
            fences[n] = fence(x.buffers[n].bytes, at_end);
            away[n] = memcpy(fences[n].at, home[n], x.buffers[n].bytes);
        }
        move_buffers(&x, away);
        run(&x, 1);
        for (int n = 0; n < count; n++)
            cr_assert(!memcmp(away[n], expected[n], x.buffers[n].bytes), "%s on %s: other bits beside a guard page", c->name, isa);
        move_buffers(&x, home);
        for (int n = 0; n < count; n++) unfence(&fences[n]);
    }
    for (int n = 0; n < count; n++) free(expected[n]);
    instance_free(&x);
}

/* Head sizes on both sides of every vector length, few rows (decode) and many. */
static void check_head_sizes(const char *isa) {
    static const int64_t sizes[] = {1, 2, 3, 7, 8, 15, 17, 31, 33, 64, 65, 127, 255}, rows[] = {1, 2, 19}, keys[] = {1, 7, 37};
    for (int32_t dtype = F32; dtype <= F64; dtype++)
        for (int n = 0; n < 13 * 9; n++) {
            test_case c = {.name = "head sizes", CASE_DEFAULTS};
            c.dtype = dtype;
            c.D = sizes[n % 13];
            c.E = sizes[(n * 5 + 3) % 13];
            c.M = rows[n / 13 % 3];
            c.N = keys[n / 39];
            c.layout = n & 1;
            c.bias = n % 3 ? NULL : "hmn";
            c.mask = n % 4 ? NULL : "mn";
            check_fenced(&c, isa);
        }
}

/* Each instruction set that this machine has. */
static void on_every_isa(void (*check)(const char *isa)) {
    int found = 0;
    for (unsigned n = 0; n < sizeof isas / sizeof *isas; n++) {
        if (dlattn_set_option("cpu_isa", isas[n]) != DLATTN_OK) continue;
        check(isas[n]);
        found++;
    }
    dlattn_set_option("cpu_isa", NULL);
    cr_assert_gt(found, 0);
}

Test(guard_pages, head_sizes) { on_every_isa(check_head_sizes); }

static void check_random(const char *isa) {
    for (int64_t n = 0; n < 150; n++) {
        random_case r;
        random_case_make(&r, random_case_seed(7, n));
        check_fenced(&r.test, isa);
    }
}

Test(guard_pages, random_problems) { on_every_isa(check_random); }

/* ---- offsets past 2^31 elements ------------------------------------------------------------------------------------- */

/* The tensors of x again, with this stride in dimension `dim`, in memory that is reserved but mostly never touched. */
static void spread(instance *x, int32_t dim, int64_t stride, fenced mappings[]) {
    for (int id = 0; id < T_COUNT; id++) {
        held_tensor *t = &x->tensors[id], from = *t;
        mappings[id].mapping = NULL;
        if (!t->used || t->dl.ndim <= dim) continue;
        int64_t step = 1, item = tensor_item_bytes(&t->dl), extent = 1;
        from.dl.shape = from.shape;
        if (t->dl.strides) from.dl.strides = from.strides;
        for (int32_t d = t->dl.ndim - 1; d >= 0; d--) {
            t->strides[d] = d == dim ? stride : step;
            if (d != dim) step *= t->shape[d];
            extent += (t->shape[d] - 1) * t->strides[d];
        }
        t->dl.strides = t->strides;
        t->dl.byte_offset = 0;
        mappings[id].mapping_bytes = (size_t)(extent * item);
        mappings[id].mapping = mmap(NULL, mappings[id].mapping_bytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        cr_assert(mappings[id].mapping != MAP_FAILED, "no room for %zu bytes", mappings[id].mapping_bytes);
        t->dl.data = mappings[id].mapping;
        for (int64_t n = 0, count = tensor_count(&t->dl); n < count; n++)
            memcpy(tensor_address(&t->dl, n), tensor_address(&from.dl, n), (size_t)item);
    }
}

/* Runs the case with `stride` in one dimension of every tensor; the results one after the other. */
static unsigned char *run_spread(const test_case *c, int32_t dim, int64_t stride, size_t *bytes) {
    instance x;
    fenced mappings[T_COUNT];
    dlattn_exec exec = {.struct_size = sizeof exec, .num_threads = 2};
    unsigned char *results = NULL;
    *bytes = 0;
    instance_make(&x, c, 1);
    spread(&x, dim, stride, mappings);
    cr_assert_eq(dlattn_forward(&x.attention, &x.outputs, &exec), DLATTN_OK, "%s", dlattn_last_error());
    cr_assert_eq(dlattn_backward(&x.attention, &x.gradients, &exec), DLATTN_OK, "%s", dlattn_last_error());
    for (int id = T_OUT; id < T_COUNT; id++) {
        const DLTensor *t = &x.tensors[id].dl;
        size_t item = x.tensors[id].used ? (size_t)tensor_item_bytes(t) : 0;
        for (int64_t n = 0, count = x.tensors[id].used ? tensor_count(t) : 0; n < count; n++) {
            results = realloc(results, *bytes + item);
            memcpy(results + *bytes, tensor_address(t, n), item);
            *bytes += item;
        }
        if (mappings[id].mapping) munmap(mappings[id].mapping, mappings[id].mapping_bytes);
    }
    for (int id = 0; id < T_OUT; id++)
        if (mappings[id].mapping) munmap(mappings[id].mapping, mappings[id].mapping_bytes);
    instance_free(&x);
    return results;
}

static void check_far(const char *isa) {
    for (int32_t dtype = F32; dtype <= F64; dtype++)
        for (int32_t n = 0; n < 8; n++) {
            test_case c = {.name = "far", CASE_DEFAULTS};
            size_t near_bytes, far_bytes;
            c.dtype = dtype;
            c.B = 2, c.M = n < 4 ? 11 : 1, c.N = 9, c.D = 5, c.E = 3;
            c.bias = "bhmn", c.mask = "bhmn", c.alibi = "bh", c.sinks = 1, c.segments = SEGMENTS_SORTED, c.use_k = 1;
            c.k_used[0] = 9, c.k_used[1] = 6;
            unsigned char *near = run_spread(&c, n % 4, 4099, &near_bytes);
            unsigned char *far = run_spread(&c, n % 4, (INT64_C(1) << 31) + 4099, &far_bytes);
            cr_assert(near_bytes == far_bytes && near_bytes > 0 && !memcmp(near, far, near_bytes),
                      "%s: other bits with a stride past 2^31 in dimension %d of dtype %d", isa, n % 4, dtype);
            free(near);
            free(far);
        }
}

Test(guard_pages, strides_past_two_to_the_31) { on_every_isa(check_far); }
