/* check.c: `dlattn check` runs the case table against the oracle, shows progress and a table of the worst errors. */
#include "check.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "json.h"
#include "random_case.h"

static const char help[] =
    "usage: dlattn check [OPTION ...] [PATTERN]\n\n"
    "Runs each named problem forward and backward and judges every result against an oracle in double precision:\n"
    "accuracy per row (error at most twice that of the plain formula in the same dtype plus one rounding), exactly which\n"
    "keys are visible, no write outside of any output, the same bits for every number of threads, workspace and subset\n"
    "of outputs, and parts of a split problem that merge into the whole.\n\n"
    "  PATTERN           only cases with this in their name, or matching this glob\n"
    "  --quick           every fourth case\n"
    "  --isa NAME        scalar, avx2, avx512, avx512bf16, neon; several with commas; `all`: each that the machine has\n"
    "  --threads LIST    numbers of threads that must give the same bits (1,2,3,7)\n"
    "  --seed NUMBER     of the random data, and of random problems (1)\n"
    "  --random NUMBER   so many random problems instead of the named ones\n"
    "  --random-seed X   the one random problem with this seed, as a failure prints it\n"
    "  --verbose         a line per case: the worst error as a fraction of what is allowed, per tensor\n"
    "  --list            the cases that would run\n"
    "  --json            the result as JSON\n\n"
    "  dlattn check --isa all                  everything\n"
    "  dlattn check --verbose 'decode_*'       why is decode so accurate?\n\n"
    "Exit code: 0 when all cases pass, 1 otherwise.\n";

typedef struct run {
    check_options options;
    const char *pattern;
    int quick, list, json, verbose;
    random_case *random; /* NULL: the table */
    int64_t count;       /* of the table or of the random problems */
} run;

static const char *const all_isas[] = {"scalar", "avx2", "avx512", "avx512bf16", "neon"};

static int add_isas(run *r, char *list) {
    if (!strcmp(list, "all")) {
        for (unsigned n = 0; n < sizeof all_isas / sizeof *all_isas; n++)
            if (dlattn_set_option("cpu_isa", all_isas[n]) == DLATTN_OK) r->options.isas[r->options.isa_count++] = all_isas[n];
        return dlattn_set_option("cpu_isa", NULL);
    }
    for (char *name = strtok(list, ","); name && r->options.isa_count < CHECK_MAX_ISAS; name = strtok(NULL, ",")) {
        if (dlattn_set_option("cpu_isa", name) != DLATTN_OK) return fprintf(stderr, "dlattn check: %s\n", dlattn_last_error()), 2;
        r->options.isas[r->options.isa_count++] = name;
    }
    return dlattn_set_option("cpu_isa", NULL);
}

static int add_threads(run *r, const char *list) {
    r->options.thread_count = 0;
    for (char *end; *list && r->options.thread_count < CHECK_MAX_THREADS; list = *end ? end + 1 : end) {
        long threads = strtol(list, &end, 10);
        if (end == list || threads < 1 || threads > 4096 || (*end && *end != ','))
            return fprintf(stderr, "dlattn check: --threads wants numbers like 1,2,3,7, not \"%s\"\n", list), 2;
        r->options.threads[r->options.thread_count++] = (int32_t)threads;
    }
    return 0;
}

/* Problems from the seeds that follow from the run's seed; exact: one problem, of this very seed. */
static void draw_random(run *r, int64_t count, const uint64_t *exact) {
    r->random = calloc((size_t)count, sizeof *r->random);
    r->count = count;
    if (!r->random) abort();
    for (int64_t n = 0; n < count; n++)
        random_case_make(&r->random[n], exact ? *exact : random_case_seed(r->options.seed, n));
}

/* 0: run; otherwise the exit code plus 1. */
static int read_options(run *r, int argc, char **argv) {
    static const struct option options[] = {
        {"quick", no_argument, NULL, 'q'},      {"isa", required_argument, NULL, 'i'},  {"threads", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 's'}, {"verbose", no_argument, NULL, 'v'},    {"list", no_argument, NULL, 'l'},
        {"json", no_argument, NULL, 'j'},       {"help", no_argument, NULL, 'h'},       {"random", required_argument, NULL, 'r'},
        {"random-seed", required_argument, NULL, 'x'}, {0}};
    int status = add_threads(r, "1,2,3,7");
    int64_t random_count = 0;
    uint64_t exact = 0;
    int one = 0;
    r->options.seed = 1;
    for (int code; !status && (code = getopt_long(argc, argv, "qi:t:s:vljhr:x:", options, NULL)) != -1;) {
        switch (code) {
        case 'q': r->quick = 1; break;
        case 'i': status = add_isas(r, optarg); break;
        case 't': status = add_threads(r, optarg); break;
        case 's': r->options.seed = strtoull(optarg, NULL, 0); break;
        case 'v': r->verbose = 1; break;
        case 'l': r->list = 1; break;
        case 'j': r->json = 1; break;
        case 'r': random_count = strtoll(optarg, NULL, 0) > 0 ? strtoll(optarg, NULL, 0) : -1; break;
        case 'x': exact = strtoull(optarg, NULL, 0), one = 1; break;
        case 'h': fputs(help, stdout); return 1;
        default: fputs(help, stderr); return 3;
        }
    }
    if (status) return 3;
    if (optind < argc) r->pattern = argv[optind];
    r->count = test_case_count;
    if (one) draw_random(r, 1, &exact);
    else if (random_count > 0) draw_random(r, random_count, NULL);
    else if (random_count < 0) return fprintf(stderr, "dlattn check: --random wants a number of problems\n"), 3;
    if (!r->options.isa_count) r->options.isas[r->options.isa_count++] = "auto";
    return 0;
}

static const test_case *case_at(const run *r, int64_t n) { return r->random ? &r->random[n].test : &test_cases[n]; }

static int selected(const run *r, int64_t n) {
    return case_matches(case_at(r, n), r->pattern) && (!r->quick || r->pattern || n % 4 == 0);
}

/* How to run a failed random problem again, and what it is. */
static void print_random(const check_report *report) {
    printf("     dlattn check --random-seed %s\n     ", strchr(report->test->name, '0'));
    case_print_json(stdout, report->test);
    printf("\n");
}

static void print_case(const check_report *report, int verbose) {
    if (report->failures) printf("FAIL %-40s %s%s\n", report->test->name, report->message, report->failures > 1 ? " (and more)" : "");
    if (!verbose) return;
    printf("%s %-40s %6.2f s ", report->failures ? "    " : "ok  ", report->test->name, report->seconds);
    for (int id = 0; id < T_COUNT; id++)
        if (report->bounds[id].judged) printf(" %s %.2f", tensor_names[id], report->bounds[id].ratio);
    printf("\n");
}

static void print_json(const check_report *reports, int64_t count, const run *r) {
    printf("{\"seed\": %llu, \"isas\": [", (unsigned long long)r->options.seed);
    for (int32_t n = 0; n < r->options.isa_count; n++) printf("%s\"%s\"", n ? ", " : "", r->options.isas[n]);
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
static void print_summary(const check_report *reports, int64_t count, int64_t failed, double seconds) {
    printf("\n%-10s %-16s %-42s %s\n", "tensor", "error / allowed", "worst case", "isa");
    for (int id = 0; id < T_COUNT; id++) {
        const check_report *worst = NULL;
        for (int64_t c = 0; c < count; c++)
            if (reports[c].bounds[id].judged && (!worst || reports[c].bounds[id].ratio > worst->bounds[id].ratio)) worst = &reports[c];
        if (worst) printf("%-10s %-16.3f %-42s %s\n", tensor_names[id], worst->bounds[id].ratio, worst->test->name, worst->bound_isas[id]);
    }
    printf("\n%lld cases, %lld failed, %.1f s\n", (long long)count, (long long)failed, seconds);
}

static int run_cases(const run *r) {
    check_report *reports = calloc((size_t)r->count, sizeof *reports);
    int64_t count = 0, failed = 0, total = 0;
    int progress = isatty(fileno(stderr)) && !r->verbose;
    double seconds = 0;
    check_options options = r->options;
    if (r->random) options.seed = 0; /* the data follow from the problem's own seed, which is in its name */
    if (!reports) abort();
    for (int64_t n = 0; n < r->count; n++) total += selected(r, n);
    if (total == 0) {
        fprintf(stderr, "dlattn check: no case matches \"%s\"\n", r->pattern ? r->pattern : "");
        free(reports);
        return 2;
    }
    if (!r->json) printf("%lld cases, data from seed %llu\n", (long long)total, (unsigned long long)r->options.seed);
    for (int64_t n = 0; n < r->count; n++) {
        if (!selected(r, n)) continue;
        if (progress) fprintf(stderr, "\r\033[K%lld/%lld %s", (long long)count + 1, (long long)total, case_at(r, n)->name);
        check_report *report = &reports[count++];
        check_case(report, case_at(r, n), &options);
        failed += report->failures > 0;
        seconds += report->seconds;
        if (progress) fprintf(stderr, "\r\033[K");
        if (!r->json) print_case(report, r->verbose);
        if (!r->json && r->random && report->failures) print_random(report);
        fflush(stdout);
    }
    if (r->json) print_json(reports, count, r);
    else print_summary(reports, count, failed, seconds);
    free(reports);
    return failed > 0;
}

static int list_cases(const run *r) {
    int first = 1;
    if (r->json) printf("[");
    for (int64_t n = 0; n < r->count; n++) {
        if (!selected(r, n)) continue;
        if (r->json) {
            fputs(first ? "\n" : ",\n", stdout);
            case_print_json(stdout, case_at(r, n));
        } else {
            printf("%s\n", case_at(r, n)->name);
        }
        first = 0;
    }
    if (r->json) printf("\n]\n");
    return 0;
}

int command_check(int argc, char **argv) {
    run r = {.pattern = NULL};
    int status = read_options(&r, argc, argv);
    if (status) return status - 1;
    status = r.list ? list_cases(&r) : run_cases(&r);
    free(r.random);
    return status;
}
