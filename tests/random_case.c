/* random_case.c: a valid problem drawn from a seed: every field of a case, alone and together with all others.
 *
 * Most draws prefer the ends of a range and the borders of tiles to its middle. */
#include "random_case.h"

#include <inttypes.h>
#include <string.h>

#include <dlattn/dlattn.h>

#include "draw.h"

/* What nearly every case, one in twelve, one in a hundred may cost, by the estimate of cost(). */
enum { LOW_COST = 2000, HIGH_COST = 20000, HIGHEST_COST = 400000 };

uint64_t random_case_seed(uint64_t seed, int64_t n) { return mix(mix(seed) + (uint64_t)n); }

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- sizes -------------------------------------------------------------------------------------------------------- */

static int64_t draw_length(draw *r) {
    switch (below(r, 8)) {
    case 0: return below(r, 3);
    case 1:
    case 2: return PICK(r, 16, 32, 48, 64, 96, 128, 256, 320, 512, 640) + between(r, -1, 1);
    case 3: return below(r, 701);
    default: return between(r, 1, 70);
    }
}

static int64_t draw_head_size(draw *r) {
    switch (below(r, 5)) {
    case 0: return PICK(r, 8, 16, 32, 64, 80, 96, 128, 192, 256);
    case 1: return between(r, 1, 256);
    case 2: return between(r, 0, 127) * 2 + 1;
    default: return between(r, 1, 40);
    }
}

/* Of the oracle and the checks, in pairs of query and key at small head sizes. */
static int64_t cost(const test_case *c) {
    int64_t width = c->D + c->E;
    return c->B * (c->H * c->M * c->N * (width + 100) / 140 + (c->H * c->M + c->G * c->N) * width / 16);
}

static void draw_sizes(draw *r) {
    test_case *c = r->c;
    int64_t affordable = chance(r, 1) ? HIGHEST_COST : chance(r, 8) ? HIGH_COST : LOW_COST;
    c->dtype = (int32_t)PICK(r, F32, F32, F16, BF16, BF16, F64);
    c->layout = (int32_t)below(r, 2);
    c->B = chance(r, 2) ? 0 : chance(r, 40) ? 1 : between(r, 1, 5);
    c->G = chance(r, 1) ? 0 : chance(r, 40) ? 1 : between(r, 1, 3);
    c->H = c->G * (chance(r, 50) ? 1 : PICK(r, 2, 3, 4, 5, 8));
    c->M = chance(r, 20) ? between(r, 1, 4) : draw_length(r);
    c->N = chance(r, 3) ? between(r, 2000, 6000) : draw_length(r);
    c->D = draw_head_size(r);
    c->E = chance(r, 50) ? c->D : draw_head_size(r);
    if (c->N > 256 * c->E) c->E = c->N / 256 + 1; /* the check of visible keys runs N/E times */
    while (cost(c) > affordable) {
        if (c->B > 1 && chance(r, 50)) c->B -= 1;
        else if (c->H > c->G && chance(r, 50)) c->H -= c->G;
        else if (c->G > 1 && chance(r, 50)) c->H = c->H / c->G * (c->G - 1), c->G -= 1;
        else if (c->D + c->E > 40 && chance(r, 30)) c->D = c->D / 2 + 1, c->E = c->E / 2 + 1;
        else if (c->M > c->N || (c->N > 2000 && c->M > 1)) c->M = c->M * 2 / 3;
        else c->N = c->N * 2 / 3;
    }
}

/* ---- lengths ------------------------------------------------------------------------------------------------------ */

/* Cuts `total` into B lengths, some of them 0. */
static void draw_lengths(draw *r, int64_t *lengths, int64_t total) {
    for (int64_t b = 0; b < r->c->B; b++) {
        lengths[b] = b == r->c->B - 1 ? total : chance(r, 20) ? 0 : chance(r, 10) ? smaller(total, 1) : below(r, total + 1);
        total -= lengths[b];
    }
}

static void draw_used(draw *r, int64_t *used, const int64_t *room, int64_t all) {
    for (int64_t b = 0; b < r->c->B; b++) {
        int64_t most = room ? room[b] : all;
        used[b] = chance(r, 30) ? most : chance(r, 15) ? 0 : below(r, most + 1);
    }
}

static void draw_packing(draw *r) {
    test_case *c = r->c;
    c->index64 = chance(r, 40);
    if (c->B > 0) {
        c->packed_q = chance(r, 30);
        c->packed_k = chance(r, c->packed_q ? 75 : 5);
    }
    if (c->packed_q) draw_lengths(r, c->q_lengths, c->M * c->B);
    if (c->packed_k) draw_lengths(r, c->k_lengths, c->N * c->B);
    if (c->packed_q) c->M *= c->B;
    if (c->packed_k) c->N *= c->B;
    if ((c->packed_q || c->packed_k) && chance(r, 30)) c->tokens_before = below(r, 5);
    if ((c->packed_q || c->packed_k) && chance(r, 30)) c->tokens_after = below(r, 5);
    c->use_q = chance(r, 25);
    c->use_k = chance(r, 25);
    if (c->use_q) draw_used(r, c->q_used, c->packed_q ? c->q_lengths : NULL, c->M);
    if (c->use_k) draw_used(r, c->k_used, c->packed_k ? c->k_lengths : NULL, c->N);
    if (chance(r, c->packed_q ? 40 : 8)) c->max_q = between(r, 1, c->M + 3);
    if (chance(r, c->packed_k ? 40 : 8)) c->max_k = between(r, 1, c->N + 3);
}

/* ---- masks -------------------------------------------------------------------------------------------------------- */

static int64_t draw_bound(draw *r) {
    if (chance(r, 25)) return PICK(r, -1, 0, 1, INT64_MAX, INT64_MIN, INT64_MAX - 5);
    return between(r, -1, chance(r, 50) ? 20 : 300);
}

static int64_t draw_start(draw *r) {
    int64_t start = chance(r, 30) ? between(r, -40, 40) : between(r, -200, 700);
    return r->c->alibi || chance(r, 80) ? start : start + PICK(r, 2000000000, -2000000000, 1000000000);
}

static void draw_positions(draw *r) {
    test_case *c = r->c;
    if (chance(r, 15)) c->flags |= DLATTN_TOP_LEFT;
    if (!chance(r, 25)) return;
    c->flags = (c->flags & ~(uint32_t)DLATTN_TOP_LEFT) | DLATTN_POSITIONS;
    c->start_tensors = chance(r, 50);
    c->q_start = draw_start(r);
    c->k_start = chance(r, 50) ? c->q_start + between(r, -60, 60) : draw_start(r);
    for (int64_t b = 0; c->start_tensors && b < c->B; b++) {
        c->q_starts[b] = draw_start(r);
        c->k_starts[b] = chance(r, 70) ? c->q_starts[b] + between(r, -60, 60) : draw_start(r);
    }
    if (c->start_tensors || c->alibi || !chance(r, 15)) return;
    int64_t last_q = INT64_MAX - c->M, last_k = INT64_MAX - c->N; /* positions are int64 themselves */
    c->q_start = PICK(r, last_q, INT64_MIN, INT64_C(1) << 40, last_q - 100, INT64_MIN + 100);
    c->k_start = chance(r, 50) ? smaller(c->q_start, last_k) : PICK(r, last_k, INT64_MIN, INT64_C(1) << 40, last_k - 100);
}

static void draw_masks(draw *r) {
    test_case *c = r->c;
    if (chance(r, 35)) c->flags |= DLATTN_CAUSAL;
    if (chance(r, 25)) {
        c->flags |= DLATTN_WINDOW;
        c->window_left = draw_bound(r);
        c->window_right = draw_bound(r);
    }
    if (chance(r, 12)) {
        c->flags |= DLATTN_BLOCK_WINDOW;
        c->block_size = chance(r, 80) ? between(r, 1, 100) : PICK(r, 1, 1000, INT64_MAX, INT64_MAX - 1);
        c->block_count = chance(r, 80) ? between(r, 1, 4) : PICK(r, 1, 1000, INT64_MAX, INT64_MAX - 1);
    }
    if (!c->packed_q && !c->packed_k && chance(r, 18))
        c->segments = chance(r, 60) ? SEGMENTS_SORTED : SEGMENTS_SHUFFLED;
}

/* Letters of a tensor that broadcasts: any rank, any dimension 1 or stride 0. */
static const char *draw_letters(draw *r, char letters[8]) {
    static const char full[] = "bhmn", zero[] = "BHMN";
    int64_t rank = chance(r, 60) ? 4 : between(r, 1, 4);
    for (int64_t d = 4 - rank, n = 0; d < 4; d++, n++)
        letters[n] = chance(r, 35) ? '1' : chance(r, 5) ? zero[d] : full[d];
    letters[rank] = 0;
    return letters;
}

/* ---- terms, results, memory ----------------------------------------------------------------------------------------- */

static void draw_terms(draw *r, random_case *to) {
    static const char *const slopes[] = {"h", "h", "bh", "bh", "H", "BH"};
    test_case *c = r->c;
    if (chance(r, 30)) c->bias = draw_letters(r, to->bias);
    if (chance(r, 22)) c->mask = draw_letters(r, to->mask);
    c->mask_kind = chance(r, 60) ? MASK_RANDOM : (int32_t)between(r, MASK_HIDDEN_ROWS, MASK_NOTHING_VISIBLE);
    if (chance(r, 18)) c->alibi = slopes[below(r, 6)];
    c->bias_f32 = chance(r, 40);
    c->alibi_f32 = chance(r, 40);
    c->sinks_f32 = chance(r, 40);
    c->mask_bool = chance(r, 50);
    c->sinks = chance(r, 20);
    if (chance(r, 15)) c->softcap = (double)PICK(r, 1, 4, 10, 40, 100) / 2;
    if (chance(r, 15)) {
        c->flags |= DLATTN_SCALE;
        c->scale = chance(r, 20) ? 0 : (double)between(r, -64, 64) / 64;
    }
    if (chance(r, 20)) {
        c->dropout = chance(r, 10) ? 1 : chance(r, 10) ? 1e-9 : (double)between(r, 1, 999) / 1000;
        c->seed = mix(r->state);
        c->offset = chance(r, 50) ? (uint64_t)below(r, 100) : mix(r->state + 1);
        c->rng_state = (int32_t)PICK(r, 0, 0, 2, 4);
    }
    if (chance(r, 5)) c->flags |= DLATTN_DETERMINISTIC;
}

static void draw_memory(draw *r) {
    test_case *c = r->c;
    c->strides = chance(r, 35) ? COMPACT : (int32_t)between(r, GAPS, MISALIGNED);
    if (c->strides == INTERLEAVED && (c->M != c->N || c->D != c->E || c->packed_q != c->packed_k)) {
        if (c->packed_q || c->packed_k || c->M > 100) c->strides = GAPS;
        else {
            c->N = c->M;
            c->E = c->D;
            for (int64_t b = 0; b < c->B; b++) c->k_used[b] = smaller(c->k_used[b], c->N);
        }
    }
    c->f32_out = chance(r, 20);
    c->f32_gradients = chance(r, 20);
    c->dlse = chance(r, 60);
}

/* Traps, where what they break is known: not where memory is shared by several heads. */
static void draw_inputs(draw *r) {
    test_case *c = r->c;
    if (chance(r, 70)) return;
    switch (below(r, 6)) {
    case 0: c->inputs = c->D <= 64 ? LARGE : NORMAL; break;
    case 1: c->inputs = c->bias ? BAD_BIAS : NORMAL; break;
    case 2: c->inputs = c->bias ? MINUS_INF_BIAS : NORMAL; break;
    case 3: c->inputs = ZERO_SCORES; break;
    case 4:
        c->inputs = BAD_KEYS;
        c->gradients = NO_GRADIENTS;
        break;
    default: c->inputs = chance(r, 50) ? NAN_IN_Q : INF_IN_V; break;
    }
    int64_t last = c->B - 1, queries = c->packed_q ? last < 0 ? 0 : c->q_lengths[last] : c->M;
    int64_t keys = c->packed_k ? last < 0 ? 0 : c->k_lengths[last] : c->N;
    if (c->use_q && last >= 0) queries = smaller(queries, c->q_used[last]);
    if (c->use_k && last >= 0) keys = smaller(keys, c->k_used[last]);
    if (c->bias && (c->inputs == NAN_IN_Q || c->inputs == INF_IN_V)) c->gradients = NO_GRADIENTS; /* dbias may take it on */
    int traps = c->inputs == BAD_KEYS || c->inputs == NAN_IN_Q || c->inputs == INF_IN_V;
    if (!traps || (c->strides != BROADCAST && last >= 0 && c->G > 0 && queries > 0 && keys > 0)) return;
    c->inputs = NORMAL;
    c->gradients = ALL_GRADIENTS;
}

/* Last, as it changes no other draw: keys in pages, of which a few are not full. Their backward does not exist. */
static void draw_pages(draw *r) {
    test_case *c = r->c;
    int64_t page = chance(r, 40) ? PICK(r, 16, 64, 256) : between(r, 1, 1 + smaller(c->N, 300)), keys = c->N;
    int64_t pages = (c->N + page - 1) / page + (chance(r, 20) ? 1 : 0), last = INT64_MAX - pages * page;
    int traps = c->inputs == BAD_KEYS || c->inputs == NAN_IN_Q || c->inputs == INF_IN_V;
    if (c->packed_k || c->k_start > last || c->q_start > INT64_MAX - c->M - pages * page) return;
    c->page = page;
    c->N = pages * page;
    for (int64_t b = 0; b < c->B && !c->use_k; b++) c->k_used[b] = traps || chance(r, 50) ? keys : below(r, keys + 1);
    c->use_k = 1;
    c->table = !traps && chance(r, 25) ? TABLE_SHARED : TABLE_SHUFFLED;
    if (c->strides == INTERLEAVED) c->strides = GAPS;
    c->gradients = NO_GRADIENTS;
}

void random_case_make(random_case *to, uint64_t seed) {
    draw r = {seed, &to->test};
    memset(to, 0, sizeof *to);
    snprintf(to->name, sizeof to->name, "random_0x%016" PRIx64, seed);
    to->test.name = to->name;
    draw_sizes(&r);
    draw_packing(&r);
    draw_masks(&r);
    draw_terms(&r, to);
    draw_positions(&r);
    draw_memory(&r);
    draw_inputs(&r);
    if (chance(&r, 12)) draw_pages(&r);
}
