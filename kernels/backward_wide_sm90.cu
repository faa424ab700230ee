// backward_wide_sm90.cu: dk, dv and (by reductions) dq on Hopper's tensor cores (wgmma) for heads above 128, fp16 and bf16: a block
// owns 64 keys of one (sequence, kv head) and passes over the query heads of its group and the tiles of 64 rows that can see its keys.
//
//     s = q k^T,  p = exp2(score2 - lse2),  dv += p^T dout,  dp = dout v^T,  ds = p (dp - delta),  dk += ds^T q,  dq += ds k
//
// Sums of 64 keys fill the registers of a warpgroup, so three consumers share the products: one has s, p and dv, one dp, ds and
// dk, one dq. p goes from the first to the second, ds from the second to the third, both through shared memory. A fourth warpgroup
// fetches tiles by TMA. Scores are computed transposed, keys down, rows across, so that the registers of p and ds are left operands
// of dv and dk. The device adds fewer floats to sums in memory than 64 keys a tile would need, so two blocks of neighbouring keys, a
// cluster, exchange ds: each multiplies that of both by half of the columns of k.
//
// Entry backward_wide_sm90. Options: TYPE; HEAD_D, HEAD_E: D and E padded to multiples of 64; BM, BN: 64; WARPS: 16; CLUSTER: 2; STAGES,
// DOUT_STAGES: tiles of q and of dout under way; DOUT_PARTS: 2: with one tile of dout its halves of columns come and go by
// themselves; FEATURES: no BIAS, no MASK; DQ: 0: not wanted.
// Rows of q, k, v and dout have unit inner strides and are 16-byte aligned.
#include "backward_parts.cuh"
#include "tma_sm90.cuh"

#define THREADS (32 * WARPS)
#define WALK_KEYS (CLUSTER * BN)
#define DESCRIBERS (DROPOUT ? 2 : 1) // warps that tell consumers of tiles
#define SENDER 3                     // the warp of the producer that sends ds

// Warpgroups.
#define OF_VALUES 0
#define OF_KEYS 1
#define OF_ROWS 2
#define PRODUCER 3

static_assert(WARPS == 4 * (PRODUCER + 1) && BM == 64 && BN == 64 && CLUSTER == 2, "roles");
static_assert(STAGES == 2, "a tile's ds lies as its q does, in one of two places by turns; p has one place");
static_assert(DOUT_PARTS == 1 || (DOUT_PARTS == 2 && DOUT_STAGES == 1 && HEAD_E == 256), "dv is summed by the same halves");
static_assert(HEAD_D % PANEL == 0 && HEAD_E % PANEL == 0 && DLATTN_ROW_ALIGNMENT % BM == 0, "tiles");

// Shared memory, in bytes. Tiles consist of panels.
#define HALF ((HEAD_D / PANEL + 1) / 2) // panels of dq that a block has, the second one perhaps fewer
#define Q_BYTES (BM * HEAD_D * 2)
#define DOUT_BYTES (BM * HEAD_E * 2)
#define DS_BYTES (BM * BN * 2)
#define P_BYTES (BM * BN * 4)
#define K_AT 0
#define V_AT (K_AT + BN * HEAD_D * 2)
#define Q_AT (V_AT + BN * HEAD_E * 2)
#define DOUT_AT (Q_AT + STAGES * Q_BYTES)
#define K_OTHER_AT (DOUT_AT + DOUT_STAGES * DOUT_BYTES) // the other block's keys, the panels of which this one has dq
#define DS_AT (K_OTHER_AT + HALF * BN * PANEL_ROW)
#define DS_OTHER_AT (DS_AT + STAGES * DS_BYTES)
#define P_AT (DS_OTHER_AT + STAGES * DS_BYTES)
#define LSE_AT (P_AT + P_BYTES)
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
#define DOUT_EMPTY(stage) (DOUT_FULL(DOUT_STAGES * DOUT_PARTS) + 8 * (stage))
#define P_FULL DOUT_EMPTY(DOUT_STAGES * DOUT_PARTS) // a phase each tile: its parity is the tile's stage
#define P_EMPTY (P_FULL + 8)
#define DS_FULL(stage) (P_EMPTY + 8 + 8 * (stage))
#define DS_EMPTY(stage) (DS_FULL(STAGES) + 8 * (stage))
#define DS_OTHER_FULL(stage) (DS_EMPTY(STAGES) + 8 * (stage))
#define K_OTHER_FULL DS_OTHER_FULL(STAGES)

// Named barriers: of one warpgroup, and of the owners of values and keys.
#define OWN_BARRIER(role) (1 + (role))
// The keys' consumer has cleared a place of dout; the values' must have done with the place before it arrives there again.
#define CLEARED_BARRIER(stage) (4 + (stage))

// Four warpgroups have 512 registers for a thread of each.
#define LARGEST (HEAD_D > 192 || HEAD_E > 192)
#define SUM_REGISTERS (LARGEST ? 208 : 176)
#define ROWS_REGISTERS (LARGEST ? 64 : 72)
#define PRODUCER_REGISTERS (LARGEST ? 32 : 88)

extern __shared__ __align__(1024) unsigned char shared_bytes[];

#include "backward_block_sm90.cuh"
#include "backward_fetch_sm90.cuh"
#include "backward_scores_sm90.cuh"
#include "backward_write.cuh"

DEVICE int own_thread() { return thread_anew() % 128; }

// p between warpgroups --------------------------------------------------------------------------------------------------
// What dp - delta is multiplied by: with softcap p times the derivative of the score, without dropout. Thread n of one warpgroup has
// the scores of thread n of the other: 16 bytes of a thread after those of another.

DEVICE u32 p_of_thread(u32 base) { return base + P_AT + own_thread() * 16; }

DEVICE void store_p(u32 to, const float (&s)[NT][4]) {
#pragma unroll
    for (int n = 0; n < NT; n++)
        store_shared(to + n * (128 * 16), make_uint4(__float_as_uint(s[n][0]), __float_as_uint(s[n][1]), __float_as_uint(s[n][2]),
                                                     __float_as_uint(s[n][3])));
}

DEVICE void load_p(float (&s)[NT][4], u32 from) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const uint4 x = load_shared(from + n * (128 * 16));
        s[n][0] = __uint_as_float(x.x), s[n][1] = __uint_as_float(x.y), s[n][2] = __uint_as_float(x.z), s[n][3] = __uint_as_float(x.w);
    }
}

// Products --------------------------------------------------------------------------------------------------------------

// sums += x rows, as add_products; 256 columns are two parts, since ptxas wants the registers of an instruction to fit into a thread's
// share of all registers.
#define PARTS_OF(count) ((count) > 24 ? 2 : 1)

// 16 rows of a part.
template <int COUNT>
DEVICE void add_step(float (&sums)[COUNT][4], const u32 (&x)[NT / 2][4], u32 rows, int k, int part) {
    const int PART = COUNT / PARTS_OF(COUNT);
    const u64 b = descriptor_by_columns(rows, BM * PANEL_ROW);
    product(*(float(*)[PART][4]) & sums[part * PART], x[k], b + (part * (PART / 8) * (BM * PANEL_ROW) + k * (16 * PANEL_ROW) >> 4));
}

template <int COUNT>
DEVICE void add_part(float (&sums)[COUNT][4], const u32 (&x)[NT / 2][4], u32 rows, int part) {
#pragma unroll
    for (int k = 0; k < BM / 16; k++) add_step(sums, x, rows, k, part);
}

template <int COUNT>
DEVICE void add_wide_products(float (&sums)[COUNT][4], const u32 (&x)[NT / 2][4], u32 rows) {
#pragma unroll
    for (int k = 0; k < BM / 16; k++)
#pragma unroll
        for (int part = 0; part < PARTS_OF(COUNT); part++) add_step(sums, x, rows, k, part);
}

// dq = or += ds k over a block's keys: 64 rows by the 64 columns of a panel.
DEVICE void multiply_ds(float (&dq)[8][4], u32 ds, u32 k_panel, bool add) {
    const u64 a = descriptor_by_rows(ds), b = descriptor_by_columns(k_panel, BN * PANEL_ROW);
#pragma unroll
    for (int k = 0; k < BN / 16; k++) product_by_columns(dq, a + (k * 32 >> 4), b + (k * (16 * PANEL_ROW) >> 4), add || k > 0);
}

// Tiles of q and dout come to both blocks, half of each tile from either, so both must have done with a place.

// By a warp, once.
DEVICE void release_to_both(u32 barrier) {
    if (lane_id() != 0) return;
    barrier_arrive(barrier);
    barrier_arrive_in_cluster(address_in_block(barrier, rank_in_cluster() ^ 1));
}

// By all lanes of a warp: each lane for what it read of note, limits and statistics.
DEVICE void release_q(u32 barrier) {
    barrier_arrive(barrier);
    if (lane_id() == 0) barrier_arrive_in_cluster(address_in_block(barrier, rank_in_cluster() ^ 1));
}

// Roles -----------------------------------------------------------------------------------------------------------------

// How many of the keys from j0 on are the sequence's, where others' tokens follow; BN if none do.
DEVICE int own_keys_from(const dlattn_params &p, const backward_context &c, int j0) {
    return j0 + BN > c.s.N && c.s.k_begin + c.s.N < p.tokens_k ? larger(c.s.N - j0, 0) : BN;
}

// Of the next tile of rows a consumer clears what it multiplies first: q or dout.
DEVICE void await_q(u32 base, const ring<STAGES> &at) {
    barrier_wait(base + Q_FULL(at.stage), at.lap);
    const int own_rows = uniform(note_of(at.stage)->own_rows);
    if (own_rows == BM) return;
    clear_rows<BM, HEAD_D, 128>(base + Q_AT + at.stage * Q_BYTES, own_rows, own_thread());
    meet<128>(OWN_BARRIER(OF_VALUES));
}

DEVICE void await_dout(u32 base, const ring<STAGES> &at) {
    barrier_wait(base + Q_FULL(at.stage), at.lap); // the note
    barrier_wait(base + DOUT_FULL(dout_place(at, 0)), dout_lap(at));
    const int own_rows = uniform(note_of(at.stage)->own_rows);
    if (own_rows == BM) return;
    if (DOUT_PARTS == 2) barrier_wait(base + DOUT_FULL(dout_place(at, 1)), dout_lap(at));
    clear_rows<BM, HEAD_E, 128>(base + DOUT_AT + dout_stage(at) * DOUT_BYTES, own_rows, own_thread());
    arrive_at<256>(CLEARED_BARRIER(dout_stage(at)));
    meet<128>(OWN_BARRIER(OF_KEYS));
}

// dp of a tile, part by part as dout comes.
DEVICE void multiply_dout(float (&dp)[NT][4], u32 base, const ring<STAGES> &at) {
    const int COLS = HEAD_E / DOUT_PARTS;
    const u32 dout = base + DOUT_AT + dout_stage(at) * DOUT_BYTES;
    product_fence();
    multiply_heads<COLS>(dp, base + V_AT, dout);
    products_commit();
    if (DOUT_PARTS == 1) return;
    barrier_wait(base + DOUT_FULL(dout_place(at, 1)), dout_lap(at));
    product_fence();
    multiply_heads<COLS, true>(dp, base + V_AT + COLS / PANEL * (BN * PANEL_ROW), dout + COLS / PANEL * (BM * PANEL_ROW));
    products_commit();
}

// s, p and dv.
DEVICE void sum_values(const dlattn_params &p, const backward_context &c, const tile_list &list, u32 base) {
    float dv[ET][4] = {}, s[NT][4];
    ring<STAGES> at = {0, 0};
    bool more = list.count > 0;
    if (more) {
        barrier_wait(base + K_FULL, 0);
        clear_rows<BN, HEAD_D, 128>(base + K_AT, own_keys_from(p, c, c.j0), own_thread());
        meet<128>(OWN_BARRIER(OF_VALUES));
        await_q(base, at);
        product_fence();
        multiply_heads<HEAD_D>(s, base + K_AT, base + Q_AT);
        products_commit();
        products_wait<0>();
        keep(s);
    }
    keep(dv);
#pragma unroll 1
    while (more) {
        const int stage = at.stage;
        const int stage_of_dout = dout_stage(at);
        const u32 dout = base + DOUT_AT + stage_of_dout * DOUT_BYTES, dout_full = base + DOUT_FULL(dout_place(at, 0));
        const u32 dout_empty = base + DOUT_EMPTY(dout_place(at, 0)), lap = dout_lap(at);
        u32 bent[NT / 2][4];
        u32 weights[NT / 2][4];
        weigh_tile(p, s, weights, bent, stage);
        const bool cleared = uniform(note_of(stage)->own_rows) < BM;
        more = !uniform(note_of(stage)->last);
        release_q(base + Q_EMPTY(stage));
        barrier_wait(base + P_EMPTY, (u32)stage ^ 1u);
        store_p(p_of_thread(base), s);
        barrier_arrive(base + P_FULL);
        pack_weights(s, weights, stage);
        barrier_wait(dout_full, lap);
        if (cleared) meet<256>(CLEARED_BARRIER(stage_of_dout));
        keep(weights);
        product_fence();
        if (DOUT_PARTS == 1) {
            add_wide_products(dv, weights, dout);
        } else {
            add_part(dv, weights, dout, 0);
            products_commit();
            barrier_wait(dout_full + 8, lap);
            product_fence();
            add_part(dv, weights, dout, 1);
        }
        products_commit();
        // The next scores; after the last tile those of this one again, which nobody looks at.
        if (more) {
            at.next();
            await_q(base, at);
        }
        product_fence();
        multiply_heads<HEAD_D>(s, base + K_AT, base + Q_AT + at.stage * Q_BYTES);
        products_commit();
        if (DOUT_PARTS == 2) {
            products_wait<2>();
            release_to_both(dout_empty);
        }
        products_wait<1>();
        release_to_both(dout_empty + 8 * (DOUT_PARTS - 1));
        products_wait<0>();
        keep(s);
    }
    keep(dv);
    const backward_context end = context_at_the_end(p);
    const int key = end.j0 + uniform((int)threadIdx.x / 32 % 4) * 16;
    if (p.dv.data) write_keys<1, ET / 2>(p.dv, end.s, end.g, p.E, &dv, DROPOUT ? p.dropout_scale : 1.0f, key, 0);
}

// dp, ds and dk.
DEVICE void sum_keys(const dlattn_params &p, const backward_context &c, const tile_list &list, u32 base) {
    float dk[DT][4] = {}, dp[NT][4];
    ring<STAGES> at = {0, 0};
    bool more = list.count > 0;
    if (more) {
        barrier_wait(base + V_FULL, 0);
        clear_rows<BN, HEAD_E, 128>(base + V_AT, own_keys_from(p, c, c.j0), own_thread());
        meet<128>(OWN_BARRIER(OF_KEYS));
        await_dout(base, at);
        multiply_dout(dp, base, at);
        products_wait<0>();
        keep(dp);
        release_to_both(base + DOUT_EMPTY(0));
        if (DOUT_PARTS == 2) release_to_both(base + DOUT_EMPTY(1));
    }
    keep(dk);
#pragma unroll 1
    while (more) {
        const int stage = at.stage;
        const u32 q = base + Q_AT + stage * Q_BYTES, lap = at.lap;
        u32 ds[NT / 2][4];
        const u32 bent[NT / 2][4] = {};
        float s[NT][4];
        barrier_wait(base + P_FULL, (u32)stage);
        load_p(s, p_of_thread(base));
        score_gradients(ds, s, bent, dp, stage, p.dropout_scale);
        barrier_arrive(base + P_EMPTY);
        more = !uniform(note_of(stage)->last);
        if (DQ) {
            barrier_wait(base + DS_EMPTY(stage), lap ^ 1u);
            store_ds(base + DS_AT + stage * DS_BYTES, ds);
            fence_for_engines();
            barrier_arrive(base + DS_FULL(stage));
        }
        keep(ds);
        product_fence();
        add_wide_products(dk, ds, q);
        products_commit();
        // dp of the next; after the last tile that of this one again, which nobody looks at.
        if (more) {
            at.next();
            await_dout(base, at);
        }
        multiply_dout(dp, base, at);
        products_wait<DOUT_PARTS>();
        release_q(base + Q_EMPTY(stage));
        if (DOUT_PARTS == 2) {
            products_wait<1>();
            if (more) release_to_both(base + DOUT_EMPTY(dout_place(at, 0)));
        }
        products_wait<0>();
        keep(dp);
        if (more) release_to_both(base + DOUT_EMPTY(dout_place(at, DOUT_PARTS - 1)));
    }
    keep(dk);
    const backward_context end = context_at_the_end(p);
    const int key = end.j0 + uniform((int)threadIdx.x / 32 % 4) * 16;
    if (p.dk.data) write_keys<1, DT / 2>(p.dk, end.s, end.g, p.D, &dk, p.scale, key, 0);
}

// dq of some panels, of both blocks' keys, to the sums, which lie together (dq_sum.cuh).
DEVICE void sum_rows(const dlattn_params &p, const backward_context &c, const tile_list &list, u32 base, int rank) {
    const int first = rank * HALF;
    wait_and_let_begin(); // the sums are backward_prepare's
    ring<STAGES> at = {0, 0};
    bool more = list.count > 0;
    if (more) {
        barrier_wait(base + K_FULL, 0);
        barrier_wait(base + K_OTHER_FULL, 0);
        clear_rows<BN, HALF * PANEL, 128>(base + K_OTHER_AT, own_keys_from(p, c, c.j0 ^ BN), own_thread());
        meet<128>(OWN_BARRIER(OF_ROWS));
    }
#pragma unroll 1
    while (more) {
        const u32 own = base + DS_AT + at.stage * DS_BYTES, other = base + DS_OTHER_AT + at.stage * DS_BYTES;
        barrier_wait(base + Q_FULL(at.stage), at.lap); // the note
        const i64 row = note_of(at.stage)->row + uniform((int)threadIdx.x / 32 % 4) * 16;
        more = !uniform(note_of(at.stage)->last);
        barrier_arrive(base + Q_EMPTY(at.stage));
        float *const sums = dq_sum_block(p, row, first * PANEL, HEAD_D) + dq_sum_index(lane_id(), 0);
        barrier_wait(base + DS_FULL(at.stage), at.lap);
#pragma unroll
        for (int panel = 0; panel < HALF; panel++) {
            float dq[8][4];
            product_fence();
            multiply_ds(dq, own, base + K_AT + (first + panel) * (BN * PANEL_ROW), false);
            if (panel == 0) barrier_wait(base + DS_OTHER_FULL(at.stage), at.lap);
            product_fence();
            multiply_ds(dq, other, base + K_OTHER_AT + panel * (BN * PANEL_ROW), true);
            products_commit();
            products_wait<0>();
            keep(dq);
            if (panel + 1 == HALF) release_to_both(base + DS_EMPTY(at.stage));
            if (HEAD_D / PANEL % 2 != 0 && first + panel >= HEAD_D / PANEL) break;
#pragma unroll
            for (int step = 0; step < 8; step++) dq_sum_add(sums + (panel * 8 + step) * 128, dq[step]);
        }
        at.next();
    }
    meet<128>(OWN_BARRIER(OF_ROWS));
    if (threadIdx.x % 128 == 0) {
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
        atomicAdd(finished_blocks(p, c.s.b, c.g), 1u);
    }
}

// One warp: the other block's keys, then each tile's ds to that block.
DEVICE void send_tiles(const dlattn_params &p, const dlattn_maps &maps, const backward_context &c, const tile_list &list, u32 base,
                       int rank) {
    if (lane_id() == 0 && list.count > 0) {
        barrier_expect(base + K_OTHER_FULL, HALF * BN * PANEL_ROW);
        fetch_panels<BN, HALF * PANEL>(base + K_OTHER_AT, &maps.k, p.k, c.s.k_begin + (c.j0 ^ BN), c.g, c.s.b, base + K_OTHER_FULL,
                                       rank * HALF * PANEL);
    }
    ring<STAGES> at = {0, 0};
    for (int n = 0; n < list.count; n++) {
        barrier_wait(base + DS_FULL(at.stage), at.lap);
        if (lane_id() == 0) {
            barrier_expect(base + DS_OTHER_FULL(at.stage), DS_BYTES);
            send_bytes(address_in_block(base + DS_OTHER_AT + at.stage * DS_BYTES, rank ^ 1), base + DS_AT + at.stage * DS_BYTES, DS_BYTES,
                       address_in_block(base + DS_OTHER_FULL(at.stage), rank ^ 1));
        }
        __syncwarp();
        at.next();
    }
}

DEVICE void init_barriers(u32 base) {
    barrier_init(base + K_FULL, 1);
    barrier_init(base + V_FULL, 1);
    barrier_init(base + K_OTHER_FULL, 1);
    barrier_init(base + P_FULL, 128);
    barrier_init(base + P_EMPTY, 128);
    for (int stage = 0; stage < STAGES; stage++) {
        barrier_init(base + Q_FULL(stage), 1 + 32 * DESCRIBERS);
        barrier_init(base + Q_EMPTY(stage), 128 * (DQ ? 3 : 2) + 8);
        barrier_init(base + DS_FULL(stage), 128);
        barrier_init(base + DS_EMPTY(stage), 4 * CLUSTER);
        barrier_init(base + DS_OTHER_FULL(stage), 1);
    }
    for (int stage = 0; stage < DOUT_STAGES * DOUT_PARTS; stage++) {
        barrier_init(base + DOUT_FULL(stage), 1);
        barrier_init(base + DOUT_EMPTY(stage), 16);
    }
    barriers_are_ready();
}

// The rows that may see keys of the cluster's blocks.
DEVICE row_range rows_of_cluster(const dlattn_params &p, const backward_context &c) {
    const row_range other = rows_of_keys(p, c.s, c.j0 ^ BN);
    __syncthreads();
    row_range rows = rows_of_keys(p, c.s, c.j0); // last, since shared memory keeps what it found
    if (other.first >= other.end) return rows;
    if (rows.first >= rows.end) return other;
    rows.first = smaller(rows.first, other.first), rows.end = larger(rows.end, other.end);
    return rows;
}

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(THREADS, 1)
    backward_wide_sm90(const __grid_constant__ dlattn_params p, const __grid_constant__ dlattn_maps maps) {
    const u32 base = shared_address(shared_bytes);
    const int role = uniform((int)threadIdx.x / 128), rank = rank_in_cluster();
    backward_context c = place_of_block(p, (int)blockIdx.x);
    c.s = read_sequence(p, c.s.b);
    if (c.j0 / WALK_KEYS * WALK_KEYS >= c.s.N) { // both blocks
        wait_and_let_begin();
        if (DQ) finish_block(p, c.s.b, c.g);
        return;
    }
    if (threadIdx.x == 0) {
        keep_place(c);
        init_barriers(base);
    }
    meet_cluster();
    tile_list list = tiles_of(p, c, rows_of_cluster(p, c));
    if (SEGMENTS) {
        wait_and_let_begin(); // their ranges are backward_prepare's
        find_tiles_that_meet(p, c, &list);
    }
    if (role == OF_VALUES) {
        take_registers<SUM_REGISTERS>();
        sum_values(p, c, list, base);
    } else if (role == OF_KEYS) {
        take_registers<SUM_REGISTERS>();
        sum_keys(p, c, list, base);
    } else if (role == OF_ROWS) {
        keep_few_registers<ROWS_REGISTERS>();
        if (DQ) sum_rows(p, c, list, base, rank);
    } else {
        keep_few_registers<PRODUCER_REGISTERS>();
        const int warp = uniform((int)threadIdx.x / 32 % 4);
        if (warp == 0) fetch_tiles(p, maps, c, list, base);
        else if (warp <= DESCRIBERS) describe_tiles(p, c, list, base, warp - 1);
        else if (DQ && warp == SENDER) send_tiles(p, maps, c, list, base, rank);
    }
    meet_cluster(); // nobody leaves while the other block writes to its memory
}
