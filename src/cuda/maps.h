/* maps.h: tensor maps of q, k, v, dout and the bias for kernels that fetch tiles by the copy engine. */
#ifndef DLATTN_CUDA_MAPS_H
#define DLATTN_CUDA_MAPS_H

#include "backend.h"
#include "tensor_maps.h"
#include "variants.h"

/* Why q, k, v, dout or the bias cannot be told by a tensor map, given that its rows are aligned; NULL when they can. */
const char *dlattn__maps_refusal(const problem *p);

/* For the tiles of `v`. Fails when the driver refuses. */
int32_t dlattn__maps_fill(dlattn_maps *out, const problem *p, const buffers *x, const variant *v);

#endif
