/* variants_list.c: everything there is to compile, for the test that does so without a GPU. */
#include <string.h>

#include "arguments.h"
#include "variants.h"

typedef struct request_list {
    kernel_request *out;
    const variant **rows;
    int32_t count, capacity, arch;
} request_list;

static void add(request_list *list, const kernel_request *r, const variant *v) {
    for (int32_t n = 0; n < list->count && n < list->capacity; n++)
        if (memcmp(&list->out[n], r, sizeof *r) == 0) return;
    if (list->count < list->capacity) {
        list->out[list->count] = *r;
        list->rows[list->count] = v;
    }
    list->count++;
}

/* Unless the row is not for it or the architecture has too little shared memory. */
static void add_specialised(request_list *list, const variant *v, int32_t type, const specialisation *how) {
    const cuda_device device = dlattn__cuda_device_like(list->arch);
    if (dlattn__variant_avoids(v, how->features)) return;
    if (dlattn__variant_smem(v, v->head, v->head, how) > device.smem_bytes) return;
    const kernel_request r = dlattn__variant_request(v, type, v->head, v->head, how);
    add(list, &r, v);
}

/* Plain (or with what the row needs) and with every feature, one of them split or summed and one not; what only readable
 * kernels have; in pages, plain and with an interval mask; with each_feature also each feature alone. */
static void add_row(request_list *list, const variant *v, int32_t type, bool each_feature) {
    const uint32_t all = (2 * DLATTN_FEATURE_DROPOUT - 1) & ~v->avoided & ~(v->uncapped ? DLATTN_FEATURE_SOFTCAP : 0);
    const bool other = type == DLATTN_T_F16;
    const specialisation plain = {.aligned = true, .split = other, .reduce_dq = other, .features = v->needed};
    const specialisation everything = {.split = !other, .reduce_dq = !other, .features = all};
    add_specialised(list, v, type, &plain);
    add_specialised(list, v, type, &everything);
    if (!v->tuned && list->arch >= 80 && (type == DLATTN_T_F32 || v->kernel == DLATTN_KERNEL_DBIAS)) {
        const specialisation tf32 = {.tf32 = true};
        add_specialised(list, v, type, &tf32);
    }
    if (v->kernel == DLATTN_KERNEL_FORWARD && v->pages) {
        specialisation paged = {.aligned = true, .split = v->small, .packed = v->small, .paged = true, .features = v->needed};
        add_specialised(list, v, type, &paged);
        paged.features |= DLATTN_FEATURE_INTERVAL;
        add_specialised(list, v, type, &paged);
    }
    for (uint32_t feature = 1; each_feature && feature <= all; feature *= 2) {
        const specialisation one = {.aligned = true, .reduce_dq = true, .features = feature,
                                    .bias = feature == DLATTN_FEATURE_BIAS ? DLATTN_BIAS_BY_TILES : 0,
                                    .dbias = feature == DLATTN_FEATURE_BIAS};
        add_specialised(list, v, type, &one);
    }
}

int32_t dlattn__variants_requests(kernel_request *out, const variant **rows, int32_t capacity, int32_t arch) {
    static const struct {
        const char *file, *entry;
    } plain[] = {{"blank.cu", "blank"},   {"backward_prepare.cu", "backward_prepare"}, {"backward_prepare.cu", "dsinks"},
                 {"combine.cu", "combine"}, {"dropout_mask.cu", "dropout_mask"},       {"kv_append.cu", "kv_append"},
                 {"merge.cu", "merge"},   {"rotary.cu", "rotary"}};
    request_list list = {.out = out, .rows = rows, .capacity = capacity, .arch = arch};
    const variant *v;
    for (size_t n = 0; n < sizeof plain / sizeof plain[0]; n++) {
        kernel_request r = dlattn__plain_request(plain[n].file, plain[n].entry);
        add(&list, &r, NULL);
    }
    for (int64_t head = 32; head <= 256; head += 32) {
        kernel_request r = dlattn__convert_request(head);
        add(&list, &r, NULL);
    }
    for (int32_t n = 0; (v = dlattn__variant_row(n)); n++) {
        if (arch < v->first_arch || arch > v->last_arch) continue;
        if (v->tensor_maps && !(v->avoided & DLATTN_FEATURE_SEGMENTS)) {
            kernel_request r = dlattn__segments_request(v);
            add(&list, &r, NULL);
        }
        for (int32_t type = DLATTN_T_F16; type <= DLATTN_T_F32; type++)
            if (v->types & 1u << type)
                add_row(&list, v, type, v->tuned && arch == dlattn__variant_home(v) && type == DLATTN_T_BF16);
    }
    return list.count;
}
