/* world.h: the memory of the libffi test and the calls made on it. */
#ifndef DLATTN_TESTS_ABI_WORLD_H
#define DLATTN_TESTS_ABI_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include <dlattn/dlattn.h>

enum { MOST_ARGUMENTS = 8, VALUES = 24, ROWS = 6, SCORES = 18, TEXT_BYTES = 4096 };

/* One small problem: B 1, M 3, N 3, H 2, G 2, D 4, float32, with room for everything a call may write. All pointers
 * point into the world itself, so that two runs from world_reset differ in no byte. */
typedef struct world {
    float q[VALUES], k[VALUES], v[VALUES], out[VALUES], dout[VALUES], dq[VALUES], dk[VALUES], dv[VALUES];
    float second_out[VALUES], merged_out[VALUES];
    float lse[ROWS], second_lse[ROWS], merged_lse[ROWS];
    float cosines[ROWS], sines[ROWS];
    int32_t seqlens[1];
    uint8_t keep[SCORES];
    int64_t head_shape[4], row_shape[3], score_shape[4], angle_shape[2], batch_shape[1];
    DLTensor tq, tk, tv, tout, tdout, tdq, tdk, tdv, tsecond_out, tmerged_out, tlse, tsecond_lse, tmerged_lse, tkeep;
    DLTensor tcosines, tsines, tseqlens;
    const DLTensor *outs[2], *lses[2];
    dlattn_attention attention;
    dlattn_outputs outputs, merged;
    dlattn_gradients gradients;
    dlattn_exec exec;
    dlattn_parts parts;
    dlattn_cache cache;
    dlattn_rotation rotation;
    uint64_t bytes, minimum_bytes;
    char text[TEXT_BYTES], message[512];
} world;

void world_reset(world *w);

/* One argument, as libffi takes it. */
typedef union value {
    void *pointer;
    int64_t sint64;
    int32_t sint32;
} value;

typedef struct scenario {
    const char *function, *what;
    void (*arguments)(world *w, value *values);
    int32_t status;   /* expected result, */
    const char *text; /* or expected text, where the function returns one */
} scenario;

extern const scenario scenarios[];
extern const int32_t scenario_count;

#endif
