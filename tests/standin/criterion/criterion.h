/* Stands in for Criterion: the same macros, all tests in one process, one after the other.
 *
 * Used where a system has no Criterion, and under ThreadSanitizer, which does not bear the memory arena that Criterion
 * shares with its processes. Only the macros that tests/unit uses are here; a test that uses another fails to compile. */
#ifndef DLATTN_STANDIN_CRITERION_H
#define DLATTN_STANDIN_CRITERION_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct standin_test {
    const char *suite, *name;
    void (*run)(void);
    struct standin_test *next;
    void (*init)(void), (*fini)(void);
    int disabled;
} standin_test;

static standin_test *standin_tests, **standin_tail = &standin_tests;
static jmp_buf standin_abort;
static int standin_failures; /* of the running test */

/* Test(suite, name, .init = f, .fini = f) { body } */
#define Test(suite_, name_, ...)                                                                                       \
    static void standin_run_##suite_##_##name_(void);                                                                     \
    __attribute__((constructor)) static void standin_add_##suite_##_##name_(void) {                                       \
        static standin_test test = {.suite = #suite_, .name = #name_, .run = standin_run_##suite_##_##name_, ##__VA_ARGS__}; \
        *standin_tail = &test;                                                                                            \
        standin_tail = &test.next;                                                                                        \
    }                                                                                                                  \
    static void standin_run_##suite_##_##name_(void)

__attribute__((unused, format(printf, 4, 5))) static void standin_complain(const char *file, int line, const char *what,
                                                                        const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: %s", file, line, what);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    standin_failures++;
}

#define standin_expect(holds, ...) ((holds) ? (void)0 : standin_complain(__FILE__, __LINE__, #holds, " " __VA_ARGS__))
#define standin_assert(holds, ...) \
    ((holds) ? (void)0 : (standin_complain(__FILE__, __LINE__, #holds, " " __VA_ARGS__), longjmp(standin_abort, 1)))

#define cr_assert(x, ...)                  standin_assert((x), __VA_ARGS__)
#define cr_assert_not(x, ...)              standin_assert(!(x), __VA_ARGS__)
#define cr_assert_eq(a, b, ...)            standin_assert((a) == (b), __VA_ARGS__)
#define cr_assert_neq(a, b, ...)           standin_assert((a) != (b), __VA_ARGS__)
#define cr_assert_lt(a, b, ...)            standin_assert((a) < (b), __VA_ARGS__)
#define cr_assert_leq(a, b, ...)           standin_assert((a) <= (b), __VA_ARGS__)
#define cr_assert_gt(a, b, ...)            standin_assert((a) > (b), __VA_ARGS__)
#define cr_assert_geq(a, b, ...)           standin_assert((a) >= (b), __VA_ARGS__)
#define cr_assert_null(a, ...)             standin_assert((a) == NULL, __VA_ARGS__)
#define cr_assert_not_null(a, ...)         standin_assert((a) != NULL, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)        standin_assert(strcmp((a), (b)) == 0, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...)       standin_assert(strcmp((a), (b)) != 0, __VA_ARGS__)
#define cr_assert_float_eq(a, b, eps, ...) standin_assert(fabs((double)(a) - (double)(b)) <= (eps), __VA_ARGS__)
#define cr_assert_arr_eq(a, b, bytes, ...) standin_assert(memcmp((a), (b), (bytes)) == 0, __VA_ARGS__)
#define cr_assert_fail(...)                standin_assert(0, __VA_ARGS__)
#define cr_fatal(...)                      standin_assert(0, __VA_ARGS__)

#define cr_expect(x, ...)                  standin_expect((x), __VA_ARGS__)
#define cr_expect_not(x, ...)              standin_expect(!(x), __VA_ARGS__)
#define cr_expect_eq(a, b, ...)            standin_expect((a) == (b), __VA_ARGS__)
#define cr_expect_neq(a, b, ...)           standin_expect((a) != (b), __VA_ARGS__)
#define cr_expect_lt(a, b, ...)            standin_expect((a) < (b), __VA_ARGS__)
#define cr_expect_leq(a, b, ...)           standin_expect((a) <= (b), __VA_ARGS__)
#define cr_expect_gt(a, b, ...)            standin_expect((a) > (b), __VA_ARGS__)
#define cr_expect_geq(a, b, ...)           standin_expect((a) >= (b), __VA_ARGS__)
#define cr_expect_null(a, ...)             standin_expect((a) == NULL, __VA_ARGS__)
#define cr_expect_not_null(a, ...)         standin_expect((a) != NULL, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...)        standin_expect(strcmp((a), (b)) == 0, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...)       standin_expect(strcmp((a), (b)) != 0, __VA_ARGS__)
#define cr_expect_float_eq(a, b, eps, ...) standin_expect(fabs((double)(a) - (double)(b)) <= (eps), __VA_ARGS__)
#define cr_expect_arr_eq(a, b, bytes, ...) standin_expect(memcmp((a), (b), (bytes)) == 0, __VA_ARGS__)
#define cr_expect_fail(...)                standin_expect(0, __VA_ARGS__)
#define cr_log_info(...)                   (fprintf(stderr, __VA_ARGS__), (void)fprintf(stderr, "\n"))

/* Runs one test; 1 if it failed. */
static int standin_run(const standin_test *test) {
    standin_failures = 0;
    if (setjmp(standin_abort) == 0) {
        if (test->init) test->init();
        test->run();
        if (test->fini) test->fini();
    }
    if (standin_failures > 0) fprintf(stderr, "failed: %s %s\n", test->suite, test->name);
    return standin_failures > 0;
}

int main(void) {
    int failed = 0, count = 0;
    for (const standin_test *test = standin_tests; test; test = test->next) {
        if (test->disabled) continue;
        failed += standin_run(test);
        count++;
    }
    printf("%d tests, %d failed\n", count, failed);
    return failed > 0 || count == 0;
}

#endif
