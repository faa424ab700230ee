/* blank.c: what no query and no key computes: zeros (and lse -inf) in rows past a sequence and in tokens of no sequence. */
#include <math.h>
#include <string.h>

#include "cpu.h"

/* Zeros in rows [from, to) of batch b of a [b, token, head, e] output. */
static void zero_rows(const operand *o, void *data, int64_t b, int64_t from, int64_t to) {
    const int64_t bytes = dlattn__size_of(o->dtype);
    for (int64_t token = from; token < to; token++) {
        for (int64_t h = 0; h < o->extent[2]; h++) {
            char *at = dlattn__at(o, data, b, token, h, 0);
            if (o->stride[3] == 1 || o->extent[3] == 1) memset(at, 0, (size_t)(o->extent[3] * bytes));
            else
                for (int64_t e = 0; e < o->extent[3]; e++) memset(at + e * o->stride[3] * bytes, 0, (size_t)bytes);
        }
    }
}

/* -inf in rows [from, to) of batch b of a [b, head, token] output. */
static void empty_lse(const operand *o, void *data, int64_t b, int64_t from, int64_t to) {
    for (int64_t h = 0; h < o->extent[1]; h++) {
        for (int64_t token = from; token < to; token++) {
            char *at = dlattn__at(o, data, b, h, token, 0);
            if (o->dtype == DLATTN_T_F64) *(double *)at = -INFINITY;
            else *(float *)at = -INFINITY;
        }
    }
}

typedef void blank_rows(const operand *o, void *data, int64_t b, int64_t from, int64_t to);

/* Applies `blank` to every row of the output that belongs to no sequence. `query`: the rows are those of q, else of k. */
static void outside(const problem *p, const buffers *x, const operand *o, void *data, int64_t rows, bool query,
                    blank_rows *blank) {
    const bool packed = query ? p->packed_q : p->packed_k;
    int64_t end = 0; /* packed: where the sequence before ended; cu_seqlens never falls */
    if (o->dtype == DLATTN_T_NONE) return;
    for (int64_t b = 0; b < p->B; b++) {
        const sequence s = dlattn__sequence(p, x, b);
        const int64_t begin = query ? s.q_begin : s.k_begin, used = query ? s.M : s.N;
        if (packed) {
            blank(o, data, 0, end, begin);
            end = begin + used;
        } else {
            blank(o, data, b, used, rows);
        }
    }
    if (packed) blank(o, data, 0, end, rows);
}

void dlattn__cpu_blank(const problem *p, const buffers *x) {
    outside(p, x, &p->dk, x->dk, p->dk.extent[1], false, zero_rows);
    outside(p, x, &p->dv, x->dv, p->dv.extent[1], false, zero_rows);
    outside(p, x, &p->dq, x->dq, p->dq.extent[1], true, zero_rows);
    if (p->op != DLATTN_OP_FORWARD) return; /* the backward only reads out and lse */
    outside(p, x, &p->out, x->out, p->out.extent[1], true, zero_rows);
    outside(p, x, &p->lse, x->lse, p->lse.extent[2], true, empty_lse);
}
