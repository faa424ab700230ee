/* element.h: reading and writing elements of a DLTensor by their row-major index, for tests and tools.
 *
 * Slow and plain on purpose: nothing here is shared with the library, so neither is a mistake about strides. */
#ifndef DLATTN_TESTS_ELEMENT_H
#define DLATTN_TESTS_ELEMENT_H

#include <stdint.h>

#include <dlpack/dlpack.h>

typedef long double real; /* wide enough for every dtype and for the oracle of float64 */

float half_to_float(uint16_t bits);
uint16_t float_to_half(float value); /* round to nearest, ties to even */
float bfloat_to_float(uint16_t bits);
uint16_t float_to_bfloat(float value);
float float_to_tf32(float value); /* 10 bits of fraction; ties away from 0, as GPUs convert */

int64_t tensor_count(const DLTensor *tensor);
int64_t tensor_stride(const DLTensor *tensor, int32_t dim); /* in elements, also when strides is NULL */
int64_t tensor_item_bytes(const DLTensor *tensor);

/* Address of the element whose row-major index is `index`. */
unsigned char *tensor_address(const DLTensor *tensor, int64_t index);
real element_get(DLDataType dtype, const unsigned char *at);
real tensor_get(const DLTensor *tensor, int64_t index);
void tensor_set(const DLTensor *tensor, int64_t index, real value);
int64_t tensor_get_int(const DLTensor *tensor, int64_t index);
void tensor_set_int(const DLTensor *tensor, int64_t index, int64_t value);

/* Row-major index of (b, h, i, j) in a tensor of rank 1 to 4 that is right-aligned to [B,H,M,N] and broadcasts where
 * its extent is 1. */
int64_t tensor_broadcast_index(const DLTensor *tensor, int64_t b, int64_t h, int64_t i, int64_t j);

/* Unit roundoff of a floating dtype: half the distance from 1 to the next number. */
double dtype_roundoff(DLDataType dtype);
double dtype_least_normal(DLDataType dtype); /* times the roundoff: half the least subnormal number */
const char *dtype_name(DLDataType dtype);

#endif
