// dbias_sm80.cu: the gradient of a dense bias on tensor cores: a block owns a tile of (i, j) of one (b, h) of dbias and sums
// ds = p (dp - delta) over the (sequence, head) pairs that share it, in a fixed order, in fp32 registers; one rounding.
//
// For dbias with as many rows and keys as the problem (an extent of 1 that is broadcast over i or j is dbias_generic.cu's).
// All of dbias is written.
//
// -D: TYPE, HEAD_D, HEAD_E, BM, BN, WARPS, ROW_WARPS (warps are ROW_WARPS x WARPS / ROW_WARPS parts of the tile), FEATURES,
// ALIGNED. Grid: ceil(extent[2] / BM) * ceil(extent[3] / BN) * extent[1] * extent[0] of dbias.
#include "backward_sm80.cuh"

#ifndef BLOCKS
#define BLOCKS 1
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
#define LIMITS_AT (BIAS_AT + BM * BN * 2)

extern __shared__ __align__(128) unsigned char shared_bytes[];

// The (sequence, head) pairs that share a tile of dbias are counted, b outside, h inside. Only the count is kept: what a
// pair's sequence is, is asked again where it is needed.
typedef struct bias_group {
    int b, h, heads, count, i0, j0;
} bias_group;

DEVICE int head_of(const bias_group &g, int pair) { return g.h + pair % g.heads; }
DEVICE sequence sequence_of(const dlattn_params &p, const bias_group &g, int pair) { return read_sequence(p, g.b + pair / g.heads); }

// The first pair from `pair` on that can see something of the tile; g.count: none.
DEVICE int next_pair(const dlattn_params &p, const bias_group &g, int pair) {
#pragma unroll 1
    for (; pair < g.count; pair++) {
        sequence s = sequence_of(p, g, pair);
        if (g.i0 >= s.M || g.j0 >= s.N) continue;
        if (!HAS(p, DLATTN_FEATURE_INTERVAL)) return pair;
        dlattn_mask mask = mask_of(p, s);
        dlattn_interval span = dlattn_mask_span(&mask, g.i0, smaller(g.i0 + BM, s.M));
        if (span.hi > g.j0 && span.lo < g.j0 + BN) return pair;
    }
    return g.count;
}

DEVICE void load_q_and_k(const dlattn_params &p, const bias_group &g, int pair, u32 shared) {
    sequence s = sequence_of(p, g, pair);
    int h = head_of(g, pair);
    tile_source q = tile_source_of(p.q, s.b, s.q_begin, h, s.M, p.D);
    tile_source k = tile_source_of(p.k, s.b, s.k_begin, h / p.heads_per_group, s.N, p.D);
    load_tile_in_steps<BM, HEAD_D, THREADS, ALIGNED>(shared + Q_AT, q, g.i0);
    load_tile_in_steps<BN, HEAD_D, THREADS, ALIGNED>(shared + K_AT, k, g.j0);
}

DEVICE void load_dout_and_v(const dlattn_params &p, const bias_group &g, int pair, u32 shared) {
    sequence s = sequence_of(p, g, pair);
    int h = head_of(g, pair);
    tile_source dout = tile_source_of(p.dout, s.b, s.q_begin, h, s.M, p.E);
    tile_source v = tile_source_of(p.v, s.b, s.k_begin, h / p.heads_per_group, s.N, p.E);
    load_tile_in_steps<BM, HEAD_E, THREADS, ALIGNED>(shared + DOUT_AT, dout, g.i0);
    load_tile_in_steps<BN, HEAD_E, THREADS, ALIGNED>(shared + V_AT, v, g.j0);
}

// The 16-bit bias of this lane's scores, pairs of keys, one word each, where only this lane looks for them. It is the same
// for all pairs that share the tile.
DEVICE u32 *bias_words() { return (u32 *)(shared_bytes + BIAS_AT) + threadIdx.x; }

DEVICE void keep_bias(const dlattn_params &p, const bias_group &g, int i, int j) {
    const u16 *bias = (const u16 *)p.bias.data + at(p.bias, g.b, g.h);
    u32 *words = bias_words();
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int row = i + ROW_OF(a, 2 * half), key = j + KEY_OF(n, 0);
                const u16 *first = bias + row * p.bias.stride[2] + key * p.bias.stride[3];
                u32 word = 0;
                if (row < p.bias.extent[2] && key < p.bias.extent[3]) word = *first;
                if (row < p.bias.extent[2] && key + 1 < p.bias.extent[3]) word |= (u32)first[p.bias.stride[3]] << 16;
                words[((a * NT + n) * 2 + half) * THREADS] = word;
            }
}

// From q.k in s to the exponent of p; `slope` as tanh_derivative where there is softcap.
DEVICE void exponents(const dlattn_params &p, const sequence &q, const score_context &terms, float (&s)[MT][NT][4],
                      float (&slope)[MT][NT][4], const float (&lse2)[MT][2], int i, int j, bool kept_bias) {
    exponent_context e = exponent_context_of(p, terms);
    float distance = (float)dlattn_add_sat(terms.distance, (i64)i - j);
    const u32 *words = bias_words();
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float bias[2] = {0.0f, 0.0f};
                if (HAS(p, DLATTN_FEATURE_BIAS) && kept_bias) {
                    u32 word = words[((a * NT + n) * 2 + half) * THREADS];
                    bool f16 = p.bias.dtype == DLATTN_TYPE_F16;
                    bias[0] = f16 ? float_of_f16((u16)word) : float_of_bf16((u16)word);
                    bias[1] = f16 ? float_of_f16((u16)(word >> 16)) : float_of_bf16((u16)(word >> 16));
                } else if (HAS(p, DLATTN_FEATURE_BIAS)) {
#pragma unroll
                    for (int x = 0; x < 2; x++) {
                        int row = smaller(i + ROW_OF(a, 2 * half), q.M - 1), key = smaller(j + KEY_OF(n, x), q.N - 1);
                        bias[x] = load_float(p.bias, terms.bias_at + row * p.bias.stride[2] + key * p.bias.stride[3]);
                    }
                }
#pragma unroll
                for (int x = 0; x < 2; x++) {
                    int c = 2 * half + x;
                    s[a][n][c] = exponent_of(p, e, s[a][n][c], distance + (float)(ROW_OF(a, c) - KEY_OF(n, c)), bias[x],
                                             lse2[a][half], &slope[a][n][c]);
                }
            }
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
    int warp = (int)threadIdx.x / 32, warp_row = warp / KEY_WARPS * WARP_ROWS, warp_key = warp % KEY_WARPS * WARP_KEYS;
    int across = (p.dbias.extent[3] + BN - 1) / BN, down = (p.dbias.extent[2] + BM - 1) / BM;
    int tile = (int)blockIdx.x % (across * down), owner = (int)blockIdx.x / (across * down);
    bias_group g;
    g.j0 = tile % across * BN;
    g.i0 = tile / across * BM;
    g.h = owner % p.dbias.extent[1];
    g.b = owner / p.dbias.extent[1];
    g.heads = p.dbias.extent[1] == 1 ? p.H : 1;
    g.count = g.heads * (p.dbias.extent[0] == 1 ? p.B : 1);
    int i = g.i0 + warp_row + (lane_id() >> 2), j = g.j0 + warp_key + 2 * (lane_id() & 3);

    float sum[MT][NT][4];
    clear<MT, NT>(sum);
    const bool kept_bias = HAS(p, DLATTN_FEATURE_BIAS) && p.bias.dtype != DLATTN_TYPE_F32;
    if (kept_bias) keep_bias(p, g, i, j);
    dlattn_philox_key key;
    if (HAS(p, DLATTN_FEATURE_DROPOUT)) key = dropout_key(p);
    const u32 rows_d = lane_by_rows<HEAD_D>(), rows_e = lane_by_rows<HEAD_E>();
    const u32 columns_d = lane_by_columns<HEAD_D>(), columns_e = lane_by_columns<HEAD_E>();

    int pair = next_pair(p, g, 0);
    if (pair < g.count) load_q_and_k(p, g, pair, shared);
    copies_commit();
    if (pair < g.count) load_dout_and_v(p, g, pair, shared);
    copies_commit();
#pragma unroll 1
    while (pair < g.count) {
        sequence q = sequence_of(p, g, pair);
        const int h = head_of(g, pair);
        dlattn_mask mask = mask_of(p, q);
        score_context terms = score_context_of(p, q, h);
        const bool full = !MASKED_BY_ELEMENT && g.i0 + BM <= q.M && dlattn_mask_full(&mask, g.i0, g.i0 + BM, g.j0, g.j0 + BN);
        if (!full && threadIdx.x < BM)
            ((limits *)(shared_bytes + LIMITS_AT))[threadIdx.x] = row_limits(p, q, mask, g.i0 + (int)threadIdx.x);
        float lse2[MT][2], delta[MT][2], s[MT][NT][4], slope[MT][NT][4], dp[MT][NT][4];
        i64 row = row_of(p, q, h, i);
#pragma unroll
        for (int a = 0; a < MT; a++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                bool inside = i + 16 * a + 8 * half < q.M;
                lse2[a][half] = inside ? ((const float *)p.lse2)[row + 16 * a + 8 * half] : INFINITE;
                delta[a][half] = inside ? ((const float *)p.delta)[row + 16 * a + 8 * half] : 0.0f;
            }
        copies_wait<1>();
        __syncthreads();  // q, k and the limits are here
        multiply_rows<MT, NT / 2, HEAD_D>(s, shared + Q_AT + warp_row * HEAD_D * 2, rows_d, shared + K_AT + warp_key * HEAD_D * 2,
                                          columns_d);
        __syncthreads();
        const int next = next_pair(p, g, pair + 1);
        if (next < g.count) load_q_and_k(p, g, next, shared);
        copies_commit();
        exponents(p, q, terms, s, slope, lse2, i, j, kept_bias);
        if (!full) hide_outside(s, (const limits *)(shared_bytes + LIMITS_AT) + warp_row, j);
        hide_elements(s, p, terms, i, j, q.M, q.N);
        copies_wait<1>();
        __syncthreads();  // dout and v are here
        multiply_rows<MT, NT / 2, HEAD_E>(dp, shared + DOUT_AT + warp_row * HEAD_E * 2, rows_e,
                                          shared + V_AT + warp_key * HEAD_E * 2, columns_e);
        __syncthreads();
        if (next < g.count) load_dout_and_v(p, g, next, shared);
        copies_commit();
        if (HAS(p, DLATTN_FEATURE_DROPOUT)) drop_tile(dp, p, key, q, h, i, j);
        const float kept = HAS(p, DLATTN_FEATURE_DROPOUT) ? p.dropout_scale : 1.0f;
        EACH_SCORE(MT, NT) sum[a][n][c] += exp2_approx(s[a][n][c]) * fmaf(dp[a][n][c], kept, -delta[a][c / 2]);
        pair = next;
    }
    write_tile(p, g, sum, i, j);
}
