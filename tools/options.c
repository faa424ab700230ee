/* options.c: the command-line options that describe one attention problem. */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <dlattn/dlattn.h>

enum { MODE_FULL, MODE_CAUSAL, MODE_SLIDING, MODE_BLOCK };

const char problem_help[] =
    "the problem\n"
    "  --batch-size N (1)      --num-heads N (8)       --kv-heads N (as num-heads)\n"
    "  --seq-len N (1024)      --seq-len-k N (as seq-len)\n"
    "  --head-dim N (64)       --head-dim-v N (as head-dim)\n"
    "  --dtype f32|f16|bf16|f64 (f32)          --layout bshd|bhsd (bshd)\n"
    "  --attn-mode full|causal|sliding_window|block_window\n"
    "  --window-size N         sliding_window: each query sees itself and the N-1 keys before it\n"
    "  --block-size N, --block-count N   block_window: its own block and the count-1 blocks before\n"
    "  --top-left              i' = i; default: the last query sees the last key\n"
    "  --softcap X, --scale X, --dropout RATE, --alibi, --sinks, --segments\n"
    "  --bias[=DIMS], --mask[=DIMS]   letters of the dimensions b h m n, 1 broadcasts: --bias=1hmn (bhmn)\n";

void problem_defaults(problem_options *o) {
    *o = (problem_options){.problem = {.name = "options", .B = 1, .H = 8, .M = 1024, .D = 64, .dlse = 0}};
}

int parse_count(int64_t *to, const char *value, int64_t least, const char *name, const char *command) {
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (end == value || *end || errno || number < least)
        return fprintf(stderr, "dlattn %s: --%s wants a whole number of at least %lld, not \"%s\"\n", command, name,
                       (long long)least, value);
    *to = number;
    return 0;
}

static int parse_real(double *to, const char *value, const char *name, const char *command) {
    char *end;
    double number = strtod(value, &end);
    if (end == value || *end || !isfinite(number))
        return fprintf(stderr, "dlattn %s: --%s wants a number, not \"%s\"\n", command, name, value);
    *to = number;
    return 0;
}

int parse_device(device_options *to, const char *name, const char *command) {
    static const char *const names[] = {"cpu", "cuda-host", "cuda"};
    char *end = NULL;
    for (to->kind = DEVICE_CPU; to->kind <= DEVICE_CUDA; to->kind++)
        if (!strcmp(name, names[to->kind])) return 0;
    to->kind = DEVICE_CUDA;
    if (!strncmp(name, "cuda:", 5)) to->ordinal = (int32_t)strtol(name + 5, &end, 10);
    if (end && end > name + 5 && !*end && to->ordinal >= 0) return 0;
    return fprintf(stderr, "dlattn %s: --device is \"%s\", expected cpu, cuda, cuda:NUMBER or cuda-host\n", command, name);
}

/* Index of value in a NULL-terminated list, or -1 after a sentence. */
static int parse_name(int32_t *to, const char *value, const char *const *names, const char *name, const char *command) {
    for (*to = 0; names[*to]; ++*to)
        if (!strcmp(names[*to], value)) return 0;
    fprintf(stderr, "dlattn %s: --%s is \"%s\", expected one of:", command, name, value);
    for (int n = 0; names[n]; n++) fprintf(stderr, " %s", names[n]);
    return fprintf(stderr, "\n");
}

static int parse_letters(const char **to, const char *value, const char *name, const char *command) {
    size_t length = value ? strlen(value) : 0;
    *to = value ? value : "bhmn";
    for (size_t n = 0; n < length; n++)
        if (length > 4 || (value[n] != '1' && value[n] != "bhmn"[4 - length + n]))
            return fprintf(stderr, "dlattn %s: --%s=%s: expected the last letters of bhmn, 1 for a broadcast one\n", command, name, value);
    if (value && !length) return fprintf(stderr, "dlattn %s: --%s= is empty\n", command, name);
    return 0;
}

int problem_option(problem_options *o, int code, const char *value, const char *command) {
    static const char *const dtypes[] = {"f32", "f16", "bf16", "f64", NULL}, *const layouts[] = {"bshd", "bhsd", NULL};
    static const char *const modes[] = {"full", "causal", "sliding_window", "block_window", NULL};
    test_case *p = &o->problem;
    switch (code - OPTION_FIRST) {
    case 0: return parse_count(&p->B, value, 0, "batch-size", command);
    case 1: return parse_count(&p->H, value, 0, "num-heads", command);
    case 2: o->kv_heads_given = 1; return parse_count(&p->G, value, 0, "kv-heads", command);
    case 3: return parse_count(&p->M, value, 0, "seq-len", command);
    case 4: o->keys_given = 1; return parse_count(&p->N, value, 0, "seq-len-k", command);
    case 5: return parse_count(&p->D, value, 1, "head-dim", command);
    case 6: o->head_size_v_given = 1; return parse_count(&p->E, value, 1, "head-dim-v", command);
    case 7: return parse_name(&p->dtype, value, dtypes, "dtype", command);
    case 8: return parse_name(&o->mode, value, modes, "attn-mode", command);
    case 9: return parse_count(&o->window_size, value, 1, "window-size", command);
    case 10: return parse_count(&p->block_size, value, 1, "block-size", command);
    case 11: return parse_count(&p->block_count, value, 1, "block-count", command);
    case 12: return parse_real(&p->softcap, value, "softcap", command);
    case 13: p->flags |= DLATTN_SCALE; return parse_real(&p->scale, value, "scale", command);
    case 14: return parse_letters(&p->bias, value, "bias", command);
    case 15: return parse_letters(&p->mask, value, "mask", command);
    case 16: p->alibi = "h"; return 0;
    case 17: p->sinks = 1; return 0;
    case 18: return parse_real(&p->dropout, value, "dropout", command);
    case 19: p->segments = SEGMENTS_SORTED; return 0;
    case 20: return parse_name(&p->layout, value, layouts, "layout", command);
    case 21: p->flags |= DLATTN_TOP_LEFT; return 0;
    default: return -1;
    }
}

int problem_finish(problem_options *o, const char *command) {
    test_case *p = &o->problem;
    if (!o->kv_heads_given) p->G = p->H;
    if (!o->keys_given) p->N = p->M;
    if (!o->head_size_v_given) p->E = p->D;
    if (o->mode == MODE_CAUSAL || o->mode == MODE_SLIDING) p->flags |= DLATTN_CAUSAL;
    if (o->mode == MODE_SLIDING) {
        if (!o->window_size) return fprintf(stderr, "dlattn %s: --attn-mode sliding_window needs --window-size\n", command);
        p->flags |= DLATTN_WINDOW;
        p->window_left = o->window_size - 1;
    } else if (o->window_size) {
        return fprintf(stderr, "dlattn %s: --window-size needs --attn-mode sliding_window\n", command);
    }
    if (o->mode == MODE_BLOCK) {
        if (!p->block_size || !p->block_count)
            return fprintf(stderr, "dlattn %s: --attn-mode block_window needs --block-size and --block-count\n", command);
        p->flags |= DLATTN_BLOCK_WINDOW;
    } else if (p->block_size || p->block_count) {
        return fprintf(stderr, "dlattn %s: --block-size and --block-count need --attn-mode block_window\n", command);
    }
    return 0;
}
