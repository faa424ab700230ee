/* number.h: floating-point elements whose type is known only at run time, one at a time and by rows. */
#ifndef DLATTN_NUMBER_H
#define DLATTN_NUMBER_H

#include "cpu.h"
#include "half.h"

static inline double dlattn__read_number(int32_t dtype, const char *at) {
    switch (dtype) {
    case DLATTN_T_F16: return dlattn__f16_to_float(*(const uint16_t *)at);
    case DLATTN_T_BF16: return dlattn__bf16_to_float(*(const uint16_t *)at);
    case DLATTN_T_F64: return *(const double *)at;
    default: return *(const float *)at;
    }
}

static inline void dlattn__write_number(int32_t dtype, char *at, double x) {
    switch (dtype) {
    case DLATTN_T_F16: *(uint16_t *)at = dlattn__float_to_f16((float)x); break;
    case DLATTN_T_BF16: *(uint16_t *)at = dlattn__float_to_bf16((float)x); break;
    case DLATTN_T_F64: *(double *)at = x; break;
    default: *(float *)at = (float)x; break;
    }
}

/* One loop for each type, so that the compiler can use vectors where the stride is 1. */
#define DLATTN_EACH_NUMBER(expression)                                                          \
    if (stride == 1) for (int64_t n = 0; n < count; n++) { const int64_t at = n; expression; }  \
    else for (int64_t n = 0; n < count; n++) { const int64_t at = n * stride; expression; }     \
    break

static inline void dlattn__read_numbers(double *to, int32_t dtype, const void *from, int64_t stride, int64_t count) {
    switch (dtype) {
    case DLATTN_T_F16: DLATTN_EACH_NUMBER(to[n] = dlattn__f16_to_float(((const uint16_t *)from)[at]));
    case DLATTN_T_BF16: DLATTN_EACH_NUMBER(to[n] = dlattn__bf16_to_float(((const uint16_t *)from)[at]));
    case DLATTN_T_F64: DLATTN_EACH_NUMBER(to[n] = ((const double *)from)[at]);
    default: DLATTN_EACH_NUMBER(to[n] = ((const float *)from)[at]);
    }
}

static inline void dlattn__write_numbers(int32_t dtype, void *to, int64_t stride, const double *from, int64_t count) {
    switch (dtype) {
    case DLATTN_T_F16: DLATTN_EACH_NUMBER(((uint16_t *)to)[at] = dlattn__float_to_f16((float)from[n]));
    case DLATTN_T_BF16: DLATTN_EACH_NUMBER(((uint16_t *)to)[at] = dlattn__float_to_bf16((float)from[n]));
    case DLATTN_T_F64: DLATTN_EACH_NUMBER(((double *)to)[at] = from[n]);
    default: DLATTN_EACH_NUMBER(((float *)to)[at] = (float)from[n]);
    }
}

#endif
