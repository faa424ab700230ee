/* run.c: C's runner for bench/languages.py: times named bench cases, of the library and of other providers.
 *
 * usage: bench_run THREADS BUDGET [PROVIDER.so ...]      names of cases on stdin, one a line
 *
 * Each name is answered with one line: a JSON array of results, of the library and then of each provider. A problem small
 * enough for the oracle is judged too: error_ratio is the largest error in units of what the accuracy rule of
 * docs/numerics.md allows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_table.h"
#include "check.h"
#include "instance.h"
#include "provider.h"
#include "timing.h"

enum { MOST_PROVIDERS = 8, MOST_ORACLE_STEPS = 1 << 20 };

static int32_t library_call(void *context, instance *x, int backward, const dlattn_exec *exec) {
    (void)context;
    return backward ? dlattn_backward(&x->attention, &x->gradients, exec) : dlattn_forward(&x->attention, &x->outputs, exec);
}

/* The sum over the results of a pass of the mean of their absolute values: the same in every language. */
static double mean_abs(const instance *x, int backward) {
    double total = 0;
    for (int id = backward ? T_DQ : T_OUT; id <= (backward ? T_DSINKS : T_OUT); id++) {
        const DLTensor *t = &x->tensors[id].dl;
        const int64_t count = x->tensors[id].used ? tensor_count(t) : 0;
        double sum = 0;
        for (int64_t n = 0; n < count; n++) sum += fabs((double)tensor_get(t, n));
        if (count) total += sum / (double)count;
    }
    return total;
}

/* Judges a pass by the rule of tests/check_bound.c; the backward works on the true out and lse. */
static double judge(instance *x, int backward, const timing_request *r) {
    const int first = backward ? T_DQ : T_OUT, last = backward ? T_DSINKS : T_LSE;
    check_report report = {.test = x->test};
    check_truth truth;
    double worst = 0;
    check_find_truth(&truth, x);
    instance_poison(x, first, last);
    const dlattn_exec exec = {.struct_size = sizeof exec, .num_threads = r->threads};
    if (r->call(r->context, x, backward, &exec)) worst = (double)INFINITY;
    for (int id = first; id <= last; id++) {
        check_tensor(&report, x, &truth, id, "");
        worst = fmax(worst, report.bounds[id].ratio);
    }
    check_free_truth(&truth);
    return worst;
}

/* Prints the results of one provider (NULL: the library) and returns how many there are. */
static int time_provider(provider *p, instance *x, timing_request r, int printed) {
    const test_case *c = x->test;
    r.call = p ? provider_call : library_call;
    r.context = p;
    for (int backward = 0; backward <= (c->gradients != NO_GRADIENTS); backward++) {
        timing t;
        const int32_t status = time_instance(&t, x, backward, &r);
        if (status == DLATTN_ERR_UNSUPPORTED && p) break;
        if (status) {
            fprintf(stderr, "bench_run: %s of %s: %s: %s\n", c->name, p ? p->name : "dlattn", dlattn_status_name(status),
                    dlattn_last_error());
            exit(1);
        }
        t.provider = p ? p->name : NULL;
        t.mean_abs = mean_abs(x, backward);
        if (c->B * c->H * c->M * c->N * (c->D + c->E) <= MOST_ORACLE_STEPS) t.error_ratio = judge(x, backward, &r);
        if (printed++) printf(", ");
        timing_print_json(stdout, &t);
    }
    return printed;
}

static void time_case(const test_case *c, provider *providers, int count, const timing_request *r) {
    instance x;
    instance_make_empty(&x, c, 1);
    instance_fill_hashed(&x);
    printf("[");
    int printed = time_provider(NULL, &x, *r, 0);
    for (int n = 0; n < count; n++) printed = time_provider(&providers[n], &x, *r, printed);
    printf("]\n");
    fflush(stdout);
    instance_free(&x);
}

static const test_case *find(const char *name) {
    const bench_table table = bench_table_cpu();
    for (int n = 0; n < table.count; n++)
        if (!strcmp(table.cases[n].name, name)) return &table.cases[n];
    fprintf(stderr, "bench_run: no bench case is named %s\n", name);
    exit(2);
}

int main(int argc, char **argv) {
    static provider providers[MOST_PROVIDERS];
    const int count = argc - 3;
    char name[200];
    if (count < 0 || count > MOST_PROVIDERS) return fprintf(stderr, "usage: bench_run THREADS BUDGET [PROVIDER.so ...]\n"), 2;
    timing_request r = {.threads = atoi(argv[1]), .budget = strtod(argv[2], NULL)};
    for (int n = 0; n < count; n++)
        if (provider_open(&providers[n], argv[3 + n])) return 2;
    while (fgets(name, sizeof name, stdin)) {
        name[strcspn(name, "\n")] = 0;
        r.problem = find(name);
        time_case(r.problem, providers, count, &r);
    }
    return 0;
}
