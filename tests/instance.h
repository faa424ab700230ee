/* instance.h: a case made real: tensors with data, poisoned outputs and guarded memory.
 *
 * Everything a tensor does not own is 0xFF, which is NaN in every floating dtype: fences around each allocation, gaps
 * between strides, tokens of no sequence. Inputs read out of place turn results into NaN; outputs written out of
 * place are found by instance_untouched. */
#ifndef DLATTN_TESTS_INSTANCE_H
#define DLATTN_TESTS_INSTANCE_H

#include <dlattn/dlattn.h>

#include "case.h"
#include "element.h"
#include "guarded.h"

typedef struct buffer {
    unsigned char *memory;
    size_t bytes;
    int32_t is_output;
    uint64_t checksum; /* of an input, when it was filled */
} buffer;

typedef struct held_tensor {
    DLTensor dl;
    int64_t shape[4], strides[4];
    int32_t buffer, used; /* used: this tensor exists in the case */
} held_tensor;

enum {
    T_Q, T_K, T_V, T_BIAS, T_MASK, T_ALIBI, T_SINKS, T_Q_SEGMENTS, T_KV_SEGMENTS, T_CU_Q, T_CU_K, T_SEQLENS_Q, T_SEQLENS_K,
    T_BLOCK_TABLE, T_Q_STARTS, T_K_STARTS, T_RNG, T_DOUT, T_DLSE, T_OUT, T_LSE, T_DQ, T_DK, T_DV, T_DBIAS, T_DSINKS, T_COUNT
};
extern const char *const tensor_names[T_COUNT];

typedef struct instance {
    const test_case *test;
    uint64_t random;
    held_tensor tensors[T_COUNT];
    buffer buffers[T_COUNT];
    int32_t buffer_count;
    dlattn_attention attention;
    dlattn_outputs outputs;
    dlattn_gradients gradients; /* out and lse are those of outputs; lse always exists, for the backward */
    int64_t tainted_b, tainted_g, tainted_row; /* where NaN or inf was put into q or v, else -1 */
} instance;

/* seed: of the data; the same case and seed give the same data on every machine. */
void instance_make(instance *x, const test_case *c, uint64_t seed);
void instance_make_empty(instance *x, const test_case *c, uint64_t seed); /* without data in floating tensors */
void instance_fill(instance *x);                                          /* the data alone */
void instance_fill_fast(instance *x); /* for timing: the same few numbers again and again, outside of sequences too */
void instance_fill_hashed(instance *x); /* for benches: what bench/run.* of every language makes, see bench/README.md */
void instance_free(instance *x);

/* Fills outputs with poison; first..last are T_ numbers. */
void instance_poison(instance *x, int first, int last);
/* 0 if every byte of output memory that belongs to no element is still poison and no input has changed; else the
 * message says what was written. */
int instance_untouched(const instance *x, char *message, size_t bytes);

/* Accepts the inputs as they are now, after a check has changed them. */
void instance_seal(instance *x);
uint64_t instance_random(instance *x);
double instance_normal(instance *x);

#endif
