/* decode_tmpl.c: forward attention of few query rows by many keys: no packing, K and V are read where they lie, once.
 *
 *     for each block of keys:   S = Q K^T by dot products along D;   P = 2^(t(S) - m), m and l updated;   O += P V
 *
 * An item is one piece of the keys of one (b, g) with all its query rows. Memory is the limit, so the loops below are
 * shaped to use each row of K and V while it is in the first-level cache, and to ask for rows ahead of time. */
#include "dropout_tmpl.h"
#include "finish_tmpl.h"
#include "tile_tmpl.h"

/* Accumulators of both products: rows by keys, then rows by vectors of a V row. A machine with 16 registers takes 8. */
#if L == 1
#define NA 8
#elif defined(__AVX2__) && !defined(__AVX512F__)
#define NA 8
#else
#define NA 16
#endif

enum {
    DECODE_ROWS = 8,     /* the most */
    V_STEP = 32,         /* keys of V that stay in the first-level cache while all columns pass over them */
    K_AHEAD = 16, V_AHEAD = 32 /* rows asked for in advance; 8 to 32 made no difference */
};

#define LINE 64 /* bytes of a cache line */

/* ---- S = Q K^T and O += P V, for each element type and number of rows ------------------------------------------------ */

/* S[r][j] = sum_d q[r][d] * k[j][d] for rb rows and `keys` (a multiple of NA / rb) keys; D is a multiple of L. */
#define DOT_KERNEL(name, type, load, rb)                                                                              \
    static __attribute__((noinline)) void dot_##name##_##rb(real *S, const real *q, int64_t ldq, const void *k_rows,  \
                                                            int64_t row_stride, int64_t D, int64_t keys) {           \
        enum { KB = NA / rb };                                                                                        \
        const type *k = k_rows;                                                                                       \
        for (int64_t j = 0; j < keys; j += KB, k += KB * row_stride) {                                                \
            v acc[NA];                                                                                                \
            _Pragma("GCC unroll 16") for (int n = 0; n < NA; n++) acc[n] = v_zero();                                  \
            for (int64_t d = 0; d < D; d += L) {                                                                      \
                v here[KB];                                                                                           \
                _Pragma("GCC unroll 16") for (int n = 0; n < KB; n++) {                                               \
                    here[n] = load(k + n * row_stride + d);                                                           \
                    if (d * (int64_t)sizeof(type) % LINE == 0) prefetch(k + (n + K_AHEAD) * row_stride + d);          \
                    if (rb > 1) v_keep(here[n]);                                                                      \
                }                                                                                                     \
                _Pragma("GCC unroll 8") for (int r = 0; r < rb; r++) {                                                \
                    v row = v_load(q + r * ldq + d);                                                                  \
                    _Pragma("GCC unroll 16") for (int n = 0; n < KB; n++)                                             \
                        acc[r * KB + n] = v_fma(row, here[n], acc[r * KB + n]);                                       \
                }                                                                                                     \
            }                                                                                                         \
            real sums[NA];                                                                                            \
            _Pragma("GCC unroll 16") for (int n = 0; n < NA; n += L) v_store(sums + n, v_sums(acc + n));              \
            _Pragma("GCC unroll 8") for (int r = 0; r < rb; r++)                                                      \
                memcpy(S + r * LD_SCORES + j, sums + r * KB, KB * sizeof(real));                                      \
        }                                                                                                             \
    }

/* O[r][..] += sum_j P[r][j] * v[j][..] for rb rows and w vectors. */
#define MIX_KERNEL(name, type, load, rb, w)                                                                           \
    static __attribute__((noinline)) void mix_##name##_##rb##x##w(real *O, int64_t ldo, const real *P,                \
                                                                  const void *v_rows, int64_t row_stride,            \
                                                                  int64_t keys) {                                     \
        const type *from = v_rows;                                                                                    \
        v acc[rb][w];                                                                                                 \
        _Pragma("GCC unroll 8") for (int r = 0; r < rb; r++)                                                          \
            _Pragma("GCC unroll 8") for (int c = 0; c < w; c++) acc[r][c] = v_load(O + r * ldo + c * L);              \
        for (int64_t j = 0; j < keys; j++, from += row_stride) {                                                      \
            v here[w];                                                                                                \
            _Pragma("GCC unroll 8") for (int c = 0; c < w; c++) {                                                     \
                here[c] = load(from + c * L);                                                                         \
                if (c * L * (int)sizeof(type) % LINE == 0) prefetch(from + V_AHEAD * row_stride + c * L);             \
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

/* The kernels of one element type: [log2 of rows], and [log2 of rows][log2 of vectors]; rows * vectors <= NA. */
typedef struct decode_kernels {
    dot_fn *dot[4];
    mix_fn *mix[4][4];
} decode_kernels;

#if NA == 16
#define MIX_WIDE(X) X(1, 8) X(2, 4) X(2, 8) X(4, 4) X(8, 2)
#define MIX_TABLE(n)                                                                     \
    {{mix_##n##_1x1, mix_##n##_1x2, mix_##n##_1x4, mix_##n##_1x8},                       \
     {mix_##n##_2x1, mix_##n##_2x2, mix_##n##_2x4, mix_##n##_2x8},                       \
     {mix_##n##_4x1, mix_##n##_4x2, mix_##n##_4x4, 0}, {mix_##n##_8x1, mix_##n##_8x2, 0, 0}}
#else
#define MIX_WIDE(X) X(1, 8) X(2, 4)
#define MIX_TABLE(n)                                                                     \
    {{mix_##n##_1x1, mix_##n##_1x2, mix_##n##_1x4, mix_##n##_1x8},                       \
     {mix_##n##_2x1, mix_##n##_2x2, mix_##n##_2x4, 0}, {mix_##n##_4x1, mix_##n##_4x2, 0, 0}, {mix_##n##_8x1, 0, 0, 0}}
#endif
#define MIX_SHAPES(X) X(1, 1) X(1, 2) X(1, 4) X(2, 1) X(2, 2) X(4, 1) X(4, 2) X(8, 1) MIX_WIDE(X)
#define DOT_TABLE(n) {dot_##n##_1, dot_##n##_2, dot_##n##_4, dot_##n##_8}

#if REAL_IS_F64
#define DOT_OWN(rb) DOT_KERNEL(own, double, v_load, rb)
#define MIX_OWN(rb, w) MIX_KERNEL(own, double, v_load, rb, w)
#else
#define DOT_OWN(rb) DOT_KERNEL(own, float, v_load, rb)
#define MIX_OWN(rb, w) MIX_KERNEL(own, float, v_load, rb, w)
#define DOT_F16(rb) DOT_KERNEL(f16, uint16_t, v_load_f16, rb)
#define MIX_F16(rb, w) MIX_KERNEL(f16, uint16_t, v_load_f16, rb, w)
#define DOT_BF16(rb) DOT_KERNEL(bf16, uint16_t, v_load_bf16, rb)
#define MIX_BF16(rb, w) MIX_KERNEL(bf16, uint16_t, v_load_bf16, rb, w)
DOT_F16(1) DOT_F16(2) DOT_F16(4) DOT_F16(8) MIX_SHAPES(MIX_F16)
DOT_BF16(1) DOT_BF16(2) DOT_BF16(4) DOT_BF16(8) MIX_SHAPES(MIX_BF16)
static const decode_kernels kernels_f16 = {DOT_TABLE(f16), MIX_TABLE(f16)};
static const decode_kernels kernels_bf16 = {DOT_TABLE(bf16), MIX_TABLE(bf16)};
#endif
DOT_OWN(1) DOT_OWN(2) DOT_OWN(4) DOT_OWN(8) MIX_SHAPES(MIX_OWN)
static const decode_kernels kernels_own = {DOT_TABLE(own), MIX_TABLE(own)};

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
    uint8_t *keep;               /* [DECODE_ROWS][LD_SCORES]: dropout */
    real *bias_row;              /* [LD_SCORES] */
    uint8_t *keep_row;           /* [LD_SCORES] */
    const decode_kernels *kernels;
    int64_t count;               /* of rows */
    int rows_log2;               /* what the kernels take: 1, 2, 4 or 8 */
} decode_scratch;

static int64_t carve(decode_scratch *s, const problem *p, char *base) {
    char *at = base;
    s->rows = CARVE(&at, row, DECODE_ROWS);
    s->q = CARVE(&at, real, DECODE_ROWS * p->D);
    s->scores = CARVE(&at, real, DECODE_ROWS * LD_SCORES);
    s->out = CARVE(&at, real, DECODE_ROWS * p->E);
    s->sum = CARVE(&at, real, DECODE_ROWS * L);
    s->maximum = CARVE(&at, real, DECODE_ROWS);
    s->tail = CARVE(&at, char, NA * p->D * (int64_t)sizeof(real));
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

/* Rows of K and V are read in whole vectors, in place. */
bool NAME(decode_takes)(const problem *p);
bool NAME(decode_takes)(const problem *p) {
    return (p->k.stride[3] == 1 || p->D == 1) && (p->v.stride[3] == 1 || p->E == 1) && p->D % L == 0 && p->E % L == 0;
}

static void begin_rows(decode_scratch *s, const cpu_job *job, const row_group *group) {
    const problem *p = job->p;
    s->count = group->rows;
    s->rows_log2 = 0;
    while (1 << s->rows_log2 < s->count) s->rows_log2++;
    dlattn__rows_fill(s->rows, p, group, 0, s->count);
    memset(s->q, 0, (size_t)(DECODE_ROWS * p->D) * sizeof(real));
    memset(s->out, 0, (size_t)(DECODE_ROWS * p->E) * sizeof(real));
    memset(s->sum, 0, DECODE_ROWS * L * sizeof(real));
    for (int64_t n = 0; n < s->count; n++) {
        const row *r = &s->rows[n];
        const char *q = dlattn__at(&p->q, job->x->q, group->b, group->sequence.q_begin + r->i, r->h, 0);
        row_load(s->q + n * p->D, q, p->q.stride[3], p->q.dtype, p->D);
        s->maximum[n] = SCORE_FLOOR;
    }
}

/* Products of all rows with keys [j0, j0 + n): whole register tiles in place, the rest from a padded copy. */
static void dot_block(decode_scratch *s, const cpu_job *job, const row_group *group, int64_t j0, int64_t n) {
    const problem *p = job->p;
    const int64_t step = NA >> s->rows_log2, whole = n / step * step, bytes = dlattn__size_of(p->k.dtype);
    const char *k = dlattn__at(&p->k, job->x->k, group->b, group->sequence.k_begin + j0, group->g, 0);
    dot_fn *dot = s->kernels->dot[s->rows_log2];
    dot(s->scores, s->q, p->D, k, p->k.stride[1], p->D, whole);
    if (whole == n) return;
    memset(s->tail, 0, (size_t)(step * p->D * bytes));
    for (int64_t j = whole; j < n; j++)
        memcpy(s->tail + (j - whole) * p->D * bytes, k + j * p->k.stride[1] * bytes, (size_t)(p->D * bytes));
    dot(s->scores + whole, s->q, p->D, s->tail, p->D, p->D, step);
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
    for (int64_t k = k0; k < k1; k += V_STEP) {
        const int64_t keys = k1 - k < V_STEP ? k1 - k : V_STEP;
        const char *from = dlattn__at(&p->v, job->x->v, group->b, group->sequence.k_begin + j0 + k, group->g, 0);
        for (int64_t c = 0; c < vectors;) {
            int width = 3;
            while (1 << width > vectors - c || !s->kernels->mix[s->rows_log2][width]) width--;
            s->kernels->mix[s->rows_log2][width](s->out + c * L, p->E, s->scores + k, from + c * L * bytes,
                                                 p->v.stride[1], keys);
            c += 1 << width;
        }
    }
}

static void end_rows(decode_scratch *s, const cpu_job *job, const row_group *group, int64_t piece) {
    const int64_t E = job->p->E, first = (group->b * job->p->G + group->g) * job->shape.group_rows;
    for (int64_t n = 0; n < s->count; n++) {
        const real sum = v_hsum(v_load(s->sum + n * L));
        const int64_t part = (first + n) * job->shape.pieces + piece;
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
