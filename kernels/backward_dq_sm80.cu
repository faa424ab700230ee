// backward_dq_sm80.cu: dq on tensor cores without reductions, the same bits in every run: a block owns BM rows of one (sequence,
// query head) and passes over the tiles of BN keys they can see: s = q k^T, dp = dout v^T, ds = p (dp - delta), dq += ds k.
//
// -D: TYPE, HEAD_D, HEAD_E, BM, BN, WARPS (each owns BM / WARPS rows, 16 or 32), STAGES (tiles of k and v under way: 1 or 2),
// FEATURES, ALIGNED. Grid: row_tiles * H * B. Rows past the end of a sequence are blank.cu's.
#include "backward_write.cuh"
#include "gradient_sm80.cuh"

#ifndef STAGES
#define STAGES 2
#endif
#define THREADS (32 * WARPS)
#define MT (BM / (16 * WARPS))
#define NT (BN / 8)

static_assert(MT >= 1 && BM % (16 * WARPS) == 0 && BN % 16 == 0 && HEAD_D % 16 == 0 && HEAD_E % 16 == 0, "tiles");
static_assert(DLATTN_ROW_ALIGNMENT % BM == 0, "a tile's rows of the workspace are its sequence's");

#define Q_AT 0
#define DOUT_AT (Q_AT + BM * HEAD_D * 2)
#define K_AT (DOUT_AT + BM * HEAD_E * 2)
#define V_AT (K_AT + STAGES * BN * HEAD_D * 2)
#define LIMITS_AT (V_AT + STAGES * BN * HEAD_E * 2)

extern __shared__ __align__(128) unsigned char shared_bytes[];

typedef struct row_context {
    sequence s;
    dlattn_mask mask;
    score_context terms;
    dlattn_philox_key key;
    int h, i0, row;         // row: this lane's first
    float lse2[MT][2], delta[MT][2];
} row_context;

DEVICE void load_keys(const dlattn_params &p, const row_context &c, u32 shared, int j0, int stage) {
    int g = c.h / p.heads_per_group;
    tile_source k = tile_source_of(p.k, c.s.b, c.s.k_begin, g, c.s.N, p.D);
    tile_source v = tile_source_of(p.v, c.s.b, c.s.k_begin, g, c.s.N, p.E);
    load_tile_in_steps<BN, HEAD_D, THREADS, ALIGNED>(shared + K_AT + stage * BN * HEAD_D * 2, k, j0);
    load_tile_in_steps<BN, HEAD_E, THREADS, ALIGNED>(shared + V_AT + stage * BN * HEAD_E * 2, v, j0);
}

// From q.k in s and dout.v in dp to ds, before scale, in dp.
DEVICE void score_gradients(const dlattn_params &p, const row_context &c, float (&s)[MT][NT][4], float (&dp)[MT][NT][4], int j0) {
    int j = j0 + 2 * (lane_id() & 3), warp_row = warp_id() * 16 * MT;
    const float kept = HAS(p, DLATTN_FEATURE_DROPOUT) ? p.dropout_scale : 1.0f;
    if (HAS(p, DLATTN_FEATURE_DROPOUT)) drop_elements(dp, p, c.key, c.s, c.h, c.row, j);
    const row_context &rows = c;
    EACH_SCORE(MT, NT) dp[a][n][c] = fmaf(dp[a][n][c], kept, -rows.delta[a][c / 2]);
    exponents_of<true>(p, c.s, c.terms, global_bias(), s, dp, c.lse2, c.row, j);
    if (MASKED_BY_ELEMENT || !dlattn_mask_full(&c.mask, c.i0, smaller(c.i0 + BM, c.s.M), j0, j0 + BN))
        hide_outside(s, (const limits *)(shared_bytes + LIMITS_AT) + warp_row, j);
    hide_elements(s, p, c.terms, c.s, c.row, j);
    EACH_SCORE(MT, NT) {
        const float y = exp2_approx(s[a][n][c]) * dp[a][n][c];
        dp[a][n][c] = HAS(p, DLATTN_FEATURE_SOFTCAP) && s[a][n][c] == -INFINITE ? 0.0f : y;  // the slope may be NaN there
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) backward_dq_sm80(const __grid_constant__ dlattn_params p) {
    u32 shared = shared_address(shared_bytes);
    row_context c;
    int pair = (int)blockIdx.x / p.row_tiles, warp_row = warp_id() * 16 * MT;
    c.i0 = (p.row_tiles - 1 - (int)blockIdx.x % p.row_tiles) * BM;  // causal: the last rows have most keys
    c.h = pair % p.H;
    c.s = read_sequence(p, pair / p.H);
    if (c.i0 >= c.s.M) return;
    c.mask = mask_of(p, c.s);
    c.terms = score_context_of(p, c.s, c.h);
    c.row = c.i0 + warp_row + (lane_id() >> 2);
    if (HAS(p, DLATTN_FEATURE_DROPOUT)) c.key = dropout_key(p);

    i64 first_row = row_of(p, c.s, c.h, c.row);
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            c.lse2[a][half] = ((const float *)p.lse2)[first_row + 16 * a + 8 * half];
            c.delta[a][half] = ((const float *)p.delta)[first_row + 16 * a + 8 * half];
        }
    for (int n = (int)threadIdx.x; n < BM; n += THREADS)
        ((limits *)(shared_bytes + LIMITS_AT))[n] = row_limits(p, c.s, c.mask, c.i0 + n);

    dlattn_interval span = dlattn_mask_span(&c.mask, c.i0, smaller(c.i0 + BM, c.s.M));
    int first = (int)span.lo / BN, end = span.hi > span.lo ? ((int)span.hi + BN - 1) / BN : first;
    if (HAS(p, DLATTN_FEATURE_SEGMENTS)) first = next_tile_that_meets<BM, BN>(p, c.s.b, c.i0, first, end);
    float dq[MT][HEAD_D / 8][4];
    clear<MT, HEAD_D / 8>(dq);
    if (first < end) {
        tile_source q = tile_source_of(p.q, c.s.b, c.s.q_begin, c.h, c.s.M, p.D);
        tile_source dout = tile_source_of(p.dout, c.s.b, c.s.q_begin, c.h, c.s.M, p.E);
        load_tile_in_steps<BM, HEAD_D, THREADS, ALIGNED>(shared + Q_AT, q, c.i0);
        load_tile_in_steps<BM, HEAD_E, THREADS, ALIGNED>(shared + DOUT_AT, dout, c.i0);
        if (STAGES == 2) load_keys(p, c, shared, first * BN, 0);
        copies_commit();
    }
    const u32 rows_d = lane_by_rows<HEAD_D>(), rows_e = lane_by_rows<HEAD_E>();
    const u32 columns_d = lane_by_columns<HEAD_D>(), columns_e = lane_by_columns<HEAD_E>();
#pragma unroll 1
    for (int tile = first, next, turn = 0; tile < end; tile = next, turn++) {
        int stage = STAGES == 2 ? (HAS(p, DLATTN_FEATURE_SEGMENTS) ? turn : tile - first) & 1 : 0;
        next = tile + 1;
        if (HAS(p, DLATTN_FEATURE_SEGMENTS)) next = next_tile_that_meets<BM, BN>(p, c.s.b, c.i0, next, end);
        if (STAGES == 1) {
            __syncthreads();
            load_keys(p, c, shared, tile * BN, 0);
            copies_commit();
        }
        copies_wait<0>();
        __syncthreads();
        if (STAGES == 2 && next < end) load_keys(p, c, shared, next * BN, stage ^ 1);
        copies_commit();
        const u32 k = shared + K_AT + stage * BN * HEAD_D * 2, v = shared + V_AT + stage * BN * HEAD_E * 2;
        float s[MT][NT][4], dp[MT][NT][4];
        multiply_rows<MT, NT / 2, HEAD_D>(s, shared + Q_AT + warp_row * HEAD_D * 2, rows_d, k, columns_d);
        multiply_rows<MT, NT / 2, HEAD_E>(dp, shared + DOUT_AT + warp_row * HEAD_E * 2, rows_e, v, columns_e);
        score_gradients(p, c, s, dp, tile * BN);
        panel<HEAD_D, HEAD_D> keys(k, rows_d, 0);
#pragma unroll
        for (int n = 0; n < NT / 2; n++) {
            u32 ds[MT][4];
#pragma unroll
            for (int a = 0; a < MT; a++) pack_fragment(ds[a], &dp[a][2 * n]);
            add_rows<MT, HEAD_D / 16, HEAD_D>(dq, ds, keys, 16 * n);
        }
    }
    const write_place to = {at(p.dq, c.s.b, c.s.q_begin, c.h), p.dq.stride[1], c.s.M, p.D};
    write_rows<MT, HEAD_D / 16>(p.dq, to, dq, p.scale, c.row - lane_id() / 4, 0);
}
