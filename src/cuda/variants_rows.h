/* variants_rows.h: what the files of the table of kernels share: its parts, and words of which rows are made. */
#ifndef DLATTN_CUDA_VARIANTS_ROWS_H
#define DLATTN_CUDA_VARIANTS_ROWS_H

#include <string.h>

#include "arguments.h"
#include "variants.h"

typedef struct variant_rows {
    const variant *first;
    int32_t count;
} variant_rows;

/* The tuned rows of a pass, in the order of variants.c. */
extern const variant_rows dlattn__forward_rows, dlattn__backward_rows;

static inline int64_t choice(const variant *v, const char *name, int64_t otherwise) {
    for (int32_t n = 0; n < DLATTN_MAX_CHOICES && v->choices[n].name; n++)
        if (strcmp(v->choices[n].name, name) == 0) return v->choices[n].value;
    return otherwise;
}

#define F16 (1u << DLATTN_T_F16)
#define HALVES (F16 | 1u << DLATTN_T_BF16)
#define ALL_TYPES (HALVES | 1u << DLATTN_T_F32)
#define NEWEST 9999

#define SEGMENTED (DLATTN_FEATURE_INTERVAL | DLATTN_FEATURE_SEGMENTS)

#define H100 "gpu_h100.json"
#define NONE ""

#endif
