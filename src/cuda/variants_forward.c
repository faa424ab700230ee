/* variants_forward.c: the tuned kernels of the forward, from the fastest to the most capable. */
#include "variants_rows.h"

/* ---- shared memory, as each kernel lays it out ----------------------------------------------------------------------- */

/* Q, the ring of K and V, the bias, then limits of rows, the block's facts and segments. The result passes through the memory of the tiles:
 * where it does not fit, the row does not serve. */
static int32_t forward_sm80_smem(const variant *v, int64_t head_d, int64_t head_e, const specialisation *how) {
    const int64_t tiles = 2 * v->rows * head_d + 2 * choice(v, "STAGES", 1) * v->keys * (head_d + head_e);
    int64_t bytes = tiles + 2 * v->rows * v->keys * how->bias + 8 * v->rows + 16 * v->warps + 128;
    if (how->features & DLATTN_FEATURE_SEGMENTS) bytes += 16 * v->keys + 32 * v->warps + 16;
    return 2 * v->rows * head_e > tiles ? INT32_MAX : (int32_t)bytes;
}

/* Rings of Q, K, V and the bias, two jobs (three consumers need more of each), barriers. Larger values than keys were not tried. */
static int32_t forward_sm90_smem(const variant *v, int64_t head_d, int64_t head_e, const specialisation *how) {
    const int64_t stages = choice(v, "STAGES", 2), k_stages = choice(v, "K_STAGES", stages);
    const int64_t tiles = 2 * choice(v, "Q_STAGES", 1) * v->rows * head_d + 2 * v->keys * (k_stages * head_d + stages * head_e);
    const int64_t bias = how->features & DLATTN_FEATURE_BIAS ? 2 * choice(v, "BIAS_STAGES", 0) * v->rows * v->keys : 0;
    const int64_t facts = v->warps == 16 ? 256 : 224;
    return head_e > head_d ? INT32_MAX : (int32_t)(tiles + bias + 2 * (facts + 8 * v->rows + 16 * (v->warps - 4)) + 288);
}

/* ---- the table ------------------------------------------------------------------------------------------------------- */

#define FORWARD_STAGED(stages, needed, first, last, types, head, small, avoided, rows, keys, warps, residents, bench) \
    {"sm80", "forward_sm80.cu", "forward_sm80", DLATTN_KERNEL_FORWARD, first, last, types, head, small, avoided,      \
     rows, keys, warps, residents, {{"STAGES", stages}, {"Q_REGISTERS", 0}}, forward_sm80_smem, true, bench, 0, needed, true, false, 0}

#define FORWARD(...) FORWARD_STAGED(1, 0, __VA_ARGS__)

#define DENSE (DLATTN_FEATURE_BIAS | DLATTN_FEATURE_DROPOUT)

/* The mask tensor and segments have rows of their own below. A bias needs panels of 64 keys and room in shared memory, dropout blocks
 * of 32 keys, so both have rows of their own. At head size 64 ALiBi took 447 of plain's 503 TFLOP/s in the plain row, 376 in
 * tiles of 128 x 128; at 128 599 and 621 of 738, but causal 548 and 522 (H100, 4k). */
#define HOPPER_WITH(needed, avoided, uncapped, head, small, rows, keys, warps, stages, q_stages, bias_stages, bench)          \
    {"sm90", "forward_sm90.cu", "forward_sm90", DLATTN_KERNEL_FORWARD, 90, 90, HALVES, head, small,                          \
     DLATTN_FEATURE_MASK | DLATTN_FEATURE_SEGMENTS | (avoided), rows, keys, warps, 1,                                        \
     {{"STAGES", stages}, {"Q_STAGES", q_stages}, {"TURNS", 1}, {"BIAS_STAGES", bias_stages}}, forward_sm90_smem, true, bench, \
     0, needed, false, true, uncapped}

#define HOPPER(head, small, rows, keys, warps, stages, q_stages, bench) \
    HOPPER_WITH(0, DENSE, DLATTN_FEATURE_ALIBI, head, small, rows, keys, warps, stages, q_stages, 0, bench)

/* The tiles of 128 x 128 have registers for everything. */
#define HOPPER_DENSE(head, rows, keys, warps, stages, bias_stages, bench)                                                       \
    HOPPER_WITH(DENSE, 0, (head) == 128 ? 0 : DENSE | DLATTN_FEATURE_ALIBI, head, false, rows, keys, warps, stages, 1, bias_stages, \
                bench)

/* Segments and the mask tensor need registers: fewer consumers, or fewer keys a tile. Whole tiles of 64 or 128 keys also meet
 * more segments at their ends: d128 with four segments of 1024 keys has 551 TFLOP/s on 128 x 128, 506 on 192 x 80; a third tile of K,
 * which stays until its weights are known, gave 540 instead of 531 in another run. */
#define HOPPER_PICKED(served, head, rows, keys, warps, stages, q_stages, bench)                                    \
    {"sm90", "forward_sm90.cu", "forward_sm90", DLATTN_KERNEL_FORWARD, 90, 90, HALVES, head, false, ~(served),    \
     rows, keys, warps, 1,                                                                                       \
     {{"STAGES", stages}, {"Q_STAGES", q_stages}, {"TURNS", 1}, {"BIAS_STAGES", 0}, {"K_STAGES", (head) == 128 ? 3 : (stages)}}, \
     forward_sm90_smem, true, bench, 0, DLATTN_FEATURE_SEGMENTS | DLATTN_FEATURE_MASK, false, true, 0}

#define PICKED (SEGMENTED | DLATTN_FEATURE_SOFTCAP | DLATTN_FEATURE_MASK)

static const variant table[] = {
    FORWARD(80, NEWEST, HALVES, 64, true, 0, 64, 128, 4, 2, H100),
    FORWARD(80, NEWEST, HALVES, 128, true, 0, 64, 64, 4, 2, H100),
    HOPPER(64, false, 192, 128, 16, 4, 2, H100),
    HOPPER(128, true, 128, 128, 12, 2, 2, H100),
    HOPPER(128, false, 192, 80, 16, 3, 2, H100),
    HOPPER(192, false, 128, 112, 12, 2, 1, NONE),
    HOPPER(256, false, 128, 80, 12, 2, 1, H100),
    HOPPER_PICKED(SEGMENTED, 64, 192, 128, 16, 4, 2, H100),
    HOPPER_PICKED(PICKED, 64, 128, 128, 12, 4, 2, H100),
    HOPPER_PICKED(PICKED, 128, 128, 128, 12, 2, 2, H100),
    HOPPER_PICKED(PICKED, 192, 128, 112, 12, 2, 1, NONE),
    HOPPER_PICKED(PICKED, 256, 128, 64, 12, 2, 1, H100),
    HOPPER_DENSE(64, 192, 128, 16, 2, 2, H100),
    HOPPER_DENSE(128, 128, 128, 12, 2, 2, H100),
    HOPPER_DENSE(256, 128, 64, 12, 2, 2, H100),
    /* Where two blocks of 100 KB fit. With nothing but an interval mask: biases and segments would need the space. */
    FORWARD_STAGED(2, DLATTN_FEATURE_INTERVAL, 90, 119, HALVES, 64, false, ~DLATTN_FEATURE_INTERVAL, 128, 128, 4, 2, H100),
    FORWARD_STAGED(2, DLATTN_FEATURE_INTERVAL, 90, 119, HALVES, 128, false, ~DLATTN_FEATURE_INTERVAL, 128, 64, 4, 2, H100),
    /* A softcap takes registers: 128 keys spill. */
    FORWARD_STAGED(1, DLATTN_FEATURE_SOFTCAP, 80, NEWEST, HALVES, 64, false, ~DLATTN_FEATURE_SOFTCAP, 128, 96, 4, 2, H100),
    FORWARD(80, NEWEST, HALVES, 64, false, 0, 128, 128, 4, 2, H100),
    FORWARD(80, NEWEST, HALVES, 128, false, 0, 128, 64, 4, 2, H100),
    FORWARD(80, NEWEST, HALVES, 192, false, 0, 128, 64, 8, 1, NONE),
    /* 80 keys break the blocks of dropout and the tiles of bias */
    FORWARD(80, NEWEST, HALVES, 256, false, DLATTN_FEATURE_DROPOUT | DLATTN_FEATURE_BIAS, 128, 80, 8, 1, H100),
    FORWARD(80, NEWEST, HALVES, 256, false, 0, 128, 64, 8, 1, NONE),
    FORWARD(80, NEWEST, HALVES, 256, false, 0, 64, 64, 4, 1, NONE), /* for less shared memory */
    FORWARD(80, NEWEST, HALVES, 256, false, 0, 64, 32, 4, 1, NONE),
    FORWARD(75, 79, F16, 64, false, 0, 128, 64, 4, 1, NONE),
    FORWARD(75, 79, F16, 128, false, 0, 64, 64, 4, 1, NONE),
    FORWARD(75, 79, F16, 192, false, 0, 64, 32, 4, 1, NONE),
};

const variant_rows dlattn__forward_rows = {table, sizeof table / sizeof table[0]};
