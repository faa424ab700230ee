/* half.h: float16 and bfloat16 as bit patterns, to and from float, round to nearest even. Plain C for any machine. */
#ifndef DLATTN_HALF_H
#define DLATTN_HALF_H

#include <stdint.h>
#include <string.h>

static inline float dlattn__float_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t dlattn__float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float dlattn__bf16_to_float(uint16_t h) { return dlattn__float_from_bits((uint32_t)h << 16); }

static inline uint16_t dlattn__float_to_bf16(float x) {
    uint32_t bits = dlattn__float_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float dlattn__f16_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    if (magnitude >= 0x7c00u) return dlattn__float_from_bits(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
    if (magnitude >= 0x0400u) return dlattn__float_from_bits(sign | ((magnitude << 13) + 0x38000000u));
    float x = (float)magnitude * 0x1p-24f; /* subnormal or zero: exact */
    return sign ? -x : x;
}

static inline uint16_t dlattn__float_to_f16(float x) {
    uint32_t bits = dlattn__float_bits(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x47800000u) return (uint16_t)(sign | 0x7c00u); /* 65536 and above */
    if (magnitude < 0x38800000u) { /* below 2^-14: adding 0.5 aligns the subnormal's bits, rounding to even */
        float aligned = dlattn__float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (dlattn__float_bits(aligned) - 0x3f000000u));
    }
    magnitude += 0xfffu + ((magnitude >> 13) & 1u); /* may carry into infinity, as it should */
    return (uint16_t)(sign | ((magnitude - 0x38000000u) >> 13));
}

#endif
