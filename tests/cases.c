/* cases.c: the case table as an array, found by name and written as text or JSON. */
#include <fnmatch.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include <dlattn/dlattn.h>

#include "case.h"

#pragma GCC diagnostic ignored "-Woverride-init" /* a case overrides the defaults: that is the point */
#define CASE(id, ...) {.name = #id, CASE_DEFAULTS, __VA_ARGS__},
const test_case test_cases[] = {
#include "cases.h"
};
#undef CASE
const int64_t test_case_count = sizeof test_cases / sizeof *test_cases;

static const char *const dtype_names[] = {"f32", "f16", "bf16", "f64"};
static const char *const stride_names[] = {"compact",   "gaps",        "negative",    "permuted",
                                           "broadcast", "interleaved", "byte_offset", "misaligned"};
static const char *const input_names[] = {"normal",   "large",    "zero_scores", "bad_bias",
                                          "bad_keys", "nan_in_q", "inf_in_v",    "minus_inf_bias"};
static const char *const mask_names[] = {"random", "hidden_rows", "padding", "nothing_visible"};
static const char *const table_names[] = {"shuffled", "shared", "wild", "no_pages"};
static const char *const segment_names[] = {"none", "sorted", "shuffled"};
static const struct {
    uint32_t flag;
    const char *name;
} flag_names[] = {{DLATTN_CAUSAL, "causal"},           {DLATTN_TOP_LEFT, "top_left"},
                  {DLATTN_WINDOW, "window"},           {DLATTN_BLOCK_WINDOW, "block_window"},
                  {DLATTN_POSITIONS, "positions"},     {DLATTN_SCALE, "scale"},
                  {DLATTN_DETERMINISTIC, "deterministic"}, {DLATTN_ALLOW_TF32, "allow_tf32"}};

const test_case *case_find(const char *name) {
    for (int64_t c = 0; c < test_case_count; c++)
        if (!strcmp(test_cases[c].name, name)) return &test_cases[c];
    return NULL;
}

int32_t case_dtype_named(const char *name) {
    for (int32_t n = 0; n < (int32_t)(sizeof dtype_names / sizeof *dtype_names); n++)
        if (!strcmp(dtype_names[n], name)) return n;
    return -1;
}

const char *case_dtype_name(int32_t dtype) { return dtype_names[dtype]; }

int case_matches(const test_case *c, const char *pattern) {
    if (!pattern) return 1;
    if (strpbrk(pattern, "*?")) return fnmatch(pattern, c->name, 0) == 0;
    return strstr(c->name, pattern) != NULL;
}

/* Appends to a text of limited size. */
typedef struct text {
    char *at;
    size_t left;
} text;

__attribute__((format(printf, 2, 3))) static void add(text *to, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(to->at, to->left, format, arguments);
    va_end(arguments);
    if (written < 0) return;
    size_t step = (size_t)written < to->left ? (size_t)written : to->left ? to->left - 1 : 0;
    to->at += step;
    to->left -= step;
}

void case_describe(char *buffer, size_t bytes, const test_case *c) {
    text to = {buffer, bytes};
    add(&to, "%s B%" PRId64 " H%" PRId64 ":%" PRId64, dtype_names[c->dtype], c->B, c->H, c->G);
    if (c->packed_q) add(&to, " M packed");
    else add(&to, " M%" PRId64, c->M);
    if (c->packed_k) add(&to, " N packed");
    else if (c->page) add(&to, " N%" PRId64 " in pages of %" PRId64, c->N, c->page);
    else add(&to, " N%" PRId64, c->N);
    add(&to, " D%" PRId64 " E%" PRId64, c->D, c->E);
    for (unsigned f = 0; f < sizeof flag_names / sizeof *flag_names; f++)
        if (c->flags & flag_names[f].flag) add(&to, " %s", flag_names[f].name);
    if (c->bias) add(&to, " bias[%s]", c->bias);
    if (c->mask) add(&to, " mask[%s]", c->mask);
    if (c->alibi) add(&to, " alibi[%s]", c->alibi);
    if (c->softcap > 0) add(&to, " softcap %g", c->softcap);
    if (c->sinks) add(&to, " sinks");
    if (c->segments) add(&to, " segments %s", segment_names[c->segments]);
    if (c->use_q || c->use_k) add(&to, " lengths");
    if (c->dropout > 0) add(&to, " dropout %g", c->dropout);
    if (c->layout) add(&to, " heads first");
    if (c->strides) add(&to, " strides %s", stride_names[c->strides]);
    if (c->inputs) add(&to, " inputs %s", input_names[c->inputs]);
}

static void print_list(FILE *to, const char *key, const int64_t *list, int64_t count, int wanted) {
    if (!wanted) return;
    fprintf(to, ", \"%s\": [", key);
    for (int64_t n = 0; n < count; n++) fprintf(to, "%s%" PRId64, n ? ", " : "", list[n]);
    fprintf(to, "]");
}

static void print_string(FILE *to, const char *key, const char *value) {
    if (value) fprintf(to, ", \"%s\": \"%s\"", key, value);
}

static void print_int(FILE *to, const char *key, int64_t value) {
    if (value) fprintf(to, ", \"%s\": %" PRId64, key, value);
}

/* Sizes and dtype always; all else only where it differs from "off". */
void case_print_json(FILE *to, const test_case *c) {
    fprintf(to, "{\"name\": \"%s\", \"dtype\": \"%s\"", c->name, dtype_names[c->dtype]);
    fprintf(to, ", \"B\": %" PRId64 ", \"H\": %" PRId64 ", \"G\": %" PRId64, c->B, c->H, c->G);
    fprintf(to, ", \"M\": %" PRId64 ", \"N\": %" PRId64 ", \"D\": %" PRId64 ", \"E\": %" PRId64, c->M, c->N, c->D, c->E);
    fprintf(to, ", \"layout\": \"%s\", \"flags\": [", c->layout ? "bhsd" : "bshd");
    const char *comma = "";
    for (unsigned f = 0; f < sizeof flag_names / sizeof *flag_names; f++) {
        if (!(c->flags & flag_names[f].flag)) continue;
        fprintf(to, "%s\"%s\"", comma, flag_names[f].name);
        comma = ", ";
    }
    fprintf(to, "]");
    if (c->flags & DLATTN_WINDOW)
        fprintf(to, ", \"window\": [%" PRId64 ", %" PRId64 "]", c->window_left, c->window_right);
    if (c->flags & DLATTN_BLOCK_WINDOW)
        fprintf(to, ", \"block_window\": [%" PRId64 ", %" PRId64 "]", c->block_size, c->block_count);
    if (c->flags & DLATTN_SCALE) fprintf(to, ", \"scale\": %.17g", c->scale);
    if (c->softcap > 0) fprintf(to, ", \"softcap\": %.17g", c->softcap);
    if (c->dropout > 0)
        fprintf(to, ", \"dropout\": %.17g, \"seed\": %" PRIu64 ", \"offset\": %" PRIu64, c->dropout, c->seed, c->offset);
    print_int(to, "q_start", c->q_start);
    print_int(to, "k_start", c->k_start);
    print_list(to, "q_starts", c->q_starts, c->B, c->start_tensors);
    print_list(to, "k_starts", c->k_starts, c->B, c->start_tensors);
    print_int(to, "rng_state", c->rng_state);
    print_string(to, "bias", c->bias);
    print_string(to, "mask", c->mask);
    if (c->mask) print_string(to, "mask_kind", mask_names[c->mask_kind]);
    print_string(to, "alibi", c->alibi);
    print_int(to, "bias_f32", c->bias_f32);
    print_int(to, "alibi_f32", c->alibi_f32);
    print_int(to, "sinks", c->sinks);
    print_int(to, "sinks_f32", c->sinks_f32);
    print_string(to, "segments", c->segments ? segment_names[c->segments] : NULL);
    print_int(to, "index64", c->index64);
    print_list(to, "q_lengths", c->q_lengths, c->B, c->packed_q);
    print_list(to, "k_lengths", c->k_lengths, c->B, c->packed_k);
    print_list(to, "q_used", c->q_used, c->B, c->use_q);
    print_list(to, "k_used", c->k_used, c->B, c->use_k);
    print_int(to, "tokens_before", c->tokens_before);
    print_int(to, "tokens_after", c->tokens_after);
    print_int(to, "max_q", c->max_q);
    print_int(to, "max_k", c->max_k);
    print_int(to, "page", c->page);
    if (c->page) print_string(to, "table", table_names[c->table]);
    print_string(to, "strides", c->strides ? stride_names[c->strides] : NULL);
    print_string(to, "inputs", c->inputs ? input_names[c->inputs] : NULL);
    print_int(to, "f32_out", c->f32_out);
    print_int(to, "f32_gradients", c->f32_gradients);
    print_int(to, "dlse", c->dlse);
    print_int(to, "forward_only", c->gradients == NO_GRADIENTS);
    print_int(to, "cuda_only", c->cuda_only);
    fprintf(to, "}");
}
