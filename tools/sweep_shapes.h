/* sweep_shapes.h: realistic problems drawn from a seed, for `dlattn bench --sweep`. */
#ifndef DLATTN_TOOLS_SWEEP_SHAPES_H
#define DLATTN_TOOLS_SWEEP_SHAPES_H

#include "case.h"

typedef struct sweep_shape {
    test_case problem; /* points into this struct */
    char name[16];
} sweep_shape;

/* Shape n of the seed: the same on every machine. A forward of float16 or bfloat16 that takes a fast GPU some milliseconds at most. */
void sweep_shape_make(sweep_shape *to, uint64_t seed, int64_t n);

#endif
