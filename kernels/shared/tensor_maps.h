// tensor_maps.h: how the copy engine (TMA) of Hopper finds its tensors: tensor maps, passed by value beside the params.
#ifndef DLATTN_SHARED_TENSOR_MAPS_H
#define DLATTN_SHARED_TENSOR_MAPS_H

#include "shared.h"

// The driver's CUtensorMap: 128 opaque bytes.
typedef struct tensor_map {
#ifdef __cplusplus
    alignas(64)
#else
    _Alignas(64)
#endif
    dlattn_u64 opaque[16];
} tensor_map;

// Dimensions, inner first: column, row or token, head, batch; one that the tensor repeats (stride 0) has extent 1. A box is 64
// columns by as many rows as the kernel takes at once: of q 64 (backward: of q and dout a tile of rows), of k and v a tile of keys,
// of the bias 64. What lies outside is read as 0. A map that the kernel does not ask for need not be filled.
typedef struct dlattn_maps {
    tensor_map q, k, v;
    tensor_map dout; // of a backward
    tensor_map bias; // of a forward with one
} dlattn_maps;

#endif
