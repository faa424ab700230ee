// tensor_maps.h: how the copy engine (TMA) of Hopper finds q, k, v and dout: tensor maps, passed by value beside the params.
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
// columns by as many rows as the kernel takes at once: of q 64 (backward: of q and dout a tile of rows), of k and v a tile of keys.
// What lies outside is read as 0.
typedef struct dlattn_maps {
    tensor_map q, k, v, dout; // dout: of a backward
} dlattn_maps;

#endif
