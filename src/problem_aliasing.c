/* problem_aliasing.c: every output against itself and, where the call has data, every other tensor of the call. */
#include "error.h"
#include "reading.h"

int32_t dlattn__check_aliasing(const reading *r, bool addresses) {
    for (int32_t i = 0; i < r->count; i++) {
        if (!r->tensors[i].output) continue;
        DLATTN_TRY(dlattn__tensor_no_self_overlap(&r->tensors[i]));
        for (int32_t j = 0; addresses && j < r->count; j++) {
            if (j == i || (r->tensors[j].output && j < i)) continue; /* two outputs: once is enough */
            DLATTN_TRY(dlattn__tensor_no_alias(&r->tensors[i], &r->tensors[j]));
        }
    }
    return DLATTN_OK;
}
