/* bench_table.c: the tables of problems that are timed, as arrays. */
#include "bench_table.h"

#include <dlattn/dlattn.h>

#define BENCH(id, ...) {.name = #id, CASE_DEFAULTS, .dlse = 0, __VA_ARGS__},
#pragma GCC diagnostic ignored "-Woverride-init" /* a case overrides the defaults */
static const test_case cpu_cases[] = {
#include "bench_cases.h"
};
static const test_case cuda_cases[] = {
#include "bench_cases_cuda.h"
};
#undef BENCH

bench_table bench_table_cpu(void) { return (bench_table){cpu_cases, sizeof cpu_cases / sizeof *cpu_cases}; }
bench_table bench_table_cuda(void) { return (bench_table){cuda_cases, sizeof cuda_cases / sizeof *cuda_cases}; }
