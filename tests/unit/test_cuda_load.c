/* test_cuda_load.c: the kernels of one call are compiled side by side, and every failure reaches the caller. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "fake_cuda.h"
#include "load.h"
#include "options.h"
#include "source.h"

enum { STEPS = 4 };

static const cuda_scope scope = {.context = (CUcontext)8};
static cuda_schedule schedule;

/* Four kernels of one file, no two alike. */
static void begin(void) {
    fake_begin();
    cr_assert_eq(dlattn__driver_open(), DLATTN_OK, "%s", dlattn_last_error());
    memset(&schedule, 0, sizeof schedule);
    schedule.step_count = STEPS;
    for (int n = 0; n < STEPS; n++) {
        kernel_request *r = &schedule.steps[n].request;
        r->file = dlattn__source_file(0)->path;
        r->entry = "kernel";
        r->count = 1;
        r->defines[0] = (kernel_define){"STEP", n};
    }
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

Test(cuda_load, side_by_side) {
    CUfunction f[DLATTN_MAX_STEPS], again[DLATTN_MAX_STEPS];
    begin();
    fake.milliseconds = 400;
    const double start = seconds();
    cr_assert_eq(dlattn__load_steps(f, &schedule, &scope), DLATTN_OK, "%s", dlattn_last_error());
    cr_expect_lt(seconds() - start, 1.2, "one after another they take 1.6 seconds");
    cr_expect_eq(fake_copies[0].compiles, STEPS);
    cr_expect_eq(fake.loads, STEPS);
    cr_expect_eq(fake.forbidden_loads, 0, "threads too load under capture");
    cr_expect_eq(fake.pushes, STEPS - 1, "each thread has the call's context");
    cr_expect_eq(fake.pops, STEPS - 1);
    for (int n = 0; n < STEPS; n++)
        for (int m = 0; m < n; m++) cr_expect_neq(f[n], f[m]);

    cr_assert_eq(dlattn__load_steps(again, &schedule, &scope), DLATTN_OK);
    cr_expect_arr_eq(f, again, STEPS * sizeof f[0]);
    cr_expect_eq(fake.pushes, STEPS - 1, "no thread for what is in memory");
    cr_expect_eq(fake_copies[0].compiles, STEPS);
}

Test(cuda_load, one_that_is_missing_needs_no_thread) {
    CUfunction f[DLATTN_MAX_STEPS];
    begin();
    schedule.step_count = 1;
    cr_assert_eq(dlattn__load_steps(f, &schedule, &scope), DLATTN_OK);
    schedule.step_count = 2;
    cr_assert_eq(dlattn__load_steps(f, &schedule, &scope), DLATTN_OK);
    cr_expect_eq(fake.pushes, 0);
    cr_expect_eq(fake_copies[0].compiles, 2);
}

Test(cuda_load, a_module_of_two_entries_is_made_once) {
    CUfunction f[DLATTN_MAX_STEPS];
    begin();
    fake.milliseconds = 20;
    for (int n = 0; n < STEPS; n++) schedule.steps[n].request.defines[0].value = 0;
    schedule.steps[1].request.entry = schedule.steps[3].request.entry = "other";
    cr_assert_eq(dlattn__load_steps(f, &schedule, &scope), DLATTN_OK);
    cr_expect_eq(fake_copies[0].compiles, 1);
    cr_expect_eq(f[0], f[2]);
    cr_expect_eq(f[1], f[3]);
    cr_expect_neq(f[0], f[1]);
}

Test(cuda_load, a_failure_of_a_thread_is_the_callers) {
    CUfunction f[DLATTN_MAX_STEPS];
    for (int bad = 0; bad < STEPS; bad++) {
        char refused[32];
        begin();
        snprintf(refused, sizeof refused, "STEP=%d", bad);
        fake.refused = refused;
        cr_expect_eq(dlattn__load_steps(f, &schedule, &scope), DLATTN_ERR_COMPILE);
        cr_expect(strstr(dlattn_last_error(), "CUDA_ERROR_INVALID_IMAGE"), "%s", dlattn_last_error());
        fake.refused = NULL; /* the others are there, this one is made now */
        cr_expect_eq(dlattn__load_steps(f, &schedule, &scope), DLATTN_OK, "%s", dlattn_last_error());
        cr_expect_eq(fake_copies[0].compiles, STEPS + 1);
    }
}

Test(cuda_load, a_context_that_is_refused) {
    CUfunction f[DLATTN_MAX_STEPS];
    begin();
    fake.push_result = CUDA_ERROR_INVALID_CONTEXT;
    cr_expect_eq(dlattn__load_steps(f, &schedule, &scope), DLATTN_ERR_CUDA);
    cr_expect(strstr(dlattn_last_error(), "cuCtxPushCurrent of kernel"), "%s", dlattn_last_error());
    cr_expect_eq(fake.pops, 0);
}
