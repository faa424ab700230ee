/* decode_tmpl.c: forward attention of few query rows by many keys: no packing, K and V are read where they lie, once (a
 * row whose numbers lie apart is copied first).
 *
 *     for each block of keys:   S = Q K^T by dot products along D;   P = 2^(t(S) - m), m and l updated;   O += P V
 *
 * An item is one piece of the keys of one (b, g) with all its query rows. Memory is the limit, so the loops below are
 * shaped to use each row of K and V while it is in the first-level cache, and to ask for rows ahead of time. */
#include "dropout_tmpl.h"
#include "finish_tmpl.h"
#include "tile_tmpl.h"

/* Accumulators of both products: rows by keys, then rows by vectors of a V row. A machine with 16 registers takes 8. */
#if L == 1 || (defined(__AVX2__) && !defined(__AVX512F__))
#define NA 8
#else
#define NA 16
#endif

enum {
    DECODE_ROWS = 8,      /* the most */
    KERNEL_ROWS = NA / 2, /* the most of one kernel: two keys or vectors must be left for each row */
    STEP = 32,            /* keys that stay in the first-level cache while all rows and columns pass over them */
    AHEAD = 32            /* rows asked for in advance; 8 to 32 made no difference */
};

#define LINE 64 /* bytes of a cache line */

/* ---- S = Q K^T and O += P V, for each element type and number of rows ------------------------------------------------
 *
 * A *unit* is what one load brings: `unit` vectors. For bfloat16 these are the numbers of even and those of odd index
 * among 2L, which costs a shift and a mask; q is put into that order once, and out is put back at the end. */

#define LOAD_OWN(to, from) to[0] = v_load(from)
#define LOAD_F16(to, from) to[0] = v_load_f16(from)
#define LOAD_BF16(to, from) v_split_bf16(from, &to[0], &to[1])

/* Units may be half a line: then every other one asks for the line. */
#define ASKS(unit, type, column) \
    ((unit) * L * sizeof(type) % LINE == 0 || (size_t)(column) * sizeof(type) % LINE == 0)

/* S[r][j] = sum_d q[r][d] * k[j][d] for rb rows and `keys` (a multiple of NA / rb) keys; D is a multiple of unit * L. */
#define DOT_KERNEL(name, type, unit, load, rb)                                                                        \
    static __attribute__((noinline)) void dot_##name##_##rb(real *S, const real *q, int64_t ldq, const void *k_rows,  \
                                                            int64_t row_stride, int64_t D, int64_t keys) {           \
        enum { KB = NA / rb };                                                                                        \
        const type *k = k_rows;                                                                                       \
        for (int64_t j = 0; j < keys; j += KB, k += KB * row_stride) {                                                \
            v acc[NA];                                                                                                \
            _Pragma("GCC unroll 16") for (int n = 0; n < NA; n++) acc[n] = v_zero();                                  \
            for (int64_t d = 0; d < D; d += unit * L) {                                                               \
                v here[KB][unit];                                                                                     \
                const bool asks = ASKS(unit, type, d);                                                            \
                _Pragma("GCC unroll 16") for (int n = 0; n < KB; n++) {                                               \
                    load(here[n], k + n * row_stride + d);                                                            \
                    if (asks) prefetch(k + (n + AHEAD) * row_stride + d);                                             \
                    if (rb > 1) v_keep(here[n][0]);                                                                   \
                }                                                                                                     \
                _Pragma("GCC unroll 2") for (int u = 0; u < unit; u++) {                                              \
                    _Pragma("GCC unroll 8") for (int r = 0; r < rb; r++) {                                            \
                        v row = v_load(q + r * ldq + d + u * L);                                                      \
                        _Pragma("GCC unroll 16") for (int n = 0; n < KB; n++)                                         \
                            acc[r * KB + n] = v_fma(row, here[n][u], acc[r * KB + n]);                                \
                    }                                                                                                 \
                }                                                                                                     \
            }                                                                                                         \
            real sums[NA];                                                                                            \
            _Pragma("GCC unroll 16") for (int n = 0; n < NA; n += L) v_store(sums + n, v_sums(acc + n));              \
            _Pragma("GCC unroll 8") for (int r = 0; r < rb; r++)                                                      \
                memcpy(S + r * LD_SCORES + j, sums + r * KB, KB * sizeof(real));                                      \
        }                                                                                                             \
    }

/* O[r][..] += sum_j P[r][j] * v[j][..] for rb rows and w vectors, whole units. */
#define MIX_KERNEL(name, type, unit, load, rb, w)                                                                     \
    static __attribute__((noinline)) void mix_##name##_##rb##x##w(real *O, int64_t ldo, const real *P,                \
                                                                  const void *v_rows, int64_t row_stride,            \
                                                                  int64_t keys) {                                     \
        const type *from = v_rows;                                                                                    \
        v acc[rb][w];                                                                                                 \
        _Pragma("GCC unroll 8") for (int r = 0; r < rb; r++)                                                          \
            _Pragma("GCC unroll 8") for (int c = 0; c < w; c++) acc[r][c] = v_load(O + r * ldo + c * L);              \
        for (int64_t j = 0; j < keys; j++, from += row_stride) {                                                      \
            v here[w];                                                                                                \
            _Pragma("GCC unroll 8") for (int c = 0; c < w; c += unit) {                                               \
                load((here + c), from + c * L);                                                                       \
                if (ASKS(unit, type, c * L)) prefetch(from + AHEAD * row_stride + c * L);                         \
                if (rb > 1) v_keep(here[c]);                                                                          \
            }                                                                                                         \
            _Pragma("GCC unroll 8") for (int r = 0; r < rb; r++) {                                                    \
                v p = v_set1(P[r * LD_SCORES + j]);                                                                   \
                _Pragma("GCC unroll 8") for (int c = 0; c < w; c++) acc[r][c] = v_fma(p, here[c], acc[r][c]);         \
            }                                                                                                         \
        }                                                                                                             \
        _Pragma("GCC unroll 8") for (int r = 0; r < rb; r++)                                                          \
            _Pragma("GCC unroll 8") for (int c = 0; c < w; c++) v_store(O + r * ldo + c * L, acc[r][c]);              \
    }

typedef void dot_fn(real *S, const real *q, int64_t ldq, const void *k_rows, int64_t row_stride, int64_t D,
                    int64_t keys);
typedef void mix_fn(real *O, int64_t ldo, const real *P, const void *v_rows, int64_t row_stride, int64_t keys);

/* The kernels of one element type: [log2 of rows], and [log2 of rows][log2 of vectors], NULL where there is none. */
typedef struct decode_kernels {
    int32_t unit;
    dot_fn *dot[4];
    mix_fn *mix[4][4];
} decode_kernels;

#define DOT_ALL(name, type, unit, load)                                              \
    DOT_KERNEL(name, type, unit, load, 1) DOT_KERNEL(name, type, unit, load, 2)       \
    DOT_KERNEL(name, type, unit, load, 4)
#define MIX_ALL(name, type, unit, load)                                                  \
    MIX_KERNEL(name, type, unit, load, 1, 2) MIX_KERNEL(name, type, unit, load, 1, 4)     \
    MIX_KERNEL(name, type, unit, load, 1, 8) MIX_KERNEL(name, type, unit, load, 2, 2)     \
    MIX_KERNEL(name, type, unit, load, 2, 4) MIX_KERNEL(name, type, unit, load, 4, 2)
#define MIX_ONE(name, type, load)                                                        \
    MIX_KERNEL(name, type, 1, load, 1, 1) MIX_KERNEL(name, type, 1, load, 2, 1) MIX_KERNEL(name, type, 1, load, 4, 1)
#if NA == 16
#define DOT_EIGHT(name, type, unit, load) DOT_KERNEL(name, type, unit, load, 8)
#define MIX_EIGHT(name, type, unit, load)                                                \
    MIX_KERNEL(name, type, unit, load, 2, 8) MIX_KERNEL(name, type, unit, load, 4, 4)     \
    MIX_KERNEL(name, type, unit, load, 8, 2)
#define MIX_ONE_EIGHT(name, type, load) MIX_KERNEL(name, type, 1, load, 8, 1)
#define DOT_TABLE(n) {dot_##n##_1, dot_##n##_2, dot_##n##_4, dot_##n##_8}
#define MIX_TABLE(n, one)                                                                 \
    {{one(mix_##n##_1x1), mix_##n##_1x2, mix_##n##_1x4, mix_##n##_1x8},                   \
     {one(mix_##n##_2x1), mix_##n##_2x2, mix_##n##_2x4, mix_##n##_2x8},                   \
     {one(mix_##n##_4x1), mix_##n##_4x2, mix_##n##_4x4, NULL},                            \
     {one(mix_##n##_8x1), mix_##n##_8x2, NULL, NULL}}
#else
#define DOT_EIGHT(name, type, unit, load)
#define MIX_EIGHT(name, type, unit, load)
#define MIX_ONE_EIGHT(name, type, load)
#define DOT_TABLE(n) {dot_##n##_1, dot_##n##_2, dot_##n##_4, NULL}
#define MIX_TABLE(n, one)                                                                 \
    {{one(mix_##n##_1x1), mix_##n##_1x2, mix_##n##_1x4, mix_##n##_1x8},                   \
     {one(mix_##n##_2x1), mix_##n##_2x2, mix_##n##_2x4, NULL},                            \
     {one(mix_##n##_4x1), mix_##n##_4x2, NULL, NULL},                                     \
     {NULL, NULL, NULL, NULL}}
#endif
#define HAS(kernel) kernel
#define LACKS(kernel) NULL

#define KERNELS(name, type, unit, load)                                                   \
    DOT_ALL(name, type, unit, load) DOT_EIGHT(name, type, unit, load)                      \
    MIX_ALL(name, type, unit, load) MIX_EIGHT(name, type, unit, load)
#define KERNELS_OF_ONE(name, type, load) KERNELS(name, type, 1, load) MIX_ONE(name, type, load) MIX_ONE_EIGHT(name, type, load)

KERNELS_OF_ONE(own, real, LOAD_OWN)
static const decode_kernels kernels_own = {1, DOT_TABLE(own), MIX_TABLE(own, HAS)};
#if !REAL_IS_F64
KERNELS_OF_ONE(f16, uint16_t, LOAD_F16)
static const decode_kernels kernels_f16 = {1, DOT_TABLE(f16), MIX_TABLE(f16, HAS)};
KERNELS(bf16, uint16_t, 2, LOAD_BF16)
static const decode_kernels kernels_bf16 = {2, DOT_TABLE(bf16), MIX_TABLE(bf16, LACKS)};
#endif

static const decode_kernels *kernels_of(int32_t dtype) {
#if !REAL_IS_F64
    if (dtype == DLATTN_T_F16) return &kernels_f16;
    if (dtype == DLATTN_T_BF16) return &kernels_bf16;
#endif
    (void)dtype;
    return &kernels_own;
}

/* ---- one item ------------------------------------------------------------------------------------------------------- */

typedef struct decode_scratch {
    row *rows;                   /* [DECODE_ROWS] */
    real *q;                     /* [DECODE_ROWS][D], rows past the last are 0 */
    real *scores;                /* [DECODE_ROWS][LD_SCORES]: S, then P */
    real *out;                   /* [DECODE_ROWS][E] */
    real *sum;                   /* [DECODE_ROWS][L]: l, still spread over the lanes */
    real *maximum;               /* [DECODE_ROWS]: m, log2 units */
    char *tail;                  /* [NA][D] of K's type: the last keys, padded with zeros */
    char *copy;                  /* [STEP][D or E] of K's type: rows that are copied */
    uint8_t *keep;               /* [DECODE_ROWS][LD_SCORES]: dropout */
    real *bias_row;              /* [LD_SCORES] */
    uint8_t *keep_row;           /* [LD_SCORES] */
    const decode_kernels *kernels;
    int64_t count;               /* of rows */
    int rows_log2;               /* of the rows that one kernel takes */
} decode_scratch;

/* Do the numbers of a row lie apart? */
static bool lies_apart(const operand *o) { return o->stride[3] != 1 && o->extent[3] != 1; }

static int64_t carve(decode_scratch *s, const problem *p, char *base) {
    const int64_t copied_k = p->page || lies_apart(&p->k) ? p->D : 0, copied_v = p->page || lies_apart(&p->v) ? p->E : 0;
    char *at = base;
    s->rows = CARVE(&at, row, DECODE_ROWS);
    s->q = CARVE(&at, real, DECODE_ROWS * p->D);
    s->scores = CARVE(&at, real, DECODE_ROWS * LD_SCORES);
    s->out = CARVE(&at, real, DECODE_ROWS * p->E);
    s->sum = CARVE(&at, real, DECODE_ROWS * L);
    s->maximum = CARVE(&at, real, DECODE_ROWS);
    s->tail = CARVE(&at, char, NA * p->D * (int64_t)sizeof(real));
    s->copy = CARVE(&at, char, STEP * (copied_k > copied_v ? copied_k : copied_v) * (int64_t)sizeof(real));
    s->keep = CARVE(&at, uint8_t, p->dropout_threshold ? DECODE_ROWS * LD_SCORES : 0);
    s->bias_row = CARVE(&at, real, LD_SCORES);
    s->keep_row = CARVE(&at, uint8_t, LD_SCORES);
    return at - base;
}

int64_t NAME(decode_scratch)(const problem *p);
int64_t NAME(decode_scratch)(const problem *p) {
    decode_scratch s;
    return carve(&s, p, (char *)0);
}

/* Rows of K and V are read in whole units. Strides have no say: the same numbers give the same bits, however they lie. */
bool NAME(decode_takes)(const problem *p);
bool NAME(decode_takes)(const problem *p) {
    const int64_t step = kernels_of(p->dtype)->unit * L;
    return p->D % step == 0 && p->E % step == 0;
}

/* The order in which a unit of two holds its 2L numbers: even indices, then odd. */
static void split_pairs(real *x, int64_t n) {
    real in[2 * L];
    for (int64_t i = 0; i < n; i += 2 * L) {
        memcpy(in, x + i, sizeof in);
        for (int l = 0; l < L; l++) x[i + l] = in[2 * l], x[i + L + l] = in[2 * l + 1];
    }
}
static void join_pairs(real *x, int64_t n) {
    real in[2 * L];
    for (int64_t i = 0; i < n; i += 2 * L) {
        memcpy(in, x + i, sizeof in);
        for (int l = 0; l < L; l++) x[i + 2 * l] = in[l], x[i + 2 * l + 1] = in[L + l];
    }
}

static void begin_rows(decode_scratch *s, const cpu_job *job, const row_group *group) {
    const problem *p = job->p;
    s->count = group->rows;
    s->rows_log2 = 0;
    while (1 << s->rows_log2 < s->count && 1 << s->rows_log2 < KERNEL_ROWS) s->rows_log2++;
    dlattn__rows_fill(s->rows, p, group, 0, s->count);
    memset(s->q, 0, (size_t)(DECODE_ROWS * p->D) * sizeof(real));
    memset(s->out, 0, (size_t)(DECODE_ROWS * p->E) * sizeof(real));
    memset(s->sum, 0, DECODE_ROWS * L * sizeof(real));
    for (int64_t n = 0; n < s->count; n++) {
        const row *r = &s->rows[n];
        const char *q = dlattn__at(&p->q, job->x->q, group->b, group->sequence.q_begin + r->i, r->h, 0);
        row_load(s->q + n * p->D, q, p->q.stride[3], p->q.dtype, p->D);
        if (s->kernels->unit == 2) split_pairs(s->q + n * p->D, p->D);
        s->maximum[n] = SCORE_FLOOR;
    }
}

/* Rows j .. of K or V as the kernels read them, at most STEP: where they lie, or a copy. */
static const char *rows_of(decode_scratch *s, const cpu_job *job, const row_group *group, const operand *o, const void *data,
                           int64_t j, int64_t count, int64_t *row_stride) {
    *row_stride = o->stride[1];
    if (!lies_apart(o) && dlattn__keys_together(job->p, j, count))
        return dlattn__key_row(job->p, job->x, o, data, group, j);
    dlattn__key_rows_copy(s->copy, job->p, job->x, o, data, group, j, count, o->extent[3]);
    *row_stride = o->extent[3];
    return s->copy;
}

/* Products of all rows with `keys` keys at k, a multiple of the kernel's. */
static void dot_step(decode_scratch *s, int64_t D, int64_t j, const char *k, int64_t row_stride, int64_t keys) {
    for (int64_t r = 0; r < s->count; r += (int64_t)1 << s->rows_log2)
        s->kernels->dot[s->rows_log2](s->scores + r * LD_SCORES + j, s->q + r * D, D, k, row_stride, D, keys);
}

/* Products of all rows with keys [j0, j0 + n): whole register tiles in place, the rest from a padded copy. */
static void dot_block(decode_scratch *s, const cpu_job *job, const row_group *group, int64_t j0, int64_t n) {
    const problem *p = job->p;
    const int64_t tile = NA >> s->rows_log2, whole = n / tile * tile, bytes = dlattn__size_of(p->k.dtype);
    int64_t row_stride;
    for (int64_t j = 0; j < whole; j += STEP) {
        const int64_t keys = whole - j < STEP ? whole - j : STEP;
        const char *from = rows_of(s, job, group, &p->k, job->x->k, j0 + j, keys, &row_stride);
        dot_step(s, p->D, j, from, row_stride, keys);
    }
    if (whole == n) return;
    memset(s->tail, 0, (size_t)(tile * p->D * bytes));
    dlattn__key_rows_copy(s->tail, p, job->x, &p->k, job->x->k, group, j0 + whole, n - whole, p->D);
    dot_step(s, p->D, whole, s->tail, p->D, tile);
}

/* A larger maximum: what was summed under the old one shrinks by 2^(old - new). */
static void raise_maximum(decode_scratch *s, int64_t n, int64_t E, real to) {
    real *sum = s->sum + n * L, *out = s->out + n * E;
    v shrink = v_exp2(v_set1(s->maximum[n] - to));
    v_store(sum, v_mul(v_load(sum), shrink));
    if (s->maximum[n] > SCORE_FLOOR) /* else the accumulator is still 0 */
        for (int64_t e = 0; e < E; e += L) v_store(out + e, v_mul(v_load(out + e), shrink));
    s->maximum[n] = to;
}

/* Scores of row n to P over [0, width), a multiple of L; the sum is taken before dropout: lse ignores it. */
static void softmax_row(decode_scratch *s, const score_context *c, int64_t n, int64_t j0, int64_t width) {
    real *S = s->scores + n * LD_SCORES;
    const uint8_t *keep = c->p->dropout_threshold ? s->keep + n * LD_SCORES : NULL;
    const v f = v_set1(score_row(S, c, &s->rows[n], j0, 0, width, NULL));
    v top = v_set1(SCORE_FLOOR);
    for (int64_t k = 0; k < width; k += L) top = v_max(v_mul(v_load(S + k), f), top);
    const real maximum = v_hmax(top);
    if (maximum > s->maximum[n]) raise_maximum(s, n, c->p->E, maximum);
    v m = v_set1(-s->maximum[n]), l = v_load(s->sum + n * L);
    for (int64_t k = 0; k < width; k += L) {
        v p = v_exp2(v_fma(v_load(S + k), f, m));
        l = v_add(l, p);
        if (keep) p = v_select(vm_bytes(keep + k), p, v_zero());
        v_store(S + k, p);
    }
    v_store(s->sum + n * L, l);
}

/* O += P V over keys [j0 + k0, j0 + k1). */
static void mix_block(decode_scratch *s, const cpu_job *job, const row_group *group, int64_t j0, int64_t k0, int64_t k1) {
    const problem *p = job->p;
    const int64_t bytes = dlattn__size_of(p->v.dtype), vectors = p->E / L;
    mix_fn *const *mix = s->kernels->mix[s->rows_log2];
    for (int64_t k = k0; k < k1; k += STEP) {
        const int64_t keys = k1 - k < STEP ? k1 - k : STEP;
        int64_t row_stride;
        const char *from = rows_of(s, job, group, &p->v, job->x->v, j0 + k, keys, &row_stride);
        for (int64_t c = 0, width = 3; c < vectors; c += (int64_t)1 << width) {
            while ((int64_t)1 << width > vectors - c || !mix[width]) width--;
            for (int64_t r = 0; r < s->count; r += (int64_t)1 << s->rows_log2)
                mix[width](s->out + r * p->E + c * L, p->E, s->scores + r * LD_SCORES + k, from + c * L * bytes,
                           row_stride, keys);
        }
    }
}

static void end_rows(decode_scratch *s, const cpu_job *job, const row_group *group, int64_t piece) {
    const int64_t E = job->p->E, first = (group->b * job->p->G + group->g) * job->shape.group_rows;
    for (int64_t n = 0; n < s->count; n++) {
        const real sum = v_hsum(v_load(s->sum + n * L));
        const int64_t part = (first + n) * job->shape.pieces + piece;
        if (s->kernels->unit == 2) join_pairs(s->out + n * E, E);
        if (job->shape.pieces == 1) {
            finish_row(job, group, &s->rows[n], s->maximum[n], sum, s->out + n * E);
            continue;
        }
        memcpy((real *)job->partial_out + part * E, s->out + n * E, (size_t)E * sizeof(real));
        ((real *)job->partial_lse)[part * 2] = s->maximum[n];
        ((real *)job->partial_lse)[part * 2 + 1] = sum;
    }
}

/* Item: ((b * G + g) * pieces + piece). */
void NAME(decode)(const cpu_job *job, int64_t item, void *scratch);
void NAME(decode)(const cpu_job *job, int64_t item, void *scratch) {
    const problem *p = job->p;
    const int64_t piece = item % job->shape.pieces, piece_keys = job->shape.piece_keys, pair = item / job->shape.pieces;
    const row_group group = dlattn__row_group(p, job->x, pair / p->G, pair % p->G);
    decode_scratch s;
    carve(&s, p, scratch);
    s.kernels = kernels_of(p->dtype);
    begin_rows(&s, job, &group);
    if (s.count == 0) return;
    const score_context context = score_context_make(job, &group, s.bias_row, s.keep_row);
    const dropout_spec dropout = dropout_spec_make(p, job->x, &group);
    key_range keys = dlattn__rows_span(s.rows, s.count);
    if (keys.lo < piece * piece_keys) keys.lo = piece * piece_keys;
    if (keys.hi > (piece + 1) * piece_keys) keys.hi = (piece + 1) * piece_keys;
    for (int64_t j0 = keys.lo / L * L; j0 < keys.hi; j0 += TILE_KEYS) {
        const int64_t n = keys.hi - j0 < TILE_KEYS ? keys.hi - j0 : TILE_KEYS, width = pad_lanes(n);
        dot_block(&s, job, &group, j0, n);
        if (p->dropout_threshold) dropout_tile(s.keep, LD_SCORES, &dropout, s.rows, s.count, j0, width);
        for (int64_t r = 0; r < s.count; r++) softmax_row(&s, &context, r, j0, width);
        mix_block(&s, job, &group, j0, keys.lo > j0 ? keys.lo - j0 : 0, n);
    }
    end_rows(&s, job, &group, piece);
}
