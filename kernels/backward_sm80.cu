// backward_sm80.cu: dk, dv and (by reductions) dq on tensor cores, sm_75 to sm_120: a block owns BN keys of one (sequence, kv
// head) and passes over the query heads of its group and the tiles of BM rows that can see its keys.
//
//     s = q k^T,  p = exp2(score2 - lse2),  dv += p^T dout,  dp = dout v^T,  ds = p (dp - delta),  dk += ds^T q,  dq += ds k
//
// Scores are computed transposed, keys down, rows across, so that the registers of p and ds are left operands of the next
// products. Warps form BN / WARP_KEYS groups of ROW_WARPS. A group owns WARP_KEYS keys; in the scores each of its warps
// takes BM / ROW_WARPS rows, in dv and dk a part of the columns and all rows, so the group exchanges p and ds. ds goes to
// shared memory in any case: dq needs it from all keys.
//
// -D: TYPE, HEAD_D, HEAD_E (D, E rounded up to 16), BM, BN, WARPS, ROW_WARPS, FEATURES, ALIGNED (16-byte rows of q, k, v, dout).
// Optional: STAGES (tiles of q and dout under way: 2, or 1), DS_STAGES (2: dq follows one tile later, one barrier less),
// LATE (1: the next tile is asked for after the first product, not before), FRESH (1: lanes' addresses are made anew for each
// tile), CURSORS (1: addresses of copies and sums wait in shared memory and move from tile to tile), DQ_COLUMN_WARPS (warps side
// by side in dq), BLOCKS (per multiprocessor), DQ, DK, DV (0: not wanted),
// BIAS_TILE (1: a 16-bit bias with unit key stride and 16-byte aligned rows comes through shared memory), DBIAS (1: dbias has
// an element for every score, of q's type, with unit key stride and 16-byte aligned rows: all of it is written here).
#include "backward_parts.cuh"

#ifndef STAGES
#define STAGES 2
#endif
#ifndef DS_STAGES
#define DS_STAGES 1
#endif
#ifndef BLOCKS
#define BLOCKS 1
#endif
#ifndef DQ
#define DQ 1
#endif
#ifndef DK
#define DK 1
#endif
#ifndef DV
#define DV 1
#endif
#ifndef FRESH
#define FRESH \
    (ROW_WARPS > 2 || HEAD_D % 64 != 0 || HEAD_D > ((FEATURES) & DLATTN_FEATURE_MASK ? 64 : 128) || (!ALIGNED && (FEATURES) == 0))
#endif
#ifndef LATE
#define LATE 0
#endif
#ifndef BIAS_TILE
#define BIAS_TILE 0
#endif
#ifndef DBIAS
#define DBIAS 0
#endif
#ifndef CURSORS
#define CURSORS 0
#endif

#define THREADS (32 * WARPS)
// Does each thread copy in one column, at constant steps?
#define COPIES_BY_COLUMN(cols) (THREADS % ((cols) / 8) == 0 && THREADS / ((cols) / 8) % 8 == 0 && BM % (THREADS / ((cols) / 8)) == 0)
#define ADDRESSES_MOVE (CURSORS && ALIGNED && COPIES_BY_COLUMN(HEAD_D) && COPIES_BY_COLUMN(HEAD_E))
#define KEY_WARPS (WARPS / ROW_WARPS)
#define WARP_KEYS (BN / KEY_WARPS)
#define WARP_ROWS (BM / ROW_WARPS)
#define MT (WARP_KEYS / 16)              // 16-key steps of a warp's scores
#define NT (WARP_ROWS / 8)               // 8-row steps
#define D_PART (HEAD_D / ROW_WARPS)      // a warp's columns of dk
#define E_PART (HEAD_E / ROW_WARPS)      // and of dv
#ifndef DQ_COLUMN_WARPS
// 32 rows a warp, or fewer, so that a warp's columns are a multiple of 16.
constexpr int dq_column_warps() {
    int warps = WARPS * 32 <= BM ? 1 : WARPS * 32 / BM;
    while (warps > 1 && (HEAD_D % (16 * warps) != 0 || WARPS % warps != 0)) warps--;
    return warps;
}
#define DQ_COLUMN_WARPS dq_column_warps()
#endif
#define DQ_ROW_WARPS (WARPS / DQ_COLUMN_WARPS)
#define DQ_ROWS (BM / DQ_ROW_WARPS)
#define DQ_COLUMNS (HEAD_D / DQ_COLUMN_WARPS)

static_assert(WARPS % ROW_WARPS == 0 && BN % (16 * KEY_WARPS) == 0 && BM % (16 * ROW_WARPS) == 0, "scores");
static_assert(HEAD_D % (16 * ROW_WARPS) == 0 && HEAD_E % (16 * ROW_WARPS) == 0, "columns of dk and dv");
static_assert(WARPS % DQ_COLUMN_WARPS == 0 && DQ_ROWS % 16 == 0 && DQ_COLUMNS % 16 == 0, "dq");
static_assert(!DBIAS || ((FEATURES) & (DLATTN_FEATURE_SOFTCAP | DLATTN_FEATURE_SEGMENTS)) == 0, "ds is dbias, all rows are visited");
static_assert(!CURSORS || !(BIAS_TILE || (FEATURES) & DLATTN_FEATURE_SEGMENTS), "tiles that follow each other");
static_assert(DLATTN_ROW_ALIGNMENT % BM == 0 && BN <= 256 && BN % 16 == 0 && WARPS >= 2 && THREADS >= BM, "tiles");

// Shared memory, in bytes from its start.
#define K_AT 0
#define V_AT (K_AT + BN * HEAD_D * 2)
#define Q_AT (V_AT + BN * HEAD_E * 2)
#define DOUT_AT (Q_AT + STAGES * BM * HEAD_D * 2)
#define DS_AT (DOUT_AT + STAGES * BM * HEAD_E * 2)
#define P_AT (DS_AT + DS_STAGES * BM * BN * 2)
#define LSE_AT (P_AT + (ROW_WARPS > 1 ? BM * BN * 2 : 0))
#define DELTA_AT (LSE_AT + STAGES * BM * 4)
#define LIMITS_AT (DELTA_AT + STAGES * BM * 4)
#define VIEW_AT (LIMITS_AT + STAGES * BM * 4)
#define POSITIONS_AT (VIEW_AT + 32)  // q_position, k_position
#define KEY_AT (POSITIONS_AT + 16)     // dropout: k0, k1, offset, by_element
#define Q_SEGMENTS_AT (KEY_AT + 32)
#define K_SEGMENTS_AT (Q_SEGMENTS_AT + ((FEATURES) & DLATTN_FEATURE_SEGMENTS ? STAGES * BM * 8 : 0))
#define WALK_AT (K_SEGMENTS_AT + ((FEATURES) & DLATTN_FEATURE_SEGMENTS ? BN * 8 : 0))
#define END_AT (WALK_AT + ((FEATURES) & DLATTN_FEATURE_SEGMENTS ? 16 : 0))
#define BIAS_AT ((END_AT + 127) / 128 * 128)  // STAGES * BM * BN * 2 bytes
#define CURSORS_AT ((END_AT + 15) / 16 * 16)  // four of 8 bytes for each thread, if they are kept

extern __shared__ __align__(128) unsigned char shared_bytes[];

DEVICE void keep_context(const dlattn_params &p, const sequence &s) {
    if (threadIdx.x != 0) return;
    ((i64 *)(shared_bytes + POSITIONS_AT))[0] = s.q_position;
    ((i64 *)(shared_bytes + POSITIONS_AT))[1] = s.k_position;
    if (!HAS(p, DLATTN_FEATURE_DROPOUT)) return;
    dlattn_philox_key key = dropout_key(p);
    u32 *words = (u32 *)(shared_bytes + KEY_AT);
    words[0] = key.k0, words[1] = key.k1, words[2] = key.offset_low;
    // The bits cannot come in blocks where positions are not multiples of 16 and 32.
    words[3] = p.positions && ((s.q_position & 15) | (s.k_position & 31)) != 0;
}

#include "backward_view.cuh"
#include "backward_rows_sm80.cuh"
#include "backward_scores_sm80.cuh"
#include "backward_walk.cuh"
#include "backward_dbias_sm80.cuh"
#include "backward_write.cuh"

// p and ds in shared memory: 512 bytes for each 16 keys x 16 rows: the 8 x 8 matrices (keys 0, rows 0) (keys 8, rows 0)
// (keys 0, rows 8) (keys 8, rows 8), each eight keys of eight rows: the registers of a left operand with m = keys. No
// access to them meets a bank twice.
DEVICE u32 exchange_at(int key, int row) { return (u32)((key / 16) * (BM / 16) + row / 16) * 512u; }

// What a lane adds to load a left operand with m = rows, by load_fragment_trans; 16 * lane_id() is for m = keys.
DEVICE u32 exchange_lane_trans(int lane) { return (u32)((lane & 7) | (lane & 8) << 1 | (lane & 16) >> 1) * 16u; }

DEVICE void store_exchange(u32 shared, const u32 (*packed)[NT / 2][4], int key, int row) {
    const int lane = thread_anew() & 31;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT / 2; n++) {
            const u32 *x = packed[m][n];
            u32 block = shared + exchange_at(key + 16 * m, row + 16 * n);
#if __CUDA_ARCH__ >= 900
            asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};"
                         :: "r"(block + 16 * lane), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]) : "memory");
#else
#pragma unroll
            for (int w = 0; w < 4; w++) store_shared(block + 128 * w + 4 * lane, x[w]);
#endif
        }
}

// This warp's own rows of the scores, still in registers.
template <int PAIRS, int COLS>
DEVICE void add_own(float (*c)[2 * PAIRS][4], const u32 (*packed)[NT / 2][4], const panel<COLS, 16 * PAIRS> &columns, int row) {
#pragma unroll
    for (int n = 0; n < NT / 2; n++) {
        u32 x[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int w = 0; w < 4; w++) x[m][w] = packed[m][n][w];
        add_rows<MT, PAIRS, COLS>(c, x, columns, row + 16 * n);
    }
}

// The rows of the other warps of the group, from shared memory.
template <int PAIRS, int COLS>
DEVICE void add_others(float (*c)[2 * PAIRS][4], u32 exchange, const panel<COLS, 16 * PAIRS> &columns, int key, int row_warp) {
    const int lane_bytes = 16 * (thread_anew() & 31);
#pragma unroll
    for (int other = 1; other < ROW_WARPS; other++) {
        int row = (row_warp + other) % ROW_WARPS * WARP_ROWS;
#pragma unroll
        for (int n = 0; n < NT / 2; n++) {
            u32 x[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++)
                load_fragment(x[m], exchange + exchange_at(key + 16 * m, row + 16 * n) + lane_bytes);
            add_rows<MT, PAIRS, COLS>(c, x, columns, row + 16 * n);
        }
    }
}

// dq of a tile, before scale, to the sums: ds k over all keys of the block.
DEVICE void add_dq(const dlattn_params &p, const backward_context &c, u32 shared, u32 ds, u32 rows_d, row_tile tile) {
    int warp = warp_id(), row = warp / DQ_COLUMN_WARPS * DQ_ROWS, col = warp % DQ_COLUMN_WARPS * DQ_COLUMNS;
    const int RT = DQ_ROWS / 16, PAIRS = DQ_COLUMNS / 16, lane = thread_anew() & 31;
    const u32 lane_trans = exchange_lane_trans(lane);
    panel<HEAD_D, DQ_COLUMNS> k(shared + K_AT, rows_d, col);
    float dq[RT][2 * PAIRS][4];
    u32 a[2][RT][4], b[2][PAIRS][4];
#pragma unroll
    for (int step = -1; step < BN / 16; step++) {
        int next = step + 1;
        if (next < BN / 16) {
#pragma unroll
            for (int m = 0; m < RT; m++)
                load_fragment_trans(a[next & 1][m], ds + exchange_at(16 * next, row + 16 * m) + lane_trans);
#pragma unroll
            for (int n = 0; n < PAIRS; n++) load_fragment_trans(b[next & 1][n], k.at(16 * next, 16 * n));
        }
        if (step >= 0) multiply<RT, PAIRS>(dq, a[step & 1], b[step & 1], step == 0);
    }
    const auto own_sums = [&] {
        return (u64)(dq_sum_block(p, row_of(p, c.s, tile.h, tile.i0) + row, col, HEAD_D) + dq_sum_index(lane, 0));
    };
    float *sums = (float *)cursor<SUMS>(c, tile, BM * HEAD_D * 4, own_sums);
#pragma unroll
    for (int m = 0; m < RT; m++)
#pragma unroll
        for (int n = 0; n < 2 * PAIRS; n++) dq_sum_add(sums + m * (16 * HEAD_D) + n * 128, dq[m][n]);
}

// This warp's columns of a tile of dout or q: those of its part of dv or dk.
DEVICE panel<HEAD_E, E_PART> dout_part(u32 dout, u32 rows_e) { return panel<HEAD_E, E_PART>(dout, rows_e, warp_id() % ROW_WARPS * E_PART); }
DEVICE panel<HEAD_D, D_PART> q_part(u32 q, u32 rows_d) { return panel<HEAD_D, D_PART>(q, rows_d, warp_id() % ROW_WARPS * D_PART); }

// The lane's address for the products of one tile. For some shapes ptxas would keep all that follows from it in registers
// through the loop, and spill; so it is mixed with bits of the count of tiles that are always 0.
template <int BIT>
DEVICE u32 fresh(u32 lane, int count) {
    if (!FRESH) return lane;
    u32 zero;
    asm volatile("shr.u32 %0, %1, %2;" : "=r"(zero) : "r"(count), "n"(BIT));
    return lane ^ zero;
}

// The warps of one group of keys meet.
DEVICE void meet_group(int key_warp) {
    if (ROW_WARPS > 1) asm volatile("bar.sync %0, %1;" :: "r"(key_warp + 1), "n"(32 * ROW_WARPS) : "memory");
    else __syncwarp();
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) backward_sm80(const __grid_constant__ dlattn_params p) {
    u32 shared = shared_address(shared_bytes);
    int warp = warp_id(), key_warp = warp / ROW_WARPS, row_warp = warp % ROW_WARPS;
    backward_context c;
    int pair = (int)blockIdx.x / p.key_tiles;
    c.j0 = (int)blockIdx.x % p.key_tiles * BN;  // causal: the first keys have most rows
    c.g = pair % p.G;
    c.s = read_sequence(p, pair / p.G);
    if (c.j0 >= c.s.N) {
        if (DBIAS) blank_dbias(p, c, 0, 0);
        wait_and_let_begin();
        if (DQ) finish_block(p, c.s.b, c.g);
        return;
    }
    keep_context(p, c.s);
    if (!HAS(p, DLATTN_FEATURE_INTERVAL)) __syncthreads();  // it is there; rows_of_keys waits too
    const row_range rows = rows_of_keys(p, c.s, c.j0);

    float dk[MT][D_PART / 8][4], dv[MT][E_PART / 8][4];
    clear<MT, D_PART / 8>(dk);
    clear<MT, E_PART / 8>(dv);
    int first_tile = rows.first / BM, tiles = rows.end > rows.first ? (rows.end + BM - 1) / BM - first_tile : 0;
    int count = tiles * p.heads_per_group;
    c.first_row = first_tile * BM;
    row_tile tile = {c.g * p.heads_per_group, c.first_row, false};
    int last_row = (first_tile + tiles - 1) * BM;
    segment_walk walk = {first_tile, first_tile + tiles, 0, 0};

    if (count > 0) {
        tile_source k = tile_source_of(p.k, c.s.b, c.s.k_begin, c.g, c.s.N, p.D);
        load_tile_in_steps<BN, HEAD_D, THREADS, ALIGNED>(shared + K_AT, k, c.j0);
    }
    wait_and_let_begin();  // what follows needs backward_prepare's results
    if (count > 0) {
        tile_source v = tile_source_of(p.v, c.s.b, c.s.k_begin, c.g, c.s.N, p.E);
        if (HAS(p, DLATTN_FEATURE_SEGMENTS)) count = start_walk(p, c, &walk, &tile) * p.heads_per_group;
        if (STAGES == 2 && count > 0) load_q(p, c, shared, tile, 0);
        copies_commit();
        load_tile_in_steps<BN, HEAD_E, THREADS, ALIGNED>(shared + V_AT, v, c.j0);
        if (STAGES == 2 && count > 0) load_terms(p, c, shared, tile, 0);
        if (HAS(p, DLATTN_FEATURE_SEGMENTS))
            for (int n = (int)threadIdx.x; n < BN && c.j0 + n < c.s.N; n += THREADS)
                ((i64 *)(shared_bytes + K_SEGMENTS_AT))[n] = load_int(p.kv_segments, at(p.kv_segments, c.s.b, c.j0 + n));
        copies_commit();
    }
    if (DBIAS) blank_dbias(p, c, first_tile * BM, (first_tile + tiles) * BM);
    const u32 rows_d = lane_by_rows<HEAD_D>(), rows_e = lane_by_rows<HEAD_E>();
    const u32 columns_d = lane_by_columns<HEAD_D>(), columns_e = lane_by_columns<HEAD_E>();
    const int key = key_warp * WARP_KEYS, row = row_warp * WARP_ROWS;
    row_tile before = tile;
#pragma unroll 1
    for (int n = 0; n < count; n++) {
        int stage = STAGES == 2 ? n & 1 : 0;
        row_tile next = tile;
        if (HAS(p, DLATTN_FEATURE_SEGMENTS)) {
            if (n + 1 < count) walk_on(p, c, &walk, &next);
        } else if (tile.i0 < last_row) {
            next.i0 += BM;
        } else {
            next.i0 = c.first_row, next.h++;
        }
        if (STAGES == 1) {
            if (n > 0) __syncthreads();
            load_rows(p, c, shared, tile, 0);
            copies_commit();
        }
        if (STAGES == 2 && n == 0) copies_wait<1>();
        else copies_wait<0>();
        __syncthreads();  // this tile is here, or of the first one q; all have left the one before
        if (!LATE && STAGES == 2 && n + 1 < count) load_rows(p, c, shared, next, stage ^ 1);
        if (!LATE) copies_commit();
        const u32 q = shared + Q_AT + stage * BM * HEAD_D * 2, dout = shared + DOUT_AT + stage * BM * HEAD_E * 2;
        const u32 ds_at = shared + DS_AT + (DS_STAGES == 2 ? (n & 1) * BM * BN * 2 : 0), p_at = shared + P_AT;
        if (DQ && DS_STAGES == 2 && n > 0) add_dq(p, c, shared, shared + DS_AT + ((n - 1) & 1) * BM * BN * 2, rows_d, before);

        u32 kept[NT / 2], p_packed[MT][NT / 2][4], ds_packed[MT][NT / 2][4];
        float s[MT][NT][4], dp[MT][NT][4];
        const bool masked = !sees_all<WARP_ROWS, WARP_KEYS>(p, c, tile, row, key);
        multiply_rows<MT, NT / 2, HEAD_D>(s, shared + K_AT + key * HEAD_D * 2, rows_d, q + row * HEAD_D * 2,
                                          columns_d);
        if (STAGES == 2 && n == 0) {
            copies_wait<LATE ? 0 : 1>();
            __syncthreads();  // and all else of the first
        }
        if (LATE && STAGES == 2 && n + 1 < count) load_rows(p, c, shared, next, stage ^ 1);
        if (LATE) copies_commit();
        if (HAS(p, DLATTN_FEATURE_DROPOUT)) dropout_bits(p, c, kept, tile.h, tile.i0 + row, c.j0 + key);
        const int lane = thread_anew() & 31;
        const score_place place = {tile, stage, tile.i0 + row + 2 * (lane & 3), c.j0 + key + (lane >> 2), masked};
        probabilities(p, c, s, p_packed, kept, place);
        if (ROW_WARPS > 1 && DV) store_exchange(p_at, p_packed, key, row);
        if (DV) add_own<E_PART / 16, HEAD_E>(dv, p_packed, dout_part(dout, fresh<29>(rows_e, n)), row);
        multiply_rows<MT, NT / 2, HEAD_E>(dp, shared + V_AT + key * HEAD_E * 2, rows_e, dout + row * HEAD_E * 2,
                                          columns_e);
        score_gradients(p, s, dp, ds_packed, kept, (const float *)(shared_bytes + DELTA_AT) + stage * BM + row);
        if (DQ || (ROW_WARPS > 1 && DK)) store_exchange(ds_at, ds_packed, key, row);
        if (DBIAS) write_dbias(p, c, ds_packed, tile, row, key);

        if (DK) add_own<D_PART / 16, HEAD_D>(dk, ds_packed, q_part(q, fresh<30>(rows_d, n)), row);
        if (DQ && DS_STAGES == 1) __syncthreads();
        else meet_group(key_warp);
        if (DV) add_others<E_PART / 16, HEAD_E>(dv, p_at, dout_part(dout, fresh<29>(rows_e, n)), key, row_warp);
        if (DK) add_others<D_PART / 16, HEAD_D>(dk, ds_at, q_part(q, fresh<30>(rows_d, n)), key, row_warp);
        if (DQ && DS_STAGES == 1) add_dq(p, c, shared, ds_at, fresh<31>(rows_d, n), tile);
        before = tile;
        tile = next;
    }
    if (HAS(p, DLATTN_FEATURE_SEGMENTS)) copies_wait<0>(); // of a block that meets no row
    if (DQ && DS_STAGES == 2 && count > 0) {
        __syncthreads();
        add_dq(p, c, shared, shared + DS_AT + ((count - 1) & 1) * BM * BN * 2, rows_d, before);
    }
    if (DQ) finish_block(p, c.s.b, c.g);
    if (DK && p.dk.data) write_keys<MT, D_PART / 16>(p.dk, c.s, c.g, p.D, dk, p.scale, c.j0 + key, row_warp * D_PART);
    if (DV && p.dv.data) write_keys<MT, E_PART / 16>(p.dv, c.s, c.g, p.E, dv, p.dropout_scale, c.j0 + key, row_warp * E_PART);
}
