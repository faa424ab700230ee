// score_tiles.cuh: what happens to a tile of scores in mma fragments: score terms, masks and dropout, as scores.cuh
// says them element by element.
//
// A tile s[MT][NT][4] is 16 MT rows by 8 NT keys of one warp. `i` and `j` below are the thread's own first row and key:
// element c of (a, n) is row i + 16 a + 8 (c / 2), key j + 8 n + c % 2.
#ifndef DLATTN_SCORE_TILES_CUH
#define DLATTN_SCORE_TILES_CUH

#include "mma.cuh"
#include "scores.cuh"
#include "softcap.cuh"

// Do the features change the score beyond its scale?
#define FEATURES_SCORED (DLATTN_FEATURE_SOFTCAP | DLATTN_FEATURE_ALIBI | DLATTN_FEATURE_BIAS)

#ifndef BIAS
#define BIAS 0
#endif
#if BIAS
// A warp's own rows of a tile of bias in shared memory, permuted as every tile: of the element type (BIAS 1) or float
// (2). Nobody else reads them, so the warp copies the next ones as soon as it has read these.
#define BIAS_COLS (BN * BIAS) // 16-bit elements of a row

// Rows from row0 on, at most `rows`, keys from j0 on, N there are: 16 * MT rows of this warp.
template <int ROWS>
DEVICE void load_bias(u32 tile, const dlattn_params &p, const score_context &context, int row0, int rows, int j0,
                      int N) {
    const int CHUNKS = BIAS_COLS / 8, STEP = 32 / CHUNKS, lane = thread_anew() % 32;
    static_assert(32 % CHUNKS == 0 && ROWS % STEP == 0, "keys of a tile with bias: 32, 64, 128, or 256 for 16 bits");
    const int chunk = lane % CHUNKS, left = (N - j0 - 8 / BIAS * chunk) * (2 * BIAS), row = row0 + lane / CHUNKS;
    const char *from = (const char *)p.bias.data +
                       (context.bias_at + row * p.bias.stride[2] + j0 + 8 / BIAS * chunk) * (2 * BIAS);
#pragma unroll
    for (int r = 0; r < ROWS; r += STEP) {
        const u32 to = tile + chunk_offset<BIAS_COLS>(lane / CHUNKS + r, chunk);
        if (j0 + BN <= N) copy_async(to, from, row + r < rows ? 16 : 0);
        else copy_async(to, from, row + r < rows ? larger(0, smaller(16, left)) : 0);
        from += STEP * p.bias.stride[2] * (2 * BIAS);
    }
}

// The bias of element pair (2t, 2t + 1) of 8 x 8 block n, row r of the warp's rows.
DEVICE float2 bias_pair(u32 tile, int r, int n) {
    const int t = lane_id() % 4;
    float2 pair;
#if BIAS == 2
    const u32 address = tile + chunk_offset<BIAS_COLS>(r, 2 * n + t / 2) + t % 2 * 8;
    asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(pair.x), "=f"(pair.y) : "r"(address) : "memory");
#else
    const u32 address = tile + chunk_offset<BIAS_COLS>(r, n) + t * 4;
    u32 both;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(both) : "r"(address) : "memory");
    pair = make_float2(float_of_element((u16)both), float_of_element((u16)(both >> 16)));
    if (TYPE == DLATTN_TYPE_BF16) pair = make_float2(__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000u));
#endif
    return pair;
}
#endif

// s: q.k, becomes the score in natural units; with only the softcap, times `unit`. Rows >= M and keys >= N get some
// number. bias: the warp's tile of it.
template <int MT, int NT>
DEVICE void score_tile(float (&s)[MT][NT][4], const dlattn_params &p, const score_context &context, int i, int j, int M,
                       int N, u32 bias, float unit) {
    if (HAS(p, DLATTN_FEATURE_SOFTCAP)) {
        cap_tile(s, p.scale, p.softcap, unit);
    } else {
        EACH_SCORE(MT, NT) s[a][n][c] *= p.scale;
    }
    if (HAS(p, DLATTN_FEATURE_ALIBI)) {
        const i64 distance = context.distance + i - j;
        if (distance > -(1 << 23) && distance < 1 << 23) { // then single precision counts exactly
            const float first = (float)(int)distance, slope = context.slope;
            EACH_SCORE(MT, NT) s[a][n][c] -= slope * fabsf(first + (float)(ROW_OF(a, c) - KEY_OF(n, c)));
        } else {
            EACH_SCORE(MT, NT) {
                const i64 d = distance + (ROW_OF(a, c) - KEY_OF(n, c));
                s[a][n][c] -= context.slope * (float)(d < 0 ? -d : d);
            }
        }
    }
#if BIAS
    EACH_SCORE(MT, NT) {
        if (c % 2) continue;
        const float2 pair = bias_pair(bias, ROW_OF(a, c) + lane_id() / 4, n);
        s[a][n][c] += pair.x;
        s[a][n][c + 1] += pair.y;
    }
#else
    if (HAS(p, DLATTN_FEATURE_BIAS)) {
        EACH_SCORE(MT, NT) {
            const int row = smaller(i + ROW_OF(a, c), M - 1), key = smaller(j + KEY_OF(n, c), N - 1);
            s[a][n][c] += load_float(p.bias, context.bias_at + row * p.bias.stride[2] + key * p.bias.stride[3]);
        }
    }
#endif
}

// Hides keys before each row's lower limit, or from its upper limit on, of a tile that starts at key j0. `rows`: the
// limits of the block's rows.
template <int MT, int NT>
DEVICE void hide_before(float (&s)[MT][NT][4], const limits *rows, int j0) {
    const int thread = thread_anew(), j = j0 + thread % 4 * 2;
    rows += thread / 32 * (16 * MT) + thread % 32 / 4;
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int lo = rows[16 * a + 8 * half].lo - j;
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int c = 2 * half; c < 2 * half + 2; c++)
                    if (KEY_OF(n, c) < lo) s[a][n][c] = -INFINITE;
        }
}

template <int MT, int NT>
DEVICE void hide_after(float (&s)[MT][NT][4], const limits *rows, int j0) {
    const int thread = thread_anew(), j = j0 + thread % 4 * 2;
    rows += thread / 32 * (16 * MT) + thread % 32 / 4;
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int hi = rows[16 * a + 8 * half].hi - j;
#pragma unroll
            for (int n = 0; n < NT; n++)
#pragma unroll
                for (int c = 2 * half; c < 2 * half + 2; c++)
                    if (KEY_OF(n, c) >= hi) s[a][n][c] = -INFINITE;
        }
}

// Hides keys from N on.
template <int MT, int NT>
DEVICE void hide_past(float (&s)[MT][NT][4], int j, int N) {
    EACH_SCORE(MT, NT) if (j + KEY_OF(n, c) >= N) s[a][n][c] = -INFINITE;
}

// Segments of BN keys in shared memory, 8 bytes each whatever their type.
template <int THREADS>
DEVICE void load_segments(u32 to, const dlattn_params &p, const score_context &context, int j0, int N) {
    const int size = p.kv_segments.dtype == DLATTN_TYPE_I64 ? 8 : 4;
    for (int n = (int)threadIdx.x; n < BN; n += THREADS) {
        const i64 index = context.kv_segments_at + smaller(j0 + n, N - 1) * p.kv_segments.stride[1];
        copy_small_async(to + 8 * n, (const char *)p.kv_segments.data + index * size, size);
    }
}

DEVICE i64 segment_at(u32 segments, const dlattn_params &p, int n) {
    i64 x;
    asm volatile("ld.shared.b64 %0, [%1];" : "=l"(x) : "r"(segments + 8 * n) : "memory");
    return p.kv_segments.dtype == DLATTN_TYPE_I64 ? x : (i64)(int)x;
}

// The least and the largest segment of some rows.
typedef struct segment_range {
    i64 lo, hi;
} segment_range;

// How a tile of keys meets a warp's rows: no row sees any of it, all see all of it, or it must be looked at.
#define TILE_APART 0
#define TILE_WHOLE 1
#define TILE_PARTLY 2

DEVICE int compare_segments(u32 segments, const dlattn_params &p, const segment_range &rows, int j0, int N) {
    bool meets = false, equal = rows.lo == rows.hi;
#pragma unroll
    for (int n = 0; n < BN; n += 32) {
        if (BN % 32 != 0 && n + lane_id() >= BN) break;
        const i64 segment = segment_at(segments, p, n + lane_id());
        const bool there = j0 + n + lane_id() < N;
        meets |= there && rows.lo <= segment && segment <= rows.hi;
        equal &= !there || segment == rows.lo;
    }
    if (!__any_sync(0xffffffffu, meets)) return TILE_APART;
    return __all_sync(0xffffffffu, equal) ? TILE_WHOLE : TILE_PARTLY;
}

template <int MT, int NT>
DEVICE void hide_other_segments(float (&s)[MT][NT][4], const dlattn_params &p, const score_context &context,
                                u32 segments, int i, int M) {
    i64 own[MT][2];
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            own[a][half] = load_int(p.q_segments, context.q_segments_at +
                                                      smaller(i + ROW_OF(a, 2 * half), M - 1) * p.q_segments.stride[1]);
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
            const i64 segment = segment_at(segments, p, KEY_OF(n, odd) + lane_id() % 4 * 2);
#pragma unroll
            for (int a = 0; a < MT; a++) {
                if (own[a][0] != segment) s[a][n][odd] = -INFINITE;
                if (own[a][1] != segment) s[a][n][odd + 2] = -INFINITE;
            }
        }
}

// Hides what the mask tensor hides. A tile inside it with dense rows is read at constant distances from one address a
// row; else a loop that is not unrolled collects 16 bits at a time, because addresses for all would need too many
// registers.
template <int MT, int NT>
DEVICE void hide_masked(float (&s)[MT][NT][4], const dlattn_params &p, const score_context &context, int i, int j,
                        int M, int N) {
    const unsigned char *mask = (const unsigned char *)p.mask.data + context.mask_at;
    const bool dense = p.mask.stride[3] == 1 && j - lane_id() % 4 * 2 + 8 * NT <= N;
#pragma unroll
    for (int a = 0; a < MT; a++) {
        if (dense) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const unsigned char *row = mask + smaller(i + ROW_OF(a, 2 * half), M - 1) * p.mask.stride[2] + j;
#pragma unroll
                for (int n = 0; n < NT; n++)
#pragma unroll
                    for (int odd = 0; odd < 2; odd++)
                        if (!row[KEY_OF(n, odd)]) s[a][n][2 * half + odd] = -INFINITE;
            }
            continue;
        }
#pragma unroll
        for (int first = 0; first < NT; first += 4) {
            u32 hidden = 0;
#pragma unroll 4
            for (int bit = 0; bit < 16; bit++) {
                const int n = first + bit / 4, c = bit % 4;
                const int row = smaller(i + ROW_OF(a, c), M - 1), key = smaller(j + KEY_OF(n, c), N - 1);
                if (!mask[row * p.mask.stride[2] + key * p.mask.stride[3]]) hidden |= 1u << bit;
            }
#pragma unroll
            for (int n = first; n < first + 4 && n < NT; n++)
#pragma unroll
                for (int c = 0; c < 4; c++)
                    if (hidden >> (4 * (n - first) + c) & 1u) s[a][n][c] = -INFINITE;
        }
    }
}

// Dropped elements become 0; kept ones are left to be scaled with their row. Where the tile starts at i' a multiple of
// 16 and j' of 32, the four words of one Philox call are this thread's 16 elements of a 16 x 32 block, in order.
template <int MT, int NT>
DEVICE void drop_tile(float (&s)[MT][NT][4], const dlattn_params &p, const dlattn_philox_key &key, const sequence &q,
                      int h, int i, int j) {
    const i64 row = i + (p.positions ? q.q_position : 0) - lane_id() / 4;
    const i64 column = j + (p.positions ? q.k_position : 0) - lane_id() % 4 * 2;
    const bool aligned = NT % 4 == 0 && (row & 15) == 0 && (column & 31) == 0;
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int block = 0; block < (NT + 3) / 4; block++) {
            if (aligned) {
                u32 words[4] = {(u32)(column >> 5) * 32u + block * 32u + lane_id(), (u32)(row >> 4) + a,
                                (u32)(q.b * p.H + h), key.offset_low};
                dlattn_philox(words, key.k0, key.k1);
#pragma unroll
                for (int n = 0; n < 4 && 4 * block + n < NT; n++)
#pragma unroll
                    for (int c = 0; c < 4; c++)
                        if ((int)((words[n] >> 8 * c) & 255u) < p.dropout_threshold) s[a][4 * block + n][c] = 0.0f;
            } else {
                u32 dropped = 0; // bit 4 n + c: a loop that is not unrolled cannot index s
#pragma unroll 1
                for (int bit = 0; bit < 16; bit++) {
                    const int n = 4 * block + bit / 4, c = bit % 4;
                    if (dropout_factor(p, key, q, h, i + ROW_OF(a, c), j + KEY_OF(n, c)) == 0.0f) dropped |= 1u << bit;
                }
#pragma unroll
                for (int n = 0; n < 4 && 4 * block + n < NT; n++)
#pragma unroll
                    for (int c = 0; c < 4; c++)
                        if (dropped >> (4 * n + c) & 1u) s[a][4 * block + n][c] = 0.0f;
            }
        }
}

#endif
