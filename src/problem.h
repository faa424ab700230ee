/* problem.h: a call after validation, as plain data. Backends read this instead of DLPack.
 *
 * `problem` holds everything a plan depends on: sizes, strides, dtypes and options, never data. `buffers` holds the
 * addresses. A problem can be copied, compared by memcmp (it is zeroed first) and printed. */
#ifndef DLATTN_PROBLEM_H
#define DLATTN_PROBLEM_H

#include <stdbool.h>
#include <stdint.h>

#include "dlattn/dlattn.h"

/* Element types inside the library. */
enum {
    DLATTN_T_NONE = 0, /* the operand is absent */
    DLATTN_T_F16,
    DLATTN_T_BF16,
    DLATTN_T_F32,
    DLATTN_T_F64,
    DLATTN_T_I32,
    DLATTN_T_I64,
    DLATTN_T_U8 /* bool and uint8: zero or not */
};

enum { DLATTN_OP_FORWARD = 1, DLATTN_OP_BACKWARD, DLATTN_OP_DROPOUT_MASK };

/* Extents are those of the tensors: out, lse, dbias and so on may be longer than M or N, and all of an output is
 * written. Packed operands have batch extent 1, so that a loop over the extents meets each element once. H/G is a
 * whole number, and G is 0 only where H is 0. B*H*M*N (packed: tokens for B*M) fits int64.
 *
 * One operand: dimensions stand in the fixed order given at the field below, whatever the caller's layout; missing
 * dimensions have extent 1, and a dimension of extent 1 has stride 0. Strides count elements. */
typedef struct operand {
    int32_t dtype, reserved0; /* DLATTN_T_NONE: absent, all else 0 */
    int64_t extent[4], stride[4];
} operand;

typedef struct problem {
    int32_t op;                     /* DLATTN_OP_X */
    int32_t dtype;                  /* of q, k, v, dout */
    int32_t device_type, device_id; /* DLPack's, of q */
    int64_t B, H, G, M, N, D, E;    /* M, N: the longest a sequence can be: min(extent or token count, max_seqlen) */
    uint32_t flags;                 /* DLATTN_CAUSAL and so on, as given */
    int32_t reserved1;
    int32_t packed_q, packed_k;     /* 1: extent 1 of the side's operands is all tokens, batch stride 0 */
    int64_t tokens_k, page;         /* keys that k has room for, of one sequence (packed: in all); of one page, 0: not paged */
    int64_t window_left, window_right, block_size, block_count, q_start, k_start;
    double scale, softcap, dropout; /* scale resolved: 1/sqrt(D) unless given */
    int32_t dropout_threshold;      /* t of the header; 0: no dropout; 256: everything is dropped (rate 1) */
    int32_t reserved0;
    uint64_t seed, offset;          /* unless rng_state is present */
    operand q, k, v;                /* [b, i or token, h, d]   [b, j or token, g, d|e]; paged [page, token, g, d|e] */
    operand block_table;            /* [b, n]: the page that holds keys n * page and on */
    operand out, dout, dq, dk, dv;  /* as q with E; as q, k, v */
    operand lse, dlse;              /* [b, h, i or token] */
    operand bias, dbias, mask;      /* [b, h, i, j] */
    operand alibi_slopes;           /* [b, h] */
    operand sinks, dsinks;          /* [h] */
    operand q_segments, kv_segments; /* [b, i] and [b, j] */
    operand cu_seqlens_q, cu_seqlens_k, seqlens_q, seqlens_k, q_starts, k_starts; /* [b] */
    operand rng_state;              /* [2] I64 or [4] I32 */
    operand keep;                   /* [b, h, i, j], of dlattn_dropout_mask */
} problem;

/* Addresses of the operands of the same names, byte_offset applied; NULL where absent. */
typedef struct buffers {
    const void *q, *k, *v, *bias, *mask, *alibi_slopes, *sinks, *q_segments, *kv_segments;
    const void *cu_seqlens_q, *cu_seqlens_k, *seqlens_q, *seqlens_k, *block_table, *q_starts, *k_starts, *rng_state;
    const void *dout, *dlse;
    void *out, *lse; /* written by the forward, read by the backward */
    void *dq, *dk, *dv, *dbias, *dsinks, *keep;
} buffers;

/* One sequence of the batch: where its rows lie and what positions they have. */
typedef struct sequence {
    int64_t q_begin, k_begin;       /* first token of the sequence (0 when padded) */
    int64_t M, N;                   /* used rows and keys */
    int64_t q_position, k_position; /* i' = i + q_position, j' = j + k_position */
} sequence;

static inline int64_t dlattn__size_of(int32_t dtype) {
    switch (dtype) {
    case DLATTN_T_F16: case DLATTN_T_BF16: return 2;
    case DLATTN_T_F32: case DLATTN_T_I32: return 4;
    case DLATTN_T_F64: case DLATTN_T_I64: return 8;
    case DLATTN_T_U8: return 1;
    default: return 0;
    }
}

/* Element `index` of a host integer vector (I32 or I64); `missing` when the operand is absent. */
static inline int64_t dlattn__read_int(const operand *o, const void *data, int64_t index, int64_t missing) {
    if (o->dtype == DLATTN_T_NONE) return missing;
    if (o->dtype == DLATTN_T_I32) return ((const int32_t *)data)[index * o->stride[0]];
    return ((const int64_t *)data)[index * o->stride[0]];
}

/* Element [b, n] of a host integer matrix. */
static inline int64_t dlattn__read_page(const operand *o, const void *data, int64_t b, int64_t n) {
    const int64_t index = b * o->stride[0] + n * o->stride[1];
    return o->dtype == DLATTN_T_I32 ? ((const int32_t *)data)[index] : ((const int64_t *)data)[index];
}

/* The interval masks that are set: a set of DLATTN_MASK_X of kernels/shared/masks/mask.h. */
uint32_t dlattn__mask_kinds(const problem *p);

/* Sequence b, read from host memory. Lengths have been checked by dlattn__problem_check_lengths. */
sequence dlattn__sequence(const problem *p, const buffers *x, int64_t b);

/* DLPack -> problem and buffers, with all validation that needs no tensor data. Returns a status, its sentence set.
 * `data_required` is false for workspace queries, prepare and explain. x may be NULL when it is false. */
int32_t dlattn__problem_forward(problem *p, buffers *x, const dlattn_attention *a, const dlattn_outputs *o,
                                bool data_required);
int32_t dlattn__problem_backward(problem *p, buffers *x, const dlattn_attention *a, const dlattn_gradients *g,
                                 bool data_required);
int32_t dlattn__problem_dropout_mask(problem *p, buffers *x, const dlattn_attention *a, const DLTensor *keep);

/* exec as a zeroed local; NULL gives all defaults. Checks what can be checked without a device. */
int32_t dlattn__problem_exec(dlattn_exec *out, const dlattn_exec *exec);

/* The CPU's look at the data of lengths: cu_seqlens rising from >= 0 to <= tokens, 0 <= seqlens <= extent, pages that
 * exist. Called by the CPU backend before it writes anything. */
int32_t dlattn__problem_check_lengths(const problem *p, const buffers *x);

/* A merge after validation: out and lse of every part, in the order of problem.out and problem.lse. */
typedef struct merge_problem {
    int32_t device_type, device_id;
    int64_t B, H, M, E; /* packed: B is 1 and M is all tokens */
    int64_t count;
    operand out, lse;   /* of the merged result; lse may be absent */
} merge_problem;

typedef struct merge_part {
    operand out, lse;
    const void *out_data, *lse_data;
} merge_part;

/* d as a zeroed local with a sensible count, before anything is allocated for the parts. */
int32_t dlattn__problem_parts(dlattn_parts *out, const dlattn_parts *d);

/* `d` comes from dlattn__problem_parts; `parts` has room for d->count entries. */
int32_t dlattn__problem_merge(merge_problem *p, merge_part *parts, void **out_data, void **lse_data,
                              const dlattn_parts *d, const dlattn_outputs *merged);

#endif
