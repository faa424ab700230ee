/* forward_tmpl.c: forward attention of one work item: up to item_rows query rows by one piece of their keys.
 *
 * Online softmax (Milakov and Gimelshein, 2018), keys along the lanes:
 *
 *     for each tile of keys:            pack K^T and V once for all rows of the item
 *         for each SCORE_ROWS rows:     S = Q K^T;  P = 2^(t(S) - m), m and l updated;  O += P V
 *
 * Masks with an interval form only shorten the loops (block_range); the select touches the vectors at the edges. */
#include "dropout_tmpl.h"
#include "finish_tmpl.h"
#include "tile_tmpl.h"

typedef struct forward_scratch {
    row *rows;                 /* [item_rows] */
    elem *q;                   /* [item_rows][ldq]: the broadcast side of S */
    elem *k;                   /* panels of K^T: [FORWARD_KEYS / NR][pairs(D)][NR] */
    elem *v;                   /* panels of V: [E / NR][pairs(FORWARD_KEYS)][NR] */
    real *scores;              /* [SCORE_ROWS][LD_SCORES] */
    elem *p;                   /* bf16: P as pairs along the keys, [SCORE_ROWS][LD_SCORES / 2]; otherwise scores itself */
    real *out;                 /* [item_rows][ldo]: accumulator O */
    real *sum;                 /* [item_rows][L]: l, still spread over the lanes by key % L */
    real *maximum;             /* [item_rows]: m, log2 units */
    uint8_t *keep;             /* [BM][LD_SCORES]: dropout */
    elem *pack_block;          /* [L][pairs(D) padded] */
    real *pack_row, *bias_row; /* [2 * E padded]; [LD_SCORES] */
    uint8_t *keep_row;         /* [LD_SCORES] */
    char *paged_rows;          /* [FORWARD_KEYS][D or E] of K's type: keys that lie in more than one page */
    int64_t ldq, ldo;
} forward_scratch;

static int64_t carve(forward_scratch *s, const problem *p, char *base) {
    char *at = base;
    const int64_t rows = item_rows(p);
    s->ldq = pairs(p->D);
    s->ldo = pad_lanes(p->E);
    s->rows = CARVE(&at, row, rows);
    s->q = CARVE(&at, elem, rows * s->ldq);
    s->k = CARVE(&at, elem, FORWARD_KEYS * s->ldq);
    s->v = CARVE(&at, elem, pairs(FORWARD_KEYS) * pad_panel(p->E));
    s->scores = CARVE(&at, real, SCORE_ROWS * LD_SCORES);
    s->p = PAIR == 1 ? (elem *)s->scores : CARVE(&at, elem, SCORE_ROWS * LD_SCORES / 2);
    s->out = CARVE(&at, real, rows * s->ldo);
    s->sum = CARVE(&at, real, rows * L);
    s->maximum = CARVE(&at, real, rows);
    s->keep = CARVE(&at, uint8_t, p->dropout_threshold ? BM * LD_SCORES : 0);
    s->pack_block = CARVE(&at, elem, L * pad_lanes(s->ldq));
    s->pack_row = CARVE(&at, real, 2 * pad_panel(p->E));
    s->bias_row = CARVE(&at, real, LD_SCORES);
    s->keep_row = CARVE(&at, uint8_t, LD_SCORES);
    s->paged_rows = CARVE(&at, char, p->page ? FORWARD_KEYS * (p->D > p->E ? p->D : p->E) * dlattn__size_of(p->dtype) : 0);
    return at - base;
}

int64_t NAME(forward_scratch)(const problem *p);
int64_t NAME(forward_scratch)(const problem *p) {
    forward_scratch s;
    return carve(&s, p, (char *)0);
}

/* Lines of one row of n numbers, `bytes` each, when they lie together. */
#define EACH_LINE(at, stride, bytes, n, ask)                                                        \
    do {                                                                                            \
        if ((stride) == 1)                                                                          \
            for (int64_t line_ = 0; line_ < (n) * (bytes); line_ += 64) ask((at) + line_);          \
    } while (0)

enum { ROWS_AHEAD = 8 };

static const char *query_row(const cpu_job *job, const row_group *group, const row *r) {
    return dlattn__at(&job->p->q, job->x->q, group->b, group->sequence.q_begin + r->i, r->h, 0);
}

static char *out_row(const cpu_job *job, const row_group *group, const row *r) {
    return dlattn__at(&job->p->out, job->x->out, group->b, group->sequence.q_begin + r->i, r->h, 0);
}

/* The rows of the item: their limits, Q as the broadcast operand, and an empty accumulator. */
static void begin_rows(forward_scratch *s, const cpu_job *job, const row_group *group, int64_t first, int64_t count) {
    const problem *p = job->p;
    dlattn__rows_fill(s->rows, p, group, first, count);
    for (int64_t n = 0; n < count; n++) {
        if (n + ROWS_AHEAD < count)
            EACH_LINE(query_row(job, group, &s->rows[n + ROWS_AHEAD]), p->q.stride[3], dlattn__size_of(p->q.dtype), p->D,
                      prefetch);
        elem_row_load(s->q + n * s->ldq, query_row(job, group, &s->rows[n]), p->q.stride[3], p->q.dtype, p->D);
        s->maximum[n] = SCORE_FLOOR;
    }
    memset(s->q + count * s->ldq, 0, (size_t)((pad_rows(count) - count) * s->ldq) * sizeof(elem));
    memset(s->out, 0, (size_t)(pad_rows(count) * s->ldo) * sizeof(real));
    memset(s->sum, 0, (size_t)(count * L) * sizeof(real));
}

/* Keys that will be packed next. Each register tile of rows asks for its share of them, so that packing finds them in L2
 * and memory works while the products do: K's rows before QK and V's before PV, since a core has few requests in flight. */
typedef struct next_keys {
    const char *k, *v;         /* first row still to be asked for */
    int64_t k_bytes, v_bytes;  /* from row to row */
    int64_t rows, share;       /* rows left; rows for each register tile */
} next_keys;

static next_keys next_keys_make(const cpu_job *job, const row_group *group, int64_t j0, int64_t end, int64_t parts) {
    const problem *p = job->p;
    const int64_t bytes = dlattn__size_of(p->dtype);
    next_keys next = {.rows = end - j0 < FORWARD_KEYS ? end - j0 : FORWARD_KEYS, .k_bytes = p->k.stride[1] * bytes,
                      .v_bytes = p->v.stride[1] * bytes};
    if (next.rows <= 0 || p->k.stride[3] != 1 || p->v.stride[3] != 1 || !dlattn__keys_together(p, j0, next.rows)) {
        next.rows = 0;
        return next;
    }
    next.k = dlattn__key_row(p, job->x, &p->k, job->x->k, group, j0);
    next.v = dlattn__key_row(p, job->x, &p->v, job->x->v, group, j0);
    next.share = (next.rows + parts - 1) / parts;
    return next;
}

static void ask_rows(const char *first, int64_t row_bytes, int64_t rows, int64_t bytes) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t at = 0; at < bytes; at += 64) prefetch_far(first + r * row_bytes + at);
}

/* Rows of K or V: where they lie, or a compact copy when pages part them. */
typedef struct key_rows {
    const char *first;
    int64_t row_stride, column_stride;
} key_rows;

static key_rows key_rows_of(forward_scratch *s, const cpu_job *job, const row_group *group, const operand *o, const void *data,
                            int64_t j0, int64_t n) {
    const int64_t columns = o->extent[3];
    if (dlattn__keys_together(job->p, j0, n))
        return (key_rows){dlattn__key_row(job->p, job->x, o, data, group, j0), o->stride[1], o->stride[3]};
    dlattn__key_rows_copy(s->paged_rows, job->p, job->x, o, data, group, j0, n, columns);
    return (key_rows){s->paged_rows, columns, 1};
}

static void pack_tile(forward_scratch *s, const cpu_job *job, const row_group *group, int64_t j0, int64_t n) {
    const problem *p = job->p;
    const key_rows k = key_rows_of(s, job, group, &p->k, job->x->k, j0, n);
    pack_transposed(s->k, k.first, k.row_stride, k.column_stride, p->k.dtype, n, p->D, s->pack_block);
    const key_rows v = key_rows_of(s, job, group, &p->v, job->x->v, j0, n); /* the copy of K is no longer needed */
    pack_panels(s->v, v.first, v.row_stride, v.column_stride, p->v.dtype, n, pairs(n), p->E, s->pack_row);
}

/* A larger maximum: what was summed under the old one shrinks by 2^(old - new). */
static void raise_maximum(real *maximum, real *sum, real *out, int64_t ldo, real to) {
    v shrink = v_exp2(v_set1(*maximum - to));
    v_store(sum, v_mul(v_load(sum), shrink));
    if (*maximum > SCORE_FLOOR) /* else the accumulator is still 0 */
        for (int64_t e = 0; e < ldo; e += L) v_store(out + e, v_mul(v_load(out + e), shrink));
    *maximum = to;
}

/* Scores of one row to P over columns [v0, v1), summing them (before dropout: lse ignores it). */
static void exponentiate(real *S, elem *P, real factor, real maximum, real *sum, const uint8_t *keep, int64_t v0,
                         int64_t v1) {
    v f = v_set1(factor), m = v_set1(-maximum), l = v_load(sum);
    for (int64_t k = v0; k < v1; k += RANGE_STEP) {
        v p = v_exp2(v_fma(v_load(S + k), f, m));
        l = v_add(l, p);
        if (keep) p = v_select(vm_bytes(keep + k), p, v_zero());
#if PAIR == 2
        v p2 = v_exp2(v_fma(v_load(S + k + L), f, m));
        l = v_add(l, p2);
        if (keep) p2 = v_select(vm_bytes(keep + k + L), p2, v_zero());
        v_pair_store(P + k / 2, v_pair_natural(p, p2));
#else
        (void)P;
        v_store(S + k, p);
#endif
    }
    v_store(sum, l);
}

/* The largest of f * S over columns [v0, v1), f > 0. Four chains hide the latency of max. */
static real row_maximum(const real *S, real factor, int64_t v0, int64_t v1) {
    v top[4] = {v_set1(SCORE_FLOOR), v_set1(SCORE_FLOOR), v_set1(SCORE_FLOOR), v_set1(SCORE_FLOOR)};
    int64_t k = v0;
    for (; k + 4 * L <= v1; k += 4 * L)
#pragma GCC unroll 4
        for (int n = 0; n < 4; n++) top[n] = v_max(v_load(S + k + n * L), top[n]);
    for (; k < v1; k += L) top[0] = v_max(v_load(S + k), top[0]);
    real largest = v_hmax(v_max(v_max(top[0], top[1]), v_max(top[2], top[3])));
    return largest > SCORE_FLOOR ? factor * largest : SCORE_FLOOR;
}

/* S to P for the rows of one register tile, `line` in the tile of scores, row n of the item. All maxima come first: their
 * reductions overlap across rows. */
static void softmax_rows(forward_scratch *s, const score_context *c, int64_t n, int64_t line, int64_t count, int64_t j0,
                         const block_range *range, const uint8_t *keep) {
    real factor[MR], maximum[MR];
    for (int64_t i = 0; i < count; i++) {
        real *S = s->scores + (line + i) * LD_SCORES;
        factor[i] = score_row(S, c, &s->rows[n + i], j0, range->v0, range->v1, NULL);
        maximum[i] = row_maximum(S, factor[i], range->v0, range->v1);
    }
    for (int64_t i = 0; i < count; i++) {
        real *sum = s->sum + (n + i) * L, *highest = &s->maximum[n + i];
        if (maximum[i] > *highest) raise_maximum(highest, sum, s->out + (n + i) * s->ldo, s->ldo, maximum[i]);
        exponentiate(s->scores + (line + i) * LD_SCORES, s->p + (line + i) * (LD_SCORES / PAIR), factor[i], *highest, sum,
                     keep ? keep + i * LD_SCORES : NULL, range->v0, range->v1);
    }
}

/* Rows [n, n + count) of the item, at most SCORE_ROWS, by the packed keys [j0, j0 + keys). Each panel of K and of V serves
 * all of these rows while it is in L1. */
static void attend(forward_scratch *s, const score_context *c, int64_t n, int64_t count, int64_t j0, int64_t keys,
                   const uint8_t *keep, next_keys *next) {
    const int64_t ldp = LD_SCORES / PAIR, E = c->p->E, bytes = dlattn__size_of(c->p->dtype);
    const int64_t share = next->rows < next->share ? next->rows : next->share, blocks = (count + MR - 1) / MR;
    block_range range[SCORE_ROWS / MR];
    int64_t k0 = keys, k1 = 0;
    for (int64_t b = 0; b < blocks; b++) {
        range[b] = block_range_make(s->rows + n + b * MR, count - b * MR < MR ? count - b * MR : MR, j0, keys);
        if (range[b].k1 && range[b].k0 < k0) k0 = range[b].k0;
        if (range[b].k1 > k1) k1 = range[b].k1;
    }
    if (k1 <= k0) return;
    ask_rows(next->k, next->k_bytes, share, c->p->D * bytes);
    for (int64_t column = k0 / NR * NR; column < k1; column += NR)
        for (int64_t b = 0; b < blocks; b++)
            if (range[b].k0 < column + NR && range[b].k1 > column)
                gemm(s->scores + b * MR * LD_SCORES + column, LD_SCORES, s->q + (n + b * MR) * s->ldq, s->ldq, 1,
                     s->k + column * s->ldq, s->ldq, count - b * MR, panel_vectors(column, range[b].k1), false);
    for (int64_t b = 0; b < blocks; b++)
        if (range[b].k1)
            softmax_rows(s, c, n + b * MR, b * MR, count - b * MR < MR ? count - b * MR : MR, j0, &range[b],
                         keep ? keep + b * MR * LD_SCORES : NULL);
    ask_rows(next->v, next->v_bytes, share, E * bytes);
    next->k += share * next->k_bytes;
    next->v += share * next->v_bytes;
    next->rows -= share;
    for (int64_t e = 0; e < E; e += NR)
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t first = range[b].k0 / PAIR, last = pairs(range[b].k1);
            if (last > first)
                gemm(s->out + (n + b * MR) * s->ldo + e, s->ldo, s->p + b * MR * ldp + first, ldp, 1,
                     s->v + e * pairs(keys) + first * NR, last - first, count - b * MR, panel_vectors(e, E), true);
        }
}

/* Dropout's bytes for the rows [n, n + BM) that see any of the keys. */
static void draw_dropout(forward_scratch *s, const dropout_spec *dropout, int64_t n, int64_t count, int64_t j0,
                         int64_t keys) {
    const block_range range = block_range_make(s->rows + n, count - n < BM ? count - n : BM, j0, keys);
    if (range.k1 == 0) return;
    dropout_tile(s->keep + range.v0, LD_SCORES, dropout, s->rows + n, count - n < BM ? count - n : BM, j0 + range.v0,
                 range.v1 - range.v0);
}

/* All rows of the item by the packed keys; the item's last key is before `end`. */
static void attend_all(forward_scratch *s, const cpu_job *job, const score_context *c, const dropout_spec *dropout,
                       int64_t count, int64_t j0, int64_t keys, int64_t end) {
    const bool drop = c->p->dropout_threshold != 0;
    next_keys next = next_keys_make(job, c->group, j0 + keys, end, (count + SCORE_ROWS - 1) / SCORE_ROWS);
    for (int64_t n = 0; n < count; n += SCORE_ROWS) {
        if (drop && n % BM == 0) draw_dropout(s, dropout, n, count, j0, keys);
        attend(s, c, n, count - n < SCORE_ROWS ? count - n : SCORE_ROWS, j0, keys,
               drop ? s->keep + n % BM * LD_SCORES : NULL, &next);
    }
}

/* Rows are finished, or, when the keys are in pieces, handed to the combine phase. */
static void end_rows(forward_scratch *s, const cpu_job *job, const row_group *group, int64_t first, int64_t count,
                     int64_t piece) {
    const int64_t slot = (group->b * job->p->G + group->g) * job->shape.group_rows + first;
    for (int64_t n = 0; n < count; n++) {
        if (n + ROWS_AHEAD < count)
            EACH_LINE(out_row(job, group, &s->rows[n + ROWS_AHEAD]), job->p->out.stride[3],
                      dlattn__size_of(job->p->out.dtype), job->p->E, prefetch_write);
        real *out = s->out + n * s->ldo, sum = v_hsum(v_load(s->sum + n * L));
        if (job->shape.pieces == 1) {
            finish_row(job, group, &s->rows[n], s->maximum[n], sum, out);
            continue;
        }
        int64_t part = (slot + n) * job->shape.pieces + piece;
        memcpy((real *)job->partial_out + part * s->ldo, out, (size_t)s->ldo * sizeof(real));
        ((real *)job->partial_lse)[part * 2] = s->maximum[n];
        ((real *)job->partial_lse)[part * 2 + 1] = sum;
    }
}

/* All items of one (b, g) follow each other, so that its keys stay in cache; inside it they run from the last row block to
 * the first: under a causal mask the longest come first. */
void NAME(forward)(const cpu_job *job, int64_t item, void *scratch);
void NAME(forward)(const cpu_job *job, int64_t item, void *scratch) {
    const problem *p = job->p;
    const cpu_shape *shape = &job->shape;
    const int64_t piece = item % shape->pieces, group_index = item / shape->pieces / shape->row_blocks;
    const int64_t block = shape->row_blocks - 1 - item / shape->pieces % shape->row_blocks;
    const row_group group = dlattn__row_group(p, job->x, group_index / p->G, group_index % p->G);
    const int64_t most = item_rows(p), first = block * most;
    if (first >= group.rows) return;
    const int64_t count = group.rows - first < most ? group.rows - first : most;
    forward_scratch s;
    carve(&s, p, scratch);
    begin_rows(&s, job, &group, first, count);
    const score_context context = score_context_make(job, &group, s.bias_row, s.keep_row);
    const dropout_spec dropout = dropout_spec_make(p, job->x, &group);
    key_range keys = dlattn__rows_span(s.rows, count);
    if (keys.lo < piece * shape->piece_keys) keys.lo = piece * shape->piece_keys;
    if (keys.hi > (piece + 1) * shape->piece_keys) keys.hi = (piece + 1) * shape->piece_keys;
    tiles_begin();
    for (int64_t j0 = keys.lo / NR * NR; j0 < keys.hi; j0 += FORWARD_KEYS) {
        int64_t n = keys.hi - j0 < FORWARD_KEYS ? keys.hi - j0 : FORWARD_KEYS;
        pack_tile(&s, job, &group, j0, n);
        attend_all(&s, job, &context, &dropout, count, j0, n, keys.hi);
    }
    tiles_end();
    end_rows(&s, job, &group, first, count, piece);
}

/* Joins the pieces of every row of one (b, g), in order. */
void NAME(combine)(const cpu_job *job, int64_t item, void *scratch);
void NAME(combine)(const cpu_job *job, int64_t item, void *scratch) {
    const problem *p = job->p;
    const int64_t pieces = job->shape.pieces, ldo = pad_lanes(p->E);
    const row_group group = dlattn__row_group(p, job->x, item / p->G, item % p->G);
    real *out = scratch;
    for (int64_t n = 0; n < group.rows; n++) {
        const int64_t part = (item * job->shape.group_rows + n) * pieces;
        const real *lse = (const real *)job->partial_lse + part * 2, *from = (const real *)job->partial_out + part * ldo;
        double maximum = SCORE_FLOOR, sum = 0;
        for (int64_t k = 0; k < pieces; k++)
            if (lse[2 * k] > maximum) maximum = lse[2 * k];
        memset(out, 0, (size_t)ldo * sizeof(real));
        for (int64_t k = 0; k < pieces; k++) {
            if (lse[2 * k + 1] == 0) continue; /* saw nothing */
            double weight = exp2(lse[2 * k] - maximum);
            sum += weight * lse[2 * k + 1];
            v w = v_set1((real)weight);
            for (int64_t e = 0; e < ldo; e += L)
                v_store(out + e, v_fma(w, v_load(from + k * ldo + e), v_load(out + e)));
        }
        row r;
        dlattn__rows_fill(&r, p, &group, n, 1);
        finish_row(job, &group, &r, maximum, sum, out);
    }
}
