/* tensor.h: one DLTensor, checked by itself and turned into an operand. Knows nothing of attention. */
#ifndef DLATTN_TENSOR_H
#define DLATTN_TENSOR_H

#include "problem.h"

/* Types that only rng_state may have; in a problem they become I32 and I64. */
enum { DLATTN_T_U32 = DLATTN_T_U8 + 1, DLATTN_T_U64 };

/* Sets of types, one bit per DLATTN_T_X. */
#define DLATTN_TYPES_FLOAT (1u << DLATTN_T_F16 | 1u << DLATTN_T_BF16 | 1u << DLATTN_T_F32 | 1u << DLATTN_T_F64)
#define DLATTN_TYPES_INT (1u << DLATTN_T_I32 | 1u << DLATTN_T_I64)
#define DLATTN_TYPES_BOOL (1u << DLATTN_T_U8)

/* What a tensor of a call must be. */
typedef struct role {
    const char *name;           /* as in the header: the sentences speak of it */
    const char *shape;          /* "[B,M,H,D]", for the sentences */
    uint32_t types;             /* set of DLATTN_T_X it may have */
    int32_t min_rank, max_rank; /* 0 to 4 */
    bool output, needs_data;    /* needs_data: NULL data is an error unless an extent is 0 */
} role;

/* A DLTensor as read: dimensions still in the caller's order. */
typedef struct tensor {
    const char *name;
    bool output, empty, dense; /* dense: its elements fill [low, high) without gap or overlap, in any order */
    bool overlaps_itself;      /* asked of outputs alone: an element may share its address with another */
    int32_t dtype, rank;       /* DLATTN_T_X */
    int64_t extent[4], stride[4];
    DLDevice device;
    const unsigned char *data; /* element 0, byte_offset applied; NULL stays NULL */
    int64_t low, high;         /* bytes from element 0 that it covers: low <= 0 < high, both 0 when empty */
} tensor;

/* Reads dl into t, or fails: NULL, lanes, dtype, rank, extents, overflow, data. */
int32_t dlattn__tensor_read(tensor *t, const role *role, const DLTensor *dl);

/* Fails unless t lies on the device of `first`. Host memory is one device, pinned or not, whatever its id. */
int32_t dlattn__tensor_same_device(const tensor *t, const tensor *first);

/* Both: a tensor of the call that is not its first. */
int32_t dlattn__tensor_read_beside(tensor *t, const role *role, const DLTensor *dl, const tensor *first);

/* Fails unless extent[d] == expected[d] for d < rank; -1 expects nothing. `reason` says where `expected` is from. */
int32_t dlattn__tensor_expect(const tensor *t, const int64_t expected[4], const char *reason);

/* Fails unless a head of the tensor `name` has 1 to 256 elements; letter: D or E. */
int32_t dlattn__head_size_check(const char *name, const char *letter, int64_t size);

/* Fails if an output has two elements at one address. A question of strides alone, asked after its shape is known to
 * be right. */
int32_t dlattn__tensor_no_self_overlap(const tensor *output);

/* Fails if `output` shares memory with `other` in one of the ways the header forbids. Looks at addresses only. */
int32_t dlattn__tensor_no_alias(const tensor *output, const tensor *other);

/* The operand whose dimension d is dimension from[d] of t; -1: a missing dimension (extent 1). Inline, so that it is
 * written where it stays: a copy of what was just written stalls. */
static inline operand dlattn__tensor_operand(const tensor *t, const int32_t from[4]) {
    operand o;
    o.dtype = t->dtype == DLATTN_T_U32 ? DLATTN_T_I32 : t->dtype == DLATTN_T_U64 ? DLATTN_T_I64 : t->dtype;
    o.reserved0 = 0;
    for (int32_t d = 0; d < 4; d++) {
        o.extent[d] = from[d] < 0 ? 1 : t->extent[from[d]];
        o.stride[d] = from[d] < 0 || o.extent[d] <= 1 ? 0 : t->stride[from[d]];
    }
    return o;
}

bool dlattn__device_is_host(int32_t device_type);
bool dlattn__device_is_cuda(int32_t device_type);
const char *dlattn__dtype_name(int32_t dtype);

/* "[2,3,*]" into text: extents, with * for -1. Returns text. */
enum { DLATTN_SHAPE_TEXT = 96 };
const char *dlattn__shape_text(char text[DLATTN_SHAPE_TEXT], const int64_t *extent, int32_t rank);

#endif
