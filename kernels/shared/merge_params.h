// merge_params.h: what the kernel `merge` is told, passed by value: at most 4096 bytes, which every device takes.
#ifndef DLATTN_SHARED_MERGE_PARAMS_H
#define DLATTN_SHARED_MERGE_PARAMS_H

#include "params.h"

#define DLATTN_MERGE_PARTS 48

// One part. Strides count elements, in the order of dlattn_params.out and lse. lse is float32.
typedef struct dlattn_merge_part {
    dlattn_u64 out, lse;
    dlattn_i64 out_stride[4]; // [b, i, h, e]
    dlattn_i64 lse_stride[3]; // [b, h, i]
    int out_dtype, reserved0;
} dlattn_merge_part;

typedef struct dlattn_merge_params {
    dlattn_view out, lse; // the result; lse may be absent; either may be a part's own
    int B, H, M, E;       // packed: B is 1 and M is all tokens
    int count, reserved0; // parts
    dlattn_merge_part parts[DLATTN_MERGE_PARTS];
} dlattn_merge_params;

#endif
