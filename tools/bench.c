/* bench.c: `dlattn bench` times one problem given by options, or the table of bench cases. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench_table.h"
#include "commands.h"
#include "options.h"
#include "sweep.h"
#include "timing.h"

static const char help[] =
    "usage: dlattn bench [OPTION ...]\n\n"
    "Times one problem, or with --table the bench cases. A time is the median of repeats after a warm-up. GFLOP/s counts\n"
    "the unmasked pairs alone: 2(D+E) each in the forward, 2.5 times that in the backward. \"peak\" is its fraction of the\n"
    "multiply-add rate of this machine, measured in the same run with as many threads, in its widest vectors or, where the\n"
    "library uses them, in AMX's tiles (--json: peak_isa). With at most 16 rows per key head\n"
    "(decode) the rate at which k and v are read is given too, and its ratio to a loop that only reads.\n\n"
    "  --backward        the gradients as well\n"
    "  --device NAME     cpu, cuda, cuda:1 and so on (cpu); on CUDA a time is the device's, and the time that a call takes on\n"
    "                    the host is given too; --table is then one of larger problems\n"
    "  --variant NAME    CUDA: these kernels, as the option cuda_variant\n"
    "  --sweep[=N]       CUDA: each forward kernel on N (200) random shapes, and how often the library's choice is the best, as JSON\n"
    "  --seed NUMBER     of these shapes (6);  --commit NAME  of the library, for the JSON\n"
    "  --threads N       1 to ...; default: what the library chooses\n"
    "  --isa NAME        scalar, avx2, avx512, avx512bf16, amx, neon\n"
    "  --repeats N       default: as many as fit into --budget seconds (0.5), at least 5\n"
    "  --table [PATTERN] the bench cases, or those with PATTERN in their name; --list shows them\n"
    "  --json            one object per result, as bench/README.md says; with --list one per case\n\n";
static const char examples[] =
    "\n  dlattn bench --batch-size 2 --num-heads 8 --kv-heads 2 --seq-len 1024 --head-dim 64 --dtype bf16 \\\n"
    "      --attn-mode sliding_window --window-size 500 --backward\n"
    "  dlattn bench --table causal --threads 1\n"
    "  dlattn bench --device cuda --table d128\n"
    "  dlattn bench --device cuda --sweep > bench/results/sweep_h100.json\n";

typedef struct request {
    problem_options options;
    const char *isa, *pattern, *variant;
    device_options device;
    int64_t threads, repeats;
    double budget;
    int table, list, json, backward, printed;
    sweep_request sweep; /* count 0: none */
} request;

static void print_head(const request *r) {
    if (r->device.kind == DEVICE_CUDA) {
        printf("%-38s %-8s %-5s %10s %9s %9s  %s\n", "case", "pass", "dtype", "ms", "TFLOP/s", "host us", "device");
        return;
    }
    printf("%-38s %-8s %-5s %10s %9s %6s %8s %6s  %s\n", "case", "pass", "dtype", "ms", "GFLOP/s", "peak", "GB/s", "read", "isa, threads");
}

static void print_text(const timing *t) {
    if (t->cuda) {
        printf("%-38s %-8s %-5s %10.4f %9.1f %9.2f  %s\n", t->problem->name, t->backward ? "backward" : "forward",
               case_dtype_name(t->problem->dtype), t->ms, t->gflops * 1e-3, t->host_us, t->isa);
        return;
    }
    printf("%-38s %-8s %-5s %10.3f %9.1f", t->problem->name, t->backward ? "backward" : "forward",
           case_dtype_name(t->problem->dtype), t->ms, t->gflops);
    if (t->peak_isa) printf(" %5.0f%%", 100 * t->gflops / t->peak_gflops);
    else printf(" %6s", "");
    if (t->read_gbs > 0) printf(" %8.1f %5.0f%%", t->read_gbs, 100 * t->read_gbs / t->peak_read_gbs);
    else printf(" %8s %6s", "", "");
    printf("  %s, %d\n", t->isa, t->threads);
}

static int time_one(request *r, const test_case *problem, int backward) {
    timing results[2];
    timing_request wanted = {.problem = problem, .threads = (int32_t)r->threads, .repeats = (int32_t)r->repeats,
                             .backward = backward, .budget = r->budget, .device = r->device};
    int count = 0, progress = isatty(fileno(stderr));
    if (progress) fprintf(stderr, "\r\033[K%s", problem->name);
    int32_t status = time_problem(results, &count, &wanted);
    if (progress) fprintf(stderr, "\r\033[K");
    for (int n = 0; n < count; n++) {
        if (r->json) {
            fputs(r->printed ? ",\n" : "\n", stdout);
            timing_print_json(stdout, &results[n]);
        } else {
            print_text(&results[n]);
        }
        r->printed = 1;
    }
    fflush(stdout);
    if (status) fprintf(stderr, "dlattn bench: %s: %s: %s\n", problem->name, dlattn_status_name(status),
                        *device_message() ? device_message() : dlattn_last_error());
    return status != DLATTN_OK;
}

static void list_one(const request *r, const test_case *c, int later) {
    if (!r->json) {
        printf("%s\n", c->name);
        return;
    }
    fputs(later ? ",\n" : "\n", stdout);
    case_print_json(stdout, c);
}

static int run_bench(request *r) {
    int failed = 0, matched = 0, cuda = r->device.kind == DEVICE_CUDA;
    char why[300];
    if (!r->list && device_select(&r->device, why, sizeof why)) return fprintf(stderr, "dlattn bench: %s\n", why), 1;
    if (r->json) printf("[");
    else if (!r->list) print_head(r);
    const bench_table table = cuda ? bench_table_cuda() : bench_table_cpu();
    for (int n = 0; r->table && n < table.count && !device_lost(); n++) {
        const test_case *c = &table.cases[n];
        if (!case_matches(c, r->pattern)) continue;
        if (r->list) list_one(r, c, matched);
        else failed |= time_one(r, c, c->gradients != NO_GRADIENTS);
        matched = 1;
    }
    if (!r->table) failed = time_one(r, &r->options.problem, r->backward);
    if (r->json) printf("\n]\n");
    if (r->table && !matched) return fprintf(stderr, "dlattn bench: no bench case matches \"%s\"\n", r->pattern), 2;
    return failed;
}

static int read_options(request *r, int argc, char **argv) {
    static const struct option options[] = {
        {"backward", no_argument, NULL, 'b'},      {"threads", required_argument, NULL, 't'}, {"isa", required_argument, NULL, 'i'},
        {"repeats", required_argument, NULL, 'r'}, {"budget", required_argument, NULL, 's'},  {"table", no_argument, NULL, 'T'},
        {"list", no_argument, NULL, 'l'},          {"json", no_argument, NULL, 'j'},          {"help", no_argument, NULL, 'h'},
        {"device", required_argument, NULL, 'd'},  {"variant", required_argument, NULL, 'k'}, {"sweep", optional_argument, NULL, 'w'},
        {"seed", required_argument, NULL, 'S'},    {"commit", required_argument, NULL, 'c'},
        PROBLEM_OPTIONS,                           {0}};
    int wrong = 0;
    for (int code; !wrong && (code = getopt_long(argc, argv, "bt:i:r:ljh", options, NULL)) != -1;) {
        switch (code) {
        case 'b': r->backward = 1; break;
        case 't': wrong = parse_count(&r->threads, optarg, 1, "threads", "bench"); break;
        case 'i': r->isa = optarg; break;
        case 'r': wrong = parse_count(&r->repeats, optarg, 1, "repeats", "bench"); break;
        case 's': r->budget = strtod(optarg, NULL); break;
        case 'd': wrong = parse_device(&r->device, optarg, "bench"); break;
        case 'k': r->variant = optarg; break;
        case 'T': r->table = 1; break;
        case 'w':
            r->sweep.count = 200;
            if (optarg) wrong = parse_count(&r->sweep.count, optarg, 1, "sweep", "bench");
            break;
        case 'S': r->sweep.seed = strtoull(optarg, NULL, 0); break;
        case 'c': r->sweep.commit = optarg; break;
        case 'l': r->list = r->table = 1; break;
        case 'j': r->json = 1; break;
        case 'h': printf("%s%s%s", help, problem_help, examples); return 1;
        default: wrong = code < OPTION_FIRST ? 1 : problem_option(&r->options, code, optarg, "bench");
        }
    }
    if (wrong || problem_finish(&r->options, "bench")) return 3;
    if (optind < argc) r->pattern = argv[optind];
    if (r->pattern && !r->table) return fprintf(stderr, "dlattn bench: \"%s\" names a case only with --table\n", r->pattern), 3;
    if (r->sweep.count && (r->device.kind != DEVICE_CUDA || r->table || r->variant))
        return fprintf(stderr, "dlattn bench: --sweep wants --device cuda, and neither --table nor --variant\n"), 3;
    if (r->isa && dlattn_set_option("cpu_isa", r->isa)) return fprintf(stderr, "dlattn bench: %s\n", dlattn_last_error()), 3;
    if (r->variant && dlattn_set_option("cuda_variant", r->variant)) return fprintf(stderr, "dlattn bench: %s\n", dlattn_last_error()), 3;
    return 0;
}

int command_bench(int argc, char **argv) {
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    request r = {.budget = 0.5, .sweep = {.seed = 6, .jobs = processors > 16 ? 16 : processors > 1 ? processors : 1}};
    problem_defaults(&r.options);
    int status = read_options(&r, argc, argv);
    if (status) return status - 1;
    r.sweep.device = r.device;
    return r.sweep.count ? run_sweep(stdout, &r.sweep) : run_bench(&r);
}
