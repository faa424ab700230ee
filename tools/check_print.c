/* check_print.c: what `dlattn check` says. */
#include "check_print.h"

#include <string.h>

#include "json.h"
#include "peak.h"

void check_print_begin(check_printer *p, uint64_t seed) {
    p->begun = now_seconds();
    if (p->json) return;
    printf("%lld cases, data from seed %llu", (long long)p->total, (unsigned long long)seed);
    if (p->skipped) printf("; %lld float64 cases are for the CPU alone and are left out", (long long)p->skipped);
    printf("\n");
}

/* How to run a failed random problem again, and what it is. */
static void print_random(const check_report *report) {
    printf("     dlattn check --random-seed %s\n     ", strchr(report->test->name, '0'));
    case_print_json(stdout, report->test);
    printf("\n");
}

void check_print_case(check_printer *p, const check_report *report) {
    p->shown++;
    p->failed += report->failures > 0;
    if (p->progress) fprintf(stderr, "\r\033[K");
    if (!p->json && report->failures)
        printf("FAIL %-40s %s%s\n", report->test->name, report->message, report->failures > 1 ? " (and more)" : "");
    if (!p->json && p->random && report->failures) print_random(report);
    if (!p->json && p->verbose) {
        printf("%s %-40s %6.2f s ", report->failures ? "    " : "ok  ", report->test->name, report->seconds);
        for (int id = 0; id < T_COUNT; id++)
            if (report->bounds[id].judged) printf(" %s %.2f", tensor_names[id], report->bounds[id].ratio);
        printf("\n");
    }
    fflush(stdout);
    if (p->progress) fprintf(stderr, "%lld/%lld", (long long)p->shown, (long long)p->total);
}

/* ---- the end ------------------------------------------------------------------------------------------------------- */

/* Calls of one variant over all cases. */
typedef struct calls {
    int64_t ran[2], refused[2];
} calls;

static calls count_calls(const check_report *reports, int64_t count, int32_t isa) {
    calls sum = {{0}, {0}};
    for (int64_t c = 0; c < count; c++)
        for (int pass = 0; pass < 2; pass++) {
            sum.ran[pass] += reports[c].ran[isa][pass];
            sum.refused[pass] += reports[c].refused[isa][pass];
        }
    return sum;
}

static void print_json(const check_printer *p, const check_report *reports, int64_t count) {
    printf("{\"seed\": %llu, \"device\": \"%s\", \"skipped_float64\": %lld, \"isas\": [",
           (unsigned long long)p->options->seed, p->cuda ? "cuda" : "cpu", (long long)p->skipped);
    for (int32_t n = 0; n < p->options->isa_count; n++) {
        calls sum = count_calls(reports, count, n);
        if (!p->cuda) printf("%s\"%s\"", n ? ", " : "", p->options->isas[n]);
        else
            printf("%s{\"variant\": \"%s\", \"forward\": %lld, \"forward_refused\": %lld, \"backward\": %lld, \"backward_refused\": %lld}",
                   n ? ", " : "", p->options->isas[n], (long long)sum.ran[0], (long long)sum.refused[0], (long long)sum.ran[1],
                   (long long)sum.refused[1]);
    }
    printf("], \"cases\": [");
    for (int64_t c = 0; c < count; c++) {
        const check_report *report = &reports[c];
        printf("%s\n{\"case\": \"%s\", \"pass\": %s, \"seconds\": %.3f, \"failures\": %d, \"message\": ", c ? "," : "",
               report->test->name, report->failures ? "false" : "true", report->seconds, report->failures);
        json_string(stdout, report->message);
        printf(", \"error_over_allowed\": {");
        for (int id = 0, first = 1; id < T_COUNT; id++) {
            if (!report->bounds[id].judged) continue;
            printf("%s\"%s\": ", first ? "" : ", ", tensor_names[id]);
            json_number(stdout, report->bounds[id].ratio);
            first = 0;
        }
        printf("}}");
    }
    printf("\n]}\n");
}

/* Worst ratio of each tensor over all cases. */
static void print_worst(const check_report *reports, int64_t count, int cuda) {
    printf("\n%-10s %-16s %-42s %s\n", "tensor", "error / allowed", "worst case", cuda ? "variant" : "isa");
    for (int id = 0; id < T_COUNT; id++) {
        const check_report *worst = NULL;
        for (int64_t c = 0; c < count; c++)
            if (reports[c].bounds[id].judged && (!worst || reports[c].bounds[id].ratio > worst->bounds[id].ratio)) worst = &reports[c];
        if (worst) printf("%-10s %-16.3f %-42s %s\n", tensor_names[id], worst->bounds[id].ratio, worst->test->name, worst->bound_isas[id]);
    }
}

/* What each variant ran. */
static void print_variants(check_printer *p, const check_report *reports, int64_t count) {
    if (!p->json) printf("\n%-10s %10s %10s %10s %10s\n", "variant", "forward", "refused", "backward", "refused");
    for (int32_t n = 0; n < p->options->isa_count; n++) {
        calls sum = count_calls(reports, count, n);
        if (!p->json)
            printf("%-10s %10lld %10lld %10lld %10lld\n", p->options->isas[n], (long long)sum.ran[0], (long long)sum.refused[0],
                   (long long)sum.ran[1], (long long)sum.refused[1]);
        if (sum.ran[0] + sum.ran[1] > 0 || !p->strict) continue;
        p->failed++;
        if (!p->json) printf("FAIL the variant %s accepted no case\n", p->options->isas[n]);
    }
}

void check_print_end(check_printer *p, const check_report *reports, int64_t count) {
    if (p->progress) fprintf(stderr, "\r\033[K");
    if (p->json) print_json(p, reports, count);
    else print_worst(reports, count, p->cuda);
    if (p->cuda) print_variants(p, reports, count);
    if (!p->json)
        printf("\n%lld cases, %lld failed, %.1f s\n", (long long)count, (long long)p->failed, now_seconds() - p->begun);
}
