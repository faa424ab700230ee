/* dbias_tmpl.c: the gradient of a bias that is broadcast: one tile of the bias' own index space per item.
 *
 *     dbias[b|1, h|1, i|1, j|1] = sum of dS over the dimensions of extent 1
 *
 * The item recomputes S, dP and dS of every score that reads its elements and adds them up in one fixed order, so the
 * sum needs no atomics and no array of the size of the scores. */
#include "backward_pass_tmpl.h"
#include "dbias.h"

typedef struct dbias_scratch {
    backward_tile tile;
    real *sum;            /* [rows][DBIAS_KEYS]; a single row when i is broadcast */
    int64_t i0, i1, j0, j1; /* the item's part of the bias' own i and j */
    bool over_i, over_j;  /* broadcast */
} dbias_scratch;

static int64_t carve(dbias_scratch *s, const problem *p, char *base) {
    char *at = base;
    backward_tile_carve(&s->tile, p, &at);
    s->sum = CARVE(&at, real, DBIAS_ROWS * DBIAS_KEYS);
    return at - base;
}

int64_t NAME(dbias_scratch)(const problem *p);
int64_t NAME(dbias_scratch)(const problem *p) {
    dbias_scratch s;
    return carve(&s, p, (char *)0);
}

/* A dbias_sink. With j broadcast the keys of a tile still add into separate columns; finish() joins them. */
static void add_row(void *to, const backward_tile *t, int64_t r, const real *ds, int64_t v0, int64_t v1) {
    dbias_scratch *s = (dbias_scratch *)to;
    const int64_t line = s->over_i ? 0 : t->rows[r].i - s->i0, column = s->over_j ? 0 : t->j0 - s->j0;
    real *sum = s->sum + line * DBIAS_KEYS + column;
    for (int64_t k = v0; k < v1; k += L) v_store(sum + k, v_add(v_load(sum + k), v_load(ds + k)));
}

/* All scores of head h, sequence b, that read the item's elements. */
static void add_head(dbias_scratch *s, const cpu_job *job, int64_t b, int64_t h) {
    const problem *p = job->p;
    backward_tile *t = &s->tile;
    const int64_t heads = p->H / p->G;
    backward_tile_begin(t, job, b, h / heads);
    const int64_t M = t->group.sequence.M, N = t->group.sequence.N;
    const int64_t i0 = s->over_i ? 0 : s->i0, i1 = s->over_i || s->i1 > M ? M : s->i1;
    const int64_t j0 = s->over_j ? 0 : s->j0, j1 = s->over_j || s->j1 > N ? N : s->j1;
    if (i1 <= i0) return;
    for (int64_t j = j0; j < j1; j += t->keys) {
        backward_tile_keys(t, j, j1 - j < t->keys ? j1 - j : t->keys, NULL);
        for (int64_t i = i0; i < i1; i += BWD_ROWS) {
            t->count = i1 - i < BWD_ROWS ? i1 - i : BWD_ROWS;
            dlattn__rows_fill(t->rows, p, &t->group, h % heads * M + i, t->count);
            if (!backward_tile_ranges(t)) continue;
            backward_tile_rows(t);
            backward_tile_pass(t, add_row, s);
        }
    }
}

static void finish(dbias_scratch *s, const cpu_job *job, int64_t b, int64_t h) {
    const problem *p = job->p;
    for (int64_t i = s->i0; i < s->i1; i++) {
        real *line = s->sum + (i - s->i0) * DBIAS_KEYS;
        if (s->over_j) {
            v sum = v_zero();
            for (int64_t k = 0; k < DBIAS_KEYS; k += L) sum = v_add(sum, v_load(line + k));
            line[0] = v_hsum(sum);
        }
        row_store(dlattn__at(&p->dbias, job->x->dbias, b, h, i, s->j0), p->dbias.stride[3], p->dbias.dtype, line,
                  s->j1 - s->j0);
    }
}

cpu_item NAME(dbias);
void NAME(dbias)(const cpu_job *job, int64_t item, void *scratch) {
    const problem *p = job->p;
    const int64_t *extent = p->dbias.extent;
    const int64_t row_tiles = (extent[2] + DBIAS_ROWS - 1) / DBIAS_ROWS;
    const int64_t key_tiles = (extent[3] + DBIAS_KEYS - 1) / DBIAS_KEYS;
    const int64_t b = item / (key_tiles * row_tiles * extent[1]), h = item / (key_tiles * row_tiles) % extent[1];
    const bool over_b = dlattn__dbias_broadcast(p, 0), over_h = dlattn__dbias_broadcast(p, 1);
    dbias_scratch s;
    carve(&s, p, (char *)scratch);
    s.over_i = dlattn__dbias_broadcast(p, 2);
    s.over_j = dlattn__dbias_broadcast(p, 3);
    s.i0 = item / key_tiles % row_tiles * DBIAS_ROWS;
    s.j0 = item % key_tiles * DBIAS_KEYS;
    s.i1 = extent[2] - s.i0 < DBIAS_ROWS ? extent[2] : s.i0 + DBIAS_ROWS;
    s.j1 = extent[3] - s.j0 < DBIAS_KEYS ? extent[3] : s.j0 + DBIAS_KEYS;
    memset(s.sum, 0, DBIAS_ROWS * DBIAS_KEYS * sizeof(real));
    tiles_begin();
    for (int64_t b1 = over_b ? 0 : b; b1 < (over_b ? p->B : b + 1); b1++)
        for (int64_t h1 = over_h ? 0 : h; h1 < (over_h ? p->H : h + 1); h1++) add_head(&s, job, b1, h1);
    tiles_end();
    finish(&s, job, b, h);
}
