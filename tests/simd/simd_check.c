/* simd_check.c: runs the vocabulary checks of every instruction set that this build and this machine have.
 *
 * A program of its own, without Criterion, so that it also runs under an emulator. Fails when a check fails. */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "checks.h"

#if defined(__x86_64__)
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); /* all such processors convert float16 */
}
static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && has_avx2();
}
#endif
static inline bool always(void) { return true; }

/* CHECKS(X) is made by CMake: X(isa, real, does the machine have it), one per compiled template. */
#define DECLARE(isa, real, has) int dlattn__simd_check_##isa##_##real(void);
#define ROW(isa, real, has) {#isa " " #real, has, dlattn__simd_check_##isa##_##real},
CHECKS(DECLARE)

static const struct {
    const char *name;
    bool (*has)(void);
    int (*check)(void);
} checks[] = {CHECKS(ROW)};

int main(void) {
    int failures = 0;
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        if (checks[i].has()) failures += checks[i].check();
        else printf("%s: this machine lacks it\n", checks[i].name);
    }
    printf("%d failures\n", failures);
    return failures != 0;
}
