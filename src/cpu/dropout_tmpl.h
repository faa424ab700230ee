/* dropout_tmpl.h: which scores of a tile dropout keeps, many Philox counters at a time.
 *
 * One counter gives the 16 bytes of rows i and i + 8 (i % 16 < 8) by the keys J + 8w + 2q + {0, 1}, w = 0..3, where J
 * is a multiple of 32 and q = 0..3 is part of the counter. A *unit* is the four counters q of one row pair and one J:
 * 2 rows by 32 keys. WL units run side by side in 64-bit lanes, q = 0..3 in four vectors, which is enough parallelism
 * to hide the multiplier's latency; lanes are 64 bits wide because the products are. */
#ifndef DLATTN_DROPOUT_TMPL_H
#define DLATTN_DROPOUT_TMPL_H

#include "dropout_key.h"
#include "rows.h"
#include "simd.h"

typedef struct dropout_spec {
    dlattn_philox_key key;
    dlattn_u32 first_head;          /* b*H */
    int32_t threshold;              /* 256: everything is dropped */
    int64_t q_position, k_position; /* what dropout adds to i and j */
} dropout_spec;

static __attribute__((unused)) dropout_spec dropout_spec_make(const problem *p, const buffers *x,
                                                              const row_group *group) {
    dropout_spec d = {0};
    if (!p->dropout_threshold) return d; /* rng_state need not be there */
    d.key = dlattn__dropout_key(p, x);
    d.first_head = (dlattn_u32)(uint64_t)group->b * (dlattn_u32)(uint64_t)p->H;
    d.threshold = p->dropout_threshold;
    if (p->flags & DLATTN_POSITIONS) {
        d.q_position = dlattn__dropout_start(group->sequence.q_position);
        d.k_position = dlattn__dropout_start(group->sequence.k_position);
    }
    return d;
}

/* Vectors of 64-bit lanes, for which gcc and clang have operators; the product of two low halves is an instruction. */
#if defined(__AVX512F__)
#define WL 8
#elif defined(__AVX2__)
#define WL 4
#elif defined(__aarch64__)
#include <arm_neon.h>
#define WL 2
#else
#define WL 1
#endif
typedef uint64_t vw __attribute__((vector_size(8 * WL)));
typedef uint8_t vw_bytes __attribute__((vector_size(8 * WL)));

SIMD_INLINE vw vw_set1(uint64_t x) {
    vw r = {0};
    return r + x;
}

/* The low halves of the lanes of a, times a factor of 32 bits. */
#if defined(__AVX512F__)
SIMD_INLINE vw vw_multiply(vw a, uint32_t factor) {
    return (vw)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(factor));
}
#elif defined(__AVX2__)
SIMD_INLINE vw vw_multiply(vw a, uint32_t factor) {
    return (vw)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(factor));
}
#elif defined(__aarch64__)
SIMD_INLINE vw vw_multiply(vw a, uint32_t factor) {
    return (vw)vmull_u32(vmovn_u64((uint64x2_t)a), vdup_n_u32(factor));
}
#else
SIMD_INLINE vw vw_multiply(vw a, uint32_t factor) { return (a & 0xffffffffu) * factor; }
#endif

/* The same bytes as 0 or 1: byte >= t, 1 <= t <= 255. */
SIMD_INLINE vw vw_keep(vw bytes, uint8_t t) {
    vw_bytes limit = {0};
    limit += t;
    return (vw)((vw_bytes)((vw_bytes)bytes >= limit) & 1);
}

#define DROPOUT_ROUND(k0, k1)                                                              \
    do {                                                                                    \
        const vw key0 = vw_set1(k0), key1 = vw_set1(k1);                                    \
        _Pragma("GCC unroll 4") for (int q = 0; q < 4; q++) {                               \
            vw a = vw_multiply(c[q][0], 0xD2511F53u), b = vw_multiply(c[q][2], 0xCD9E8D57u); \
            c[q][0] = (b >> 32) ^ c[q][1] ^ key0;                                           \
            c[q][1] = b;                                                                    \
            c[q][2] = (a >> 32) ^ c[q][3] ^ key1;                                           \
            c[q][3] = a;                                                                    \
        }                                                                                   \
    } while (0)

/* Units of one head and one block of 16 rows. */
typedef struct dropout_batch {
    const dropout_spec *d;
    dlattn_u32 head, block; /* the counters' third and second words */
    int count;              /* of units, at most WL */
    uint64_t c0[WL];        /* the counters' first words for q = 0 */
    uint8_t *out[WL][2];    /* where key J of rows i and i + 8 goes, NULL where the tile has no such row */
    uint8_t from[WL], to[WL]; /* only columns J + [from, to) are wanted: the tile begins or ends inside the unit */
} dropout_batch;

/* Ten rounds for the counters q = 0..3 of WL units. Words are in the low halves of the lanes; the high halves of
 * c[.][1] and c[.][3] hold leftovers, which the multiplier does not read. */
SIMD_INLINE void dropout_rounds(vw c[4][4], const dropout_batch *batch) {
    const dlattn_philox_key *key = &batch->d->key;
    dlattn_u32 k0 = key->k0, k1 = key->k1;
    vw c0;
    memcpy(&c0, batch->c0, sizeof c0);
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
        c[q][0] = c0 + (uint64_t)q;
        c[q][1] = vw_set1(batch->block);
        c[q][2] = vw_set1(batch->head);
        c[q][3] = vw_set1(key->offset_low);
    }
#pragma GCC unroll 1
    for (int round = 0; round < 10; round += 2) { /* by two: the words that trade places need no moves */
        DROPOUT_ROUND(k0, k1);
        DROPOUT_ROUND(k0 + 0x9E3779B9u, k1 + 0xBB67AE85u);
        k0 += 2 * 0x9E3779B9u;
        k1 += 2 * 0xBB67AE85u;
    }
}

/* Runs the units that are waiting. */
static __attribute__((noinline, unused)) void dropout_flush(dropout_batch *batch) {
    _Alignas(64) uint64_t kept[2][4][WL]; /* row of the pair, w, unit: 8 bytes of 8 keys */
    const uint8_t t = (uint8_t)batch->d->threshold;
    const vw low = vw_set1(0xffff), next = vw_set1(0xffff0000u);
    vw c[4][4];
    dropout_rounds(c, batch);
#pragma GCC unroll 4
    for (int w = 0; w < 4; w++) {
        vw first = (c[0][w] & low) | (c[1][w] & low) << 16 | (c[2][w] & low) << 32 | c[3][w] << 48;
        vw second = (c[0][w] & next) >> 16 | (c[1][w] & next) | (c[2][w] & next) << 16 | (c[3][w] & next) << 32;
        first = vw_keep(first, t);
        second = vw_keep(second, t);
        memcpy(kept[0][w], &first, sizeof first);
        memcpy(kept[1][w], &second, sizeof second);
    }
    for (int n = 0; n < batch->count; n++) {
        const int from = batch->from[n], to = batch->to[n];
        for (int half = 0; half < 2; half++) {
            uint8_t *out = batch->out[n][half];
            if (!out) continue;
            if (to - from == 32) {
                for (int w = 0; w < 4; w++) memcpy(out + 8 * w, &kept[half][w][n], 8);
            } else {
                uint8_t line[32];
                for (int w = 0; w < 4; w++) memcpy(line + 8 * w, &kept[half][w][n], 8);
                memcpy(out + from, line + from, (size_t)(to - from));
            }
        }
    }
    batch->count = 0;
}

/* Rows of one head and one block of 16 by the keys [begin, end): rows[half][r] is row 8*half + r, NULL if absent. */
static void dropout_block(dropout_batch *batch, uint8_t *rows[2][8], int64_t begin, int64_t end) {
    for (int pair = 0; pair < 8; pair++) {
        if (!rows[0][pair] && !rows[1][pair]) continue;
        for (int64_t J = begin & ~(int64_t)31; J < end; J += 32) {
            const int n = batch->count++;
            batch->c0[n] = (dlattn_u32)(uint64_t)J + (dlattn_u32)pair * 4;
            batch->from[n] = (uint8_t)(begin > J ? begin - J : 0);
            batch->to[n] = (uint8_t)(end < J + 32 ? end - J : 32);
            for (int half = 0; half < 2; half++)
                batch->out[n][half] = rows[half][pair] ? rows[half][pair] + (J - begin) : NULL;
            if (batch->count == WL) dropout_flush(batch);
        }
    }
    if (batch->count) dropout_flush(batch);
}

/* keep[r*ld + c] = 1 where dropout keeps key j0 + c of rows[r], otherwise 0; r < count, c < n. */
static __attribute__((noinline, unused)) void dropout_tile(uint8_t *keep, int64_t ld, const dropout_spec *d,
                                                           const row *rows, int64_t count, int64_t j0, int64_t n) {
    if (d->threshold >= 256) {
        for (int64_t r = 0; r < count; r++) memset(keep + r * ld, 0, n > 0 ? (size_t)n : 0);
        return;
    }
    const int64_t begin = j0 + d->k_position;
    dropout_batch batch = {.d = d};
    for (int64_t r = 0; r < count;) {
        uint8_t *members[2][8] = {{0}};
        const int64_t h = rows[r].h, block = (rows[r].i + d->q_position) >> 4;
        for (; r < count && rows[r].h == h && (rows[r].i + d->q_position) >> 4 == block; r++) {
            int64_t i = (rows[r].i + d->q_position) & 15;
            members[i >> 3][i & 7] = keep + r * ld;
        }
        batch.head = d->first_head + (dlattn_u32)h;
        batch.block = (dlattn_u32)(uint64_t)block;
        dropout_block(&batch, members, begin, begin + n);
    }
}

#endif
