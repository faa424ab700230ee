/* problem_sides.c: q, k, v and the sizes that follow from them; tensors shaped like q, k, v and lse. */
#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "reading.h"

enum { SIDE_Q = 0, SIDE_K = 1 };

/* Where dimension [b, i or token, h, d] stands in the caller's tensor: by packed, then layout. */
static const int32_t dims_of[2][2][4] = {{{0, 1, 2, 3}, {0, 2, 1, 3}}, {{-1, 0, 1, 2}, {-1, 1, 0, 2}}};

/* By side, head size of v, packed, layout. */
static const char *const paged_shapes[2][2] = {{"[P,page,G,D]", "[P,G,page,D]"}, {"[P,page,G,E]", "[P,G,page,E]"}};
static const char *const shapes[2][2][2][2] = {
    {{{"[B,M,H,D]", "[B,H,M,D]"}, {"[T,H,D]", "[H,T,D]"}}, {{"[B,M,H,E]", "[B,H,M,E]"}, {"[T,H,E]", "[H,T,E]"}}},
    {{{"[B,N,G,D]", "[B,G,N,D]"}, {"[T,G,D]", "[G,T,D]"}}, {{"[B,N,G,E]", "[B,G,N,E]"}, {"[T,G,E]", "[G,T,E]"}}},
};

static int32_t packed_of(const problem *p, int32_t side) { return side == SIDE_Q ? p->packed_q : p->packed_k; }

/* A tensor of one side; its four extents must be those of `expected` (in the order of an operand, -1: any). */
static int32_t read_side(reading *r, operand *o, const void **data, const role *role, const DLTensor *dl, int32_t side,
                         const int64_t expected[4], const char *reason) {
    const int32_t *from = dims_of[packed_of(r->p, side)][r->a->layout];
    int64_t in_order[4] = {-1, -1, -1, -1};
    tensor *t;
    DLATTN_TRY(dlattn__read(r, &t, role, dl));
    for (int32_t d = 0; d < 4; d++)
        if (from[d] >= 0) in_order[from[d]] = expected[d];
    DLATTN_TRY(dlattn__tensor_expect(t, in_order, reason));
    *o = dlattn__tensor_operand(t, from);
    *data = t->data;
    return DLATTN_OK;
}

static role side_role(const reading *r, const char *name, int32_t side, bool head_of_v, uint32_t types, bool output) {
    const int32_t packed = packed_of(r->p, side), rank = packed ? 3 : 4, layout = r->a->layout;
    const bool paged = side == SIDE_K && r->a->block_table;
    const char *shape = paged ? paged_shapes[head_of_v][layout] : shapes[side][head_of_v][packed][layout];
    return (role){name, shape, types, rank, rank, output, r->needs_data};
}

static int32_t check_heads(const problem *p) {
    if (p->G == 0 ? p->H == 0 : p->H % p->G == 0) return DLATTN_OK;
    return dlattn__fail(DLATTN_ERR_SHAPE, "k has %" PRId64 " heads, which does not divide q's %" PRId64, p->G, p->H);
}

/* The longest a sequence can be, and the extent that bias and mask have on this side. */
static void resolve_longest(int64_t tokens, bool packed, int64_t max_seqlen, int64_t *longest, int64_t *bias_extent) {
    *longest = max_seqlen > 0 && max_seqlen < tokens ? max_seqlen : tokens;
    *bias_extent = packed && max_seqlen > 0 ? max_seqlen : tokens;
}

static int32_t check_max_seqlen(const char *name, int64_t value) {
    if (value >= 0) return DLATTN_OK;
    return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s is %" PRId64 ", expected 0 (no bound) or more", name, value);
}

/* Backends count scores in int64_t. */
static int32_t check_scores(const problem *p) {
    const operand *q = &p->q;
    int64_t factors[4] = {q->extent[0], q->extent[1], p->H, p->N}, product = 1;
    for (int i = 0; i < 4; i++)
        if (__builtin_mul_overflow(product, factors[i] ? factors[i] : 1, &product))
            return dlattn__fail(DLATTN_ERR_SHAPE,
                                "q and k have %" PRId64 " queries of %" PRId64 " heads by %" PRId64
                                " keys, expected a number of scores that fits 63 bits",
                                q->extent[0] * q->extent[1], p->H, p->N);
    return DLATTN_OK;
}

static int32_t read_q(reading *r) {
    problem *p = r->p;
    const int64_t any[4] = {-1, -1, -1, -1};
    role role = side_role(r, "q", SIDE_Q, false, DLATTN_TYPES_FLOAT, false);
    DLATTN_TRY(read_side(r, &p->q, &r->x->q, &role, r->a->q, SIDE_Q, any, ""));
    p->dtype = p->q.dtype;
    p->device_type = (int32_t)r->tensors[0].device.device_type;
    p->device_id = r->tensors[0].device.device_id;
    p->H = p->q.extent[2];
    p->D = p->q.extent[3];
    p->B = p->q.extent[0];
    if (p->packed_q) {
        DLATTN_TRY(dlattn__read_cu_seqlens(r, &p->cu_seqlens_q, &r->x->cu_seqlens_q, "cu_seqlens_q",
                                           r->a->cu_seqlens_q));
        p->B = p->cu_seqlens_q.extent[0] - 1;
    }
    return dlattn__head_size_check("q", "D", p->D);
}

static int32_t read_k_and_v(reading *r) {
    problem *p = r->p;
    const bool paged = r->a->block_table != NULL;
    const int64_t like_q[4] = {paged ? -1 : p->B, -1, -1, p->D};
    role k_role = side_role(r, "k", SIDE_K, false, 1u << p->dtype, false);
    DLATTN_TRY(read_side(r, &p->k, &r->x->k, &k_role, r->a->k, SIDE_K, like_q, "q's batch and head size"));
    p->G = p->k.extent[2];
    DLATTN_TRY(check_heads(p));
    if (p->packed_k)
        DLATTN_TRY(dlattn__read_cu_seqlens(r, &p->cu_seqlens_k, &r->x->cu_seqlens_k, "cu_seqlens_k",
                                           r->a->cu_seqlens_k));
    if (p->packed_k && p->cu_seqlens_k.extent[0] != p->B + 1)
        return dlattn__fail(DLATTN_ERR_SHAPE, "cu_seqlens_k has %" PRId64 " elements, expected %" PRId64
                            " (q's batch and one more)", p->cu_seqlens_k.extent[0], p->B + 1);
    const int64_t like_k[4] = {p->k.extent[0], p->k.extent[1], p->G, -1};
    role v_role = side_role(r, "v", SIDE_K, true, 1u << p->dtype, false);
    DLATTN_TRY(read_side(r, &p->v, &r->x->v, &v_role, r->a->v, SIDE_K, like_k,
                         paged ? "k's pages and heads" : "k's batch, length and heads"));
    p->E = p->v.extent[3];
    return dlattn__head_size_check("v", "E", p->E);
}

/* How many keys a sequence can have. */
static int32_t read_room(reading *r) {
    problem *p = r->p;
    p->tokens_k = p->k.extent[1];
    if (!r->a->block_table) return DLATTN_OK;
    p->page = p->k.extent[1];
    if (p->page < 1) return dlattn__fail(DLATTN_ERR_SHAPE, "k has pages of 0 tokens, expected at least 1");
    DLATTN_TRY(dlattn__read_block_table(r));
    if (!__builtin_mul_overflow(p->page, p->block_table.extent[1], &p->tokens_k)) return DLATTN_OK;
    return dlattn__fail(DLATTN_ERR_SHAPE, "block_table has %" PRId64 " pages of %" PRId64
                        " keys, expected a number of keys that fits 63 bits", p->block_table.extent[1], p->page);
}

int32_t dlattn__read_sides(reading *r) {
    problem *p = r->p;
    const dlattn_attention *a = r->a;
    p->packed_q = a->cu_seqlens_q != NULL;
    p->packed_k = a->cu_seqlens_k != NULL;
    DLATTN_TRY(check_max_seqlen("max_seqlen_q", a->max_seqlen_q));
    DLATTN_TRY(check_max_seqlen("max_seqlen_k", a->max_seqlen_k));
    DLATTN_TRY(read_q(r));
    DLATTN_TRY(read_k_and_v(r));
    resolve_longest(p->q.extent[1], p->packed_q, a->max_seqlen_q, &p->M, &r->max_M);
    DLATTN_TRY(read_room(r));
    resolve_longest(p->tokens_k, p->packed_k || p->page, a->max_seqlen_k, &p->N, &r->max_N);
    return check_scores(p);
}

int32_t dlattn__read_like_q(reading *r, operand *o, const void **data, const char *name, const DLTensor *dl,
                            bool output, bool head_of_v, uint32_t types) {
    const problem *p = r->p;
    const int64_t expected[4] = {p->B, p->q.extent[1], p->H, head_of_v ? p->E : p->D};
    role role = side_role(r, name, SIDE_Q, head_of_v, types, output);
    return read_side(r, o, data, &role, dl, SIDE_Q, expected, head_of_v ? "q's with v's head size" : "q's");
}

int32_t dlattn__read_like_k(reading *r, operand *o, const void **data, const char *name, const DLTensor *dl,
                            bool head_of_v) {
    const problem *p = r->p;
    const int64_t expected[4] = {p->B, p->k.extent[1], p->G, head_of_v ? p->E : p->D};
    role role = side_role(r, name, SIDE_K, head_of_v, 1u << p->dtype | 1u << DLATTN_T_F32, true);
    return read_side(r, o, data, &role, dl, SIDE_K, expected, head_of_v ? "v's" : "k's");
}

/* [B,H,M], packed [H,T], whatever the layout. */
int32_t dlattn__read_lse(reading *r, operand *o, const void **data, const char *name, const DLTensor *dl, bool output) {
    const problem *p = r->p;
    uint32_t types = 1u << (p->dtype == DLATTN_T_F64 ? DLATTN_T_F64 : DLATTN_T_F32);
    int32_t rank = p->packed_q ? 2 : 3;
    role role = {name, p->packed_q ? "[H,T]" : "[B,H,M]", types, rank, rank, output, r->needs_data};
    const int64_t padded[4] = {p->B, p->H, p->q.extent[1], -1}, packed[4] = {p->H, p->q.extent[1], -1, -1};
    const int32_t from_padded[4] = {0, 1, 2, -1}, from_packed[4] = {-1, 0, 1, -1};
    tensor *t;
    DLATTN_TRY(dlattn__read(r, &t, &role, dl));
    DLATTN_TRY(dlattn__tensor_expect(t, p->packed_q ? packed : padded, "q's batch, heads and length"));
    *o = dlattn__tensor_operand(t, p->packed_q ? from_packed : from_padded);
    *data = t->data;
    return DLATTN_OK;
}
