/* sweep_choices.c: what the library chooses for the shapes of a sweep, asked without a GPU.
 *
 *     sweep_choices [--choices | --terms] bench/results/sweep_h100.json
 *
 * Without an option: does the file say truly what is chosen, and how good that is? Exit code 1 where it does not, or where the share of
 * good choices is below the one that the file wants. --choices: the chosen kernel of each shape, a line each. --terms: what the
 * estimate of each kernel's time follows from, as JSON, a line each, for bench/sweep.py. The file has a shape in each line. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "dlattn/dlattn.h"
#include "estimate.h"
#include "options.h"

enum { LINE_BYTES = 1 << 16 };

/* ---- a line --------------------------------------------------------------------------------------------------------- */

static double number(const char *line, const char *key, double missing) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *at = strstr(line, quoted);
    return at ? strtod(at + strlen(quoted), NULL) : missing;
}

static void word(char *out, size_t bytes, const char *line, const char *key) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\": \"", key);
    const char *at = strstr(line, quoted);
    at = at ? at + strlen(quoted) : "";
    snprintf(out, bytes, "%.*s", (int)strcspn(at, "\""), at);
}

static int pair(int64_t *first, int64_t *second, const char *line, const char *key) {
    char format[64];
    const char *at;
    snprintf(format, sizeof format, "\"%s\": [", key);
    if (!(at = strstr(line, format))) return 0;
    return sscanf(at + strlen(format), "%" SCNd64 ", %" SCNd64, first, second) == 2;
}

static operand dense(int32_t dtype, int64_t e0, int64_t e1, int64_t e2, int64_t e3) {
    operand o = {.dtype = dtype, .extent = {e0, e1, e2, e3}, .stride = {e1 * e2 * e3, e2 * e3, e3, 1}};
    for (int d = 0; d < 4; d++)
        if (o.extent[d] == 1) o.stride[d] = 0;
    return o;
}

static problem read_problem(const char *line) {
    char dtype[16];
    problem p = {.op = DLATTN_OP_FORWARD, .device_type = kDLCUDA, .scale = 1, .window_left = -1, .window_right = -1};
    word(dtype, sizeof dtype, line, "dtype");
    p.dtype = strcmp(dtype, "f16") == 0 ? DLATTN_T_F16 : DLATTN_T_BF16;
    int64_t *const sizes[] = {&p.B, &p.H, &p.G, &p.M, &p.N, &p.D, &p.E};
    for (int n = 0; n < 7; n++) *sizes[n] = (int64_t)number(line, (const char[]){"BHGMNDE"[n], 0}, 0);
    if (strstr(line, "\"causal\"")) p.flags |= DLATTN_CAUSAL;
    if (pair(&p.window_left, &p.window_right, line, "window")) p.flags |= DLATTN_WINDOW;
    if (pair(&p.block_size, &p.block_count, line, "block_window")) p.flags |= DLATTN_BLOCK_WINDOW;
    p.softcap = number(line, "softcap", 0);
    p.q = dense(p.dtype, p.B, p.M, p.H, p.D), p.out = dense(p.dtype, p.B, p.M, p.H, p.E);
    p.k = dense(p.dtype, p.B, p.N, p.G, p.D), p.v = dense(p.dtype, p.B, p.N, p.G, p.E);
    p.lse = dense(DLATTN_T_F32, p.B, p.H, p.M, 1);
    return p;
}

/* ---- questions ------------------------------------------------------------------------------------------------------ */

static const variant *row_for(const problem *p, const specialisation *how, const cuda_device *device, const char *name) {
    char note[256];
    if (dlattn__option_set("cuda_variant", name) != DLATTN_OK) return NULL;
    const variant *v = dlattn__variant_for(DLATTN_KERNEL_FORWARD, p, how, device, note, sizeof note);
    dlattn__option_set("cuda_variant", NULL);
    return v;
}

static void print_terms(const problem *p, const specialisation *how, const cuda_device *device, const char *name, double us,
                        long shape) {
    const variant *v = row_for(p, how, device, name);
    if (!v) return; /* the table has changed since */
    const workload w = dlattn__workload(v, p, how, device);
    printf("{\"shape\": %ld, \"row\": \"%s\", \"us\": %g, ", shape, name, us);
    printf("\"family\": %d, \"rows\": %d, \"keys\": %d, \"warps\": %d, \"stages\": %d, \"residents\": %d, ", v->tensor_maps ? 9 : 8,
           (int)v->rows, (int)v->keys, (int)v->warps, (int)dlattn__variant_stages(v), (int)v->residents);
    printf("\"blocks\": %g, \"slots\": %g, \"tiles\": %g, \"most_tiles\": %g, \"ends\": %g, ", w.blocks, w.slots, w.tiles, w.most_tiles,
           w.ends);
    printf("\"splits\": %g, \"partial_bytes\": %.9g, \"bytes\": %.9g, \"width\": %g, ", w.splits, w.partial_bytes, w.bytes, w.width);
    printf("\"shared\": %d, \"softcap\": %d, \"estimate\": %g}\n", w.shared, p->softcap > 0, dlattn__estimate(v, p, how, device));
}

typedef struct tally {
    long shapes, within, differ, untimed;
    double worst;
} tally;

/* The time of the chosen kernel by that of the best. */
static double loss_of(const char *times, const char *chosen, double *own) {
    double best = 1e30;
    *own = number(times, chosen, 0);
    for (const char *at = times; (at = strstr(at, "\": ")); at += 3) {
        const double us = strtod(at + 3, NULL);
        if (us < best) best = us;
    }
    return *own > 0 ? *own / best : 1e30;
}

static void judge(tally *t, const char *line, const char *times, const char *chosen, double allowed) {
    char said[64];
    double own;
    const double loss = loss_of(times, chosen, &own);
    word(said, sizeof said, line, "chosen");
    t->shapes++;
    t->within += loss <= allowed;
    t->untimed += own <= 0;
    if (loss > t->worst) t->worst = loss;
    if (strcmp(said, chosen) == 0) return;
    char name[32];
    word(name, sizeof name, line, "name");
    if (t->differ++ < 10) printf("%s: the file says %s, the library chooses %s now\n", name, said, chosen);
}

static void take_line(tally *t, const char *line, const cuda_device *device, const char *mode, double allowed) {
    const problem p = read_problem(line);
    const specialisation how = {.aligned = p.D % 8 == 0 && p.E % 8 == 0, .features = dlattn__features(&p)};
    char chosen[DLATTN_VARIANT_NAME] = "none";
    const char *times = strstr(line, "\"us\": {") + strlen("\"us\": {");
    const variant *v = row_for(&p, &how, device, NULL);
    if (v) dlattn__variant_name(chosen, v);
    if (strcmp(mode, "--choices") == 0) printf("%s\n", chosen);
    for (const char *at = times; strcmp(mode, "--terms") == 0 && (at = strchr(at, '"')); at = strchr(at, '"') + 1) {
        char name[DLATTN_VARIANT_NAME];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at + 1, "\""), at + 1);
        at = strchr(at + 1, '"');
        print_terms(&p, &how, device, name, strtod(at + 3, NULL), t->shapes);
        if (!strchr(at + 1, '"')) break;
    }
    if (!*mode) judge(t, line, times, chosen, allowed);
    else t->shapes++;
}

static int conclude(const tally *t, long shapes, long within, double worst, double share) {
    int bad = t->differ > 0;
    printf("%ld of %ld shapes within what is allowed, the worst at %.3f; ", t->within, t->shapes, t->worst);
    printf("%ld choices differ from the file's, %ld were not timed\n", t->differ, t->untimed);
    if (t->shapes != shapes || t->within != within || t->worst > worst + 0.001 || t->worst < worst - 0.001)
        bad = printf("the file's judgement says %ld of %ld, the worst at %.3f\n", within, shapes, worst);
    if (t->shapes == 0 || (double)t->within < share * (double)t->shapes) bad = printf("wanted is a share of %g\n", share);
    return bad != 0;
}

int main(int argc, char **argv) {
    const char *mode = argc == 3 ? argv[1] : "";
    static char line[LINE_BYTES];
    cuda_device device = dlattn__cuda_device_like(90);
    double allowed = 1, share = 1, worst = 0;
    long shapes = 0, within = 0;
    tally t = {0};
    FILE *from = argc >= 2 ? fopen(argv[argc - 1], "r") : NULL;
    if (!from) return fprintf(stderr, "usage: sweep_choices [--choices | --terms] FILE\n"), 2;
    while (fgets(line, sizeof line, from)) {
        const char *multiprocessors = strstr(line, " multiprocessors");
        if (multiprocessors) {
            while (multiprocessors[-1] >= '0' && multiprocessors[-1] <= '9') multiprocessors--;
            device.multiprocessors = (int32_t)strtol(multiprocessors, NULL, 10);
        }
        if (strstr(line, "\"judgement\": ")) {
            shapes = (long)number(line, "shapes", 0), within = (long)number(line, "within", 0);
            allowed = number(line, "allowed_loss", 1), share = number(line, "wanted_share", 1), worst = number(line, "worst", 0);
        }
        if (strstr(line, "\"us\": {")) take_line(&t, line, &device, mode, allowed);
    }
    fclose(from);
    return *mode ? 0 : conclude(&t, shapes, within, worst, share);
}
