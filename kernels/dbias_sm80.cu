// dbias_sm80.cu: the gradient of a dense bias on tensor cores: a block owns a tile of (i, j) of one (b, h) of dbias and sums
// ds = p (dp - delta) over the (sequence, head) pairs that share it, in a fixed order, in fp32 registers; one rounding.
//
// For dbias with as many rows and keys as the problem (an extent of 1 that is broadcast over i or j is dbias_generic.cu's).
// All of dbias is written.
//
// -D: TYPE, HEAD_D, HEAD_E, BM, BN, WARPS, ROW_WARPS (warps are ROW_WARPS x WARPS / ROW_WARPS parts of the tile), FEATURES,
// ALIGNED, BLOCKS (per multiprocessor), BIAS_TILE (1: a 16-bit bias with unit key stride and 16-byte aligned rows is read
// once for all pairs; it must be broadcast where dbias is, as bias and dbias have one shape).
// Grid: ceil(extent[2] / BM) * ceil(extent[3] / BN) * extent[1] * extent[0] of dbias.
#include "gradient_sm80.cuh"

#ifndef BLOCKS
#define BLOCKS 1
#endif
#ifndef BIAS_TILE
#define BIAS_TILE 0
#endif
#define THREADS (32 * WARPS)
#define KEY_WARPS (WARPS / ROW_WARPS)
#define WARP_ROWS (BM / ROW_WARPS)
#define WARP_KEYS (BN / KEY_WARPS)
#define MT (WARP_ROWS / 16)
#define NT (WARP_KEYS / 8)

static_assert(WARPS % ROW_WARPS == 0 && BM % (16 * ROW_WARPS) == 0 && BN % (16 * KEY_WARPS) == 0, "tiles");
static_assert(HEAD_D % 16 == 0 && HEAD_E % 16 == 0 && DLATTN_ROW_ALIGNMENT % BM == 0 && THREADS >= BM, "tiles");

#define Q_AT 0
#define K_AT (Q_AT + BM * HEAD_D * 2)
#define V_AT (K_AT + BN * HEAD_D * 2)
#define DOUT_AT (V_AT + BN * HEAD_E * 2)
#define BIAS_AT (DOUT_AT + BM * HEAD_E * 2)
#define LIMITS_AT (BIAS_AT + BIAS_TILE * BM * BN * 2)

extern __shared__ __align__(128) unsigned char shared_bytes[];

// The tile, and the pairs that share it: heads [h, h + heads) of sequences [b, end), heads inside.
typedef struct bias_group {
    int b, end, h, heads, i0, j0;
} bias_group;

typedef struct bias_pair {
    sequence s;
    int h;
    bool there, fresh, full;  // fresh: the first head of its sequence; full: no interval mask or length hides anything
} bias_pair;

// To the next pair that can see something of the tile. What there is to see depends on the sequence alone.
DEVICE void advance(const dlattn_params &p, const bias_group &g, bias_pair *pair) {
    pair->fresh = ++pair->h >= g.h + g.heads;
    if (!pair->fresh) return;
    pair->h = g.h;
    pair->there = false;
#pragma unroll 1
    for (int b = pair->s.b + 1; b < g.end && !pair->there; b++) {
        pair->s = read_sequence(p, b);
        const int rows = smaller(g.i0 + BM, pair->s.M);
        if (g.i0 >= pair->s.M || g.j0 >= pair->s.N) continue;
        if (HAS(p, DLATTN_FEATURE_SEGMENTS) && !meeting_of<BM, BN>(p, b, g.i0, g.j0).meets) continue;
        pair->there = true;
        pair->full = !MASKED_BY_ELEMENT && g.i0 + BM <= pair->s.M && g.j0 + BN <= pair->s.N;
        if (!HAS(p, DLATTN_FEATURE_INTERVAL)) continue;
        dlattn_mask mask = mask_of(p, pair->s);
        dlattn_interval span = dlattn_mask_span(&mask, g.i0, rows);
        pair->there = span.hi > g.j0 && span.lo < g.j0 + BN;
        pair->full = pair->full && dlattn_mask_full(&mask, g.i0, rows, g.j0, g.j0 + BN);
    }
}

DEVICE void load_q_and_k(const dlattn_params &p, const bias_group &g, const bias_pair &pair, u32 shared) {
    const sequence &s = pair.s;
    tile_source q = tile_source_of(p.q, s.b, s.q_begin, pair.h, s.M, p.D);
    tile_source k = tile_source_of(p.k, s.b, s.k_begin, pair.h / p.heads_per_group, s.N, p.D);
    load_tile_in_steps<BM, HEAD_D, THREADS, ALIGNED>(shared + Q_AT, q, g.i0);
    load_tile_in_steps<BN, HEAD_D, THREADS, ALIGNED>(shared + K_AT, k, g.j0);
}

DEVICE void load_dout_and_v(const dlattn_params &p, const bias_group &g, const bias_pair &pair, u32 shared) {
    const sequence &s = pair.s;
    tile_source dout = tile_source_of(p.dout, s.b, s.q_begin, pair.h, s.M, p.E);
    tile_source v = tile_source_of(p.v, s.b, s.k_begin, pair.h / p.heads_per_group, s.N, p.E);
    load_tile_in_steps<BM, HEAD_E, THREADS, ALIGNED>(shared + DOUT_AT, dout, g.i0);
    load_tile_in_steps<BN, HEAD_E, THREADS, ALIGNED>(shared + V_AT, v, g.j0);
}

DEVICE void write_tile(const dlattn_params &p, const bias_group &g, const float (&sum)[MT][NT][4], int i, int j) {
    const dlattn_view &t = p.dbias;
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = i + ROW_OF(a, 2 * half);
            if (row >= t.extent[2]) continue;
            i64 index = at(t, g.b, g.h, row);
#pragma unroll
            for (int n = 0; n < NT; n++) {
                int key = j + KEY_OF(n, 0);
                store_pair(t, index + key * t.stride[3], t.extent[3] - key, sum[a][n][2 * half], sum[a][n][2 * half + 1]);
            }
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) dbias_sm80(const __grid_constant__ dlattn_params p) {
    u32 shared = shared_address(shared_bytes);
    int warp = warp_id(), warp_row = warp / KEY_WARPS * WARP_ROWS, warp_key = warp % KEY_WARPS * WARP_KEYS;
    int across = (p.dbias.extent[3] + BN - 1) / BN, down = (p.dbias.extent[2] + BM - 1) / BM;
    int tile = (int)blockIdx.x % (across * down), owner = (int)blockIdx.x / (across * down);
    bias_group g;
    g.j0 = tile % across * BN;
    g.i0 = tile / across * BM;
    g.h = owner % p.dbias.extent[1];
    g.b = owner / p.dbias.extent[1];
    g.heads = p.dbias.extent[1] == 1 ? p.H : 1;
    g.end = p.dbias.extent[0] == 1 ? p.B : g.b + 1;
    const int i = g.i0 + warp_row + (lane_id() >> 2), j = g.j0 + warp_key + 2 * (lane_id() & 3);

    float sum[MT][NT][4];
    clear<MT, NT>(sum);
    dlattn_philox_key key;
    if (HAS(p, DLATTN_FEATURE_DROPOUT)) key = dropout_key(p);
#if BIAS_TILE
    const tile_bias<BN, WARP_KEYS> bias = {panel<BN, WARP_KEYS>(shared + BIAS_AT + warp_row * BN * 2, lane_by_rows<BN>(), warp_key)};
#else
    const global_bias bias = {};
#endif

    bias_pair pair;
    pair.s.b = g.b - 1;
    pair.h = g.h + g.heads;
    pair.there = false;
    if (g.heads > 0) advance(p, g, &pair);
    if (pair.there) {
        if (BIAS_TILE) {
            tile_source from = {(const u16 *)p.bias.data + at(p.bias, g.b, g.h, 0, g.j0), p.bias.stride[2], 1,
                                p.bias.extent[2], p.bias.extent[3] - g.j0};
            load_tile_in_steps<BM, BN, THREADS, true>(shared + BIAS_AT, from, g.i0);
        }
        load_q_and_k(p, g, pair, shared);
        copies_commit();
        load_dout_and_v(p, g, pair, shared);
        copies_commit();
    }
    const u32 rows_d = lane_by_rows<HEAD_D>(), rows_e = lane_by_rows<HEAD_E>();
    const u32 columns_d = lane_by_columns<HEAD_D>(), columns_e = lane_by_columns<HEAD_E>();
#pragma unroll 1
    while (pair.there) {
        score_context terms = score_context_of(p, pair.s, pair.h);
        if (pair.fresh && !pair.full && threadIdx.x < BM)
            ((limits *)(shared_bytes + LIMITS_AT))[threadIdx.x] =
                row_limits(p, pair.s, mask_of(p, pair.s), g.i0 + (int)threadIdx.x);
        float lse2[MT][2], delta[MT][2], s[MT][NT][4], dp[MT][NT][4];
        i64 row = row_of(p, pair.s, pair.h, i);
#pragma unroll
        for (int a = 0; a < MT; a++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                bool inside = i + 16 * a + 8 * half < pair.s.M;
                lse2[a][half] = inside ? ((const float *)p.lse2)[row + 16 * a + 8 * half] : INFINITE;
                delta[a][half] = inside ? ((const float *)p.delta)[row + 16 * a + 8 * half] : 0.0f;
            }
        copies_wait<1>();
        __syncthreads();  // q, k and the limits are here
        multiply_rows<MT, NT / 2, HEAD_D>(s, shared + Q_AT + warp_row * HEAD_D * 2, rows_d, shared + K_AT + warp_key * HEAD_D * 2,
                                          columns_d);
        __syncthreads();
        bias_pair next = pair;
        advance(p, g, &next);
        if (next.there) load_q_and_k(p, g, next, shared);
        copies_commit();
        exponents_of<false>(p, pair.s, terms, bias, s, dp, lse2, i, j);
        if (!pair.full) hide_outside(s, (const limits *)(shared_bytes + LIMITS_AT) + warp_row, j);
        hide_elements(s, p, terms, pair.s, i, j);
        copies_wait<1>();
        __syncthreads();  // dout and v are here
        multiply_rows<MT, NT / 2, HEAD_E>(dp, shared + DOUT_AT + warp_row * HEAD_E * 2, rows_e,
                                          shared + V_AT + warp_key * HEAD_E * 2, columns_e);
        __syncthreads();
        if (next.there) load_dout_and_v(p, g, next, shared);
        copies_commit();
        if (HAS(p, DLATTN_FEATURE_DROPOUT)) drop_elements(dp, p, key, pair.s, pair.h, i, j);
        const float kept = HAS(p, DLATTN_FEATURE_DROPOUT) ? p.dropout_scale : 1.0f;
        EACH_SCORE(MT, NT) sum[a][n][c] += exp2_approx(s[a][n][c]) * fmaf(dp[a][n][c], kept, -delta[a][c / 2]);
        pair = next;
    }
    write_tile(p, g, sum, i, j);
}
