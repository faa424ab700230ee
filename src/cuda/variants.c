/* variants.c: the table of kernels, and who of it serves a problem on a device.
 *
 * The first row that accepts a problem computes it; so the table goes from the fastest to the most capable. Only Hopper's forwards
 * are chosen by their estimated times (estimate.h). */
#include "variants.h"

#include <stdio.h>
#include <string.h>

#include "arguments.h"
#include "estimate.h"
#include "maps.h"
#include "options.h"

static int64_t choice(const variant *v, const char *name, int64_t otherwise) {
    for (int32_t n = 0; n < DLATTN_MAX_CHOICES && v->choices[n].name; n++)
        if (strcmp(v->choices[n].name, name) == 0) return v->choices[n].value;
    return otherwise;
}

/* ---- shared memory, as each kernel lays it out ------------------------------------------------------------------------ */

/* Q, the ring of K and V, the bias, then limits of rows, the block's facts and segments. The result passes through the memory of the tiles:
 * where it does not fit, the row does not serve. */
static int32_t forward_sm80_smem(const variant *v, int64_t head_d, int64_t head_e, const specialisation *how) {
    const int64_t tiles = 2 * v->rows * head_d + 2 * choice(v, "STAGES", 1) * v->keys * (head_d + head_e);
    int64_t bytes = tiles + 2 * v->rows * v->keys * how->bias + 8 * v->rows + 16 * v->warps + 128;
    if (how->features & DLATTN_FEATURE_SEGMENTS) bytes += 16 * v->keys + 32 * v->warps + 16;
    return 2 * v->rows * head_e > tiles ? INT32_MAX : (int32_t)bytes;
}

/* Rings of Q, K, V and the bias, two jobs, barriers. Larger values than keys were not tried. */
static int32_t forward_sm90_smem(const variant *v, int64_t head_d, int64_t head_e, const specialisation *how) {
    const int64_t stages = choice(v, "STAGES", 2), k_stages = choice(v, "K_STAGES", stages);
    const int64_t tiles = 2 * choice(v, "Q_STAGES", 1) * v->rows * head_d + 2 * v->keys * (k_stages * head_d + stages * head_e);
    const int64_t bias = how->features & DLATTN_FEATURE_BIAS ? 2 * choice(v, "BIAS_STAGES", 0) * v->rows * v->keys : 0;
    const int64_t facts = v->warps == 16 ? 256 : 224; /* of a job: three consumers have more */
    return head_e > head_d ? INT32_MAX : (int32_t)(tiles + bias + 2 * (facts + 8 * v->rows + 16 * (v->warps - 4)) + 288);
}

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

/* ---- the table -------------------------------------------------------------------------------------------------------- */

#define F16 (1u << DLATTN_T_F16)
#define HALVES (F16 | 1u << DLATTN_T_BF16)
#define ALL_TYPES (HALVES | 1u << DLATTN_T_F32)
#define NEWEST 9999

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
 * more segments at their ends: d128 with four segments of 1024 keys has 551 TFLOP/s on 128 x 128, 506 on 192 x 80. */
#define HOPPER_PICKED(served, head, rows, keys, warps, stages, q_stages, bench)                                    \
    {"sm90", "forward_sm90.cu", "forward_sm90", DLATTN_KERNEL_FORWARD, 90, 90, HALVES, head, false, ~(served),    \
     rows, keys, warps, 1, {{"STAGES", stages}, {"Q_STAGES", q_stages}, {"TURNS", 1}, {"BIAS_STAGES", 0}},            \
     forward_sm90_smem, true, bench, 0, DLATTN_FEATURE_SEGMENTS | DLATTN_FEATURE_MASK, false, true, 0}

#define SEGMENTED (DLATTN_FEATURE_INTERVAL | DLATTN_FEATURE_SEGMENTS)
#define PICKED (SEGMENTED | DLATTN_FEATURE_SOFTCAP | DLATTN_FEATURE_MASK)

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

#define GENERIC(kernel, file, entry) \
    {"generic", file, entry, kernel, 75, NEWEST, ALL_TYPES, 256, false, 0, 64, 64, 8, 1, {{0}}, NULL, false, "", 0, 0, true, false, 0}

#define H100 "gpu_h100.json"
#define NONE ""

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
    BACKWARD(128, true, 64, 32, 4, H100, 0, {"ROW_WARPS", 2}, {"DS_STAGES", 2}),
    BACKWARD(32, false, 32, 128, 4, NONE, 0, {"ROW_WARPS", 1}, {"BLOCKS", 2}, {"DQ_COLUMN_WARPS", 2}),
    HOPPER_BACKWARD(64, 128, H100),
    BACKWARD_FOR(0, ~0u, 80, NEWEST, HALVES, 64, false, 32, 128, 4, H100, 0, {"ROW_WARPS", 1}, {"BLOCKS", 2}, {"DS_STAGES", 2},
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
    GENERIC(DLATTN_KERNEL_FORWARD, "generic_forward.cu", "forward_generic"),
    GENERIC(DLATTN_KERNEL_BACKWARD, "generic_dkdv.cu", "backward_generic_dkdv"),
    GENERIC(DLATTN_KERNEL_DQ, "generic_dq.cu", "backward_generic_dq"),
    GENERIC(DLATTN_KERNEL_DBIAS, "dbias_generic.cu", "dbias_generic"),
};
enum { NUM_VARIANTS = (int)(sizeof table / sizeof table[0]) };

int32_t dlattn__variant_home(const variant *v) { return v->bench[0] ? 90 : v->first_arch; }

const variant *dlattn__variant_row(int32_t n) { return n < NUM_VARIANTS ? &table[n] : NULL; }

int64_t dlattn__variant_stages(const variant *v) { return choice(v, "STAGES", 1); }

int64_t dlattn__variant_cluster(const variant *v) { return choice(v, "CLUSTER", 1); }

void dlattn__variant_name(char out[DLATTN_VARIANT_NAME], const variant *v) {
    snprintf(out, DLATTN_VARIANT_NAME, "%s:%dx%dx%dx%d", v->name, (int)v->rows, (int)v->keys, (int)v->warps,
             (int)dlattn__variant_stages(v));
}

/* ---- the choice ------------------------------------------------------------------------------------------------------- */

/* Few sizes, so that few kernels are compiled. Warps of the backward that share keys take 16 columns each, or twice. */
int64_t dlattn__padded_head(const variant *v, int64_t size) {
    const int64_t shared = v->kernel == DLATTN_KERNEL_BACKWARD ? 16 * choice(v, "ROW_WARPS", 1) : 0;
    const int64_t unit = v->tensor_maps ? 64 : shared > 32 ? shared : 32;
    if (v->kernel != DLATTN_KERNEL_FORWARD && size > 128) return size > 192 ? 256 : 192;
    return (size + unit - 1) & -unit; /* a power of two */
}

int32_t dlattn__variant_smem(const variant *v, int64_t D, int64_t E, const specialisation *how) {
    if (!v->smem_bytes) return 0;
    return v->smem_bytes(v, dlattn__padded_head(v, D), dlattn__padded_head(v, E), how);
}

/* Decoding, where the heads of a group share a tile; or so few tiles of twice the rows, or in the backward four times the
 * keys, that half of the GPU would idle. */
static bool is_small(const variant *v, const problem *p, const cuda_device *device) {
    if (v->kernel == DLATTN_KERNEL_BACKWARD)
        return 2 * p->B * p->G * ((p->N + 4 * v->keys - 1) / (4 * v->keys)) <= device->multiprocessors;
    const int64_t tiles = p->B * p->H * ((p->M + 2 * v->rows - 1) / (2 * v->rows));
    return (p->G > 0 && p->M * (p->H / p->G) <= v->rows) || 2 * tiles <= device->multiprocessors;
}

/* Why a kernel that fetches tiles by tensor maps does not serve the problem. */
static const char *refusal_of_maps(int32_t kernel, const problem *p, const specialisation *how, const cuda_device *device) {
    if (!device->tensor_maps) return "a driver without tensor maps";
    if (!how->aligned) return "rows that are not aligned";
    if (kernel == DLATTN_KERNEL_FORWARD && !(p->scale > 0)) return "a scale that is not positive";
    if (p->mask.dtype && !how->mask_pieces) return "a mask whose rows are not 16-byte pieces";
    if (kernel == DLATTN_KERNEL_FORWARD && how->cramped) return "too little workspace for segments";
    if (p->bias.dtype && how->bias != DLATTN_BIAS_BY_TILES) return "a bias of another type, or rows of it that are not aligned";
    if (p->alibi_slopes.dtype && p->scale < 1e-6 && p->scale > -1e-6) return "a scale by which slopes cannot be divided";
    if (p->dropout_threshold && p->flags & DLATTN_POSITIONS) return "dropout that is counted from positions";
    return dlattn__maps_refusal(p);
}

static const char *lack_of_feature(const variant *v, uint32_t features) {
    return v->needed && !(v->needed & features) ? "no feature that it is for" : NULL;
}

const char *dlattn__variant_avoids(const variant *v, uint32_t features) {
    if (features & v->avoided) return "a feature that is slow in it";
    if (features & DLATTN_FEATURE_SOFTCAP && features & v->uncapped) return "a softcap with a feature that leaves it no registers";
    /* Hopper's rows that are made for a feature are compiled with it alone. */
    return v->tensor_maps ? lack_of_feature(v, features) : NULL;
}

/* Why the row does not serve the problem; NULL when it does. */
static const char *refusal(const variant *v, const problem *p, const specialisation *how, const cuda_device *device) {
    if (device->arch < v->first_arch || device->arch > v->last_arch) return "another architecture";
    if (!(v->types & 1u << p->dtype)) return "another type";
    if (p->D > v->head || p->E > v->head) return "a larger head size";
    const char *reason = dlattn__variant_avoids(v, how->features);
    if (reason) return reason;
    if (p->page && !v->pages) return "paged keys";
    if (v->tensor_maps) {
        reason = refusal_of_maps(v->kernel, p, how, device);
        if (reason) return reason;
    }
    if (dlattn__variant_smem(v, p->D, p->E, how) > device->smem_bytes) return "too little shared memory";
    if (v->kernel == DLATTN_KERNEL_DBIAS && v->tuned && (p->dbias.extent[2] == 1 || p->dbias.extent[3] == 1))
        return "a bias that broadcasts over rows or keys";
    return NULL;
}

/* Why another row is better for the problem, though this one could compute it; NULL when it is not. */
static const char *reluctance(const variant *v, const problem *p, const specialisation *how, const cuda_device *device) {
    if (v->small && !is_small(v, p, device)) return "a larger problem";
    return lack_of_feature(v, how->features);
}

/* Does the option name the row: its family, or a tile too? A name ends where a number does. */
static bool is_named(const variant *v, const char *option) {
    char name[DLATTN_VARIANT_NAME];
    const size_t length = strlen(option);
    if (strcmp(option, v->name) == 0) return true; /* most often, and at once */
    if (strncmp(option, v->name, strlen(v->name)) != 0) return false;
    dlattn__variant_name(name, v);
    return strncmp(name, option, length) == 0 && strchr(":x", name[length]);
}

/* Of the tuned rows that serve a forward the one that is estimated to take the least time; NULL when there is none. Rows for much
 * larger heads are not asked: all they could do is waste. */
static const variant *find_fastest(const problem *p, const specialisation *how, const cuda_device *device) {
    const int64_t size = p->D > p->E ? p->D : p->E, most = (size + 63) / 64 * 64 + 64;
    const variant *best = NULL;
    double shortest = 0;
    for (const variant *v = table; v < table + NUM_VARIANTS; v++) {
        if (v->kernel != DLATTN_KERNEL_FORWARD || !v->tuned || v->head > most || refusal(v, p, how, device)) continue;
        const double time = dlattn__estimate(v, p, how, device);
        if (!best || time < shortest) best = v, shortest = time;
    }
    return best;
}

/* All that find_fastest depends on. */
typedef struct choice_key {
    int64_t sizes[14];
    uint32_t flags;
    int32_t dtype;
    cuda_device device;
    specialisation how;
    bool packed, paged, mapped, placed; /* q is packed; keys lie in pages; tensor maps serve; positions are tensors */
} choice_key;

static void fill_key(choice_key *key, const problem *p, const specialisation *how, const cuda_device *device) {
    memset(key, 0, sizeof *key); /* the padding too */
    const int64_t sizes[14] = {p->B, p->H, p->G, p->M, p->N, p->D, p->E, p->window_left, p->window_right, p->block_size, p->block_count,
                               p->q_start, p->k_start, p->q.extent[1]};
    memcpy(key->sizes, sizes, sizeof sizes);
    key->flags = p->flags;
    key->dtype = p->dtype;
    key->device = *device;
    key->how = *how;
    key->packed = p->packed_q;
    key->paged = p->page > 0;
    key->mapped = !refusal_of_maps(DLATTN_KERNEL_FORWARD, p, how, device);
    key->placed = p->q_starts.dtype || p->k_starts.dtype;
}

/* Estimates take most of a microsecond together, so each thread remembers its last few. They follow from the key alone. */
static const variant *fastest(const problem *p, const specialisation *how, const cuda_device *device) {
    enum { REMEMBERED = 4 };
    static _Thread_local struct {
        choice_key key;
        const variant *found;
    } recent[REMEMBERED];
    static _Thread_local uint32_t next;
    choice_key key;
    fill_key(&key, p, how, device);
    for (int32_t n = 0; n < REMEMBERED; n++)
        if (recent[n].found && memcmp(&recent[n].key, &key, sizeof key) == 0) return recent[n].found;
    const variant *found = find_fastest(p, how, device);
    recent[next % REMEMBERED].found = found;
    recent[next++ % REMEMBERED].key = key;
    return found;
}

int64_t dlattn__variants_most_splits(const problem *p, const specialisation *how, const cuda_device *device) {
    int64_t most = 1;
    for (const variant *v = table; v < table + NUM_VARIANTS; v++) {
        if (v->kernel != DLATTN_KERNEL_FORWARD || refusal(v, p, how, device)) continue;
        const tiling t = dlattn__tile(v, p, how, device);
        if (t.splits > most) most = t.splits;
    }
    return most;
}

const variant *dlattn__variant_for(int32_t kernel, const problem *p, const specialisation *how,
                                   const cuda_device *device, char *note, int64_t note_bytes) {
    const char *forced = dlattn__option("cuda_variant");
    if (forced && strcmp(forced, "auto") == 0) forced = NULL;
    const bool by_tile = forced && strchr(forced, ':');
    const char *reason = "no kernel of this name";
    if (!forced && kernel == DLATTN_KERNEL_FORWARD && device->arch == 90) {
        const variant *best = fastest(p, how, device);
        if (best) return best;
    }
    for (int32_t n = 0; n < NUM_VARIANTS; n++) {
        const variant *v = &table[n];
        if (v->kernel != kernel || (forced && ((v->small && !by_tile) || !is_named(v, forced)))) continue;
        reason = refusal(v, p, how, device);
        if (!reason && !by_tile) reason = reluctance(v, p, how, device);
        if (!reason) return v;
    }
    snprintf(note, (size_t)note_bytes, "%s: no kernel for it: %s", forced ? forced : "auto", reason);
    return NULL;
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static void define(kernel_request *r, const char *name, int64_t value) {
    r->defines[r->count++] = (kernel_define){name, value};
}

kernel_request dlattn__plain_request(const char *file, const char *entry) {
    kernel_request r;
    memset(&r, 0, sizeof r);
    r.file = file;
    r.entry = entry;
    return r;
}

kernel_request dlattn__convert_request(int64_t head_d) {
    kernel_request r = dlattn__plain_request("convert_dq.cu", "convert_dq");
    define(&r, "HEAD_D", head_d);
    return r;
}

kernel_request dlattn__segments_request(const variant *v) {
    kernel_request r = dlattn__plain_request("segments_sm90.cu", "segments_sm90");
    define(&r, "BN", v->keys);
    return r;
}

kernel_request dlattn__variant_request(const variant *v, int32_t type, int64_t D, int64_t E, const specialisation *how) {
    kernel_request r = dlattn__plain_request(v->file, v->entry);
    r.smem_bytes = dlattn__variant_smem(v, D, E, how);
    define(&r, "TYPE", type);
    if (!v->tuned) { /* few specialisations: features are asked at run time */
        const int64_t head = D > E ? D : E;
        if (v->kernel != DLATTN_KERNEL_DBIAS) define(&r, "HEAD", head <= 64 ? 64 : head <= 128 ? 128 : 256);
        define(&r, "TF32", how->tf32);
        if (v->kernel == DLATTN_KERNEL_FORWARD) define(&r, "PAGED", how->paged);
        return r;
    }
    define(&r, "HEAD_D", dlattn__padded_head(v, D));
    define(&r, "HEAD_E", dlattn__padded_head(v, E));
    define(&r, "BM", v->rows);
    define(&r, "BN", v->keys);
    define(&r, "WARPS", v->warps);
    for (int32_t n = 0; n < DLATTN_MAX_CHOICES && v->choices[n].name; n++) r.defines[r.count++] = v->choices[n];
    define(&r, "FEATURES", how->features);
    if (v->tensor_maps && v->kernel == DLATTN_KERNEL_BACKWARD) define(&r, "DQ", how->reduce_dq);
    if (v->tensor_maps) return r; /* rows are aligned, neither packed nor are their keys split */
    define(&r, "ALIGNED", how->aligned);
    switch (v->kernel) {
    case DLATTN_KERNEL_FORWARD:
        define(&r, "SPLIT", how->split);
        define(&r, "PACKED", how->packed);
        define(&r, "BIAS", how->bias);
        define(&r, "PAGED", how->paged);
        break;
    case DLATTN_KERNEL_BACKWARD:
        define(&r, "DQ", how->reduce_dq);
        define(&r, "BIAS_TILE", how->bias == DLATTN_BIAS_BY_TILES);
        define(&r, "DBIAS", how->dbias);
        break;
    case DLATTN_KERNEL_DBIAS: define(&r, "BIAS_TILE", how->bias == DLATTN_BIAS_BY_TILES); break;
    default: break;
    }
    return r;
}
