/* test_cache.c: dlattn_kv_append: where each token lands, in rows, chosen rows and pages; refusals leave the cache alone. */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <string.h>

#include "dlattn/dlattn.h"

enum { B = 2, S = 3, G = 2, D = 4, E = 5, CAPACITY = 8, PAGES = 5, PAGE = 4, ROWS = 6 };

typedef struct trial {
    float k_new[B * S * G * D], v_new[B * S * G * E], k_cache[ROWS * CAPACITY * G * D], v_cache[ROWS * CAPACITY * G * E];
    int32_t seqlens[B], table[B * 2], index[B];
    int64_t k_new_shape[4], v_new_shape[4], k_shape[4], v_shape[4], batch_shape[1], table_shape[2];
    DLTensor tk_new, tv_new, tk, tv, tseqlens, ttable, tindex;
    char message[256];
    dlattn_exec exec;
    dlattn_cache cache;
} trial;

static DLTensor tensor_of(void *data, int64_t *shape, int32_t rank, int code, int bits) {
    return (DLTensor){.data = data, .device = {kDLCPU, 0}, .ndim = rank, .dtype = {(uint8_t)code, (uint8_t)bits, 1},
                      .shape = shape};
}

static void set_shape(int64_t shape[4], int64_t a, int64_t b, int64_t c, int64_t d) {
    shape[0] = a, shape[1] = b, shape[2] = c, shape[3] = d;
}

/* A cache of `rows` rows of `tokens` tokens; every number of the new tokens is its own. */
static void start(trial *t, int64_t rows, int64_t tokens) {
    memset(t, 0, sizeof *t);
    for (int n = 0; n < B * S * G * D; n++) t->k_new[n] = (float)(n + 1);
    for (int n = 0; n < B * S * G * E; n++) t->v_new[n] = (float)(-n - 1);
    set_shape(t->k_new_shape, B, S, G, D), set_shape(t->v_new_shape, B, S, G, E);
    set_shape(t->k_shape, rows, tokens, G, D), set_shape(t->v_shape, rows, tokens, G, E);
    t->batch_shape[0] = B, t->table_shape[0] = B, t->table_shape[1] = 2;
    t->tk_new = tensor_of(t->k_new, t->k_new_shape, 4, kDLFloat, 32);
    t->tv_new = tensor_of(t->v_new, t->v_new_shape, 4, kDLFloat, 32);
    t->tk = tensor_of(t->k_cache, t->k_shape, 4, kDLFloat, 32);
    t->tv = tensor_of(t->v_cache, t->v_shape, 4, kDLFloat, 32);
    t->tseqlens = tensor_of(t->seqlens, t->batch_shape, 1, kDLInt, 32);
    t->ttable = tensor_of(t->table, t->table_shape, 2, kDLInt, 32);
    t->tindex = tensor_of(t->index, t->batch_shape, 1, kDLInt, 32);
    t->exec = (dlattn_exec){.struct_size = sizeof t->exec, .message = t->message, .message_bytes = sizeof t->message};
    t->cache = (dlattn_cache){.struct_size = sizeof t->cache, .k_new = &t->tk_new, .v_new = &t->tv_new,
                              .seqlens = &t->tseqlens, .k_cache = &t->tk, .v_cache = &t->tv};
}

static int32_t append(trial *t) { return dlattn_kv_append(&t->cache, &t->exec); }

/* Is token s of sequence b at `token` of `row`, and how many numbers of the caches are set at all? */
static bool holds(const trial *t, int64_t row, int64_t token, int64_t b, int64_t s) {
    const int64_t tokens = t->k_shape[1];
    return memcmp(t->k_cache + (row * tokens + token) * G * D, t->k_new + (b * S + s) * G * D, G * D * 4) == 0 &&
           memcmp(t->v_cache + (row * tokens + token) * G * E, t->v_new + (b * S + s) * G * E, G * E * 4) == 0;
}

static int64_t numbers_set(const trial *t) {
    int64_t count = 0;
    for (size_t n = 0; n < sizeof t->k_cache / 4; n++) count += t->k_cache[n] != 0;
    for (size_t n = 0; n < sizeof t->v_cache / 4; n++) count += t->v_cache[n] != 0;
    return count;
}

static void expect_tokens(const trial *t, const int64_t row[B][S], const int64_t token[B][S]) {
    for (int b = 0; b < B; b++)
        for (int s = 0; s < S; s++) cr_expect(holds(t, row[b][s], token[b][s], b, s), "token %d of sequence %d", s, b);
    cr_expect_eq(numbers_set(t), B * S * G * (D + E), "nothing else is written");
}

Test(cache, tokens_go_behind_those_that_are_there) {
    static trial t;
    start(&t, B, CAPACITY);
    t.seqlens[0] = 2, t.seqlens[1] = CAPACITY - S;
    cr_assert_eq(append(&t), DLATTN_OK, "%s", t.message);
    expect_tokens(&t, (const int64_t[B][S]){{0, 0, 0}, {1, 1, 1}}, (const int64_t[B][S]){{2, 3, 4}, {5, 6, 7}});
    cr_expect_eq(t.seqlens[0], 2);
}

Test(cache, a_batch_index_chooses_the_rows) {
    static trial t;
    start(&t, ROWS, CAPACITY);
    t.index[0] = 4, t.index[1] = 1;
    t.cache.batch_index = &t.tindex;
    cr_assert_eq(append(&t), DLATTN_OK, "%s", t.message);
    expect_tokens(&t, (const int64_t[B][S]){{4, 4, 4}, {1, 1, 1}}, (const int64_t[B][S]){{0, 1, 2}, {0, 1, 2}});
}

Test(cache, a_block_table_chooses_the_pages) {
    static trial t;
    start(&t, PAGES, PAGE);
    memcpy(t.table, (int32_t[]){3, 0, 4, 2}, sizeof t.table);
    t.cache.block_table = &t.ttable;
    t.seqlens[0] = 2, t.seqlens[1] = 4;
    cr_assert_eq(append(&t), DLATTN_OK, "%s", t.message);
    expect_tokens(&t, (const int64_t[B][S]){{3, 3, 0}, {2, 2, 2}}, (const int64_t[B][S]){{2, 3, 0}, {0, 1, 2}});
}

Test(cache, a_page_that_no_token_needs_may_be_anything) {
    static trial t;
    start(&t, PAGES, PAGE);
    memcpy(t.table, (int32_t[]){3, -1, 4, 999}, sizeof t.table);
    t.cache.block_table = &t.ttable;
    cr_assert_eq(append(&t), DLATTN_OK, "%s", t.message);
    expect_tokens(&t, (const int64_t[B][S]){{3, 3, 3}, {4, 4, 4}}, (const int64_t[B][S]){{0, 1, 2}, {0, 1, 2}});
}

/* The same elements through views by head, with the head dimension reversed. */
Test(cache, any_strides) {
    static trial t, plain;
    int64_t strides[4] = {S * G * D, D, G * D, 1}, cache_strides[4] = {CAPACITY * G * D, D, G * D, 1};
    int64_t v_strides[4] = {S * G * E, E, G * E, -1}, v_cache_strides[4] = {CAPACITY * G * E, E, G * E, -1};
    start(&plain, B, CAPACITY), start(&t, B, CAPACITY);
    set_shape(t.k_new_shape, B, G, S, D), set_shape(t.v_new_shape, B, G, S, E);
    set_shape(t.k_shape, B, G, CAPACITY, D), set_shape(t.v_shape, B, G, CAPACITY, E);
    t.tk_new.strides = strides, t.tk.strides = cache_strides;
    t.tv_new.strides = v_strides, t.tv.strides = v_cache_strides;
    t.tv_new.byte_offset = t.tv.byte_offset = (E - 1) * 4;
    t.cache.layout = DLATTN_BHSD;
    cr_assert_eq(append(&plain), DLATTN_OK);
    cr_assert_eq(append(&t), DLATTN_OK, "%s", t.message);
    cr_expect(memcmp(t.k_cache, plain.k_cache, sizeof t.k_cache) == 0);
    cr_expect(memcmp(t.v_cache, plain.v_cache, sizeof t.v_cache) == 0);
}

static void expect_refusal(trial *t, int32_t status, const char *sentence) {
    cr_expect_eq(append(t), status, "%s", sentence);
    cr_expect(strstr(t->message, sentence), "%s\nexpected: %s", t->message, sentence);
    cr_expect_eq(numbers_set(t), 0, "%s", sentence);
}

Test(cache, what_has_no_place_is_refused) {
    static trial t;
    start(&t, B, CAPACITY);
    t.seqlens[1] = CAPACITY - S + 1;
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "seqlens[1] is 6, expected 0 to 5 (3 new tokens, room for 8)");
    t.seqlens[1] = -1;
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "seqlens[1] is -1, expected 0 to 5");
    t.seqlens[1] = 0, t.index[1] = B;
    t.cache.batch_index = &t.tindex;
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "batch_index[1] is 2, expected 0 to 1");
    start(&t, PAGES, PAGE);
    t.cache.block_table = &t.ttable, t.table[2] = PAGES;
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "block_table[1,0] is 5, expected a page from 0 to 4");
}

Test(cache, tensors_that_do_not_fit_are_refused) {
    static trial t;
    start(&t, B + 1, CAPACITY);
    expect_refusal(&t, DLATTN_ERR_SHAPE, "k_cache has shape [3,8,2,4], expected [2,*,2,4]");
    start(&t, B, CAPACITY);
    t.v_shape[3] = D;
    expect_refusal(&t, DLATTN_ERR_SHAPE, "v_cache has shape [2,8,2,4], expected [2,8,2,5]");
    start(&t, B, CAPACITY);
    t.tv.dtype.bits = 16;
    expect_refusal(&t, DLATTN_ERR_DTYPE, "v_cache has dtype float16, expected float32");
    start(&t, B, CAPACITY);
    t.cache.seqlens = NULL;
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "seqlens is NULL, expected a tensor [B]");
    start(&t, B, CAPACITY);
    t.cache.batch_index = &t.tindex, t.cache.block_table = &t.ttable;
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "block_table and batch_index are both given, expected at most one");
    start(&t, B, CAPACITY);
    t.tk.data = t.k_new;
    expect_refusal(&t, DLATTN_ERR_SHAPE, "k_cache starts at the address of k_new, expected memory of its own");
    start(&t, B, CAPACITY);
    t.tk.device.device_type = kDLCUDA;
    expect_refusal(&t, DLATTN_ERR_DEVICE, "k_cache is on kDLCUDA:0, expected k_new's device kDLCPU:0");
}
