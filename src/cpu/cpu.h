/* cpu.h: what the CPU backend and its kernels share: the job, its work items, and the table of kernels of one ISA.
 *
 * A call is a short list of phases; a phase is a number of independent items run by the thread pool. What an item
 * computes and the order of every sum depend on the problem alone, never on the number of threads. */
#ifndef DLATTN_CPU_H
#define DLATTN_CPU_H

#include "backend.h"
#include "rows.h"

/* How the problem is cut into items. Made by dlattn__cpu_shape from the problem and the kernels' constants alone. */
typedef struct cpu_shape {
    int64_t group_rows;    /* M * (H/G): rows of one (b, g) at most */
    int64_t row_blocks;    /* of item_rows rows, per (b, g) */
    int64_t pieces;        /* parts of the keys, each piece_keys long (a multiple of tile_keys) */
    int64_t piece_keys;
    bool decode;           /* few rows: forward by dot products */
    bool by_sequence;      /* backward: one sequence after the other, because they add into one dbias */
} cpu_shape;

typedef struct cpu_job {
    const problem *p;
    const buffers *x;
    const struct cpu_kernels *kernels;
    cpu_shape shape;
    char *scratch;         /* scratch_bytes for each thread slot */
    int64_t scratch_bytes;
    void *partial_out, *partial_lse; /* forward in pieces: [B*G][row][piece][E padded to lanes] and [B*G][row][piece][2]
                                        (maximum, sum), in `real`; row < group_rows */
    void *delta, *lse2;    /* backward: [B][H][M] in `real`: delta, and lse * log2(e) (+inf for an empty row) */
    void *dq_sum;          /* backward: [piece][B][H][M][D padded to lanes] in `real` */
} cpu_job;

/* One work item: `scratch` is this thread's, 64-byte aligned, contents undefined. */
typedef void cpu_item(const cpu_job *job, int64_t item, void *scratch);

typedef struct cpu_kernels {
    const char *isa, *real;        /* "avx512", "f32" */
    int64_t lanes, real_bytes;
    int64_t tile_keys;             /* pieces of keys are multiples of it */
    int64_t (*item_rows)(const problem *); /* rows of a forward item */
    int64_t decode_rows;           /* the most rows the decode kernel takes */
    bool (*decode_takes)(const problem *); /* are D and E whole units of the decode kernel? */
    int64_t (*forward_scratch)(const problem *); /* bytes per thread, each */
    int64_t (*decode_scratch)(const problem *);
    int64_t (*backward_scratch)(const problem *);
    int64_t (*dbias_scratch)(const problem *);
    cpu_item *forward;    /* items: B*G*row_blocks*pieces */
    cpu_item *decode;     /* items: B*G*pieces */
    cpu_item *combine;    /* items: B*G; joins pieces */
    cpu_item *delta;      /* items: B*H */
    cpu_item *backward;   /* items: B*G*pieces */
    cpu_item *reduce_dq;  /* items: B*H */
    cpu_item *dbias;      /* items: see dlattn__dbias_items; only when bias is broadcast over b, h, i or j */
    cpu_item *dsinks;     /* items: H */
} cpu_kernels;

/* Number of items of the separate dbias phase; 0 when no dimension of the bias is broadcast. */
int64_t dlattn__dbias_items(const problem *p);

/* The best kernels of this machine (or of the forced ISA) for a dtype, NULL when there are none. `pairs`: bfloat16 by
 * dot products of pairs is welcome (decode reads bfloat16 as float32 instead). */
const cpu_kernels *dlattn__cpu_kernels_for(int32_t dtype, bool pairs);
bool dlattn__cpu_isa_available(const char *name);
/* "amx avx512bf16 avx512 avx2 scalar": what this machine and build have, best first. */
void dlattn__cpu_isa_list(char *text, int64_t text_bytes);

/* Cuts the problem into items: forward or backward, as p->op says. */
cpu_shape dlattn__cpu_shape(const problem *p, const cpu_kernels *kernels, bool decode);

/* Host memory for one call: at least `bytes`, 64-byte aligned, or NULL; the last block given back is kept as a spare. */
void *dlattn__scratch_take(uint64_t bytes);
void dlattn__scratch_give_back(void *block);

int32_t dlattn__cpu_merge(const merge_problem *, const merge_part *, void *out, void *lse, const dlattn_exec *);
int32_t dlattn__cpu_dropout_mask(const problem *, const buffers *, const dlattn_exec *);
int32_t dlattn__cpu_kv_append(const append_problem *, const append_buffers *, const dlattn_exec *);
int32_t dlattn__cpu_rotary(const rotary_problem *, const rotary_buffers *, const dlattn_exec *);

/* Rows of no sequence and keys of no sequence: zeros (and lse -inf) in every output that has them. */
void dlattn__cpu_blank(const problem *p, const buffers *x);

/* Address of element (n0, n1, n2, n3) of an operand. */
static inline char *dlattn__at(const operand *o, const void *data, int64_t n0, int64_t n1, int64_t n2, int64_t n3) {
    int64_t offset = n0 * o->stride[0] + n1 * o->stride[1] + n2 * o->stride[2] + n3 * o->stride[3];
    return (char *)data + offset * dlattn__size_of(o->dtype);
}

#endif
