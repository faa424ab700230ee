/* variants.h: the table of kernels, and who of it serves a problem on a device. */
#ifndef DLATTN_CUDA_VARIANTS_H
#define DLATTN_CUDA_VARIANTS_H

#include <stdbool.h>

#include "backend.h"
#include "device.h"
#include "function.h"

/* What a kernel of the table does. */
enum {
    DLATTN_KERNEL_FORWARD = 1, /* out, lse; or parts of them */
    DLATTN_KERNEL_BACKWARD,    /* dk and dv, and with DQ=1 sums dq in the workspace */
    DLATTN_KERNEL_DQ,          /* dq, stationary on the rows */
    DLATTN_KERNEL_DBIAS        /* dbias, stationary on its tiles */
};

/* How a dense bias reaches a tuned kernel. */
enum {
    DLATTN_BIAS_BY_ELEMENTS = 0, /* any strides; also when there is none */
    DLATTN_BIAS_BY_TILES = 1,    /* q's type, aligned rows: through shared memory */
    DLATTN_BIAS_BY_FLOAT_TILES = 2 /* the same of float32 */
};

/* How a row is specialised for a problem. */
typedef struct specialisation {
    bool aligned;   /* rows of whole 16-byte pieces */
    bool split;     /* forward: the keys are cut, parts go to the workspace */
    bool packed;    /* forward: a tile's rows are (i, head of the group) */
    bool reduce_dq; /* backward: dq is summed by reductions */
    bool dbias;     /* backward: dbias is written by the main pass */
    bool tf32;      /* readable kernels: products on tensor cores */
    bool paged;     /* forward: keys lie in pages */
    bool mask_pieces; /* rows of the mask tensor are 16-byte pieces */
    bool cramped;   /* forward: no room for what kernels with tensor maps are told of segments */
    int32_t bias;   /* DLATTN_BIAS_BY_X */
    uint32_t features; /* DLATTN_FEATURE_X */
} specialisation;

enum { DLATTN_MAX_CHOICES = 6 };

/* One row: a kernel with the tile that was best. Its launches have 32 * warps threads. */
typedef struct variant {
    const char *name;  /* the family that the option "cuda_variant" forces; several rows share it */
    const char *file, *entry;
    int32_t kernel;    /* DLATTN_KERNEL_X */
    int32_t first_arch, last_arch;
    uint32_t types;    /* of q, one bit per DLATTN_T_X */
    int32_t head;      /* the largest D and E */
    bool small;        /* only where its tile holds all rows of a key head, or larger tiles would be too few; not where rows are chosen
                          by estimated times, and not by the name of its family alone */
    uint32_t avoided;  /* DLATTN_FEATURE_X that another row computes faster */
    int32_t rows, keys, warps;
    int32_t residents; /* blocks that share a multiprocessor */
    kernel_define choices[DLATTN_MAX_CHOICES]; /* what else the kernel's author left open; the rest is zero */
    /* Dynamic shared memory for padded head sizes; INT32_MAX: not this row. NULL: none. */
    int32_t (*smem_bytes)(const struct variant *v, int64_t head_d, int64_t head_e, const struct specialisation *how);
    bool tuned;        /* for tensor cores, specialised by head sizes and features; else readable and general */
    const char *bench; /* the file of bench/results that timed the tile: there it must not spill; "": none did yet */
    int32_t stack_bytes; /* a debt: what it is known to spill there all the same; a test fails on more. 0 is the aim */
    uint32_t needed;   /* DLATTN_FEATURE_X without any of which another row is faster; 0: none */
    bool pages;        /* may keys lie in pages? */
    bool tensor_maps;  /* fetches tiles by the copy engine; then it neither packs rows nor splits keys */
    uint32_t uncapped; /* DLATTN_FEATURE_X that together with a softcap would need more registers than there are */
} variant;

/* The row that computes `kernel` of p on the device, or NULL with the reasons in `note`: the first one that does; of the forward on
 * Hopper, where all rows have been timed, the one that is estimated to be the fastest (estimate.h). */
const variant *dlattn__variant_for(int32_t kernel, const problem *p, const specialisation *how,
                                   const cuda_device *device, char *note, int64_t note_bytes);

/* The most pieces of keys that any row makes of a forward on the device. */
int64_t dlattn__variants_most_splits(const problem *p, const specialisation *how, const cuda_device *device);

/* The row's name for people and for the option: FAMILY:ROWSxKEYSxWARPSxSTAGES. The option forces every row whose name begins
 * as it does; rows of one name differ in their largest head size alone. */
enum { DLATTN_VARIANT_NAME = 64 };
void dlattn__variant_name(char out[DLATTN_VARIANT_NAME], const variant *v);
/* Why a row does not serve problems with these features; NULL when it does. */
const char *dlattn__variant_avoids(const variant *v, uint32_t features);

/* The request of a row. D and E are those of the problem. */
kernel_request dlattn__variant_request(const variant *v, int32_t type, int64_t D, int64_t E, const specialisation *how);

/* For the test that compiles everything: requests for `arch` that between them cover each row, each of its types and each
 * feature, alone and all together; request n of the answer belongs to row `rows[n]`. Returns how many there are. */
int32_t dlattn__variants_requests(kernel_request *out, const variant **rows, int32_t capacity, int32_t arch);

/* D or E as the row's kernel computes it. */
int64_t dlattn__padded_head(const variant *v, int64_t size);

/* How many tiles of keys are in shared memory at once. */
int64_t dlattn__variant_stages(const variant *v);

/* Blocks of a cluster; they have neighbouring keys. */
int64_t dlattn__variant_cluster(const variant *v);

/* Bytes of dynamic shared memory of the row for head sizes D and E. */
int32_t dlattn__variant_smem(const variant *v, int64_t D, int64_t E, const specialisation *how);

/* The architecture on which the row's tile was chosen; where none was, the oldest that it is written for. */
int32_t dlattn__variant_home(const variant *v);

/* Row n of the table; NULL past its end. */
const variant *dlattn__variant_row(int32_t n);

/* Requests of the kernels that have no variants (blank, combine and so on), by entry. */
kernel_request dlattn__plain_request(const char *file, const char *entry);

/* What tells a forward with tensor maps of the segments, by 64 rows and by the row's tiles of keys. */
kernel_request dlattn__segments_request(const variant *v);

/* What turns the sum of dq into dq, for the padded head size of the kernel that summed. */
kernel_request dlattn__convert_request(int64_t head_d);

#endif
