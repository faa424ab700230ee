/* oracle.c: which keys a query sees, which scores dropout keeps, and the choice of arithmetic of the oracle. */
#include "oracle.h"

#include <math.h>
#include <stdlib.h>

__extension__ typedef __int128 wide; /* positions plus INT64_MAX, without overflow */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void describe_side(oracle_side *side, const DLTensor *t, const DLTensor *cu, const DLTensor *used, int64_t bound,
                          int64_t b, int32_t layout) {
    int32_t heads_first = layout == DLATTN_BHSD;
    side->packed = cu != NULL;
    side->layout = layout;
    side->table = NULL;
    side->start = 0;
    if (cu) {
        side->count = cu->shape[0] - 1;
        side->tokens = t->shape[heads_first ? 1 : 0];
        side->heads = t->shape[heads_first ? 0 : 1];
        side->longest = bound > 0 ? bound : side->tokens;
        side->length = 0;
        if (b < side->count) {
            side->start = tensor_get_int(cu, b);
            side->length = tensor_get_int(cu, b + 1) - side->start;
        }
    } else {
        side->count = t->shape[0];
        side->tokens = t->shape[heads_first ? 2 : 1];
        side->heads = t->shape[heads_first ? 1 : 2];
        side->longest = side->tokens;
        side->length = side->tokens;
    }
    if (used && b < side->count) side->length = least(side->length, tensor_get_int(used, b));
    if (bound > 0) side->length = least(side->length, bound);
}

/* Keys in pages; without a page there is no key. */
static void describe_pages(oracle_side *side, const dlattn_attention *a, int64_t b) {
    side->table = a->block_table;
    side->page = side->tokens;
    side->pool = side->count;
    side->count = side->table->shape[0];
    side->tokens = side->page * side->table->shape[1];
    side->longest = a->max_seqlen_k > 0 ? a->max_seqlen_k : side->tokens;
    side->length = b < side->count && side->pool > 0 ? least(side->tokens, tensor_get_int(a->seqlens_k, b)) : 0;
    if (a->max_seqlen_k > 0) side->length = least(side->length, a->max_seqlen_k);
}

void oracle_sides(const dlattn_attention *a, int64_t b, oracle_side *queries, oracle_side *keys) {
    describe_side(queries, a->q, a->cu_seqlens_q, a->seqlens_q, a->max_seqlen_q, b, a->layout);
    describe_side(keys, a->k, a->cu_seqlens_k, a->block_table ? NULL : a->seqlens_k, a->max_seqlen_k, b, a->layout);
    if (a->block_table) describe_pages(keys, a, b);
}

/* Where key `at` of sequence b lies: in page *b, token *at. A page that does not exist is page 0. */
static void find_page(const oracle_side *side, int64_t *b, int64_t *at) {
    int64_t id = tensor_get_int(side->table, *b * side->table->shape[1] + *at / side->page);
    *b = id < 0 || id >= side->pool ? 0 : id;
    *at %= side->page;
}

int64_t oracle_row(const oracle_side *side, int64_t b, int64_t h, int64_t at) {
    int64_t tokens = side->table ? side->page : side->tokens;
    if (side->table) find_page(side, &b, &at);
    if (side->packed) b = 0, at += side->start;
    if (side->layout == DLATTN_BHSD) return (b * side->heads + h) * tokens + at;
    return (b * tokens + at) * side->heads + h;
}

int64_t oracle_lse_row(const oracle_side *side, int64_t b, int64_t h, int64_t at) {
    if (side->packed) b = 0, at += side->start;
    return (b * side->heads + h) * side->tokens + at;
}

int64_t oracle_rows(const oracle_side *side) {
    if (side->table) return side->pool * side->page * side->heads;
    return (side->packed ? 1 : side->count) * side->tokens * side->heads;
}

/* i' and j' of the head of dlattn.h. */
static void positions(const dlattn_attention *a, int64_t b, int64_t i, int64_t j, wide *row, wide *key) {
    oracle_side queries, keys;
    oracle_sides(a, b, &queries, &keys);
    *row = i;
    *key = j;
    if (a->flags & DLATTN_POSITIONS) {
        *row += a->q_starts ? tensor_get_int(a->q_starts, b) : a->q_start;
        *key += a->k_starts ? tensor_get_int(a->k_starts, b) : a->k_start;
    } else if (!(a->flags & DLATTN_TOP_LEFT)) {
        *row += keys.length - queries.length;
    }
}

static wide floor_div(wide a, wide b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

int64_t oracle_distance(const dlattn_attention *a, int64_t b, int64_t i, int64_t j) {
    wide row, key;
    positions(a, b, i, j, &row, &key);
    return (int64_t)(row - key);
}

int oracle_visible(const dlattn_attention *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    oracle_side queries, keys;
    wide row, key;
    oracle_sides(a, b, &queries, &keys);
    positions(a, b, i, j, &row, &key);
    if (i >= queries.length || j >= keys.length) return 0;
    if (a->flags & DLATTN_POSITIONS && key < 0) return 0;
    if (a->flags & DLATTN_CAUSAL && key > row) return 0;
    if (a->flags & DLATTN_WINDOW) {
        if (a->window_left >= 0 && key < row - a->window_left) return 0;
        if (a->window_right >= 0 && key > row + a->window_right) return 0;
    }
    if (a->flags & DLATTN_BLOCK_WINDOW) {
        wide row_block = floor_div(row, a->block_size), key_block = floor_div(key, a->block_size);
        if (key_block <= row_block - a->block_count || key_block > row_block) return 0;
    }
    if (a->q_segments && tensor_get_int(a->q_segments, b * queries.tokens + i) !=
                             tensor_get_int(a->kv_segments, b * keys.tokens + j))
        return 0;
    if (a->mask && tensor_get_int(a->mask, tensor_broadcast_index(a->mask, b, h, i, j)) == 0) return 0;
    return 1;
}

/* Philox-4x32-10 of Salmon et al. (2011), section 4.1 and table 2. */
static void philox(uint32_t counter[4], uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = (uint64_t)0xD2511F53u * counter[0], product1 = (uint64_t)0xCD9E8D57u * counter[2];
        uint32_t next[4] = {(uint32_t)(product1 >> 32) ^ counter[1] ^ key0, (uint32_t)product1,
                            (uint32_t)(product0 >> 32) ^ counter[3] ^ key1, (uint32_t)product0};
        for (int w = 0; w < 4; w++) counter[w] = next[w];
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

static void seed_and_offset(const dlattn_attention *a, uint64_t *seed, uint64_t *offset) {
    const DLTensor *state = a->rng_state;
    *seed = a->seed;
    *offset = a->offset;
    if (state && state->shape[0] == 2) {
        *seed = (uint64_t)tensor_get_int(state, 0);
        *offset = (uint64_t)tensor_get_int(state, 1);
    } else if (state) {
        *seed = (uint64_t)tensor_get_int(state, 0) | (uint64_t)tensor_get_int(state, 1) << 32;
        *offset = (uint64_t)tensor_get_int(state, 2) | (uint64_t)tensor_get_int(state, 3) << 32;
    }
}

static int threshold(double dropout) {
    double t = round(256 * dropout);
    return t < 1 ? 1 : t > 255 ? 255 : (int)t;
}

double oracle_dropout_factor(double dropout) {
    if (dropout == 0) return 1;
    return dropout == 1 ? 0 : 256.0 / (256 - threshold(dropout));
}

int oracle_kept(const dlattn_attention *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    uint64_t seed, offset;
    oracle_side queries, keys;
    wide row = i, key = j;
    if (a->dropout == 0) return 1;
    if (a->dropout == 1) return 0;
    if (a->flags & DLATTN_POSITIONS) positions(a, b, i, j, &row, &key);
    oracle_sides(a, b, &queries, &keys);
    seed_and_offset(a, &seed, &offset);
    int row_rest = (int)(row - 16 * floor_div(row, 16)), key_rest = (int)(key - 32 * floor_div(key, 32));
    uint32_t counter[4] = {(uint32_t)(floor_div(key, 32) * 32 + row_rest % 8 * 4 + key_rest % 8 / 2),
                           (uint32_t)floor_div(row, 16), (uint32_t)(b * queries.heads + h), (uint32_t)offset};
    philox(counter, (uint32_t)seed, (uint32_t)(seed >> 32) + (uint32_t)(offset >> 32));
    uint32_t word = counter[key_rest / 8 % 4];
    return (int)(word >> 8 * (row_rest / 8 * 2 + key_rest % 2) & 255u) >= threshold(a->dropout);
}

static void scale_all(real *array, int64_t count, real factor) {
    for (int64_t n = 0; array && n < count; n++) array[n] *= factor;
}

static void run_rounding(const oracle_request *request, oracle_result *result) {
    const dlattn_attention *a = request->attention;
    oracle_side queries, keys;
    real unit = a->q->dtype.bits == 64 ? 0x1p-53L : 0x1p-24L;
    oracle_sides(a, 0, &queries, &keys);
    oracle_run_double(request, result);
    scale_all(result->out, oracle_rows(&queries) * a->v->shape[a->v->ndim - 1], unit);
    scale_all(result->lse, oracle_rows(&queries), unit);
    scale_all(result->dq, tensor_count(a->q), unit);
    scale_all(result->dk, tensor_count(a->k), unit);
    scale_all(result->dv, tensor_count(a->v), unit);
    if (a->bias) scale_all(result->dbias, tensor_count(a->bias), unit);
    if (a->sinks) scale_all(result->dsinks, tensor_count(a->sinks), unit);
}

oracle_result oracle_run(const oracle_request *request) {
    oracle_result result = {0};
    int doubles = request->attention->q->dtype.bits == 64;
    if (request->arithmetic == ORACLE_ROUNDING)
        run_rounding(request, &result);
    else if (request->arithmetic == ORACLE_NARROWING)
        oracle_run_double(request, &result);
    else if (request->arithmetic == ORACLE_REFERENCE)
        (doubles ? oracle_run_long_double : oracle_run_double)(request, &result);
    else
        (doubles ? oracle_run_double : oracle_run_float)(request, &result);
    return result;
}

void oracle_free(oracle_result *result) {
    real *all[] = {result->out, result->lse, result->dq, result->dk, result->dv, result->dbias, result->dsinks};
    for (unsigned n = 0; n < sizeof all / sizeof *all; n++) free(all[n]);
    *result = (oracle_result){0};
}
