/* timing_json.c: a timing as a JSON object: the schema that the benches of every language write (bench/README.md). */
#include <math.h>

#include "json.h"
#include "timing.h"

static void number(FILE *to, const char *key, double value) {
    fprintf(to, ", \"%s\": ", key);
    json_number(to, value);
}

/* Of the library; a provider's is unknown. */
static void print_version(FILE *to, const timing *t) {
    const int32_t version = dlattn_version();
    if (t->provider) fprintf(to, "null");
    else fprintf(to, "\"%d.%d.%d\"", version / 10000, version / 100 % 100, version % 100);
}

void timing_print_json(FILE *to, const timing *t) {
    fprintf(to, "{\"provider\": ");
    json_string(to, t->provider ? t->provider : "dlattn");
    fprintf(to, ", \"language\": \"c\", \"version\": ");
    print_version(to, t);
    fprintf(to, ", \"case\": ");
    json_string(to, t->problem->name);
    fprintf(to, ", \"pass\": \"%s\", \"dtype\": \"%s\", \"isa\": ", t->backward ? "backward" : "forward",
            case_dtype_name(t->problem->dtype));
    if (t->provider) fprintf(to, "null");
    else json_string(to, t->isa);
    fprintf(to, ", \"threads\": %d, \"repeats\": %d", t->threads, t->repeats);
    number(to, "ms", t->ms);
    number(to, "gflops", t->gflops);
    if (t->cuda) {
        fprintf(to, ", \"device\": \"cuda\"");
        number(to, "host_us", t->host_us);
    }
    number(to, "peak_gflops", t->peak_isa ? t->peak_gflops : NAN);
    if (t->peak_isa) fprintf(to, ", \"peak_isa\": \"%s\"", t->peak_isa);
    if (t->read_gbs > 0) {
        number(to, "read_gbs", t->read_gbs);
        number(to, "peak_read_gbs", t->peak_read_gbs);
    }
    if (t->mean_abs > 0) number(to, "mean_abs", t->mean_abs);
    if (t->error_ratio >= 0) number(to, "error_ratio", t->error_ratio);
    fprintf(to, ", \"problem\": ");
    case_print_json(to, t->problem);
    fprintf(to, "}");
}
