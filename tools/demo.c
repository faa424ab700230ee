/* demo.c: `dlattn demo` runs attention layers of real models, checks them and prints what they cost. */
#define _GNU_SOURCE /* strcasestr */
#include "demo.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "element.h"
#include "json.h"
#include "peak.h"

static const char help[] =
    "usage: dlattn demo [--json] [--list] [PATTERN]\n\n"
    "Runs attention layers of real models in their real shapes, forward and backward, on random data. For each "
    "layer:\n\n"
    "  forward, backward   median time, and GFLOP/s of the visible pairs: 2(D+E) each forward, 2.5 times that "
    "backward\n"
    "                      (decode: GB/s of the keys and values that are read)\n"
    "  speed-up            over the formula as it is written, in C with the M x N scores stored: same threads, timed "
    "on\n"
    "                      some rows and scaled to all M x N pairs (such a formula computes hidden pairs too)\n"
    "  workspace, M x N    the memory that the library asks for, and what one matrix of scores would take\n"
    "  error               of slices (some rows of some heads, all their keys), computed again by an oracle in double\n"
    "                      precision: the worst error over the allowed one, which is twice that of the plain\n"
    "                      formula in the same dtype plus one rounding; 1 is the limit. In these heads dout is zero\n"
    "                      outside of the slices, so that dk, dv, dbias and dsinks are checked whole\n\n"
    "  PATTERN             only layers with this in their name:  dlattn demo Gemma\n\n"
    "Exit code: 0 when every check passes, 1 otherwise.\n";

typedef struct table {
    int json, progress;
    const char *pattern;
} table;

static int selected(const table *t, const demo_layer *l) {
    return !t->pattern || strcasestr(l->model, t->pattern) != NULL;
}

static void shape_text(char *to, size_t bytes, const demo_layer *l) {
    char heads[40];
    snprintf(heads, sizeof heads, l->H == l->G ? "%lldx%lld" : "%1$lld/%3$lldx%2$lld", (long long)l->H, (long long)l->D,
             (long long)l->G);
    if (l->lengths)
        snprintf(to, bytes, "%s, %s", heads, l->what);
    else if (l->M == l->N)
        snprintf(to, bytes, "%lldx%lld, %s, %s", (long long)l->B, (long long)l->N, heads, l->what);
    else
        snprintf(to, bytes, "%lldx%lld:%lld, %s, %s", (long long)l->B, (long long)l->M, (long long)l->N, heads,
                 l->what);
}

static void bytes_text(char *to, size_t size, double bytes) {
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    int unit = 0;
    for (; bytes >= 999.5 && unit < 4; unit++) bytes /= 1024;
    snprintf(to, size, unit && bytes < 9.95 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

static void time_text(char *to, size_t size, double seconds) {
    double ms = 1e3 * seconds;
    snprintf(to, size, ms < 9.995 ? "%.2f ms" : ms < 99.95 ? "%.1f ms" : "%.0f ms", ms);
}

static void print_head(const table *t) {
    if (t->json) return;
    printf("%-22s %-46s %-5s %9s %9s %9s %9s %11s %9s %8s %6s\n", "layer", "B x M[:N], H/G x D, terms", "dtype",
           "forward", "GFLOP/s", "backward", "GFLOP/s", "speed-up", "workspace", "M x N", "error");
}

static void print_row(const demo_result *r) {
    const demo_layer *l = r->layer;
    if (r->forward_seconds == 0) { /* it did not run */
        printf("%-22s FAIL %s\n", l->model, r->message);
        return;
    }
    static const char *const dtypes[] = {"fp32", "fp16", "bf16", "fp64"};
    char shape[100], forward[20], backward[20] = "-", rate[20], speed[40], workspace[20], matrix[20];
    shape_text(shape, sizeof shape, l);
    time_text(forward, sizeof forward, r->forward_seconds);
    bytes_text(workspace, sizeof workspace, r->workspace_bytes);
    bytes_text(matrix, sizeof matrix, r->matrix_bytes);
    double up = r->plain_forward_seconds / r->forward_seconds;
    if (l->forward_only) {
        snprintf(rate, sizeof rate, "%.1f GB/s", 1e-9 * r->read_bytes / r->forward_seconds);
        snprintf(speed, sizeof speed, "%.3gx", up);
    } else {
        snprintf(rate, sizeof rate, "%.0f", r->forward_gflops);
        time_text(backward, sizeof backward, r->backward_seconds);
        snprintf(speed, sizeof speed, "%.3gx %.3gx", up, r->plain_backward_seconds / r->backward_seconds);
    }
    printf("%-22s %-46s %-5s %9s %9s %9s ", l->model, shape, dtypes[l->dtype], forward, rate, backward);
    if (l->forward_only)
        printf("%9s", "-");
    else
        printf("%9.0f", r->backward_gflops);
    printf(" %11s %9s %8s %6.2f%s\n", speed, workspace, matrix, r->error, r->passed ? "" : "  FAIL");
    if (!r->passed) printf("  FAIL %s\n", r->message);
}

static void json_field(const char *name, double value) {
    printf(", \"%s\": ", name);
    json_number(stdout, value);
}

static void print_json(const demo_result *r, int first) {
    const demo_layer *l = r->layer;
    static const char *const dtypes[] = {"float32", "float16", "bfloat16", "float64"};
    printf("%s\n{\"layer\": ", first ? "" : ",");
    json_string(stdout, l->model);
    printf(", \"terms\": ");
    json_string(stdout, l->what);
    printf(", \"B\": %lld, \"H\": %lld, \"G\": %lld, \"D\": %lld, \"dtype\": \"%s\", \"threads\": %d", (long long)l->B,
           (long long)l->H, (long long)l->G, (long long)l->D, dtypes[l->dtype], r->threads);
    if (!l->lengths) printf(", \"M\": %lld, \"N\": %lld", (long long)l->M, (long long)l->N);
    for (int64_t b = 0; l->lengths && b < l->B; b++)
        printf("%s%lld", b ? ", " : ", \"lengths\": [", (long long)l->lengths[b]);
    if (l->lengths) printf("]");
    json_field("visible_pairs", demo_pairs(l));
    json_field("all_pairs", demo_all_pairs(l));
    json_field("forward_seconds", r->forward_seconds);
    json_field("forward_gflops", r->forward_gflops);
    json_field("plain_forward_seconds", r->plain_forward_seconds);
    if (!l->forward_only) {
        json_field("backward_seconds", r->backward_seconds);
        json_field("backward_gflops", r->backward_gflops);
        json_field("plain_backward_seconds", r->plain_backward_seconds);
    }
    json_field("kv_bytes", r->read_bytes);
    json_field("workspace_bytes", r->workspace_bytes);
    json_field("matrix_bytes", r->matrix_bytes);
    json_field("error_over_allowed", r->error);
    printf(", \"pass\": %s, \"message\": ", r->passed ? "true" : "false");
    json_string(stdout, r->message);
    printf("}");
}

static void progress(const table *t, const demo_layer *l, const char *step) {
    if (t->progress) fprintf(stderr, "\r\033[K%s: %s ...", l->model, step);
}

static void run_layer(const table *t, const demo_layer *l, demo_result *result) {
    demo_run run;
    *result = (demo_result){.layer = l};
    progress(t, l, "making data");
    if (demo_make(&run, l)) {
        snprintf(result->message, sizeof result->message, "not enough memory");
    } else {
        progress(t, l, "forward and backward");
        if (!demo_time(&run, result)) {
            progress(t, l, "checking slices against the oracle");
            demo_check(&run, result);
            progress(t, l, "the plain formula");
            demo_plain(&run, result);
        }
    }
    demo_free(&run);
    if (t->progress) fprintf(stderr, "\r\033[K");
}

static int run_table(const table *t) {
    double begun = now_seconds();
    int count = 0, failed = 0, matched = 0;
    for (int64_t n = 0; n < demo_layer_count; n++) matched += selected(t, &demo_layers[n]);
    if (!matched) {
        fprintf(stderr, "dlattn demo: no layer matches \"%s\"; dlattn demo --list shows them\n", t->pattern);
        return 2;
    }
    if (t->json) printf("{\"version\": %d, \"layers\": [", dlattn_version());
    print_head(t);
    for (int64_t n = 0; n < demo_layer_count; n++) {
        demo_result result;
        if (!selected(t, &demo_layers[n])) continue;
        run_layer(t, &demo_layers[n], &result);
        if (t->json)
            print_json(&result, count == 0);
        else
            print_row(&result);
        fflush(stdout);
        failed += !result.passed;
        count++;
    }
    if (t->json)
        printf("\n]}\n");
    else
        printf("\n%d layers, %d failed, %.0f s. GFLOP/s count visible pairs. Speed-up, forward and backward: over the\n"
               "plain formula in C with the M x N scores stored, same threads, timed on some rows and scaled to all\n"
               "pairs. Error: of slices computed again by an oracle, as a fraction of what is allowed. More: --help\n",
               count, failed, now_seconds() - begun);
    return failed > 0;
}

static int list_layers(const table *t) {
    for (int64_t n = 0; n < demo_layer_count; n++) {
        char shape[100];
        if (!selected(t, &demo_layers[n])) continue;
        shape_text(shape, sizeof shape, &demo_layers[n]);
        printf("%-22s %s\n", demo_layers[n].model, shape);
    }
    return 0;
}

int command_demo(int argc, char **argv) {
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'}, {"list", no_argument, NULL, 'l'}, {"help", no_argument, NULL, 'h'}, {0}};
    table t = {.progress = isatty(fileno(stderr))};
    int list = 0;
    for (int code; (code = getopt_long(argc, argv, "jlh", options, NULL)) != -1;) {
        if (code == 'j')
            t.json = 1;
        else if (code == 'l')
            list = 1;
        else if (code == 'h')
            return fputs(help, stdout) < 0;
        else
            return fputs(help, stderr), 2;
    }
    if (optind < argc) t.pattern = argv[optind];
    return list ? list_layers(&t) : run_table(&t);
}
