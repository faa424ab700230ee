/* problem_lengths.c: how long the sequences are and where they begin: the tensors, and on the CPU their values. */
#include <inttypes.h>

#include "error.h"
#include "reading.h"

static const int32_t from_vector[4] = {0, -1, -1, -1};

static int32_t read_vector(reading *r, operand *o, const void **data, const role *role, const DLTensor *dl,
                           int64_t extent) {
    const int64_t expected[4] = {extent, -1, -1, -1};
    tensor *t;
    DLATTN_TRY(dlattn__read(r, &t, role, dl));
    DLATTN_TRY(dlattn__tensor_expect(t, expected, "the batch"));
    *o = dlattn__tensor_operand(t, from_vector);
    *data = t->data;
    return DLATTN_OK;
}

int32_t dlattn__read_cu_seqlens(reading *r, operand *o, const void **data, const char *name, const DLTensor *dl) {
    role role = {name, "[B+1]", DLATTN_TYPES_INT, 1, 1, false, r->needs_vector_data};
    DLATTN_TRY(read_vector(r, o, data, &role, dl, -1));
    if (o->extent[0] < 1)
        return dlattn__fail(DLATTN_ERR_SHAPE, "%s has 0 elements, expected the batch size and one more", name);
    return DLATTN_OK;
}

static int32_t read_optional(reading *r, operand *o, const void **data, const char *name, const DLTensor *dl) {
    role role = {name, "[B]", DLATTN_TYPES_INT, 1, 1, false, r->needs_vector_data};
    return dl ? read_vector(r, o, data, &role, dl, r->p->B) : DLATTN_OK;
}

static int32_t read_starts(reading *r) {
    problem *p = r->p;
    const dlattn_attention *a = r->a;
    if (!(p->flags & DLATTN_POSITIONS)) {
        const char *name = a->q_starts   ? "q_starts"
                           : a->k_starts ? "k_starts"
                           : a->q_start  ? "q_start"
                           : a->k_start  ? "k_start"
                                         : NULL;
        if (!name) return DLATTN_OK;
        return dlattn__fail(DLATTN_ERR_ARGUMENT,
                            "%s is set without DLATTN_POSITIONS in flags, expected both or neither", name);
    }
    p->q_start = a->q_start;
    p->k_start = a->k_start;
    DLATTN_TRY(read_optional(r, &p->q_starts, &r->x->q_starts, "q_starts", a->q_starts));
    return read_optional(r, &p->k_starts, &r->x->k_starts, "k_starts", a->k_starts);
}

/* Two 64-bit integers, or four uint32 that are their halves. */
static int32_t read_rng_state(reading *r) {
    const DLTensor *dl = r->a->rng_state;
    const uint32_t types = 1u << DLATTN_T_I64 | 1u << DLATTN_T_U64 | 1u << DLATTN_T_U32;
    role role = {"rng_state", "[2] 64-bit or [4] uint32", types, 1, 1, false, r->needs_vector_data};
    tensor *t;
    if (!dl) return DLATTN_OK;
    DLATTN_TRY(dlattn__read(r, &t, &role, dl));
    const int64_t expected[4] = {t->dtype == DLATTN_T_U32 ? 4 : 2, -1, -1, -1};
    DLATTN_TRY(dlattn__tensor_expect(t, expected, "two 64-bit integers or four uint32"));
    r->p->rng_state = dlattn__tensor_operand(t, from_vector);
    r->x->rng_state = t->data;
    return DLATTN_OK;
}

int32_t dlattn__read_block_table(reading *r) {
    role role = {"block_table", "[B,pages]", DLATTN_TYPES_INT, 2, 2, false, r->needs_vector_data};
    const int64_t expected[4] = {r->p->B, -1, -1, -1};
    const int32_t from[4] = {0, 1, -1, -1};
    tensor *t;
    DLATTN_TRY(dlattn__read(r, &t, &role, r->a->block_table));
    DLATTN_TRY(dlattn__tensor_expect(t, expected, "the batch"));
    r->p->block_table = dlattn__tensor_operand(t, from);
    r->x->block_table = t->data;
    return DLATTN_OK;
}

int32_t dlattn__read_lengths(reading *r) {
    problem *p = r->p;
    const dlattn_attention *a = r->a;
    DLATTN_TRY(read_optional(r, &p->seqlens_q, &r->x->seqlens_q, "seqlens_q", a->seqlens_q));
    DLATTN_TRY(read_optional(r, &p->seqlens_k, &r->x->seqlens_k, "seqlens_k", a->seqlens_k));
    DLATTN_TRY(read_starts(r));
    return read_rng_state(r);
}

/* Offsets rise from >= 0 to <= tokens; each used length fits what its sequence has. */
static int32_t check_side(const char *side, const operand *cu, const void *cu_data, const operand *lengths,
                          const void *lengths_data, int64_t B, int64_t tokens) {
    int64_t begin = dlattn__read_int(cu, cu_data, 0, 0);
    if (begin < 0)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "cu_seqlens_%s[0] is %" PRId64 ", expected 0 or more", side, begin);
    for (int64_t b = 0; b < B; b++) {
        int64_t end = dlattn__read_int(cu, cu_data, b + 1, tokens);
        if (end < begin)
            return dlattn__fail(DLATTN_ERR_ARGUMENT,
                                "cu_seqlens_%s[%" PRId64 "] is %" PRId64 ", expected %" PRId64
                                " (the one before) or more", side, b + 1, end, begin);
        int64_t available = end - begin;
        int64_t length = dlattn__read_int(lengths, lengths_data, b, available);
        if (length < 0 || length > available)
            return dlattn__fail(DLATTN_ERR_ARGUMENT, "seqlens_%s[%" PRId64 "] is %" PRId64 ", expected 0 to %" PRId64,
                                side, b, length, available);
        if (cu->dtype != DLATTN_T_NONE) begin = end;
    }
    if (cu->dtype != DLATTN_T_NONE && begin > tokens)
        return dlattn__fail(DLATTN_ERR_ARGUMENT,
                            "cu_seqlens_%s[%" PRId64 "] is %" PRId64 ", expected at most the %" PRId64 " tokens of %s",
                            side, B, begin, tokens, side);
    return DLATTN_OK;
}

/* The pages of each sequence's used keys exist; what the table says of others does not matter. */
static int32_t check_pages(const problem *p, const buffers *x) {
    for (int64_t b = 0; b < p->B; b++) {
        const int64_t used = dlattn__read_int(&p->seqlens_k, x->seqlens_k, b, 0), keys = used < p->N ? used : p->N;
        for (int64_t n = 0; n * p->page < keys; n++) {
            const int64_t id = dlattn__read_page(&p->block_table, x->block_table, b, n);
            if (id < 0 || id >= p->k.extent[0])
                return dlattn__fail(DLATTN_ERR_ARGUMENT, "block_table[%" PRId64 ",%" PRId64 "] is %" PRId64
                                    ", expected a page from 0 to %" PRId64, b, n, id, p->k.extent[0] - 1);
        }
    }
    return DLATTN_OK;
}

int32_t dlattn__problem_check_lengths(const problem *p, const buffers *x) {
    DLATTN_TRY(check_side("q", &p->cu_seqlens_q, x->cu_seqlens_q, &p->seqlens_q, x->seqlens_q, p->B, p->q.extent[1]));
    DLATTN_TRY(check_side("k", &p->cu_seqlens_k, x->cu_seqlens_k, &p->seqlens_k, x->seqlens_k, p->B, p->tokens_k));
    return p->page ? check_pages(p, x) : DLATTN_OK;
}
