/* variants.c: the table of kernels, and who of it serves a problem on a device.
 *
 * The first row that accepts a problem computes it; so the table goes from the fastest to the most capable. Only Hopper's forwards
 * are chosen by their estimated times (estimate.h). Tuned rows are in variants_forward.c and variants_backward.c. */
#include "variants.h"

#include <stdio.h>
#include <string.h>

#include "estimate.h"
#include "maps.h"
#include "options.h"
#include "variants_rows.h"

#define GENERIC(kernel, file, entry) \
    {"generic", file, entry, kernel, 75, NEWEST, ALL_TYPES, 256, false, 0, 64, 64, 8, 1, {{0}}, NULL, false, "", 0, 0, true, false, 0}

static const variant readable[] = {
    GENERIC(DLATTN_KERNEL_FORWARD, "generic_forward.cu", "forward_generic"),
    GENERIC(DLATTN_KERNEL_BACKWARD, "generic_dkdv.cu", "backward_generic_dkdv"),
    GENERIC(DLATTN_KERNEL_DQ, "generic_dq.cu", "backward_generic_dq"),
    GENERIC(DLATTN_KERNEL_DBIAS, "dbias_generic.cu", "dbias_generic"),
};

/* All rows in their order; NULL behind the last. */
static inline const variant *row(int32_t n) {
    if (n < dlattn__forward_rows.count) return dlattn__forward_rows.first + n;
    n -= dlattn__forward_rows.count;
    if (n < dlattn__backward_rows.count) return dlattn__backward_rows.first + n;
    n -= dlattn__backward_rows.count;
    return n < (int32_t)(sizeof readable / sizeof readable[0]) ? readable + n : NULL;
}

const variant *dlattn__variant_row(int32_t n) { return row(n); }

int32_t dlattn__variant_home(const variant *v) { return v->bench[0] ? 90 : v->first_arch; }

int64_t dlattn__variant_stages(const variant *v) { return choice(v, "STAGES", 1); }

int64_t dlattn__variant_cluster(const variant *v) { return choice(v, "CLUSTER", 1); }

void dlattn__variant_name(char out[DLATTN_VARIANT_NAME], const variant *v) {
    snprintf(out, DLATTN_VARIANT_NAME, "%s:%dx%dx%dx%d", v->name, (int)v->rows, (int)v->keys, (int)v->warps,
             (int)dlattn__variant_stages(v));
}

/* ---- the choice ------------------------------------------------------------------------------------------------------- */

/* Few sizes, so that few kernels are compiled. Warps of the backward that share keys take 16 columns each, or twice. */
int64_t dlattn__padded_head(const variant *v, int64_t size) {
    const int64_t shared = v->kernel == DLATTN_KERNEL_BACKWARD ? 16 * choice(v, "ROW_WARPS", 1) : 0;
    const int64_t unit = v->tensor_maps ? 64 : shared > 32 ? shared : 32;
    if (v->kernel != DLATTN_KERNEL_FORWARD && size > 128) return size > 192 ? 256 : 192;
    return (size + unit - 1) & -unit; /* a power of two */
}

int32_t dlattn__variant_smem(const variant *v, int64_t D, int64_t E, const specialisation *how) {
    if (!v->smem_bytes) return 0;
    return v->smem_bytes(v, dlattn__padded_head(v, D), dlattn__padded_head(v, E), how);
}

/* Decoding, where the heads of a group share a tile; or so few tiles of twice the rows, or in the backward four times the
 * keys, that half of the GPU would idle. */
static bool is_small(const variant *v, const problem *p, const cuda_device *device) {
    if (v->kernel == DLATTN_KERNEL_BACKWARD)
        return 2 * p->B * p->G * ((p->N + 4 * v->keys - 1) / (4 * v->keys)) <= device->multiprocessors;
    const int64_t tiles = p->B * p->H * ((p->M + 2 * v->rows - 1) / (2 * v->rows));
    return (p->G > 0 && p->M * (p->H / p->G) <= v->rows) || 2 * tiles <= device->multiprocessors;
}

/* Why a kernel that fetches tiles by tensor maps does not serve the problem. */
static const char *refusal_of_maps(int32_t kernel, const problem *p, const specialisation *how, const cuda_device *device) {
    if (!device->tensor_maps) return "a driver without tensor maps";
    if (!how->aligned) return "rows that are not aligned";
    if (kernel == DLATTN_KERNEL_FORWARD && !(p->scale > 0)) return "a scale that is not positive";
    if (p->mask.dtype && !how->mask_pieces) return "a mask whose rows are not 16-byte pieces";
    if (kernel == DLATTN_KERNEL_FORWARD && how->cramped) return "too little workspace for segments";
    if (p->bias.dtype && how->bias != DLATTN_BIAS_BY_TILES) return "a bias of another type, or rows of it that are not aligned";
    if (p->alibi_slopes.dtype && p->scale < 1e-6 && p->scale > -1e-6) return "a scale by which slopes cannot be divided";
    if (p->dropout_threshold && p->flags & DLATTN_POSITIONS) return "dropout that is counted from positions";
    return dlattn__maps_refusal(p);
}

static const char *lack_of_feature(const variant *v, uint32_t features) {
    return v->needed && !(v->needed & features) ? "no feature that it is for" : NULL;
}

const char *dlattn__variant_avoids(const variant *v, uint32_t features) {
    if (features & v->avoided) return "a feature that is slow in it";
    if (features & DLATTN_FEATURE_SOFTCAP && features & v->uncapped) return "a softcap with a feature that leaves it no registers";
    /* Hopper's rows that are made for a feature are compiled with it alone. */
    return v->tensor_maps ? lack_of_feature(v, features) : NULL;
}

/* Why the row does not serve the problem; NULL when it does. */
static const char *refusal(const variant *v, const problem *p, const specialisation *how, const cuda_device *device) {
    if (device->arch < v->first_arch || device->arch > v->last_arch) return "another architecture";
    if (!(v->types & 1u << p->dtype)) return "another type";
    if (p->D > v->head || p->E > v->head) return "a larger head size";
    const char *reason = dlattn__variant_avoids(v, how->features);
    if (reason) return reason;
    if (p->page && !v->pages) return "paged keys";
    if (v->tensor_maps) {
        reason = refusal_of_maps(v->kernel, p, how, device);
        if (reason) return reason;
    }
    if (dlattn__variant_smem(v, p->D, p->E, how) > device->smem_bytes) return "too little shared memory";
    if (v->kernel == DLATTN_KERNEL_DBIAS && v->tuned && (p->dbias.extent[2] == 1 || p->dbias.extent[3] == 1))
        return "a bias that broadcasts over rows or keys";
    return NULL;
}

/* Why another row is better for the problem, though this one could compute it; NULL when it is not. */
static const char *reluctance(const variant *v, const problem *p, const specialisation *how, const cuda_device *device) {
    if (v->small && !is_small(v, p, device)) return "a larger problem";
    return lack_of_feature(v, how->features);
}

/* Does the option name the row: its family, or a tile too? A name ends where a number does. */
static bool is_named(const variant *v, const char *option) {
    char name[DLATTN_VARIANT_NAME];
    const size_t length = strlen(option);
    if (strcmp(option, v->name) == 0) return true; /* most often, and at once */
    if (strncmp(option, v->name, strlen(v->name)) != 0) return false;
    dlattn__variant_name(name, v);
    return strncmp(name, option, length) == 0 && strchr(":x", name[length]);
}

/* Of the tuned rows that serve a forward the one that is estimated to take the least time; NULL when there is none. Rows for much
 * larger heads are not asked: all they could do is waste. */
static const variant *find_fastest(const problem *p, const specialisation *how, const cuda_device *device) {
    const int64_t size = p->D > p->E ? p->D : p->E, most = (size + 63) / 64 * 64 + 64;
    const variant *best = NULL, *v;
    double shortest = 0;
    for (int32_t n = 0; (v = row(n)); n++) {
        if (v->kernel != DLATTN_KERNEL_FORWARD || !v->tuned || v->head > most || refusal(v, p, how, device)) continue;
        const double time = dlattn__estimate(v, p, how, device);
        if (!best || time < shortest) best = v, shortest = time;
    }
    return best;
}

/* All that find_fastest depends on. */
typedef struct choice_key {
    int64_t sizes[14];
    uint32_t flags;
    int32_t dtype;
    cuda_device device;
    specialisation how;
    bool packed, paged, mapped, placed; /* q is packed; keys lie in pages; tensor maps serve; positions are tensors */
} choice_key;

static void fill_key(choice_key *key, const problem *p, const specialisation *how, const cuda_device *device) {
    memset(key, 0, sizeof *key); /* the padding too */
    const int64_t sizes[14] = {p->B, p->H, p->G, p->M, p->N, p->D, p->E, p->window_left, p->window_right, p->block_size, p->block_count,
                               p->q_start, p->k_start, p->q.extent[1]};
    memcpy(key->sizes, sizes, sizeof sizes);
    key->flags = p->flags;
    key->dtype = p->dtype;
    key->device = *device;
    key->how = *how;
    key->packed = p->packed_q;
    key->paged = p->page > 0;
    key->mapped = !refusal_of_maps(DLATTN_KERNEL_FORWARD, p, how, device);
    key->placed = p->q_starts.dtype || p->k_starts.dtype;
}

/* Estimates take most of a microsecond together, so each thread remembers its last few. They follow from the key alone. */
static const variant *fastest(const problem *p, const specialisation *how, const cuda_device *device) {
    enum { REMEMBERED = 4 };
    static _Thread_local struct {
        choice_key key;
        const variant *found;
    } recent[REMEMBERED];
    static _Thread_local uint32_t next;
    choice_key key;
    fill_key(&key, p, how, device);
    for (int32_t n = 0; n < REMEMBERED; n++)
        if (recent[n].found && memcmp(&recent[n].key, &key, sizeof key) == 0) return recent[n].found;
    const variant *found = find_fastest(p, how, device);
    recent[next % REMEMBERED].found = found;
    recent[next++ % REMEMBERED].key = key;
    return found;
}

int64_t dlattn__variants_most_splits(const problem *p, const specialisation *how, const cuda_device *device) {
    int64_t most = 1;
    const variant *v;
    for (int32_t n = 0; (v = row(n)); n++) {
        if (v->kernel != DLATTN_KERNEL_FORWARD || refusal(v, p, how, device)) continue;
        const tiling t = dlattn__tile(v, p, how, device);
        if (t.splits > most) most = t.splits;
    }
    return most;
}

const variant *dlattn__variant_for(int32_t kernel, const problem *p, const specialisation *how,
                                   const cuda_device *device, char *note, int64_t note_bytes) {
    const char *forced = dlattn__option("cuda_variant");
    if (forced && strcmp(forced, "auto") == 0) forced = NULL;
    const bool by_tile = forced && strchr(forced, ':');
    const char *reason = "no kernel of this name";
    if (!forced && kernel == DLATTN_KERNEL_FORWARD && device->arch == 90) {
        const variant *best = fastest(p, how, device);
        if (best) return best;
    }
    const variant *v;
    for (int32_t n = 0; (v = row(n)); n++) {
        if (v->kernel != kernel || (forced && ((v->small && !by_tile) || !is_named(v, forced)))) continue;
        reason = refusal(v, p, how, device);
        if (!reason && !by_tile) reason = reluctance(v, p, how, device);
        if (!reason) return v;
    }
    snprintf(note, (size_t)note_bytes, "%s: no kernel for it: %s", forced ? forced : "auto", reason);
    return NULL;
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

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

kernel_request dlattn__segments_request(const variant *v) {
    kernel_request r = dlattn__plain_request("segments_sm90.cu", "segments_sm90");
    define(&r, "BN", v->keys);
    return r;
}

kernel_request dlattn__variant_request(const variant *v, int32_t type, int64_t D, int64_t E, const specialisation *how) {
    kernel_request r = dlattn__plain_request(v->file, v->entry);
    r.smem_bytes = dlattn__variant_smem(v, D, E, how);
    define(&r, "TYPE", type);
    if (!v->tuned) { /* few specialisations: features are asked at run time */
        const int64_t head = D > E ? D : E;
        if (v->kernel != DLATTN_KERNEL_DBIAS) define(&r, "HEAD", head <= 64 ? 64 : head <= 128 ? 128 : 256);
        define(&r, "TF32", how->tf32);
        if (v->kernel == DLATTN_KERNEL_FORWARD) define(&r, "PAGED", how->paged);
        return r;
    }
    define(&r, "HEAD_D", dlattn__padded_head(v, D));
    define(&r, "HEAD_E", dlattn__padded_head(v, E));
    define(&r, "BM", v->rows);
    define(&r, "BN", v->keys);
    define(&r, "WARPS", v->warps);
    for (int32_t n = 0; n < DLATTN_MAX_CHOICES && v->choices[n].name; n++) r.defines[r.count++] = v->choices[n];
    define(&r, "FEATURES", how->features);
    if (v->tensor_maps && v->kernel == DLATTN_KERNEL_BACKWARD) define(&r, "DQ", how->reduce_dq);
    if (v->tensor_maps) return r; /* rows are aligned, neither packed nor are their keys split */
    define(&r, "ALIGNED", how->aligned);
    switch (v->kernel) {
    case DLATTN_KERNEL_FORWARD:
        define(&r, "SPLIT", how->split);
        define(&r, "PACKED", how->packed);
        define(&r, "BIAS", how->bias);
        define(&r, "PAGED", how->paged);
        break;
    case DLATTN_KERNEL_BACKWARD:
        define(&r, "DQ", how->reduce_dq);
        define(&r, "BIAS_TILE", how->bias == DLATTN_BIAS_BY_TILES);
        define(&r, "DBIAS", how->dbias);
        break;
    case DLATTN_KERNEL_DBIAS: define(&r, "BIAS_TILE", how->bias == DLATTN_BIAS_BY_TILES); break;
    default: break;
    }
    return r;
}
