/* reading.h: the state while a call is being validated, and the steps of it, one file each. */
#ifndef DLATTN_READING_H
#define DLATTN_READING_H

#include "tensor.h"

enum { DLATTN_MAX_TENSORS = 28 };

typedef struct reading {
    problem *p;
    buffers *x;
    const dlattn_attention *a;
    bool needs_data;        /* the call runs: data must be there */
    bool needs_vector_data; /* the same for lengths, starts and rng_state (dlattn_dropout_mask reads only these) */
    int64_t max_M, max_N;   /* extents of bias, mask and keep: the tensor's (padded), max_seqlen or tokens (packed) */
    int32_t count;
    tensor tensors[DLATTN_MAX_TENSORS]; /* every tensor of the call; the first is q */
} reading;

/* Reads one tensor of the call, adds it to `tensors` and checks its device. The caller hands data on itself. */
int32_t dlattn__read(reading *r, tensor **out, const role *role, const DLTensor *dl);

/* problem_struct.c: callers' structs of any version. */
int32_t dlattn__take_attention(dlattn_attention *out, const dlattn_attention *in);
int32_t dlattn__take_outputs(dlattn_outputs *out, const dlattn_outputs *in, const char *name);
int32_t dlattn__take_gradients(dlattn_gradients *out, const dlattn_gradients *in);
int32_t dlattn__take_cache(dlattn_cache *out, const dlattn_cache *in);
int32_t dlattn__take_rotation(dlattn_rotation *out, const dlattn_rotation *in);

int32_t dlattn__init_attention(dlattn_attention *out, int64_t struct_size);
int32_t dlattn__init_outputs(dlattn_outputs *out, int64_t struct_size);
int32_t dlattn__init_gradients(dlattn_gradients *out, int64_t struct_size);
int32_t dlattn__init_exec(dlattn_exec *out, int64_t struct_size);
int32_t dlattn__init_parts(dlattn_parts *out, int64_t struct_size);
int32_t dlattn__init_cache(dlattn_cache *out, int64_t struct_size);
int32_t dlattn__init_rotation(dlattn_rotation *out, int64_t struct_size);

/* problem_sides.c: q, k, v and cu_seqlens; from them dtype, device, B, H, G, M, N, D, E. */
int32_t dlattn__read_sides(reading *r);
/* Tensors shaped like one of them. */
int32_t dlattn__read_like_q(reading *r, operand *o, const void **data, const char *name, const DLTensor *dl,
                            bool output, bool head_of_v, uint32_t types);
int32_t dlattn__read_like_k(reading *r, operand *o, const void **data, const char *name, const DLTensor *dl,
                            bool head_of_v);
int32_t dlattn__read_lse(reading *r, operand *o, const void **data, const char *name, const DLTensor *dl, bool output);

/* problem_lengths.c: seqlens, starts, rng_state, block_table. */
int32_t dlattn__read_lengths(reading *r);
int32_t dlattn__read_block_table(reading *r);
int32_t dlattn__read_cu_seqlens(reading *r, operand *o, const void **data, const char *name, const DLTensor *dl);

/* problem_terms.c: bias, mask, slopes, sinks, segments, and the numbers of the attention. */
int32_t dlattn__read_numbers(problem *p, const dlattn_attention *a);
int32_t dlattn__read_terms(reading *r);
int32_t dlattn__read_keep(reading *r, const DLTensor *keep);

/* problem_gradients.c: what the forward writes, what the backward reads and writes. */
int32_t dlattn__read_outputs(reading *r, const dlattn_outputs *o);
int32_t dlattn__read_gradients(reading *r, const dlattn_gradients *g);

/* problem_aliasing.c: every output against itself and, where the call has data, every other tensor of the call. */
int32_t dlattn__check_aliasing(const reading *r, bool addresses);

#endif
