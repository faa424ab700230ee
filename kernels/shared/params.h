// params.h: all that a CUDA kernel is told, one struct passed by value, filled by src/cuda/arguments.c.
//
// It is the device's form of `problem` and `buffers`: the same names, the same order of dimensions. Sizes are int32 (the
// host refuses larger ones), addresses and strides 64-bit.
#ifndef DLATTN_SHARED_PARAMS_H
#define DLATTN_SHARED_PARAMS_H

#include "masks/mask.h"

// Element types: the values of DLATTN_T_X in src/problem.h.
#define DLATTN_TYPE_NONE 0
#define DLATTN_TYPE_F16 1
#define DLATTN_TYPE_BF16 2
#define DLATTN_TYPE_F32 3
#define DLATTN_TYPE_I32 5
#define DLATTN_TYPE_I64 6
#define DLATTN_TYPE_U8 7

// What a problem has beyond q, k and v. A kernel may be specialised for a set of them (-DFEATURES=...).
#define DLATTN_FEATURE_INTERVAL 1u  // causal, window, block window or positive: dlattn_params.mask_kinds is not 0
#define DLATTN_FEATURE_SOFTCAP 2u
#define DLATTN_FEATURE_ALIBI 4u
#define DLATTN_FEATURE_BIAS 8u
#define DLATTN_FEATURE_MASK 16u     // the mask tensor
#define DLATTN_FEATURE_SEGMENTS 32u
#define DLATTN_FEATURE_DROPOUT 64u

// Rows of the workspace's arrays come in multiples of this, so that a tile never leaves its sequence's part.
#define DLATTN_ROW_ALIGNMENT 128

// One tensor in device memory. Strides count elements; a dimension of extent 1 has stride 0.
typedef struct dlattn_view {
    dlattn_u64 data;  // address of element 0; 0: absent
    dlattn_i64 stride[4];
    int extent[4];
    int dtype, reserved0;
} dlattn_view;

typedef struct dlattn_params {
    dlattn_view q, k, v, out, dout, dq, dk, dv;         // [b, i or token, h or g, d or e]
    dlattn_view lse, dlse;                              // [b, h, i or token]
    dlattn_view bias, dbias, mask, keep;                // [b, h, i, j]; a broadcast dimension has stride 0
    dlattn_view alibi_slopes;                           // [b, h]
    dlattn_view sinks, dsinks;                          // [h]
    dlattn_view q_segments, kv_segments;                // [b, i] and [b, j]
    dlattn_view cu_seqlens_q, cu_seqlens_k, seqlens_q, seqlens_k, q_starts, k_starts;  // [b]
    dlattn_view block_table;                            // [b, n]: the page of keys n * page and on
    dlattn_view rng_state;                              // [2] of 64 bits or [4] of 32

    int B, H, G, M, N, D, E;     // M, N: no sequence is longer
    int heads_per_group;         // H / G
    int packed_q, packed_k;      // 1: batch stride 0, begins come from cu_seqlens
    int tokens_q, tokens_k;      // extent 1 of q, and what k has room for: its extent 1, or all pages of a sequence
    int page, reserved0;         // tokens of a page; 0: k and v are not paged
    int top_left, positions;     // flags of the problem
    dlattn_u32 mask_kinds;       // DLATTN_MASK_X
    dlattn_u32 features;         // DLATTN_FEATURE_X

    dlattn_i64 window_left, window_right, block_size, block_count, q_start, k_start;
    dlattn_u64 seed, offset;     // unless rng_state is there
    float scale, softcap;
    int dropout_threshold;       // t of dlattn.h; 0: none, 256: everything is dropped
    float dropout_scale;         // 256 / (256 - t); 1 without dropout, 0 when everything is dropped

    // Workspace. Rows are numbered by dlattn_row (sequence.cuh); there are `row_count` of them, a multiple of 128.
    dlattn_u64 delta;            // float [row]: sum_e dout * out - dlse
    dlattn_u64 lse2;             // float [row]: lse * log2(e); +inf where p is 0 (nothing visible, past the end)
    dlattn_u64 dq_sum;           // float [row][dq_columns]: dq before scale, summed with reductions
    dlattn_u64 finished;         // u32 [b][g]: how many blocks of the main pass have added all of theirs to dq_sum
    dlattn_u64 partial_out;      // float [split][row][E]: normalised
    dlattn_u64 partial_lse;      // float [split][row]: natural log
    dlattn_u64 row_segments;     // int64 [b][head_rows / 32][2]: least and largest segment of 32 rows; none: the least above
                                 // forward: segment_span [b][row_tiles], row_tiles being those of 64 rows
    dlattn_u64 next_tile;        // uint32, 0 at first: tiles of rows taken beyond each block's first; absent (0): a fixed order
    dlattn_u64 key_segments;     // int64 [b][segment_ranges(N)][2]: the same of 32 keys; forward: segment_span [b][key_tiles]
    dlattn_i64 row_count;        // of all (sequence, head) together
    dlattn_i64 head_rows;        // from one head's rows to the next one's

    int row_tiles, key_tiles;    // of the longest sequence, in tiles of the kernel that is launched
    int splits;                  // into how many pieces the keys are cut; 1: out and lse are written directly
    int dq_columns;              // padded D of dq_sum; 0: it is not used
} dlattn_params;

#endif
