/* element.c: reading and writing elements of a DLTensor by their row-major index, for tests and tools. */
#include "element.h"

#include <string.h>

float half_to_float(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, magnitude = bits & 0x7fffu, word;
    float value;
    if (magnitude >= 0x7c00u) {
        word = sign | 0x7f800000u | (magnitude & 0x3ffu) << 13;
    } else if (magnitude < 0x400u) { /* subnormal: an integer times 2^-24 */
        value = (float)magnitude * 0x1p-24f;
        return sign ? -value : value;
    } else {
        word = sign | ((magnitude << 13) + ((127u - 15u) << 23));
    }
    memcpy(&value, &word, sizeof value);
    return value;
}

float float_to_tf32(float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    if ((word & 0x7f800000u) == 0x7f800000u) return value;
    word = (word + 0x1000u) & ~0x1fffu;
    memcpy(&value, &word, sizeof word);
    return value;
}

uint16_t float_to_half(float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    uint16_t sign = (uint16_t)(word >> 16 & 0x8000u);
    word &= 0x7fffffffu;
    if (word > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (word >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
    if (word < 0x38800000u) {                                    /* below 2^-14: let the float adder round at 2^-24 */
        float magnitude, shifted;
        memcpy(&magnitude, &word, sizeof magnitude);
        shifted = magnitude + 0.5f; /* 0.5 has its last bit at 2^-24 */
        memcpy(&word, &shifted, sizeof word);
        return (uint16_t)(sign | (word - 0x3f000000u));
    }
    word += 0xfffu + (word >> 13 & 1u) - ((127u - 15u) << 23);
    return (uint16_t)(sign | word >> 13);
}

float bfloat_to_float(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

uint16_t float_to_bfloat(float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    if ((word & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(word >> 16 | 0x40u);
    return (uint16_t)((word + 0x7fffu + (word >> 16 & 1u)) >> 16);
}

int64_t tensor_count(const DLTensor *tensor) {
    int64_t count = 1;
    for (int32_t d = 0; d < tensor->ndim; d++) count *= tensor->shape[d];
    return count;
}

int64_t tensor_stride(const DLTensor *tensor, int32_t dim) {
    if (tensor->strides) return tensor->strides[dim];
    int64_t stride = 1;
    for (int32_t d = tensor->ndim - 1; d > dim; d--) stride *= tensor->shape[d];
    return stride;
}

int64_t tensor_item_bytes(const DLTensor *tensor) { return tensor->dtype.bits / 8; }

/* Does the element of index n lie n elements from the first? Found without a division: the checks ask for each element. */
static int is_compact(const DLTensor *tensor) {
    int64_t compact = 1;
    if (!tensor->strides) return 1;
    for (int32_t d = tensor->ndim - 1; d >= 0; d--) {
        if (tensor->shape[d] != 1 && tensor->strides[d] != compact) return 0;
        compact *= tensor->shape[d];
    }
    return 1;
}

unsigned char *tensor_address(const DLTensor *tensor, int64_t index) {
    int64_t offset = 0;
    if (is_compact(tensor)) offset = index;
    else
        for (int32_t d = tensor->ndim - 1; d >= 0; d--) {
            if (tensor->shape[d] == 1) continue;
            offset += index % tensor->shape[d] * tensor->strides[d];
            index /= tensor->shape[d];
        }
    return (unsigned char *)tensor->data + tensor->byte_offset + offset * tensor_item_bytes(tensor);
}

real element_get(DLDataType dtype, const unsigned char *at) {
    uint16_t word16;
    float word32;
    double word64;
    switch (dtype.bits) {
    case 16: memcpy(&word16, at, 2); return dtype.code == kDLBfloat ? bfloat_to_float(word16) : half_to_float(word16);
    case 32: memcpy(&word32, at, 4); return word32;
    default: memcpy(&word64, at, 8); return word64;
    }
}

real tensor_get(const DLTensor *tensor, int64_t index) { return element_get(tensor->dtype, tensor_address(tensor, index)); }

void tensor_set(const DLTensor *tensor, int64_t index, real value) {
    unsigned char *at = tensor_address(tensor, index);
    float word32 = (float)value;
    double word64 = (double)value;
    uint16_t word16 = tensor->dtype.code == kDLBfloat ? float_to_bfloat(word32) : float_to_half(word32);
    switch (tensor->dtype.bits) {
    case 16: memcpy(at, &word16, 2); break;
    case 32: memcpy(at, &word32, 4); break;
    default: memcpy(at, &word64, 8); break;
    }
}

int64_t tensor_get_int(const DLTensor *tensor, int64_t index) {
    const unsigned char *at = tensor_address(tensor, index);
    int32_t word32;
    int64_t word64;
    switch (tensor->dtype.bits) {
    case 8: return *at;
    case 32: memcpy(&word32, at, 4); return tensor->dtype.code == kDLUInt ? (int64_t)(uint32_t)word32 : word32;
    default: memcpy(&word64, at, 8); return word64;
    }
}

void tensor_set_int(const DLTensor *tensor, int64_t index, int64_t value) {
    unsigned char *at = tensor_address(tensor, index);
    int32_t word32 = (int32_t)value;
    switch (tensor->dtype.bits) {
    case 8: *at = (unsigned char)value; break;
    case 32: memcpy(at, &word32, 4); break;
    default: memcpy(at, &value, 8); break;
    }
}

int64_t tensor_broadcast_index(const DLTensor *tensor, int64_t b, int64_t h, int64_t i, int64_t j) {
    const int64_t at[4] = {b, h, i, j};
    int64_t index = 0;
    for (int32_t d = 0; d < tensor->ndim; d++) {
        int64_t extent = tensor->shape[d];
        index = index * extent + (extent == 1 ? 0 : at[4 - tensor->ndim + d]);
    }
    return index;
}

double dtype_roundoff(DLDataType dtype) {
    if (dtype.code == kDLBfloat) return 0x1p-8;
    return dtype.bits == 16 ? 0x1p-11 : dtype.bits == 32 ? 0x1p-24 : 0x1p-53;
}

double dtype_least_normal(DLDataType dtype) {
    if (dtype.code == kDLBfloat) return 0x1p-126;
    return dtype.bits == 16 ? 0x1p-14 : dtype.bits == 32 ? 0x1p-126 : 0x1p-1022;
}

const char *dtype_name(DLDataType dtype) {
    if (dtype.code == kDLBfloat) return "bf16";
    return dtype.bits == 16 ? "f16" : dtype.bits == 32 ? "f32" : "f64";
}
