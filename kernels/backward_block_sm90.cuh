// backward_block_sm90.cuh: what Hopper's backwards share: a block's place, products of a warpgroup's 64 keys, ds in shared memory.
//
// Part of backward_sm90.cu and backward_wide_sm90.cu: uses their options and their maps of shared memory.
#ifndef DLATTN_BACKWARD_BLOCK_SM90_CUH
#define DLATTN_BACKWARD_BLOCK_SM90_CUH

#define NT (BM / 8)     // 8-row steps of the scores
#define DT (HEAD_D / 8) // 8-column steps of dk
#define ET (HEAD_E / 8)
#define INTERVAL (((FEATURES) & DLATTN_FEATURE_INTERVAL) != 0)
#define ALIBI (((FEATURES) & DLATTN_FEATURE_ALIBI) != 0)
#define SOFTCAP (((FEATURES) & DLATTN_FEATURE_SOFTCAP) != 0)
#define DROPOUT (((FEATURES) & DLATTN_FEATURE_DROPOUT) != 0)
#define SEGMENTS (((FEATURES) & DLATTN_FEATURE_SEGMENTS) != 0)

#include "backward_parts.cuh"
#include "backward_view.cuh"
#include "tma_sm90.cuh"

static_assert(((FEATURES) & (DLATTN_FEATURE_BIAS | DLATTN_FEATURE_MASK)) == 0, "features");

#define BLOCKS_AT_END (256 / CLUSTER)

// The place and phase of a tile's dout, if it has one place in turn or as many as q.
DEVICE int dout_stage(const ring<STAGES> &at) { return DOUT_STAGES == 1 ? 0 : at.stage; }
DEVICE u32 dout_lap(const ring<STAGES> &at) { return DOUT_STAGES == 1 ? (u32)at.stage : at.lap; }

// Where dout has one place, it comes and goes by parts of its columns, part by part.
DEVICE int dout_place(const ring<STAGES> &at, int part) { return dout_stage(at) * DOUT_PARTS + part; }
static_assert(DOUT_STAGES == STAGES || (DOUT_STAGES == 1 && STAGES == 2), "a tile's stage is its parity");

// Products --------------------------------------------------------------------------------------------------------------

// s = or += keys rows^T over HEAD columns: 64 of BN keys by BM rows.
template <int HEAD, bool ADD = false>
DEVICE void multiply_heads(float (&s)[NT][4], u32 keys, u32 rows) {
    const u64 a = descriptor_by_rows(keys), b = descriptor_by_rows(rows);
#pragma unroll
    for (int d = 0; d < HEAD / 16; d++)
        product(s, a + (d / 4 * (BN * PANEL_ROW) + d % 4 * 32 >> 4), b + (d / 4 * (BM * PANEL_ROW) + d % 4 * 32 >> 4), ADD || d > 0);
}

// sums += x rows: x: 64 keys by BM rows in registers.
template <int COUNT>
DEVICE void add_products(float (&sums)[COUNT][4], const u32 (&x)[NT / 2][4], u32 rows) {
    const u64 b = descriptor_by_columns(rows, BM * PANEL_ROW);
#pragma unroll
    for (int k = 0; k < BM / 16; k++) product(sums, x[k], b + (k * (16 * PANEL_ROW) >> 4));
}

// Shared memory ---------------------------------------------------------------------------------------------------------

// A sum of 0 times a NaN is none: rows from `first` on of a tile, where memory may hold anything, become 0. By COUNT threads,
// `thread` being this one; a barrier of theirs must follow.
template <int ROWS, int COLS, int COUNT>
DEVICE void clear_rows(u32 tile, int first, int thread) {
    const int PIECES = COLS / 8;
#pragma unroll 1
    for (int n = first * PIECES + thread; n < ROWS * PIECES; n += COUNT) {
        const int row = n / PIECES, piece = n % PIECES; // swizzling permutes the pieces of a row, all of which are cleared
        store_shared(tile + piece / 8 * (ROWS * PANEL_ROW) + row * PANEL_ROW + piece % 8 * 16, make_uint4(0, 0, 0, 0));
    }
    fence_for_engines();
}

// ds to shared memory, rows down, keys across, in panels of 64 keys: a warpgroup's.
DEVICE void store_ds(u32 ds, const u32 (&x)[NT / 2][4]) {
    const int thread = thread_anew(), lane = thread & 31, chunk = thread / 32 % 4 * 2 + (lane >> 3 & 1);
    const u32 panel = BN == 64 ? ds : ds + thread / 128 * (BM * PANEL_ROW);
    const u32 to = panel + ((lane & 7) + (lane >> 4) * 8) * PANEL_ROW + ((chunk ^ (lane & 7)) << 4);
#pragma unroll
    for (int n = 0; n < NT / 2; n++)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};"
                     :: "r"(to + n * (16 * PANEL_ROW)), "r"(x[n][0]), "r"(x[n][1]), "r"(x[n][2]), "r"(x[n][3]) : "memory");
}

// What the block keeps in shared memory of its place, by one thread.
DEVICE void keep_place(const backward_context &c) {
    i64 *const positions = (i64 *)(shared_bytes + POSITIONS_AT), *const keys = (i64 *)(shared_bytes + KEYS_AT);
    positions[0] = c.s.q_position;
    positions[1] = c.s.k_position;
    keys[0] = c.s.k_begin;
    keys[1] = c.s.N;
    keys[2] = blockIdx.x;
}

// Place -----------------------------------------------------------------------------------------------------------------

// The block's place: all but its sequence's lengths. One key head after the other, so that L2 holds a head's rows; in each the keys
// first that most rows see, if the mask is causal. The last heads go together, so that all multiprocessors end with short blocks.
// Blocks of a cluster have neighbouring keys.
DEVICE backward_context place_of_block(const dlattn_params &p, int block) {
    const int rank = block % CLUSTER, tiles = p.key_tiles / CLUSTER, heads = p.B * p.G;
    const int end = smaller(BLOCKS_AT_END / tiles + 1, heads), body = heads - end;
    block /= CLUSTER;
    int head = block / tiles, tile = block - head * tiles;
    if (head >= body) {
        tile = (block - body * tiles) / end;
        head = block - body * tiles - tile * end + body;
    }
    backward_context c;
    c.j0 = (tile * CLUSTER + rank) * BN;
    c.s.b = head / p.G;
    c.g = head - c.s.b * p.G;
    return c;
}

// What is needed to write dk and dv, not kept in registers till then.
DEVICE backward_context context_at_the_end(const dlattn_params &p) {
    const volatile i64 *keys = (const volatile i64 *)(shared_bytes + KEYS_AT);
    backward_context c = place_of_block(p, (int)keys[2]);
    c.s.k_begin = keys[0];
    c.s.N = (int)keys[1];
    return c;
}

#endif
