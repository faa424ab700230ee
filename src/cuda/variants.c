/* variants.c: the table of kernels, and who of it serves a problem on a device.
 *
 * The first row that accepts a problem computes it; so the table goes from the fastest to the most capable. */
#include "variants.h"

#include <stdio.h>
#include <string.h>

#include "arguments.h"
#include "options.h"

#define F16 (1u << DLATTN_T_F16)
#define HALVES (F16 | 1u << DLATTN_T_BF16)
#define ALL_TYPES (HALVES | 1u << DLATTN_T_F32)
#define NEWEST 9999

static int64_t choice(const variant *v, const char *name, int64_t otherwise) {
    for (int32_t n = 0; n < DLATTN_MAX_CHOICES && v->choices[n].name; n++)
        if (strcmp(v->choices[n].name, name) == 0) return v->choices[n].value;
    return otherwise;
}

/* Q, the ring of K and V, then 8 bytes per row and 16 per warp. The result passes through the memory of the tiles: where
 * it does not fit, the row does not serve. */
static int32_t forward_sm80_smem(const variant *v, int64_t head_d, int64_t head_e, uint32_t features) {
    const int64_t tiles = 2 * v->rows * head_d + 2 * choice(v, "STAGES", 1) * v->keys * (head_d + head_e);
    const int64_t segments = features & DLATTN_FEATURE_SEGMENTS ? 16 * v->keys + 32 * v->warps : 0;
    if (2 * v->rows * head_e > tiles) return INT32_MAX;
    return (int32_t)(tiles + 8 * v->rows + 16 * v->warps + segments);
}

/* K and V, the ring of Q and dout, dS, P where warps share rows, then statistics of the rows and segments. */
static int32_t backward_sm80_smem(const variant *v, int64_t head_d, int64_t head_e, uint32_t features) {
    const int64_t stages = choice(v, "STAGES", 2), square = 2 * v->rows * v->keys;
    int64_t bytes = 2 * (v->keys + stages * v->rows) * (head_d + head_e) + choice(v, "DS_STAGES", 1) * square;
    if (choice(v, "ROW_WARPS", 1) > 1) bytes += square;
    bytes += stages * v->rows * 12 + 16;
    if (features & DLATTN_FEATURE_SEGMENTS) bytes += stages * v->rows * 8 + v->keys * 8;
    return (int32_t)bytes;
}

#define GENERIC(kernel, file, entry) \
    {"generic", file, entry, kernel, 75, NEWEST, ALL_TYPES, 256, 64, 64, 8, 1, {{0}}, NULL, false, ""}

#define FORWARD(first, last, types, head, rows, keys, warps, residents)                                             \
    {"sm80", "forward_sm80.cu", "forward_sm80", DLATTN_KERNEL_FORWARD, first, last, types, head, rows, keys, warps, \
     residents, {{"STAGES", 1}, {"Q_REGISTERS", 0}}, forward_sm80_smem, true, ""}

#define BACKWARD(head, rows, keys, warps, row_warps, ...)                                                             \
    {"sm80", "backward_sm80.cu", "backward_sm80", DLATTN_KERNEL_BACKWARD, 80, NEWEST, HALVES, head, rows, keys, warps, 1, \
     {{"ROW_WARPS", row_warps}, __VA_ARGS__}, backward_sm80_smem, true, ""}

static const variant table[] = {
    FORWARD(80, NEWEST, HALVES, 64, 128, 128, 4, 2),
    FORWARD(80, NEWEST, HALVES, 128, 128, 64, 4, 2),
    FORWARD(80, NEWEST, HALVES, 256, 128, 64, 8, 1),
    FORWARD(80, NEWEST, HALVES, 256, 64, 64, 4, 1), /* for less shared memory */
    FORWARD(75, 79, F16, 64, 128, 64, 4, 1),
    FORWARD(75, 79, F16, 128, 64, 64, 4, 1),
    FORWARD(75, 79, F16, 192, 64, 32, 4, 1),
    BACKWARD(32, 32, 128, 4, 1, {"BLOCKS", 2}, {"DQ_COLUMN_WARPS", 2}),
    BACKWARD(64, 32, 128, 4, 1, {"BLOCKS", 2}, {"DS_STAGES", 2}),
    BACKWARD(96, 64, 64, 4, 1, {"BLOCKS", 2}),
    BACKWARD(128, 64, 128, 8, 2, {"STAGES", 2}),
    BACKWARD(256, 64, 64, 8, 4, {"STAGES", 2}),
    BACKWARD(256, 64, 64, 8, 4, {"STAGES", 1}), /* for less shared memory */
    GENERIC(DLATTN_KERNEL_FORWARD, "generic_forward.cu", "forward_generic"),
    GENERIC(DLATTN_KERNEL_BACKWARD, "generic_dkdv.cu", "backward_generic_dkdv"),
    GENERIC(DLATTN_KERNEL_DQ, "generic_dq.cu", "backward_generic_dq"),
    GENERIC(DLATTN_KERNEL_DBIAS, "dbias_generic.cu", "dbias_generic"),
};
enum { NUM_VARIANTS = (int)(sizeof table / sizeof table[0]) };

/* Few sizes, so that few kernels are compiled. */
int64_t dlattn__padded_head(const variant *v, int64_t size) {
    if (v->kernel != DLATTN_KERNEL_FORWARD && size > 128) return size > 192 ? 256 : 192;
    return (size + 31) / 32 * 32;
}

static int32_t smem_of(const variant *v, int64_t D, int64_t E, uint32_t features) {
    if (!v->smem_bytes) return 0;
    return v->smem_bytes(v, dlattn__padded_head(v, D), dlattn__padded_head(v, E), features);
}

/* Why the row does not serve the problem; NULL when it does. */
static const char *refusal(const variant *v, const problem *p, const cuda_device *device) {
    if (device->arch < v->first_arch || device->arch > v->last_arch) return "another architecture";
    if (!(v->types & 1u << p->dtype)) return "another type";
    if (p->D > v->head || p->E > v->head) return "a larger head size";
    if (smem_of(v, p->D, p->E, dlattn__features(p)) > device->smem_bytes) return "too little shared memory";
    if (v->kernel == DLATTN_KERNEL_DBIAS && v->tuned && (p->dbias.extent[2] == 1 || p->dbias.extent[3] == 1))
        return "a bias that broadcasts over rows or keys";
    return NULL;
}

const variant *dlattn__variant_for(int32_t kernel, const problem *p, const cuda_device *device, char *note,
                                   int64_t note_bytes) {
    const char *forced = dlattn__option("cuda_variant");
    if (forced && strcmp(forced, "auto") == 0) forced = NULL;
    const char *reason = "no kernel of this name";
    for (int32_t n = 0; n < NUM_VARIANTS; n++) {
        const variant *v = &table[n];
        if (v->kernel != kernel || (forced && strcmp(v->name, forced) != 0)) continue;
        reason = refusal(v, p, device);
        if (!reason) return v;
    }
    snprintf(note, (size_t)note_bytes, "%s: no kernel for it: %s", forced ? forced : "auto", reason);
    return NULL;
}

bool dlattn__variant_named(const char *name) {
    if (strcmp(name, "auto") == 0) return true;
    for (int32_t n = 0; n < NUM_VARIANTS; n++)
        if (strcmp(table[n].name, name) == 0) return true;
    return false;
}

static void define(kernel_request *r, const char *name, int64_t value) {
    r->defines[r->count++] = (kernel_define){name, value};
}

kernel_request dlattn__plain_request(const char *file, const char *entry) {
    kernel_request r;
    memset(&r, 0, sizeof r);
    r.file = file;
    r.entry = entry;
    return r;
}

kernel_request dlattn__convert_request(int64_t head_d) {
    kernel_request r = dlattn__plain_request("convert_dq.cu", "convert_dq");
    define(&r, "HEAD_D", head_d);
    return r;
}

kernel_request dlattn__variant_request(const variant *v, int32_t type, int64_t D, int64_t E, const specialisation *how) {
    kernel_request r = dlattn__plain_request(v->file, v->entry);
    r.smem_bytes = smem_of(v, D, E, how->features);
    define(&r, "TYPE", type);
    if (!v->tuned) { /* few specialisations: features are asked at run time */
        const int64_t head = D > E ? D : E;
        if (v->kernel != DLATTN_KERNEL_DBIAS) define(&r, "HEAD", head <= 64 ? 64 : head <= 128 ? 128 : 256);
        define(&r, "TF32", how->tf32);
        return r;
    }
    define(&r, "HEAD_D", dlattn__padded_head(v, D));
    define(&r, "HEAD_E", dlattn__padded_head(v, E));
    define(&r, "BM", v->rows);
    define(&r, "BN", v->keys);
    define(&r, "WARPS", v->warps);
    for (int32_t n = 0; n < DLATTN_MAX_CHOICES && v->choices[n].name; n++) r.defines[r.count++] = v->choices[n];
    define(&r, "FEATURES", how->features);
    define(&r, "ALIGNED", how->aligned);
    if (v->kernel == DLATTN_KERNEL_FORWARD) define(&r, "SPLIT", how->split);
    if (v->kernel == DLATTN_KERNEL_FORWARD) define(&r, "PACKED", how->packed);
    if (v->kernel == DLATTN_KERNEL_BACKWARD) define(&r, "DQ", how->reduce_dq);
    return r;
}

/* ---- everything there is to compile ---------------------------------------------------------------------------------- */

typedef struct request_list {
    kernel_request *out;
    const variant **rows;
    int32_t count, capacity;
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

/* Plain and with every feature, one of them split or summed and one not; with each_feature also each alone. */
static void add_row(request_list *list, const variant *v, int32_t type, bool each_feature, int32_t arch) {
    const uint32_t all = 2 * DLATTN_FEATURE_DROPOUT - 1;
    const bool other = type == DLATTN_T_F16;
    const specialisation plain = {.aligned = true, .split = other, .reduce_dq = other};
    const specialisation everything = {.split = !other, .reduce_dq = !other, .features = all};
    kernel_request r = dlattn__variant_request(v, type, v->head, v->head, &plain);
    add(list, &r, v);
    r = dlattn__variant_request(v, type, v->head, v->head, &everything);
    add(list, &r, v);
    if (!v->tuned && arch >= 80 && (type == DLATTN_T_F32 || v->kernel == DLATTN_KERNEL_DBIAS)) {
        const specialisation tf32 = {.tf32 = true};
        r = dlattn__variant_request(v, type, v->head, v->head, &tf32);
        add(list, &r, v);
    }
    for (uint32_t feature = 1; each_feature && feature <= all; feature *= 2) {
        const specialisation one = {.aligned = true, .reduce_dq = true, .features = feature};
        r = dlattn__variant_request(v, type, v->head, v->head, &one);
        add(list, &r, v);
    }
}

int32_t dlattn__variants_requests(kernel_request *out, const variant **rows, int32_t capacity, int32_t arch) {
    static const struct {
        const char *file, *entry;
    } plain[] = {{"blank.cu", "blank"},   {"backward_prepare.cu", "backward_prepare"}, {"backward_prepare.cu", "dsinks"},
                 {"combine.cu", "combine"}, {"dropout_mask.cu", "dropout_mask"},       {"merge.cu", "merge"}};
    request_list list = {.out = out, .rows = rows, .capacity = capacity};
    const cuda_device device = dlattn__cuda_device_like(arch);
    for (size_t n = 0; n < sizeof plain / sizeof plain[0]; n++) {
        kernel_request r = dlattn__plain_request(plain[n].file, plain[n].entry);
        add(&list, &r, NULL);
    }
    for (int64_t head = 32; head <= 256; head += head < 128 ? 32 : 64) {
        kernel_request r = dlattn__convert_request(head);
        add(&list, &r, NULL);
    }
    for (int32_t n = 0; n < NUM_VARIANTS; n++) {
        const variant *v = &table[n];
        if (arch < v->first_arch || arch > v->last_arch) continue;
        if (smem_of(v, v->head, v->head, DLATTN_FEATURE_SEGMENTS) > device.smem_bytes) continue;
        /* The two half types differ in one instruction: both are compiled for 8.0, one elsewhere. */
        const bool one_half = v->tuned && arch != 80 && (v->types & HALVES) == HALVES;
        for (int32_t type = DLATTN_T_F16; type <= DLATTN_T_F32; type++)
            if (v->types & 1u << type && !(one_half && type == DLATTN_T_F16))
                add_row(&list, v, type, v->tuned && arch == 80 && type == DLATTN_T_BF16, arch);
    }
    return list.count;
}
