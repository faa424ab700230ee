/* check.c: `dlattn check` runs the case table, or random problems, against the oracle. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check_jobs.h"
#include "check_print.h"
#include "commands.h"
#include "options.h"
#include "random_case.h"

static const char help[] =
    "usage: dlattn check [OPTION ...] [PATTERN ...]\n\n"
    "Runs each named problem forward and backward and judges every result against an oracle in double precision:\n"
    "accuracy per row (error at most twice that of the plain formula in the same dtype plus one rounding), exactly which\n"
    "keys are visible, no write outside of any output, the same bits for every number of threads, workspace and subset\n"
    "of outputs, and parts of a split problem that merge into the whole.\n\n"
    "  PATTERN           only cases with this in their name, or matching this glob; several: any of them\n"
    "  --quick           every fourth case\n"
    "  --isa NAME        scalar, avx2, avx512, avx512bf16, amx, neon; several with commas; `all`: each that the machine has\n"
    "  --threads LIST    numbers of threads that must give the same bits (1,2,3,7)\n"
    "  --device NAME     cpu, cuda, cuda:1 and so on (cpu); cuda-host: on the CPU, in copies declared as CUDA host memory\n"
    "  --variant NAME    CUDA: only these kernels, several with commas; `all`: each on all cases that it accepts, and auto\n"
    "  --repeats N       CUDA: how often a call must give the same bits again (2)\n"
    "  --dtype NAME      every problem in this dtype (f32, f16, bf16, f64), whatever its own is\n"
    "  --brief           no visible keys, subsets, workspaces and merges: for compute-sanitizer\n"
    "  --tight           CUDA: no fences around device memory, and none of our bytes in the workspace: for compute-sanitizer\n"
    "  --jobs N          processes at a time; 0: none but this one (0; CUDA: one per processor, at most 16)\n"
    "  --seed NUMBER     of the random data, and of random problems (1)\n"
    "  --random NUMBER   so many random problems instead of the named ones\n"
    "  --random-seed X   the one random problem with this seed, as a failure prints it\n"
    "  --verbose         a line per case: the worst error as a fraction of what is allowed, per tensor\n"
    "  --list            the cases that would run\n"
    "  --json            the result as JSON\n\n"
    "  dlattn check --isa all                  everything\n"
    "  dlattn check --verbose 'decode_*'       why is decode so accurate?\n"
    "  dlattn check --device cuda --variant all\n\n"
    "Exit code: 0 when all cases pass, 1 otherwise.\n";

typedef struct run {
    check_options options;
    char **patterns; /* NULL: all cases */
    int quick, list, json, verbose;
    device_options device;
    const char *variants;
    int64_t jobs; /* -1: not given */
    random_case *random; /* NULL: the table */
    test_case *cast;     /* the problems in another dtype; NULL: in their own */
    int64_t count;       /* of the table or of the random problems */
} run;

static const char *const all_isas[] = {"scalar", "avx2", "avx512", "avx512bf16", "amx", "neon"};

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

static const test_case *case_at(const run *r, int64_t n) {
    if (r->cast) return &r->cast[n];
    return r->random ? &r->random[n].test : &test_cases[n];
}

static void cast_all(run *r, int32_t dtype) {
    test_case *cast = calloc((size_t)r->count + 1, sizeof *cast);
    if (!cast) abort();
    for (int64_t n = 0; n < r->count; n++) {
        cast[n] = *case_at(r, n);
        cast[n].dtype = dtype;
    }
    r->cast = cast;
}

/* What is left to say once the device is known: variants in the place of instruction sets, and processes. */
static int finish_device(run *r) {
    static char all[] = "auto,generic,sm80,sm90", list[200];
    if (r->device.kind != DEVICE_CUDA) {
        if (r->variants) return fprintf(stderr, "dlattn check: --variant needs --device cuda\n");
        if (r->jobs < 0) r->jobs = 0;
        return 0;
    }
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (r->options.isa_count) return fprintf(stderr, "dlattn check: --isa is for the CPU, --variant for CUDA\n");
    if (r->jobs < 0) r->jobs = processors > 16 ? 16 : processors > 1 ? processors : 1;
    if (!r->variants) return 0;
    int every = !strcmp(r->variants, "all");
    snprintf(list, sizeof list, "%s", every ? all : r->variants);
    for (char *name = strtok(list, ","); name && r->options.isa_count < CHECK_MAX_ISAS; name = strtok(NULL, ",")) {
        int known = dlattn_set_option("cuda_variant", name) == DLATTN_OK;
        if (!known && !every) return fprintf(stderr, "dlattn check: %s\n", dlattn_last_error());
        if (known) r->options.isas[r->options.isa_count++] = name;
    }
    dlattn_set_option("cuda_variant", NULL);
    return 0;
}

/* 0: run; otherwise the exit code plus 1. */
static int read_options(run *r, int argc, char **argv) {
    static const struct option options[] = {
        {"quick", no_argument, NULL, 'q'},      {"isa", required_argument, NULL, 'i'},  {"threads", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 's'}, {"verbose", no_argument, NULL, 'v'},    {"list", no_argument, NULL, 'l'},
        {"json", no_argument, NULL, 'j'},       {"help", no_argument, NULL, 'h'},       {"random", required_argument, NULL, 'r'},
        {"random-seed", required_argument, NULL, 'x'}, {"device", required_argument, NULL, 'd'}, {"variant", required_argument, NULL, 'k'},
        {"repeats", required_argument, NULL, 'n'}, {"tight", no_argument, NULL, 'T'}, {"jobs", required_argument, NULL, 'J'},
        {"dtype", required_argument, NULL, 'D'}, {"brief", no_argument, NULL, 'B'}, {0}};
    int status = add_threads(r, "1,2,3,7");
    int64_t random_count = 0, repeats = 2;
    uint64_t exact = 0;
    int one = 0;
    int32_t dtype = -1;
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
        case 'd': status = parse_device(&r->device, optarg, "check"); break;
        case 'k': r->variants = optarg; break;
        case 'n': status = parse_count(&repeats, optarg, 0, "repeats", "check"); break;
        case 'T': r->device.tight = 1; break;
        case 'B': r->options.brief = 1; break;
        case 'D':
            dtype = case_dtype_named(optarg);
            if (dtype < 0) status = fprintf(stderr, "dlattn check: --dtype wants f32, f16, bf16 or f64, not \"%s\"\n", optarg);
            break;
        case 'J': status = parse_count(&r->jobs, optarg, 0, "jobs", "check"); break;
        case 'h': fputs(help, stdout); return 1;
        default: fputs(help, stderr); return 3;
        }
    }
    if (!status) status = finish_device(r);
    if (status) return 3;
    r->options.repeats = (int32_t)repeats;
    if (optind < argc) r->patterns = argv + optind; /* argv ends with NULL */
    r->count = test_case_count;
    if (one) draw_random(r, 1, &exact);
    else if (random_count > 0) draw_random(r, random_count, NULL);
    else if (random_count < 0) return fprintf(stderr, "dlattn check: --random wants a number of problems\n"), 3;
    if (dtype >= 0) cast_all(r, dtype);
    if (!r->options.isa_count) r->options.isas[r->options.isa_count++] = "auto";
    return 0;
}

/* float64 is for the CPU alone. */
static int foreign(const run *r, int64_t n) { return r->device.kind == DEVICE_CUDA && case_at(r, n)->dtype == F64; }

static int selected(const run *r, int64_t n) {
    if (case_at(r, n)->cuda_only && r->device.kind != DEVICE_CUDA) return 0;
    if (!r->patterns) return !r->quick || n % 4 == 0;
    for (char **pattern = r->patterns; *pattern; pattern++)
        if (case_matches(case_at(r, n), *pattern)) return 1;
    return 0;
}

/* The selected cases into the list; how many float64 cases were left out. */
static int64_t collect(check_list *list, const run *r) {
    int64_t skipped = 0;
    list->cases = calloc((size_t)r->count + 1, sizeof(const test_case *));
    if (!list->cases) abort();
    for (int64_t n = 0; n < r->count; n++) {
        if (!selected(r, n)) continue;
        if (foreign(r, n)) skipped++;
        else list->cases[list->count++] = case_at(r, n);
    }
    return skipped;
}

static void show_case(const check_report *report, void *context) { check_print_case(context, report); }

static int run_cases(const run *r) {
    check_list list = {.options = r->options, .device = r->device, .jobs = (int32_t)r->jobs};
    char why[CHECK_MESSAGE_BYTES];
    int every = r->variants && !strcmp(r->variants, "all");
    check_printer printer = {.options = &list.options, .verbose = r->verbose, .json = r->json, .random = r->random != NULL,
                             .cuda = r->device.kind == DEVICE_CUDA, .strict = !(every && r->patterns),
                             .progress = isatty(fileno(stderr)) && !r->verbose};
    printer.skipped = collect(&list, r);
    printer.total = list.count;
    if (r->random) list.options.seed = 0; /* the data follow from the problem's own seed, which is in its name */
    if (list.count + printer.skipped == 0) {
        fprintf(stderr, "dlattn check: no case matches \"%s\"\n", r->patterns ? r->patterns[0] : "");
        free(list.cases);
        return 2;
    }
    list.reports = check_jobs_reports(list.count);
    check_print_begin(&printer, r->options.seed);
    int hopeless = check_jobs_run(&list, show_case, &printer, why, sizeof why);
    if (hopeless) fprintf(stderr, "dlattn check: %s\n", why);
    else check_print_end(&printer, list.reports, list.count);
    free(list.cases);
    return hopeless || printer.failed > 0;
}

static int list_cases(const run *r) {
    int first = 1;
    if (r->json) printf("[");
    for (int64_t n = 0; n < r->count; n++) {
        if (!selected(r, n) || foreign(r, n)) continue;
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
    run r = {.jobs = -1};
    int status = read_options(&r, argc, argv);
    if (status) return status - 1;
    status = r.list ? list_cases(&r) : run_cases(&r);
    free(r.random);
    free(r.cast);
    return status;
}
