// backward_sm90.cu: dk, dv and (by reductions) dq on Hopper's tensor cores (wgmma), fp16 and bf16: a block owns 128 keys of one
// (sequence, kv head) and passes over the query heads of its group and the tiles of BM rows that can see its keys.
//
//     s = q k^T,  p = exp2(score2 - lse2),  dv += p^T dout,  dp = dout v^T,  ds = p (dp - delta),  dk += ds^T q,  dq += ds k
//
// Two consumers of four warps own 64 keys each; a third warpgroup fetches tiles by TMA. Scores are computed transposed, keys
// down, rows across, so that the registers of p and ds are left operands of the next products. ds goes to shared memory
// besides: dq needs it from both consumers.
//
// Entry backward_sm90. Options: TYPE; HEAD_D, HEAD_E: D and E padded to multiples of 64; BM: 64 with HEAD_D 128, 128 with
// HEAD_D 64; BN: 128; WARPS: 12; STAGES: tiles of q and dout under way; FEATURES: no BIAS, no MASK; DQ: 0: not wanted.
// Rows of q, k, v and dout have unit inner strides and are 16-byte aligned.
#include "backward_parts.cuh"
#include "tma_sm90.cuh"

#define THREADS (32 * WARPS)
#define CONSUMERS 2
#define CONSUMER_WARPS (4 * CONSUMERS)
#define CLUSTER 1
#define DOUT_STAGES STAGES
#define DOUT_PARTS 1
#define DESCRIBERS (DROPOUT ? 3 : 1) // warps that tell consumers of tiles

static_assert(WARPS == 4 * (CONSUMERS + 1) && BN == 64 * CONSUMERS, "roles");
static_assert(STAGES == 2, "a tile's ds lies as its q does, in one of two places by turns");
static_assert(BM % 64 == 0 && HEAD_D % PANEL == 0 && HEAD_E % PANEL == 0 && DLATTN_ROW_ALIGNMENT % BM == 0, "tiles");
static_assert(BM / 64 * (HEAD_D / PANEL) == CONSUMERS, "each consumer multiplies 64 rows by one panel of dq");

// Shared memory, in bytes. Tiles consist of panels. ds: two tiles in turns, so that one barrier a tile is enough.
#define Q_BYTES (BM * HEAD_D * 2)
#define DOUT_BYTES (BM * HEAD_E * 2)
#define DS_BYTES (BM * BN * 2)
#define K_AT 0
#define V_AT (K_AT + BN * HEAD_D * 2)
#define Q_AT (V_AT + BN * HEAD_E * 2)
#define DOUT_AT (Q_AT + STAGES * Q_BYTES)
#define DS_AT (DOUT_AT + STAGES * DOUT_BYTES)
#define LSE_AT (DS_AT + 2 * DS_BYTES)
#define DELTA_AT (LSE_AT + STAGES * BM * 4)
#define LIMITS_AT (DELTA_AT + STAGES * BM * 4)
#define KEPT_AT (LIMITS_AT + STAGES * BM * (SEGMENTS ? BN / 8 : 4)) // with segments, a bit for each key
#define VIEW_AT (KEPT_AT + DROPOUT * STAGES * (BM * BN / 4))
#define POSITIONS_AT (VIEW_AT + 32)  // q_position, k_position
#define KEYS_AT (POSITIONS_AT + 16)  // k_begin, N, the block
#define NOTES_AT (KEYS_AT + 24)      // of each stage
#define NOTE_BYTES 40
#define WALK_AT (NOTES_AT + STAGES * NOTE_BYTES)
#define K_SEGMENTS_AT (WALK_AT + 16 * SEGMENTS)
#define BARRIERS_AT (K_SEGMENTS_AT + 8 * BN * SEGMENTS)

#define K_FULL BARRIERS_AT
#define V_FULL (K_FULL + 8)
#define Q_FULL(stage) (V_FULL + 8 + 8 * (stage))
#define Q_EMPTY(stage) (Q_FULL(STAGES) + 8 * (stage))
#define DOUT_FULL(stage) (Q_EMPTY(STAGES) + 8 * (stage))
#define DOUT_EMPTY(stage) (DOUT_FULL(STAGES) + 8 * (stage))

#define BOTH_BARRIER 1 // the named barrier of both consumers

#define PRODUCER_REGISTERS 24 // all that is left: limits of block windows, which divide 64 bits, spill a few
#define CONSUMER_REGISTERS 240

extern __shared__ __align__(1024) unsigned char shared_bytes[];

#include "backward_block_sm90.cuh"
#include "backward_fetch_sm90.cuh"
#include "backward_scores_sm90.cuh"
#include "backward_write.cuh"

DEVICE void meet_both() { meet<128 * CONSUMERS>(BOTH_BARRIER); }

// Products --------------------------------------------------------------------------------------------------------------

// What consumer g computes of dq: 64 rows from here on, and one panel.
DEVICE int dq_row(int g) { return BM == 64 ? 0 : 64 * g; }
DEVICE int dq_panel(int g) { return BM == 64 ? g : 0; }

// dq = ds k over all keys of the block.
DEVICE void multiply_ds(float (&dq)[8][4], u32 ds, u32 k_tile, int g) {
    const u64 a = descriptor_by_rows(ds + dq_row(g) * PANEL_ROW);
    const u64 b = descriptor_by_columns(k_tile + dq_panel(g) * (BN * PANEL_ROW), BN * PANEL_ROW);
#pragma unroll
    for (int k = 0; k < BN / 16; k++)
        product_by_columns(dq, a + (k / 4 * (BM * PANEL_ROW) + k % 4 * 32 >> 4), b + (k * (16 * PANEL_ROW) >> 4), k > 0);
}

// Shared memory ---------------------------------------------------------------------------------------------------------

// By both consumers.
template <int ROWS, int COLS>
DEVICE void clear_by_both(u32 tile, int first) {
    clear_rows<ROWS, COLS, 128 * CONSUMERS>(tile, first, thread_anew());
    meet_both();
}

// This warp's 16 rows of a panel of dq, before scale, to the sums, which lie together (dq_sum.cuh).
DEVICE void add_dq(const dlattn_params &p, const float (&dq)[8][4], i64 row, int g) {
    const int thread = thread_anew(), lane = thread & 31;
    row += dq_row(g) + thread / 32 % 4 * 16;
    float *own = dq_sum_block(p, row, PANEL * dq_panel(g), HEAD_D) + dq_sum_index(lane, 0);
#pragma unroll
    for (int n = 0; n < 8; n++) dq_sum_add(own + n * 128, dq[n]);
}

// Consumer g: keys 64 g to 64 g + 63 of the block.
DEVICE void consume(const dlattn_params &p, const backward_context &c, const tile_list &list, u32 base, int g) {
    const u32 keys = base + K_AT + g * (64 * PANEL_ROW), values = base + V_AT + g * (64 * PANEL_ROW);
    float dk[DT][4] = {}, dv[ET][4] = {}, s[NT][4];
    ring<STAGES> at = {0, 0};
    const auto await_q = [&] {
        barrier_wait(base + Q_FULL(at.stage), at.lap);
        const int own_rows = uniform(note_of(at.stage)->own_rows);
        if (own_rows < BM) clear_by_both<BM, HEAD_D>(base + Q_AT + at.stage * Q_BYTES, own_rows);
    };

    bool more = list.count > 0;
    if (more) {
        barrier_wait(base + K_FULL, 0);
        barrier_wait(base + V_FULL, 0);
        if (c.j0 + BN > c.s.N && c.s.k_begin + c.s.N < p.tokens_k) {
            clear_by_both<BN, HEAD_D>(base + K_AT, c.s.N - c.j0);
            clear_by_both<BN, HEAD_E>(base + V_AT, c.s.N - c.j0);
        }
        await_q();
        product_fence();
        multiply_heads<HEAD_D>(s, keys, base + Q_AT);
        products_commit();
        products_wait<0>();
        keep(s);
    }
    keep(dk);
    keep(dv);
    wait_and_let_begin(); // the sums are backward_prepare's
#pragma unroll 1
    while (more) {
        const int stage = at.stage;
        const u32 q = base + Q_AT + stage * Q_BYTES, dout = base + DOUT_AT + stage * DOUT_BYTES;
        const u32 ds_tile = base + DS_AT + stage * DS_BYTES;
        float dp[NT][4], dq[8][4]; // here, so that nothing of them is kept from tile to tile
        u32 weights[NT / 2][4], bent[NT / 2][4], ds[NT / 2][4];
        barrier_wait(base + DOUT_FULL(stage), at.lap);
        const int own_rows = uniform(note_of(stage)->own_rows);
        if (own_rows < BM) clear_by_both<BM, HEAD_E>(dout, own_rows);
        product_fence();
        multiply_heads<HEAD_E>(dp, values, dout);
        products_commit();
        probabilities(p, s, weights, bent, stage);
        products_wait<0>();
        keep(dp);
        keep(weights);
        product_fence();
        add_products(dv, weights, dout);
        products_commit();
        score_gradients(ds, s, bent, dp, stage, p.dropout_scale);
        if (DQ) {
            store_ds(ds_tile, ds);
            fence_for_engines();
            meet_both();
        }
        products_wait<0>();
        if (DQ) release(base + DOUT_EMPTY(stage));
        keep(ds);
        product_fence();
        if (DQ) {
            multiply_ds(dq, ds_tile, base + K_AT, g);
            products_commit();
        }
        // The next scores; after the last tile those of this one again, which nobody looks at.
        more = !uniform(note_of(stage)->last);
        if (more) {
            at.next();
            await_q();
        }
        product_fence();
        multiply_heads<HEAD_D>(s, keys, base + Q_AT + at.stage * Q_BYTES);
        products_commit();
        product_fence();
        add_products(dk, ds, q);
        products_commit();
        if (DQ) { // its sums leave while the other two are under way
            products_wait<2>();
            keep(dq);
            add_dq(p, dq, note_of(stage)->row, g);
        }
        products_wait<0>();
        keep(s);
        if (!DQ) release(base + DOUT_EMPTY(stage));
        if (more) barrier_arrive(base + Q_EMPTY(stage)); // each lane for the note, limits, lse2 and delta that it read
    }
    keep(dk);
    keep(dv);
    const backward_context end = context_at_the_end(p);
    const int key = end.j0 + uniform((int)threadIdx.x / 32) * 16;
    if (p.dk.data) write_keys<1, DT / 2>(p.dk, end.s, end.g, p.D, &dk, p.scale, key, 0);
    if (p.dv.data) write_keys<1, ET / 2>(p.dv, end.s, end.g, p.E, &dv, DROPOUT ? p.dropout_scale : 1.0f, key, 0);
    if (DQ) { // finish_block, by the consumers; last, since the fence waits for all sums of dq that are under way
        meet_both();
        if (threadIdx.x == 0) {
            asm volatile("fence.acq_rel.gpu;" ::: "memory");
            atomicAdd(finished_blocks(p, end.s.b, end.g), 1u);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    backward_sm90(const __grid_constant__ dlattn_params p, const __grid_constant__ dlattn_maps maps) {
    const u32 base = shared_address(shared_bytes);
    const int role = uniform((int)threadIdx.x / 128);
    backward_context c = place_of_block(p, (int)blockIdx.x);
    c.s = read_sequence(p, c.s.b);
    if (c.j0 >= c.s.N) {
        wait_and_let_begin();
        if (DQ) finish_block(p, c.s.b, c.g);
        return;
    }
    if (threadIdx.x == 0) {
        keep_place(c);
        barrier_init(base + K_FULL, 1);
        barrier_init(base + V_FULL, 1);
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(base + Q_FULL(stage), 1 + 32 * DESCRIBERS);
            barrier_init(base + Q_EMPTY(stage), 32 * CONSUMER_WARPS);
            barrier_init(base + DOUT_FULL(stage), 1);
            barrier_init(base + DOUT_EMPTY(stage), CONSUMER_WARPS);
        }
        barriers_are_ready();
    }
    __syncthreads();
    tile_list list = tiles_of(p, c, rows_of_keys(p, c.s, c.j0));
    if (SEGMENTS) {
        wait_and_let_begin(); // their ranges are backward_prepare's
        find_tiles_that_meet(p, c, &list);
    }
    if (role == CONSUMERS) {
        keep_few_registers<PRODUCER_REGISTERS>();
        const int warp = uniform((int)threadIdx.x / 32 % 4);
        if (warp == 0) fetch_tiles(p, maps, c, list, base);
        else if (warp <= DESCRIBERS) describe_tiles(p, c, list, base, warp - 1);
    } else {
        take_registers<CONSUMER_REGISTERS>();
        consume(p, c, list, base, role);
    }
}
