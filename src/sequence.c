/* sequence.c: where sequence b of the batch lies, what positions it has, and which masks speak of them. */
#include "masks/mask.h"
#include "problem.h"

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Start and used length of one side. `tokens` is what the side has room for, `longest` is problem.M or N. */
static int64_t side(const operand *cu, const void *cu_data, const operand *lengths, const void *lengths_data,
                    int64_t tokens, int64_t longest, int64_t b, int64_t *begin) {
    *begin = dlattn__read_int(cu, cu_data, b, 0);
    int64_t available = dlattn__read_int(cu, cu_data, b + 1, tokens) - *begin;
    return smaller(dlattn__read_int(lengths, lengths_data, b, available), longest);
}

sequence dlattn__sequence(const problem *p, const buffers *x, int64_t b) {
    sequence s;
    s.M = side(&p->cu_seqlens_q, x->cu_seqlens_q, &p->seqlens_q, x->seqlens_q, p->q.extent[1], p->M, b, &s.q_begin);
    s.N = side(&p->cu_seqlens_k, x->cu_seqlens_k, &p->seqlens_k, x->seqlens_k, p->tokens_k, p->N, b, &s.k_begin);
    if (p->flags & DLATTN_POSITIONS) {
        s.q_position = dlattn__read_int(&p->q_starts, x->q_starts, b, p->q_start);
        s.k_position = dlattn__read_int(&p->k_starts, x->k_starts, b, p->k_start);
    } else {
        s.q_position = p->flags & DLATTN_TOP_LEFT ? 0 : s.N - s.M;
        s.k_position = 0;
    }
    return s;
}

uint32_t dlattn__mask_kinds(const problem *p) {
    uint32_t kinds = 0;
    if (p->flags & DLATTN_CAUSAL) kinds |= DLATTN_MASK_CAUSAL;
    if (p->flags & DLATTN_WINDOW) kinds |= DLATTN_MASK_WINDOW;
    if (p->flags & DLATTN_BLOCK_WINDOW) kinds |= DLATTN_MASK_BLOCK_WINDOW;
    if (p->flags & DLATTN_POSITIONS) kinds |= DLATTN_MASK_POSITIVE;
    return kinds;
}
