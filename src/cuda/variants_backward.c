/* variants_backward.c: the tuned kernels of the backward: dk and dv, dq, dbias, each from the fastest to the most capable. */
#include "variants_rows.h"

/* ---- shared memory, as each kernel lays it out ----------------------------------------------------------------------- */

/* K and V, the ring of Q and dout, two tiles of dS, statistics of the rows, barriers. Each consumer has 64 rows and a panel of dq:
 * there must be as many. */
static int32_t backward_sm90_smem(const variant *v, int64_t head_d, int64_t head_e, const specialisation *how) {
    const int64_t rows = choice(v, "STAGES", 2) * v->rows;
    const int64_t segments = how->features & DLATTN_FEATURE_SEGMENTS ? rows * (v->keys / 8 - 4) + 8 * v->keys + 16 : 0;
    const int64_t dropout = how->features & DLATTN_FEATURE_DROPOUT ? rows * v->keys / 4 : 0;
    if (v->rows / 64 * (head_d / 64) != v->warps / 4 - 1) return INT32_MAX;
    return (int32_t)(2 * (v->keys + rows) * (head_d + head_e) + 4 * v->rows * v->keys + 12 * rows + 256 + segments + dropout);
}

/* K and V, the rings of Q and dout, the other block's K for half of the panels of dq, both blocks' dS with Q, P, statistics of the
 * rows, barriers. */
static int32_t backward_wide_smem(const variant *v, int64_t head_d, int64_t head_e, const specialisation *how) {
    const int64_t rows = choice(v, "STAGES", 2) * v->rows, dout_rows = choice(v, "DOUT_STAGES", 1) * v->rows;
    const int64_t segments = how->features & DLATTN_FEATURE_SEGMENTS ? rows * (v->keys / 8 - 4) + 8 * v->keys + 16 : 0;
    const int64_t dropout = how->features & DLATTN_FEATURE_DROPOUT ? rows * v->keys / 4 : 0;
    const int64_t squares = 4 * rows * v->keys + 4 * v->rows * v->keys, other = (head_d / 64 + 1) / 2 * 128 * v->keys;
    const int64_t tiles = 2 * (v->keys * (head_d + head_e) + rows * head_d + dout_rows * head_e) + squares + other;
    return (int32_t)(tiles + 12 * rows + 304 + segments + dropout);
}

/* K and V, the ring of Q and dout, dS, P where warps share rows, statistics of the rows, segments, the bias, addresses. */
static int32_t backward_sm80_smem(const variant *v, int64_t head_d, int64_t head_e, const specialisation *how) {
    const int64_t stages = choice(v, "STAGES", 2), square = 2 * v->rows * v->keys;
    int64_t bytes = 2 * (v->keys + stages * v->rows) * (head_d + head_e) + choice(v, "DS_STAGES", 1) * square;
    if (choice(v, "ROW_WARPS", 1) > 1) bytes += square;
    bytes += stages * v->rows * 12 + 80;
    if (how->features & DLATTN_FEATURE_SEGMENTS) bytes += stages * v->rows * 8 + v->keys * 8 + 16;
    if (how->bias == DLATTN_BIAS_BY_TILES) bytes = (bytes + 127) / 128 * 128 + stages * square;
    if (choice(v, "CURSORS", 0)) bytes += 32 * 32 * v->warps; /* 32 for each thread */
    return (int32_t)bytes;
}

/* Q and dout, the ring of K and V, limits of the rows. */
static int32_t dq_sm80_smem(const variant *v, int64_t head_d, int64_t head_e, const specialisation *how) {
    (void)how;
    return (int32_t)(2 * (v->rows + choice(v, "STAGES", 2) * v->keys) * (head_d + head_e) + 8 * v->rows);
}

/* Q, K, V, dout, the bias, limits of the rows. */
static int32_t dbias_sm80_smem(const variant *v, int64_t head_d, int64_t head_e, const specialisation *how) {
    const int64_t bias = how->bias == DLATTN_BIAS_BY_TILES ? 2 * v->rows * v->keys : 0;
    return (int32_t)(2 * (v->rows + v->keys) * (head_d + head_e) + bias + 8 * v->rows);
}

/* ---- the table ------------------------------------------------------------------------------------------------------- */

/* Biases, the mask tensor, and heads whose E is padded to more than D, are computed by others. The stack is the producer's. */
#define HOPPER_BACKWARD_SERVED (SEGMENTED | DLATTN_FEATURE_ALIBI | DLATTN_FEATURE_SOFTCAP | DLATTN_FEATURE_DROPOUT)
#define HOPPER_BACKWARD(head, rows, bench)                                                                    \
    {"sm90", "backward_sm90.cu", "backward_sm90", DLATTN_KERNEL_BACKWARD, 90, 90, HALVES, head, false,     \
     ~HOPPER_BACKWARD_SERVED, rows, 128, 12, 1, {{"STAGES", 2}}, backward_sm90_smem, true, bench, 72, 0, false, true, 0}

/* Larger heads: clusters of two blocks. */
#define HOPPER_BACKWARD_WIDE(head, dout_stages, bench)                                                             \
    {"sm90", "backward_wide_sm90.cu", "backward_wide_sm90", DLATTN_KERNEL_BACKWARD, 90, 90, HALVES, head, false, \
     ~HOPPER_BACKWARD_SERVED, 64, 64, 16, 1, {{"STAGES", 2}, {"DOUT_STAGES", dout_stages}, {"DOUT_PARTS", 1}, {"CLUSTER", 2}}, \
     backward_wide_smem, true, bench, (head) > 192 ? 72 : 0, 0, false, true, 0}

#define BACKWARD_FOR(needed, avoided, first, last, types, head, small, rows, keys, warps, bench, stack, ...)         \
    {"sm80", "backward_sm80.cu", "backward_sm80", DLATTN_KERNEL_BACKWARD, first, last, types, head, small, avoided,  \
     rows, keys, warps, 1, {__VA_ARGS__}, backward_sm80_smem, true, bench, stack, needed, false, false, 0}

#define BACKWARD_ON(...) BACKWARD_FOR(0, 0, __VA_ARGS__)
#define BACKWARD(...) BACKWARD_ON(80, NEWEST, HALVES, __VA_ARGS__)

#define DQ(first, last, types, head, rows, keys, warps, stages)                                                              \
    {"sm80", "backward_dq_sm80.cu", "backward_dq_sm80", DLATTN_KERNEL_DQ, first, last, types, head, false, 0, rows, keys, \
     warps, 1, {{"STAGES", stages}}, dq_sm80_smem, true, "", 0, 0, false, false, 0}

#define DBIAS(first, last, types, head, rows, keys, warps, row_warps, blocks)                                            \
    {"sm80", "dbias_sm80.cu", "dbias_sm80", DLATTN_KERNEL_DBIAS, first, last, types, head, false, 0, rows, keys, warps, \
     1, {{"ROW_WARPS", row_warps}, {"BLOCKS", blocks}}, dbias_sm80_smem, true, "", 0, 0, false, false, 0}

static const variant table[] = {
    BACKWARD(128, true, 64, 32, 4, H100, 0, {"ROW_WARPS", 2}, {"DS_STAGES", 2}),
    BACKWARD(32, false, 32, 128, 4, NONE, 0, {"ROW_WARPS", 1}, {"BLOCKS", 2}, {"DQ_COLUMN_WARPS", 2}),
    HOPPER_BACKWARD(64, 128, H100),
    /* 8 bytes of stack on sm_90, where rows are not aligned or dq is computed apart: what Hopper's kernel leaves. */
    BACKWARD_FOR(0, ~0u, 80, NEWEST, HALVES, 64, false, 32, 128, 4, H100, 8, {"ROW_WARPS", 1}, {"BLOCKS", 2}, {"DS_STAGES", 2},
                 {"CURSORS", 1}),
    BACKWARD(64, false, 32, 128, 4, H100, 0, {"ROW_WARPS", 1}, {"BLOCKS", 2}, {"DS_STAGES", 2}),
    HOPPER_BACKWARD(128, 64, H100),
    BACKWARD(96, false, 64, 64, 8, NONE, 0, {"ROW_WARPS", 2}),
    BACKWARD_FOR(0, ~0u, 90, NEWEST, HALVES, 128, false, 64, 128, 8, H100, 0, {"ROW_WARPS", 2}, {"LATE", 1}, {"CURSORS", 1}),
    BACKWARD_FOR(DLATTN_FEATURE_INTERVAL, ~DLATTN_FEATURE_INTERVAL, 90, NEWEST, HALVES, 128, false, 64, 128, 8, H100, 0,
                 {"ROW_WARPS", 2}, {"CURSORS", 1}),
    /* 8 bytes of stack: on sm_90 with an interval mask alone, which the row above serves there. */
    BACKWARD(128, false, 64, 128, 8, H100, 8, {"ROW_WARPS", 2}, {"LATE", 1}),
    HOPPER_BACKWARD_WIDE(192, 2, H100),
    HOPPER_BACKWARD_WIDE(256, 1, H100),
    BACKWARD(256, false, 64, 64, 8, H100, 0, {"ROW_WARPS", 4}),
    BACKWARD(256, false, 64, 64, 8, NONE, 0, {"ROW_WARPS", 4}, {"STAGES", 1}), /* for less shared memory */
    BACKWARD_ON(75, 79, F16, 64, false, 32, 64, 4, NONE, 0, {"ROW_WARPS", 2}),
    BACKWARD_ON(75, 79, F16, 128, false, 64, 32, 4, NONE, 0, {"ROW_WARPS", 2}, {"STAGES", 1}),
    DQ(80, NEWEST, HALVES, 128, 64, 64, 4, 2),
    DQ(80, NEWEST, HALVES, 256, 64, 64, 4, 1),
    DQ(80, NEWEST, HALVES, 256, 64, 32, 4, 1),
    DQ(75, 79, F16, 64, 64, 64, 4, 2),
    DQ(75, 79, F16, 128, 64, 32, 4, 1),
    DBIAS(80, NEWEST, HALVES, 128, 64, 128, 4, 2, 2),
    DBIAS(80, NEWEST, HALVES, 256, 64, 64, 4, 4, 1),
    DBIAS(75, 79, F16, 128, 32, 32, 4, 2, 1),
};

const variant_rows dlattn__backward_rows = {table, sizeof table / sizeof table[0]};
