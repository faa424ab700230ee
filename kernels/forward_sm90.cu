// forward_sm90.cu: the forward on Hopper's tensor cores (wgmma), fp16 and bf16: warp specialised as FlashAttention 3 is.
//
// Entry forward_sm90. Options: TYPE; HEAD_D, HEAD_E: D and E padded to multiples of 64, E not above D; BM: rows of a tile, 64
// for each consumer; BN: keys of a tile, a multiple of 16; WARPS: all of a block: four for each consumer and four for the
// producer; STAGES: tiles of K and of V in shared memory; TURNS: 1 lets the consumers issue products in turns, so that one's
// weights meet the others' products; FEATURES: INTERVAL and SOFTCAP only. The scale must be positive; rows of q, k
// and v have unit inner strides and are 16-byte aligned.
//
// Grid: any number of blocks; they share the row_tiles * H * B tiles. One warp of the producer fetches Q, K and V by TMA; each
// consumer, four warps, computes 64 rows, from the last tile of keys to the first. Rows from M_b on are not written.
#include "scores_sm80.cuh"
#include "softmax_sm90.cuh"
#include "tma_sm90.cuh"
#include "wgmma_sm90.cuh"

#define THREADS (WARPS * 32)
#define CONSUMERS (WARPS / 4 - 1)
#define CONSUMER_WARPS (4 * CONSUMERS)
#define MT 1 // fragments of 16 rows of a warp
#define NT (BN / 8)
#define ET (HEAD_E / 8)
#define INTERVAL (((FEATURES) & DLATTN_FEATURE_INTERVAL) != 0)
#define SEGMENTS 0
#define CAPPED (((FEATURES) & DLATTN_FEATURE_SOFTCAP) != 0)
#define SPLIT 0
#define PACKED 0
#define ALIGNED 1

static_assert(BM == 64 * CONSUMERS && BN % 16 == 0 && HEAD_D % PANEL == 0 && HEAD_E % PANEL == 0, "tile sizes");
static_assert(HEAD_E <= HEAD_D, "the result leaves through Q's memory");
static_assert(((FEATURES) & ~(DLATTN_FEATURE_INTERVAL | DLATTN_FEATURE_SOFTCAP)) == 0, "features");

// Shared memory, in bytes. Tiles consist of panels. Each consumer has its own rows of Q.
#define ROWS_BYTES (64 * HEAD_D * 2)
#define Q_BYTES (CONSUMERS * ROWS_BYTES)
#define K_BYTES (BN * HEAD_D * 2)
#define V_BYTES (BN * HEAD_E * 2)
#define K_AT Q_BYTES
#define V_AT (K_AT + STAGES * K_BYTES)
#define LIMITS_AT (V_AT + STAGES * V_BYTES)
#define RANGES_AT (LIMITS_AT + BM * 8)             // of each warp's rows
#define FACTS_AT (RANGES_AT + CONSUMER_WARPS * 16) // of each warp, see loop_facts
#define FACTS_BYTES 128
#define BARRIERS_AT (FACTS_AT + CONSUMER_WARPS * FACTS_BYTES)

// Barriers: of each consumer's Q, of each stage of K and V and of the two places for work, whether it is full and
// whether it is empty.
#define Q_FULL(g) (BARRIERS_AT + 8 * (g))
#define Q_EMPTY(g) (Q_FULL(CONSUMERS) + 8 * (g))
#define K_FULL(stage) (Q_EMPTY(CONSUMERS) + 8 * (stage))
#define K_EMPTY(stage) (K_FULL(STAGES) + 8 * (stage))
#define V_FULL(stage) (K_EMPTY(STAGES) + 8 * (stage))
#define V_EMPTY(stage) (V_FULL(STAGES) + 8 * (stage))
#define WORK_FULL(place) (V_EMPTY(STAGES) + 8 * (place))
#define WORK_EMPTY(place) (WORK_FULL(2) + 8 * (place))
#define WORK_AT(place) ((WORK_EMPTY(2) + 15) / 16 * 16 + 16 * (place))

// Named barriers: one for each consumer's warps, one for its turn.
#define OWN_BARRIER(g) (1 + (g))
#define TURN_BARRIER(g) (1 + CONSUMERS + (g))

#include "forward_rows_sm80.cuh"
#include "forward_keys_sm80.cuh"
#include "forward_fetch_sm90.cuh"

// From scores to powers of two.
DEVICE float factor_of(const dlattn_params &p) { return CAPPED ? 1.0f : p.scale * LOG2_E; }

// s = q k^T: 64 rows by BN keys.
DEVICE void multiply_keys(float (&s)[NT][4], u32 q_rows, u32 k_tile) {
    const u64 q = descriptor_by_rows(q_rows), k = descriptor_by_rows(k_tile);
#pragma unroll
    for (int d = 0; d < HEAD_D / 16; d++) // the next 16 columns, or the next panel
        product(s, q + (d / 4 * (64 * PANEL_ROW) + d % 4 * 32 >> 4), k + (d / 4 * (BN * PANEL_ROW) + d % 4 * 32 >> 4), d > 0);
}

// o += p v.
DEVICE void multiply_values(float (&o)[ET][4], const u32 (&weights)[BN / 16][4], u32 v_tile) {
    const u64 v = descriptor_by_columns(v_tile, BN * PANEL_ROW);
#pragma unroll
    for (int k = 0; k < BN / 16; k++) product(o, weights[k], v + (k * (16 * PANEL_ROW) >> 4));
}

// The consumers' turns at the tensor cores: each may issue its products when the one before has.
DEVICE void await_turn(int g) {
    if (TURNS) meet<256>(TURN_BARRIER(g));
}

DEVICE void pass_turn(int g) {
    if (TURNS) arrive_at<256>(TURN_BARRIER(g + 1 == CONSUMERS ? 0 : g + 1));
}

// A sum of 0 times a NaN is none: rows of V past the sequence's end, where memory may hold anything, become 0.
DEVICE void clear_rows_past(u32 v_tile, int rows, int g) {
    const int PIECES = HEAD_E / 8, thread = (int)threadIdx.x % 128;
    for (int n = rows * PIECES + thread; n < BN * PIECES; n += 128) {
        const int row = n / PIECES, piece = n % PIECES;
        store_shared(v_tile + piece / 8 * (BN * PANEL_ROW) + row * PANEL_ROW + piece % 8 * 16, make_uint4(0, 0, 0, 0));
    }
    fence_for_engines();
    meet<128>(OWN_BARRIER(g));
}

DEVICE void release(u32 barrier) {
    if (lane_id() == 0) barrier_arrive(barrier);
}

// What is known of a tile when it is compiled.
template <bool VALUE>
struct flag {
    static constexpr bool value = VALUE;
};

// One consumer: rows 64 g to 64 g + 63 of each of the block's tiles.
DEVICE void consume(const dlattn_params &p, unsigned char *memory, int g) {
    const u32 base = shared_address(memory), q_rows = base + g * ROWS_BYTES;
    const float factor = factor_of(p);
    loop_facts *const facts = (loop_facts *)(memory + FACTS_AT + thread_anew() / 32 * FACTS_BYTES);
    ring<STAGES> keys = {0, 0}, values = {0, 0};
    u32 q_phase = 0;
    if (g == CONSUMERS - 1) pass_turn(g); // the first turn is the first consumer's

    for (int turn = 0;; turn++) {
        const work w = receive_work(base, turn);
        if (w.number >= tile_count(p)) break;
        const block_place place = place_of(p, w.number);
        const sequence s = read_sequence(p, place.b);
        if (place.row0 >= s.M) continue;
        if (lane_id() == 0) {
            facts->s = s;
            facts->row0 = place.row0;
            facts->rows = s.M;
            facts->h = place.h;
            facts->split = 0;
        }
        if (INTERVAL) find_own_range(memory, p, s, place.row0, s.M);
        const tile_span own = span_of(p, s, smaller(place.row0 + 64 * g, s.M - 1), 64);
        const int whole_first = uniform(own.whole_first), whole_last = uniform(own.whole_last);
        __syncwarp();

        float o[MT][ET][4] = {}, scores[MT][NT][4], m[MT][2] = {{-INFINITE, -INFINITE}}, l[MT][2] = {}, ratio[MT][2];
        u32 weights[BN / 16][4];

        // The scores of tile n of keys to weights. Must o be multiplied by the ratio before their product is added?
        // partly: may some be hidden?
        const auto weigh = [&](int n, auto partly) {
            const int j0 = n * BN;
            bool hides = partly.value && j0 + BN > facts->s.N;
            if (INTERVAL && partly.value) hides = meet_keys(memory, j0) != TILE_WHOLE;
            if (CAPPED && !hides && is_capped_little(scores, m, p.scale, p.softcap)) {
                weigh_capped_little(scores, m, l, p.scale, p.softcap);
                return false;
            }
            if (CAPPED) cap_tile(scores, p.scale, p.softcap, LOG2_E);
            if (hides) {
                if (INTERVAL) hide_ends(scores, memory, j0);
                else hide_past(scores, j0 + lane_id() % 4 * 2, facts->s.N);
            }
            return weigh_scores(scores, m, l, ratio, factor);
        };
        // The scores of tile n - 1, while the tensor cores multiply tile n's weights with V.
        const auto step = [&](int n, auto partly) {
            barrier_wait(base + K_FULL(keys.stage), keys.lap);
            await_turn(g);
            keep(scores[0]);
            keep(weights);
            keep(o[0]);
            product_fence();
            multiply_keys(scores[0], q_rows, base + K_AT + keys.stage * K_BYTES);
            products_commit();
            barrier_wait(base + V_FULL(values.stage), values.lap);
            product_fence();
            multiply_values(o[0], weights, base + V_AT + values.stage * V_BYTES);
            products_commit();
            pass_turn(g);
            products_wait<1>();
            keep(scores[0]);
            release(base + K_EMPTY(keys.stage));
            keys.next();
            const bool raised = weigh(n - 1, partly);
            keep(scores[0]);
            products_wait<0>();
            keep(o[0]);
            release(base + V_EMPTY(values.stage));
            values.next();
            if (raised) scale_rows(o, ratio);
            pack_weights(weights, scores[0]);
        };

        int n = w.last - 1;
        barrier_wait(base + Q_FULL(g), q_phase);
        q_phase ^= 1u;
        if (n >= w.first) {
            barrier_wait(base + K_FULL(keys.stage), keys.lap);
            await_turn(g);
            product_fence();
            multiply_keys(scores[0], q_rows, base + K_AT + keys.stage * K_BYTES);
            products_commit();
            pass_turn(g);
            const int left = facts->s.N - n * BN;
            if (left < BN && tokens_follow(p, facts->s)) {
                barrier_wait(base + V_FULL(values.stage), values.lap);
                clear_rows_past(base + V_AT + values.stage * V_BYTES, left, g);
            }
            products_wait<0>();
            keep(scores[0]);
            release(base + K_EMPTY(keys.stage));
            keys.next();
            weigh(n, flag<true>());
            pack_weights(weights, scores[0]);

            for (; n > w.first; n--) {
                if (INTERVAL && (n - 1 < whole_first || n > whole_last)) step(n, flag<true>());
                else step(n, flag<false>());
            }

            barrier_wait(base + V_FULL(values.stage), values.lap);
            keep(weights);
            keep(o[0]);
            product_fence();
            multiply_values(o[0], weights, base + V_AT + values.stage * V_BYTES);
            products_commit();
            products_wait<0>();
            keep(o[0]);
            release(base + V_EMPTY(values.stage));
            values.next();
        }
        meet<128>(OWN_BARRIER(g)); // all four warps have done with Q
        finish(base, o, m, l, factor, p, *facts);
        fence_for_engines();
        __syncwarp();
        release(base + Q_EMPTY(g));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    forward_sm90(const __grid_constant__ dlattn_params p, const __grid_constant__ dlattn_maps maps) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const u32 base = shared_address(memory);
    const int role = uniform((int)threadIdx.x / 128);
    if (threadIdx.x == 0) {
        for (int g = 0; g < CONSUMERS; g++) {
            barrier_init(base + Q_FULL(g), 1);
            barrier_init(base + Q_EMPTY(g), 4);
        }
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(base + K_FULL(stage), 1);
            barrier_init(base + K_EMPTY(stage), CONSUMER_WARPS);
            barrier_init(base + V_FULL(stage), 1);
            barrier_init(base + V_EMPTY(stage), CONSUMER_WARPS);
        }
        for (int place = 0; place < 2; place++) {
            barrier_init(base + WORK_FULL(place), 1);
            barrier_init(base + WORK_EMPTY(place), CONSUMER_WARPS);
        }
        barriers_are_ready();
    }
    __syncthreads();
    if (role == CONSUMERS) {
        keep_few_registers<PRODUCER_REGISTERS>();
        if (threadIdx.x % 128 < 32) fetch_tiles(p, maps, base);
    } else {
        take_registers<CONSUMER_REGISTERS>();
        consume(p, memory, role);
    }
}
