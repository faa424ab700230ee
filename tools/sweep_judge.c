/* sweep_judge.c: how good the choices of a sweep are, and its JSON: a line per shape, so that a change shows as such. */
#include <math.h>
#include <string.h>
#include <time.h>

#include <dlattn/dlattn.h>

#include "json.h"
#include "sweep.h"

static const double allowed_loss = 1.05, wanted_share = 0.95;

double sweep_loss(const sweep_result *r) {
    double own = INFINITY, best = INFINITY;
    for (int32_t n = 0; n < r->count; n++) {
        if (!strcmp(r->rows[n], r->chosen)) own = r->us[n];
        if (r->us[n] < best) best = r->us[n];
    }
    return isfinite(own) ? own / best : INFINITY;
}

sweep_judgement sweep_judge(const sweep_result *results, int64_t count) {
    sweep_judgement j = {.shapes = count};
    for (int64_t n = 0; n < count; n++) {
        const double loss = sweep_loss(&results[n]);
        j.within += loss <= allowed_loss;
        if (loss > j.worst) j.worst = loss;
    }
    return j;
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------- */

/* The rest of the line that begins with `key` in what the library says of itself. */
static void find_line(char *out, size_t bytes, const char *text, const char *key) {
    const char *at = strstr(text, key);
    at = at ? at + strlen(key) : "";
    snprintf(out, bytes, "%.*s", (int)strcspn(at, "\n"), at);
}

static void print_member(FILE *to, const char *key, const char *value) {
    fprintf(to, "\"%s\": ", key);
    json_string(to, value);
}

static void print_machine(FILE *to, const sweep_request *r) {
    char text[16384] = "", key[32], line[256], version[256] = "";
    FILE *module = fopen("/proc/driver/nvidia/version", "r"); /* the driver's own number; CUDA's says less */
    dlattn_explain(NULL, NULL, NULL, NULL, text, sizeof text);
    snprintf(key, sizeof key, "device %d: ", (int)r->device.ordinal);
    find_line(line, sizeof line, text, key);
    fprintf(to, " \"machine\": {");
    print_member(to, "gpu", line);
    find_line(line, sizeof line, text, "driver: ");
    print_member((fputs(", ", to), to), "cuda", line);
    if (module) {
        if (!fgets(version, sizeof version, module)) version[0] = 0;
        version[strcspn(version, "\n")] = 0;
        fclose(module);
        print_member((fputs(", ", to), to), "driver", version);
    }
    fprintf(to, "},\n");
}

static void print_result(FILE *to, const sweep_result *r) {
    fprintf(to, "  {\"problem\": ");
    case_print_json(to, &r->shape.problem);
    print_member((fputs(", ", to), to), "chosen", r->chosen);
    fprintf(to, ", \"loss\": %.3f, \"us\": {", sweep_loss(r));
    for (int32_t n = 0; n < r->count; n++) fprintf(to, "%s\"%s\": %.4g", n ? ", " : "", r->rows[n], r->us[n]);
    fprintf(to, "}}");
}

void sweep_print(FILE *to, const sweep_request *r, const sweep_result *results, int64_t count) {
    const sweep_judgement j = sweep_judge(results, count);
    const time_t now = time(NULL);
    char date[16];
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    fprintf(to, "{\n");
    print_machine(to, r);
    fprintf(to, " \"commit\": ");
    json_string(to, r->commit ? r->commit : "");
    fprintf(to, ", \"date\": \"%s\", \"seed\": %llu,\n", date, (unsigned long long)r->seed);
    fprintf(to, " \"judgement\": {\"shapes\": %lld, \"within\": %lld, \"allowed_loss\": %g, \"wanted_share\": %g, \"worst\": %.3f},\n",
            (long long)j.shapes, (long long)j.within, allowed_loss, wanted_share, j.worst);
    fprintf(to, " \"results\": [\n");
    for (int64_t n = 0; n < count; n++) {
        print_result(to, &results[n]);
        fputs(n + 1 < count ? ",\n" : "\n", to);
    }
    fprintf(to, " ]\n}\n");
}
