/* backward_tmpl.c: the backward of one work item: one piece of the keys of one (b, g), against all their query rows.
 *
 *     for each tile of keys:              pack K^T, V^T, K;  dK = dV = 0 (they stay in L2)
 *         for each tile of rows seen:     S = Q K^T, dP = dO V^T;  P, dS
 *                                         dV += P^T dO,  dK += dS^T Q,  dQ += dS K
 *
 * The rows of all heads of the group add into the same dK and dV, so nothing is shared between items but dQ, of which
 * every piece has its own array; reduce_dq adds them in order. The softmax scale is applied when dQ and dK are stored. */
#include "backward_pass_tmpl.h"
#include "backward_rows_tmpl.h"
#include "dbias.h"

/* Which keys the BWD_ROWS rows of a sub-tile see: any of them, and all of them. Made once per item. */
typedef struct rows_summary {
    key_range any, all;
} rows_summary;

typedef struct backward_scratch {
    backward_tile tile;
    elem *k_panels;            /* K along D: [D / NR][pairs(keys)][NR] */
    elem *q_panels, *dout_panels; /* [D or E / NR][pairs(BWD_ROWS)][NR] */
    real *dk, *dv;             /* [keys, whole register tiles][ldk], [..][ldv] */
    real *dq_rows;             /* [BWD_ROWS][ldk]: register tiles whose rows do not lie together in dq_sum */
    real *zeros;               /* [LD_SCORES] */
    real *dq_at[BWD_BLOCKS];   /* where each register tile of dQ is accumulated */
    rows_summary *summaries;   /* of the item's row tiles */
    int64_t ldk, ldv;          /* reals: pad_lanes of D and E */
    real *dq_sum;              /* this item's slice, of its first head */
    bool dq_wanted, dk_wanted, dv_wanted;
    dbias_sink *sink;          /* NULL: another phase computes dbias, or nobody does */
    bool dbias_begins;         /* dbias holds nothing yet: what no score reaches is written too, as 0 */
} backward_scratch;

static int64_t carve(backward_scratch *s, const problem *p, char *base) {
    char *at = base;
    backward_tile_carve(&s->tile, p, &at);
    const int64_t keys = s->tile.keys + MR, heads = p->G > 0 ? p->H / p->G : 0;
    s->ldk = pad_lanes(p->D);
    s->ldv = pad_lanes(p->E);
    s->k_panels = CARVE(&at, elem, s->tile.keys * s->tile.ldq);
    s->q_panels = CARVE(&at, elem, BWD_ROWS * s->tile.ldq);
    s->dout_panels = CARVE(&at, elem, BWD_ROWS * s->tile.ldo);
    s->dk = CARVE(&at, real, keys * s->ldk);
    s->dv = CARVE(&at, real, keys * s->ldv);
    s->dq_rows = CARVE(&at, real, BWD_ROWS * s->ldk);
    s->zeros = CARVE(&at, real, LD_SCORES);
    s->summaries = CARVE(&at, rows_summary, (p->M * heads + BWD_ROWS - 1) / BWD_ROWS);
    return at - base;
}

int64_t NAME(backward_scratch)(const problem *p);
int64_t NAME(backward_scratch)(const problem *p) {
    backward_scratch s;
    return carve(&s, p, (char *)0);
}

/* ---- dbias, where the bias is broadcast over nothing, or over the sequences alone ----------------------------------- */

/* Row r of the tile, all its keys: what nobody computed is 0. `to` holds a row of zeros. */
static void store_dbias(void *to, const backward_tile *t, int64_t r, const real *ds, int64_t v0, int64_t v1) {
    const operand *o = &t->job->p->dbias;
    char *at = dlattn__at(o, t->job->x->dbias, t->group.b, t->rows[r].h, t->rows[r].i, t->j0);
    const int64_t step = o->stride[3] * dlattn__size_of(o->dtype), end = v1 < t->n ? v1 : t->n;
    if (v0 > 0) row_store(at, o->stride[3], o->dtype, (const real *)to, v0);
    if (end > v0) row_store(at + v0 * step, o->stride[3], o->dtype, ds + v0, end - v0);
    if (end < t->n) row_store(at + end * step, o->stride[3], o->dtype, (const real *)to, t->n - end);
}

/* The same where an earlier sequence has written: dS is added. Such a dbias is made of the kernel's own numbers. */
static void add_dbias(void *to, const backward_tile *t, int64_t r, const real *ds, int64_t v0, int64_t v1) {
    const operand *o = &t->job->p->dbias;
    real *at = (real *)dlattn__at(o, t->job->x->dbias, 0, t->rows[r].h, t->rows[r].i, t->j0);
    const int64_t end = v1 < t->n ? v1 : t->n;
    int64_t k = v0;
    (void)to;
    if (o->stride[3] == 1)
        for (; k + L <= end; k += L) v_store(at + k, v_add(v_load(at + k), v_load(ds + k)));
    for (; k < end; k++) at[k * o->stride[3]] += ds[k];
}

/* Zeros at rows [i0, i1) and keys [j0, j1) of the heads of the group. */
static void blank_dbias(const backward_tile *t, const real *zeros, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    const problem *p = t->job->p;
    const int64_t heads = p->H / p->G;
    for (int64_t h = t->group.g * heads; h < (t->group.g + 1) * heads; h++)
        for (int64_t i = i0; i < i1; i++)
            for (int64_t j = j0; j < j1; j += TILE_KEYS)
                row_store(dlattn__at(&p->dbias, t->job->x->dbias, t->group.b, h, i, j), p->dbias.stride[3],
                          p->dbias.dtype, zeros, j1 - j < TILE_KEYS ? j1 - j : TILE_KEYS);
}

/* What lies past the sequence, inside this item's keys [from, to); the last piece has all keys past `to` as well. */
static void blank_dbias_ends(const backward_tile *t, const real *zeros, int64_t from, int64_t to, bool last) {
    const problem *p = t->job->p;
    const int64_t M = t->group.sequence.M, N = t->group.sequence.N;
    if (last || to > p->dbias.extent[3]) to = p->dbias.extent[3];
    blank_dbias(t, zeros, M, p->dbias.extent[2], from, to);
    blank_dbias(t, zeros, 0, M, from > N ? from : N, to);
}

/* ---- the products over a tile ---------------------------------------------------------------------------------------- */

/* C += A^T B over the rows: dV from P and dO, dK from dS and Q. `first` and `last` rows per register tile of keys. */
static void product_over_rows(const backward_tile *t, real *C, int64_t ldc, const elem *A, const elem *panels, int64_t n,
                              const int16_t (*span)[2]) {
    for (int64_t n0 = 0; n0 < n; n0 += NR)
        for (int64_t key = t->u0 / MR * MR; key < t->u1; key += MR) {
            const int64_t r0 = span[key / MR][0], r1 = span[key / MR][1];
            if (r1 <= r0) continue;
            gemm(C + key * ldc + n0, ldc, A + r0 / PAIR * LD_SCORES + key, 1, LD_SCORES,
                 panels + n0 * pairs(BWD_ROWS) + r0 / PAIR * NR, pairs(r1 - r0), MR, panel_vectors(n0, n), true);
        }
}

/* For each register tile of keys, the rows from the first to the last register tile that sees it. */
static void row_spans(const backward_tile *t, int16_t (*span)[2]) {
    for (int64_t key = t->u0 / MR * MR; key < t->u1; key += MR) {
        int64_t r0 = 0, r1 = 0;
        for (int64_t b = 0; b < t->blocks; b++) {
            if (t->ranges[b].v0 >= key + MR || t->ranges[b].v1 <= key) continue;
            if (r1 == 0) r0 = b * MR;
            r1 = (b + 1) * MR < t->count ? (b + 1) * MR : t->count;
        }
        span[key / MR][0] = (int16_t)r0;
        span[key / MR][1] = (int16_t)r1;
    }
}

static real *dq_row(const backward_scratch *s, const row *r) {
    const problem *p = s->tile.job->p;
    return s->dq_sum + ((r->h - s->tile.group.g * (p->H / p->G)) * p->M + r->i) * s->ldk;
}

/* Copies the rows of the register tiles that are accumulated aside, to dq_rows or back. */
static void exchange_dq(const backward_scratch *s, bool back) {
    const backward_tile *t = &s->tile;
    const size_t bytes = (size_t)s->ldk * sizeof(real);
    for (int64_t b = 0; b < t->blocks; b++) {
        if (t->ranges[b].v0 == t->ranges[b].v1 || s->dq_at[b] != s->dq_rows + b * MR * s->ldk) continue;
        for (int64_t r = b * MR; r < (b + 1) * MR && r < t->count; r++) {
            real *aside = s->dq_rows + r * s->ldk, *row = dq_row(s, &t->rows[r]);
            if (back) memcpy(row, aside, bytes);
            else memcpy(aside, row, bytes);
        }
    }
}

/* dQ += dS K, each register tile of rows over its own keys. */
static void product_dq(backward_scratch *s) {
    const backward_tile *t = &s->tile;
    const int64_t D = t->job->p->D;
    for (int64_t b = 0; b < t->blocks; b++) {
        const int64_t first = b * MR, rows = t->count - first < MR ? t->count - first : MR;
        const bool together = (rows == MR || rows == MR_HALF) && t->rows[first].h == t->rows[first + rows - 1].h;
        s->dq_at[b] = together ? dq_row(s, &t->rows[first]) : s->dq_rows + first * s->ldk;
    }
    exchange_dq(s, false);
    for (int64_t n0 = 0; n0 < D; n0 += NR)
        for (int64_t b = 0; b < t->blocks; b++) {
            const block_range *r = &t->ranges[b];
            if (r->v0 == r->v1) continue;
            gemm(s->dq_at[b] + n0, s->ldk, t->ds_along + b * MR * (LD_SCORES / PAIR) + r->v0 / PAIR, LD_SCORES / PAIR, 1,
                 s->k_panels + n0 * pairs(t->keys) + r->v0 / PAIR * NR, (r->v1 - r->v0) / PAIR, t->count - b * MR,
                 panel_vectors(n0, D), true);
        }
    exchange_dq(s, true);
}

/* ---- the item -------------------------------------------------------------------------------------------------------- */

static void summarize_rows(backward_scratch *s) {
    backward_tile *t = &s->tile;
    for (int64_t first = 0; first < t->group.rows; first += BWD_ROWS) {
        const int64_t count = t->group.rows - first < BWD_ROWS ? t->group.rows - first : BWD_ROWS;
        rows_summary *m = &s->summaries[first / BWD_ROWS];
        dlattn__rows_fill(t->rows, t->job->p, &t->group, first, count);
        m->any = dlattn__rows_span(t->rows, count);
        m->all.lo = 0;
        m->all.hi = t->group.sequence.N;
        for (int64_t r = 0; r < count; r++) {
            if (t->rows[r].lo > m->all.lo) m->all.lo = t->rows[r].lo;
            if (t->rows[r].hi < m->all.hi) m->all.hi = t->rows[r].hi;
        }
    }
}

/* Fills the tile's rows; false when none of them sees a key of the tile. */
static bool take_rows(backward_scratch *s, int64_t first) {
    backward_tile *t = &s->tile;
    const rows_summary *m = &s->summaries[first / BWD_ROWS];
    const int64_t M = t->group.sequence.M, j1 = t->j0 + t->n;
    const bool seen = m->any.lo < j1 && m->any.hi > t->j0;
    t->count = t->group.rows - first < BWD_ROWS ? t->group.rows - first : BWD_ROWS;
    if (!seen && !s->dbias_begins) return false;
    if (m->all.lo > t->j0 || m->all.hi < j1) {
        dlattn__rows_fill(t->rows, t->job->p, &t->group, first, t->count);
    } else { /* all see all of the tile: nothing to look up */
        row r = {first % M, t->group.g * (t->job->p->H / t->job->p->G) + first / M, t->j0, j1};
        for (int64_t n = 0; n < t->count; n++) {
            t->rows[n] = r;
            if (++r.i == M) r.i = 0, r.h++;
        }
    }
    return backward_tile_ranges(t);
}

/* All rows against one tile of keys: adds to dk, dv and dq_sum. */
static void keys_against_rows(backward_scratch *s) {
    backward_tile *t = &s->tile;
    const problem *p = t->job->p;
    int16_t span[TILE_KEYS / MR + 2][2];
    for (int64_t first = 0; first < t->group.rows; first += BWD_ROWS) {
        if (!take_rows(s, first)) {
            for (int64_t r = 0; s->dbias_begins && r < t->count; r++) store_dbias(s->zeros, t, r, NULL, 0, 0);
            continue;
        }
        backward_tile_rows(t);
        backward_tile_pass(t, s->sink, s->zeros);
        for (int64_t b = 0; s->dbias_begins && b < t->blocks; b++)
            for (int64_t r = b * MR; t->ranges[b].v0 == t->ranges[b].v1 && r < t->count && r < (b + 1) * MR; r++)
                store_dbias(s->zeros, t, r, NULL, 0, 0);
        row_spans(t, span);
        if (s->dv_wanted) {
            panels_from_rows(s->dout_panels, t->dout, t->ldo, t->count, pairs(BWD_ROWS), p->E);
            product_over_rows(t, s->dv, s->ldv, t->p, s->dout_panels, p->E, span);
        }
        if (s->dk_wanted) {
            panels_from_rows(s->q_panels, t->q, t->ldq, t->count, pairs(BWD_ROWS), p->D);
            product_over_rows(t, s->dk, s->ldk, t->ds, s->q_panels, p->D, span);
        }
        if (s->dq_wanted) product_dq(s);
    }
}

static void store_keys(const backward_tile *t, const operand *o, void *data, real *rows, int64_t ld, int64_t n,
                       double scale) {
    const v factor = v_set1((real)scale);
    for (int64_t j = 0; j < t->n; j++) {
        real *line = rows + j * ld;
        if (scale != 1)
            for (int64_t c = 0; c < n; c += L) v_store(line + c, v_mul(v_load(line + c), factor));
        row_store(dlattn__at(o, data, t->group.b, t->group.sequence.k_begin + t->j0 + j, t->group.g, 0), o->stride[3],
                  o->dtype, line, n);
    }
}

cpu_item NAME(backward);
void NAME(backward)(const cpu_job *job, int64_t item, void *scratch) {
    const problem *p = job->p;
    const int64_t pieces = job->shape.pieces, piece = item % pieces, bg = item / pieces, heads = p->H / p->G;
    backward_scratch s;
    backward_tile *t = &s.tile;
    carve(&s, p, (char *)scratch);
    backward_tile_begin(t, job, bg / p->G, bg % p->G);
    s.dq_wanted = p->dq.dtype != DLATTN_T_NONE;
    s.dk_wanted = p->dk.dtype != DLATTN_T_NONE;
    s.dv_wanted = p->dv.dtype != DLATTN_T_NONE;
    s.sink = NULL;
    if (p->dbias.dtype && !dlattn__dbias_separate(p)) s.sink = store_dbias;
    if (job->shape.by_sequence) s.sink = t->group.b == 0 ? store_dbias : add_dbias;
    s.dbias_begins = s.sink == store_dbias;
    t->scores_only = !s.dq_wanted && !s.dk_wanted && !s.sink;
    if (t->scores_only && !s.dv_wanted) return;

    const int64_t from = piece * job->shape.piece_keys, to = from + job->shape.piece_keys, N = t->group.sequence.N;
    if (s.dq_wanted) {
        s.dq_sum = (real *)job->dq_sum + ((piece * p->B + t->group.b) * p->H + t->group.g * heads) * p->M * s.ldk;
        memset(s.dq_sum, 0, (size_t)(heads * p->M * s.ldk) * sizeof(real));
    }
    summarize_rows(&s);
    memset(s.zeros, 0, LD_SCORES * sizeof(real));
    tiles_begin();
    for (int64_t j0 = from; j0 < to && j0 < N; j0 += t->keys) {
        int64_t n = N - j0 < t->keys ? N - j0 : t->keys;
        if (to - j0 < n) n = to - j0;
        memset(s.dk, 0, (size_t)(t->keys * s.ldk) * sizeof(real));
        memset(s.dv, 0, (size_t)(t->keys * s.ldv) * sizeof(real));
        backward_tile_keys(t, j0, n, s.dq_wanted ? s.k_panels : NULL);
        keys_against_rows(&s);
        if (s.dk_wanted) store_keys(t, &p->dk, job->x->dk, s.dk, s.ldk, p->D, p->scale);
        if (s.dv_wanted) store_keys(t, &p->dv, job->x->dv, s.dv, s.ldv, p->E, 1);
    }
    tiles_end();
    if (s.dbias_begins) blank_dbias_ends(t, s.zeros, from, to, piece == pieces - 1);
}
