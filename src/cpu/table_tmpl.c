/* table_tmpl.c: the table of kernels of one (ISA, number kind); isa.c chooses among the tables. */
#include "tile_tmpl.h"

cpu_item NAME(forward), NAME(combine), NAME(delta), NAME(backward), NAME(reduce_dq), NAME(dbias), NAME(dsinks);
int64_t NAME(forward_scratch)(const problem *), NAME(backward_scratch)(const problem *),
    NAME(dbias_scratch)(const problem *);
#if !REAL_IS_BF16
cpu_item NAME(decode);
int64_t NAME(decode_scratch)(const problem *);
bool NAME(decode_takes)(const problem *);
#endif

static int64_t forward_item_rows(const problem *p) { return item_rows(p); }

extern const cpu_kernels NAME(kernels);
const cpu_kernels NAME(kernels) = {
    .isa = DLATTN_STRING(DLATTN_ISA),
    .real = DLATTN_STRING(DLATTN_REAL),
    .lanes = L,
    .real_bytes = sizeof(real),
    .item_rows = forward_item_rows,
    .tile_keys = TILE_KEYS,
    .forward_scratch = NAME(forward_scratch),
    .backward_scratch = NAME(backward_scratch),
    .dbias_scratch = NAME(dbias_scratch),
    .forward = NAME(forward),
    .combine = NAME(combine),
    .delta = NAME(delta),
    .backward = NAME(backward),
    .reduce_dq = NAME(reduce_dq),
    .dbias = NAME(dbias),
    .dsinks = NAME(dsinks),
#if !REAL_IS_BF16 /* few rows of bfloat16 are read as float32 */
    .decode_rows = 8,
    .decode_takes = NAME(decode_takes),
    .decode_scratch = NAME(decode_scratch),
    .decode = NAME(decode),
#endif
};
