/* problem_cache.c: new keys and values and the cache that takes them, for dlattn_kv_append. */
#include <inttypes.h>
#include <string.h>

#include "cache.h"
#include "error.h"
#include "reading.h"

typedef struct cache_tensors {
    tensor k_new, v_new, k_cache, v_cache, seqlens, block_table, batch_index;
} cache_tensors;

static const int32_t from_padded[2][4] = {{0, 1, 2, 3}, {0, 2, 1, 3}};
static const int32_t from_vector[4] = {0, -1, -1, -1};
static const int32_t from_table[4] = {0, 1, -1, -1};

/* The extents [b, token, g, d] in the caller's order; -1: any. */
static int32_t expect(const tensor *t, int32_t layout, int64_t b, int64_t token, int64_t g, int64_t d, const char *reason) {
    const int64_t padded[4] = {b, token, g, d}, by_head[4] = {b, g, token, d};
    return dlattn__tensor_expect(t, layout == DLATTN_BSHD ? padded : by_head, reason);
}

static int32_t read_new(append_problem *p, cache_tensors *t, const dlattn_cache *c) {
    const char *k_shape = c->layout == DLATTN_BSHD ? "[B,S,G,D]" : "[B,G,S,D]";
    const char *v_shape = c->layout == DLATTN_BSHD ? "[B,S,G,E]" : "[B,G,S,E]";
    const role k_role = {"k_new", k_shape, DLATTN_TYPES_FLOAT, 4, 4, false, true};
    DLATTN_TRY(dlattn__tensor_read(&t->k_new, &k_role, c->k_new));
    const role v_role = {"v_new", v_shape, 1u << t->k_new.dtype, 4, 4, false, true};
    DLATTN_TRY(dlattn__tensor_read_beside(&t->v_new, &v_role, c->v_new, &t->k_new));
    p->k_new = dlattn__tensor_operand(&t->k_new, from_padded[c->layout]);
    p->v_new = dlattn__tensor_operand(&t->v_new, from_padded[c->layout]);
    p->device_type = (int32_t)t->k_new.device.device_type;
    p->device_id = t->k_new.device.device_id;
    p->B = p->k_new.extent[0];
    p->S = p->k_new.extent[1];
    p->G = p->k_new.extent[2];
    p->D = p->k_new.extent[3];
    p->E = p->v_new.extent[3];
    DLATTN_TRY(dlattn__head_size_check("k_new", "D", p->D));
    DLATTN_TRY(dlattn__head_size_check("v_new", "E", p->E));
    return expect(&t->v_new, c->layout, p->B, p->S, p->G, -1, "k_new's batch, tokens and heads");
}

static int32_t read_caches(append_problem *p, cache_tensors *t, const dlattn_cache *c) {
    const bool paged = c->block_table != NULL;
    const char *shapes[2][2] = {{"[B,capacity,G,D]", "[B,G,capacity,D]"}, {"[P,page,G,D]", "[P,G,page,D]"}};
    const role k_role = {"k_cache", shapes[paged][c->layout], 1u << t->k_new.dtype, 4, 4, true, true};
    const role v_role = {"v_cache", shapes[paged][c->layout], 1u << t->k_new.dtype, 4, 4, true, true};
    DLATTN_TRY(dlattn__tensor_read_beside(&t->k_cache, &k_role, c->k_cache, &t->k_new));
    DLATTN_TRY(dlattn__tensor_read_beside(&t->v_cache, &v_role, c->v_cache, &t->k_new));
    p->k_cache = dlattn__tensor_operand(&t->k_cache, from_padded[c->layout]);
    p->v_cache = dlattn__tensor_operand(&t->v_cache, from_padded[c->layout]);
    p->rows = p->k_cache.extent[0];
    p->tokens = p->k_cache.extent[1];
    DLATTN_TRY(expect(&t->k_cache, c->layout, paged || c->batch_index ? -1 : p->B, -1, p->G, p->D,
                      "k_new's batch, heads and head size"));
    DLATTN_TRY(expect(&t->v_cache, c->layout, p->rows, p->tokens, p->G, p->E, "k_cache's rows and tokens, v_new's heads"));
    if (paged && p->tokens < 1)
        return dlattn__fail(DLATTN_ERR_SHAPE, "k_cache has pages of 0 tokens, expected at least 1");
    return DLATTN_OK;
}

static int32_t read_places(append_problem *p, cache_tensors *t, const dlattn_cache *c) {
    const int64_t batch[4] = {p->B, -1, -1, -1};
    const role lengths = {"seqlens", "[B]", DLATTN_TYPES_INT, 1, 1, false, true};
    const role index = {"batch_index", "[B]", DLATTN_TYPES_INT, 1, 1, false, true};
    const role table = {"block_table", "[B,pages]", DLATTN_TYPES_INT, 2, 2, false, true};
    DLATTN_TRY(dlattn__tensor_read_beside(&t->seqlens, &lengths, c->seqlens, &t->k_new));
    DLATTN_TRY(dlattn__tensor_expect(&t->seqlens, batch, "k_new's batch"));
    p->seqlens = dlattn__tensor_operand(&t->seqlens, from_vector);
    if (c->block_table && c->batch_index)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "block_table and batch_index are both given, expected at most one");
    if (c->batch_index) {
        DLATTN_TRY(dlattn__tensor_read_beside(&t->batch_index, &index, c->batch_index, &t->k_new));
        DLATTN_TRY(dlattn__tensor_expect(&t->batch_index, batch, "k_new's batch"));
        p->batch_index = dlattn__tensor_operand(&t->batch_index, from_vector);
    }
    if (!c->block_table) return DLATTN_OK;
    DLATTN_TRY(dlattn__tensor_read_beside(&t->block_table, &table, c->block_table, &t->k_new));
    DLATTN_TRY(dlattn__tensor_expect(&t->block_table, batch, "k_new's batch"));
    p->block_table = dlattn__tensor_operand(&t->block_table, from_table);
    p->pages = p->block_table.extent[1];
    return DLATTN_OK;
}

static int32_t check_aliasing(const cache_tensors *t, const dlattn_cache *c) {
    const tensor *read[] = {&t->k_new, &t->v_new, &t->seqlens, c->block_table ? &t->block_table : &t->seqlens,
                            c->batch_index ? &t->batch_index : &t->seqlens};
    DLATTN_TRY(dlattn__tensor_no_self_overlap(&t->k_cache));
    DLATTN_TRY(dlattn__tensor_no_self_overlap(&t->v_cache));
    for (size_t n = 0; n < sizeof read / sizeof read[0]; n++) {
        DLATTN_TRY(dlattn__tensor_no_alias(&t->k_cache, read[n]));
        DLATTN_TRY(dlattn__tensor_no_alias(&t->v_cache, read[n]));
    }
    return dlattn__tensor_no_alias(&t->k_cache, &t->v_cache);
}

int32_t dlattn__problem_cache(append_problem *p, append_buffers *x, const dlattn_cache *cache) {
    dlattn_cache c;
    cache_tensors t;
    memset(p, 0, sizeof *p);
    DLATTN_TRY(dlattn__take_cache(&c, cache));
    DLATTN_TRY(read_new(p, &t, &c));
    DLATTN_TRY(read_caches(p, &t, &c));
    DLATTN_TRY(read_places(p, &t, &c));
    DLATTN_TRY(check_aliasing(&t, &c));
    *x = (append_buffers){t.k_new.data, t.v_new.data, t.seqlens.data, c.block_table ? t.block_table.data : NULL,
                          c.batch_index ? t.batch_index.data : NULL, (void *)(uintptr_t)t.k_cache.data,
                          (void *)(uintptr_t)t.v_cache.data};
    return DLATTN_OK;
}
