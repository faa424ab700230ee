/* sweep_shapes.c: realistic problems drawn from a seed: training and prefill, chunks of a prefill, decoding, cross attention.
 *
 * Sizes are those of models that people run, and now and then one that divides nothing. */
#include "sweep_shapes.h"

#include <dlattn/dlattn.h>
#include <inttypes.h>
#include <string.h>

#include "draw.h"

/* A shape that needs more of either loses sequences, then heads, then keys. */
static const double most_operations = 1.0e12, most_bytes = 128e6;

/* ---- sizes ---------------------------------------------------------------------------------------------------------- */

static int64_t draw_length(draw *r) {
    if (chance(r, 20)) return between(r, 128, 5000);
    return PICK(r, 128, 197, 256, 384, 512, 577, 768, 1024, 1024, 1500, 2048, 2048, 3072, 4096, 4096, 6144, 8192, 8192, 16384, 32768);
}

static void draw_lengths(draw *r) {
    test_case *c = r->c;
    const int64_t kind = below(r, 100);
    c->M = c->N = draw_length(r);
    if (kind < 55) return;                               /* attention to itself */
    if (kind < 72) c->M = PICK(r, 16, 32, 64, 64, 100, 128, 128, 192, 256, 300, 512, 1024); /* a chunk, or few queries */
    else if (kind < 90) c->M = chance(r, 75) ? 1 : between(r, 2, 8);                        /* decoding */
    else c->N = PICK(r, 77, 128, 154, 256, 400, 512, 1500);                                 /* another sequence's keys */
    if (kind < 90 && c->N < 1024) c->N = PICK(r, 1024, 2048, 4096, 8192, 16384, 32768);
    if (c->M > c->N && kind < 90) c->M = c->N;
}

static void draw_heads(draw *r) {
    test_case *c = r->c;
    c->D = c->E = PICK(r, 64, 64, 64, 64, 64, 64, 80, 96, 96, 112, 128, 128, 128, 128, 128, 128, 128, 128, 160, 192, 256, 256);
    if (c->D == 192 && chance(r, 60)) c->E = 128;
    c->H = PICK(r, 4, 8, 8, 12, 16, 16, 16, 20, 24, 32, 32, 32, 40, 64);
    const int64_t group = PICK(r, 1, 1, 1, 2, 4, 4, 8);
    c->G = c->H % group ? c->H : c->H / group;
    c->B = c->M <= 8 ? PICK(r, 1, 2, 4, 8, 16, 32, 64) : PICK(r, 1, 1, 2, 2, 3, 4, 8, 16, 32);
}

/* ---- masks ---------------------------------------------------------------------------------------------------------- */

static void draw_mask(draw *r) {
    test_case *c = r->c;
    const int64_t kind = below(r, 100);
    c->window_left = c->window_right = -1;
    if (chance(r, 8)) c->softcap = PICK(r, 15, 30, 50);
    if (c->N < c->M) return; /* keys of another sequence are all seen */
    if (kind < 48) c->flags |= DLATTN_CAUSAL;
    if (kind < 78) return;
    if (kind < 94) {
        c->flags |= DLATTN_WINDOW;
        c->window_left = PICK(r, 127, 255, 511, 1023, 1023, 2047, 4095);
        if (kind < 90) c->flags |= DLATTN_CAUSAL;
        else c->window_right = c->window_left;
    } else {
        c->flags |= DLATTN_BLOCK_WINDOW;
        c->block_size = PICK(r, 64, 128, 256, 512);
        c->block_count = PICK(r, 2, 4, 8, 16);
    }
}

/* About how many of a row's keys are seen. */
static double seen_keys(const test_case *c) {
    double keys = (double)c->N;
    if (c->flags & DLATTN_CAUSAL) keys = c->M < c->N / 2 ? keys : keys - (double)c->M / 2;
    if (c->flags & DLATTN_WINDOW) {
        const double window = (double)(c->window_left + 1 + (c->window_right > 0 ? c->window_right : 0));
        if (window < keys) keys = window;
    }
    if (c->flags & DLATTN_BLOCK_WINDOW && (double)(c->block_size * c->block_count) < keys) keys = (double)(c->block_size * c->block_count);
    return keys;
}

static int is_too_large(const test_case *c) {
    const double width = (double)(c->D + c->E), rows = (double)(c->B * c->H * c->M), keys = (double)(c->B * c->G * c->N);
    return 2 * width * rows * seen_keys(c) > most_operations || 2 * width * (rows + keys) > most_bytes;
}

static void shrink(test_case *c) {
    const int64_t group = c->H / c->G;
    while (is_too_large(c)) {
        if (c->B > 1) c->B /= 2;
        else if (c->G % 2 == 0) c->G /= 2;
        else if (c->M == c->N) c->M = c->N /= 2;
        else if (c->N > c->M) c->N /= 2;
        else c->M /= 2;
        c->H = c->G * group;
    }
    if (c->N < c->M && c->flags & DLATTN_CAUSAL) c->N = c->M;
}

void sweep_shape_make(sweep_shape *to, uint64_t seed, int64_t n) {
    draw r = {mix(mix(seed) + (uint64_t)n), &to->problem};
    memset(to, 0, sizeof *to);
    snprintf(to->name, sizeof to->name, "shape_%03" PRId64, n);
    to->problem.name = to->name;
    to->problem.gradients = NO_GRADIENTS;
    to->problem.dtype = chance(&r, 25) ? F16 : BF16;
    draw_lengths(&r);
    draw_heads(&r);
    draw_mask(&r);
    shrink(&to->problem);
}
