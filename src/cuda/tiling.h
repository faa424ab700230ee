/* tiling.h: how a row of the table cuts a forward into tiles of rows and pieces of keys. */
#ifndef DLATTN_CUDA_TILING_H
#define DLATTN_CUDA_TILING_H

#include "variants.h"

typedef struct tiling {
    bool packed;          /* a tile's rows are (i, head of the group) */
    int64_t tiles, heads; /* tiles of one (sequence, head), and how many heads there are then */
    int64_t busy;         /* tiles that hold rows, all sequences and heads together; of packed sequences an estimate from above */
    int64_t splits;       /* pieces of the keys; 1: they are not cut */
} tiling;

tiling dlattn__tile(const variant *v, const problem *p, const specialisation *how, const cuda_device *device);

/* The most keys that so many rows, one after the other, see together by windows: N where there is none. */
double dlattn__window_keys(const problem *p, int64_t rows);

#endif
