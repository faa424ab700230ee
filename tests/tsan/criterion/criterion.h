/* Stands in for Criterion under ThreadSanitizer: the same macros, all tests in one process, one after the other.
 *
 * Criterion runs each test in a process of its own, in a memory arena that ThreadSanitizer does not allow. Only the
 * macros that tests/unit uses are here, and a test file that uses another fails to compile. */
#ifndef DLATTN_TSAN_CRITERION_H
#define DLATTN_TSAN_CRITERION_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct tsan_test {
    const char *suite, *name;
    void (*run)(void);
    struct tsan_test *next;
    void (*init)(void), (*fini)(void);
    int disabled;
} tsan_test;

static tsan_test *tsan_tests, **tsan_tail = &tsan_tests;
static jmp_buf tsan_abort;
static int tsan_failures; /* of the running test */

/* Test(suite, name, .init = f, .fini = f) { body } */
#define Test(suite_, name_, ...)                                                                                       \
    static void tsan_run_##suite_##_##name_(void);                                                                     \
    __attribute__((constructor)) static void tsan_add_##suite_##_##name_(void) {                                       \
        static tsan_test test = {.suite = #suite_, .name = #name_, .run = tsan_run_##suite_##_##name_, ##__VA_ARGS__}; \
        *tsan_tail = &test;                                                                                            \
        tsan_tail = &test.next;                                                                                        \
    }                                                                                                                  \
    static void tsan_run_##suite_##_##name_(void)

__attribute__((unused, format(printf, 4, 5))) static void tsan_complain(const char *file, int line, const char *what,
                                                                        const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: %s", file, line, what);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    tsan_failures++;
}

#define tsan_expect(holds, ...) ((holds) ? (void)0 : tsan_complain(__FILE__, __LINE__, #holds, " " __VA_ARGS__))
#define tsan_assert(holds, ...) \
    ((holds) ? (void)0 : (tsan_complain(__FILE__, __LINE__, #holds, " " __VA_ARGS__), longjmp(tsan_abort, 1)))

#define cr_assert(x, ...)                  tsan_assert((x), __VA_ARGS__)
#define cr_assert_not(x, ...)              tsan_assert(!(x), __VA_ARGS__)
#define cr_assert_eq(a, b, ...)            tsan_assert((a) == (b), __VA_ARGS__)
#define cr_assert_neq(a, b, ...)           tsan_assert((a) != (b), __VA_ARGS__)
#define cr_assert_lt(a, b, ...)            tsan_assert((a) < (b), __VA_ARGS__)
#define cr_assert_leq(a, b, ...)           tsan_assert((a) <= (b), __VA_ARGS__)
#define cr_assert_gt(a, b, ...)            tsan_assert((a) > (b), __VA_ARGS__)
#define cr_assert_geq(a, b, ...)           tsan_assert((a) >= (b), __VA_ARGS__)
#define cr_assert_null(a, ...)             tsan_assert((a) == NULL, __VA_ARGS__)
#define cr_assert_not_null(a, ...)         tsan_assert((a) != NULL, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)        tsan_assert(strcmp((a), (b)) == 0, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...)       tsan_assert(strcmp((a), (b)) != 0, __VA_ARGS__)
#define cr_assert_float_eq(a, b, eps, ...) tsan_assert(fabs((double)(a) - (double)(b)) <= (eps), __VA_ARGS__)
#define cr_assert_arr_eq(a, b, bytes, ...) tsan_assert(memcmp((a), (b), (bytes)) == 0, __VA_ARGS__)
#define cr_assert_fail(...)                tsan_assert(0, __VA_ARGS__)
#define cr_fatal(...)                      tsan_assert(0, __VA_ARGS__)

#define cr_expect(x, ...)                  tsan_expect((x), __VA_ARGS__)
#define cr_expect_not(x, ...)              tsan_expect(!(x), __VA_ARGS__)
#define cr_expect_eq(a, b, ...)            tsan_expect((a) == (b), __VA_ARGS__)
#define cr_expect_neq(a, b, ...)           tsan_expect((a) != (b), __VA_ARGS__)
#define cr_expect_lt(a, b, ...)            tsan_expect((a) < (b), __VA_ARGS__)
#define cr_expect_leq(a, b, ...)           tsan_expect((a) <= (b), __VA_ARGS__)
#define cr_expect_gt(a, b, ...)            tsan_expect((a) > (b), __VA_ARGS__)
#define cr_expect_geq(a, b, ...)           tsan_expect((a) >= (b), __VA_ARGS__)
#define cr_expect_null(a, ...)             tsan_expect((a) == NULL, __VA_ARGS__)
#define cr_expect_not_null(a, ...)         tsan_expect((a) != NULL, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...)        tsan_expect(strcmp((a), (b)) == 0, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...)       tsan_expect(strcmp((a), (b)) != 0, __VA_ARGS__)
#define cr_expect_float_eq(a, b, eps, ...) tsan_expect(fabs((double)(a) - (double)(b)) <= (eps), __VA_ARGS__)
#define cr_expect_arr_eq(a, b, bytes, ...) tsan_expect(memcmp((a), (b), (bytes)) == 0, __VA_ARGS__)
#define cr_expect_fail(...)                tsan_expect(0, __VA_ARGS__)
#define cr_log_info(...)                   (fprintf(stderr, __VA_ARGS__), (void)fprintf(stderr, "\n"))

/* Runs one test; 1 if it failed. */
static int tsan_run(const tsan_test *test) {
    tsan_failures = 0;
    if (setjmp(tsan_abort) == 0) {
        if (test->init) test->init();
        test->run();
        if (test->fini) test->fini();
    }
    if (tsan_failures > 0) fprintf(stderr, "failed: %s %s\n", test->suite, test->name);
    return tsan_failures > 0;
}

int main(void) {
    int failed = 0, count = 0;
    for (const tsan_test *test = tsan_tests; test; test = test->next) {
        if (test->disabled) continue;
        failed += tsan_run(test);
        count++;
    }
    printf("%d tests, %d failed\n", count, failed);
    return failed > 0 || count == 0;
}

#endif
