/* test_malloc_failure.c: each allocation of each call fails once; the call says so and writes nothing. */
#include <criterion/criterion.h>

#include "call.h"
#include "cpu.h"
#include "options.h"

static dlattn__memory_table real_memory;
static int allocations_left; /* the one that finds 0 here fails */
static int failures;

static void *allocate_or_fail(int64_t bytes) {
    if (allocations_left-- == 0) {
        failures++;
        return NULL;
    }
    return real_memory.allocate(bytes);
}

static call c, before;

static int32_t forward(void) { return dlattn_forward(c.a, c.o, &c.exec); }
static int32_t backward(void) { return dlattn_backward(c.a, c.g, &c.exec); }
static int32_t merge(void) { return dlattn_merge(c.p, c.o, &c.exec); }
static int32_t dropout_mask(void) { return dlattn_dropout_mask(c.a, c.keep, &c.exec); }
static int32_t explain(void) {
    static char text[4096];
    return dlattn_explain(c.a, c.o, NULL, &c.exec, text, sizeof text);
}
static int32_t prepare(void) { return dlattn_prepare(c.a, c.o, c.g, &c.exec); }

/* Fails allocation 0, 1, 2 ... until the call gets all it asks for. Returns how many failures the call met. */
static int fail_each(const char *name, int32_t (*run)(void)) {
    int met = 0;
    real_memory = dlattn__memory;
    dlattn__memory.allocate = allocate_or_fail;
    for (int n = 0; n < 100; n++) {
        dlattn__scratch_take(UINT64_MAX); /* cannot be had, but gives back the spare block of an earlier call */
        before = c;
        allocations_left = n;
        failures = 0;
        int32_t status = run();
        if (failures == 0) {
            cr_expect_eq(status, DLATTN_OK, "%s: %s", name, c.message);
            break;
        }
        met++;
        cr_expect_eq(status, DLATTN_ERR_OUT_OF_MEMORY, "%s, allocation %d: %d", name, n, (int)status);
        cr_expect_str_neq(c.message, "", "%s, allocation %d: no sentence", name, n);
        cr_expect(memcmp(c.memory, before.memory, sizeof c.memory) == 0, "%s, allocation %d: wrote", name, n);
    }
    dlattn__memory = real_memory;
    return met;
}

/* The calls that need host memory of their own when the caller brings no workspace. */
Test(malloc_failure, calls_fail_without_a_trace) {
    make_call(&c);
    cr_expect(fail_each("forward", forward) >= 1);
    make_call(&c);
    cr_expect(fail_each("backward", backward) >= 1);
    make_call(&c);
    cr_expect(fail_each("merge", merge) >= 1);
}

/* Whatever these ask for, the rule is the same. */
Test(malloc_failure, other_calls) {
    make_call(&c);
    fail_each("dropout_mask", dropout_mask);
    fail_each("explain", explain);
    fail_each("prepare", prepare);
}

Test(malloc_failure, a_workspace_makes_memory_needless) {
    static _Alignas(64) unsigned char workspace[1 << 20];
    uint64_t forward_bytes = 0, backward_bytes = 0;
    make_call(&c);
    cr_assert_eq(dlattn_forward_workspace(c.a, c.o, &c.exec, &forward_bytes, NULL), DLATTN_OK);
    cr_assert_eq(dlattn_backward_workspace(c.a, c.g, &c.exec, &backward_bytes, NULL), DLATTN_OK);
    cr_assert(forward_bytes <= sizeof workspace && backward_bytes <= sizeof workspace);
    c.exec.workspace = workspace;
    c.exec.workspace_bytes = sizeof workspace;
    cr_expect_eq(fail_each("forward", forward), 0);
    cr_expect_eq(fail_each("backward", backward), 0);
}

static int32_t set_threads(void) { return dlattn_set_option("num_threads", "12345"); }

Test(malloc_failure, an_option_that_cannot_be_kept_is_not_set) {
    make_call(&c);
    real_memory = dlattn__memory;
    dlattn__memory.allocate = allocate_or_fail;
    allocations_left = 0;
    cr_expect_eq(set_threads(), DLATTN_ERR_OUT_OF_MEMORY);
    cr_expect(strstr(dlattn_last_error(), "num_threads"), "%s", dlattn_last_error());
    dlattn__memory = real_memory;
    const char *value = dlattn__option("num_threads");
    cr_expect(!value || strcmp(value, "12345") != 0);
    cr_expect_eq(set_threads(), DLATTN_OK);
    cr_expect_str_eq(dlattn__option("num_threads"), "12345");
    cr_expect_eq(dlattn_set_option("num_threads", NULL), DLATTN_OK);
}
