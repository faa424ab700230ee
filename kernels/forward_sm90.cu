// forward_sm90.cu: the forward on Hopper's tensor cores (wgmma), fp16 and bf16: warp specialised as FlashAttention 3 is.
//
// Entry forward_sm90. Options: TYPE; HEAD_D, HEAD_E: D and E padded to multiples of 64, E not above D; BM: rows of a tile, 64
// for each consumer; BN: keys of a tile, a multiple of 16; WARPS: all of a block: four for each consumer and four for the
// producer; STAGES: tiles of K and of V in shared memory; Q_STAGES: tiles of Q there, 1 or 2; TURNS: 1 lets the consumers issue
// products in turns, so that one's weights meet the others' products; BIAS_STAGES: tiles of the bias there, if there is one;
// FEATURES: all, but SEGMENTS and MASK not together with ALIBI, BIAS and DROPOUT. The scale must be positive; rows of q, k, v and
// the bias have unit inner strides and are 16-byte aligned; the bias is of TYPE and does not broadcast over rows or keys. With
// dropout BN is a multiple of 32 and nothing is counted from positions; with a bias BN is a multiple of 64.
//
// Grid: any number of blocks; they share the row_tiles * H * B tiles. One warp of the producer finds out what is to be done,
// another one fetches Q, K and V by TMA; each consumer, four warps, computes 64 rows, from the last tile of keys to the first.
// Rows from M_b on are not written.
#include "scores_sm90.cuh"
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
#define SEGMENTS (((FEATURES) & DLATTN_FEATURE_SEGMENTS) != 0)
#define MASKED (((FEATURES) & DLATTN_FEATURE_MASK) != 0)
#define SPANS (INTERVAL || SEGMENTS) // consumers see tiles of keys of their own
#define CAPPED (((FEATURES) & DLATTN_FEATURE_SOFTCAP) != 0)
#define ALIBI (((FEATURES) & DLATTN_FEATURE_ALIBI) != 0)
#define BIASED (((FEATURES) & DLATTN_FEATURE_BIAS) != 0)
#define DROPPED (((FEATURES) & DLATTN_FEATURE_DROPOUT) != 0)
#define TERMS (ALIBI || BIASED)
#define RAW (!BIASED && !CAPPED) // scores are weighed as q k^T gives them; else they are natural, or only capped, powers of two
#define SPLIT 0
#define PACKED 0
#define ALIGNED 1
#define BATCHES_TOGETHER BIASED // from memory a bias comes once, then from L2

static_assert(BM == 64 * CONSUMERS && BN % 16 == 0 && HEAD_D % PANEL == 0 && HEAD_E % PANEL == 0, "tile sizes");
static_assert(HEAD_E <= HEAD_D, "the result leaves through Q's memory");
static_assert(!(SEGMENTS || MASKED) || !(ALIBI || BIASED || DROPPED), "features");
static_assert(!DROPPED || BN % 32 == 0, "whole blocks of dropout");
static_assert(!BIASED || (BN % PANEL == 0 && BIAS_STAGES > 0), "whole panels of bias");

// Shared memory, in bytes. Tiles consist of panels. Each consumer has its own rows of Q and of the bias.
#define ROWS_BYTES (64 * HEAD_D * 2)
#define Q_BYTES (CONSUMERS * ROWS_BYTES)
#define K_BYTES (BN * HEAD_D * 2)
#define V_BYTES (BN * HEAD_E * 2)
#define K_AT (Q_STAGES * Q_BYTES)
#define V_AT (K_AT + STAGES * K_BYTES)
#define BIAS_AT (V_AT + STAGES * V_BYTES)
#define BIAS_BYTES (64 * BN * 2)
#define BIAS_TILES (CONSUMERS * BIAS_STAGES)
#define BIAS_TILE(g, stage) (BIAS_AT + ((g) * BIAS_STAGES + (stage)) * BIAS_BYTES)
#define JOB_AT (BIAS_AT + BIASED * BIAS_TILES * BIAS_BYTES) // two of them, see job; each with what follows
#define FACTS_BYTES 224
#define LIMITS_AT (JOB_AT + FACTS_BYTES)           // of each row of the first job; the second's lie JOB_BYTES further
#define RANGES_AT (LIMITS_AT + BM * 8)             // of each warp's rows
#define JOB_BYTES (FACTS_BYTES + BM * 8 + CONSUMER_WARPS * 16)
#define BARRIERS_AT (JOB_AT + 2 * JOB_BYTES)
#define BARRIERS_BYTES 288

// Barriers: of each consumer's Q, of each stage of K and V and of the two jobs, whether it is full and whether it is empty.
#define Q_FULL(g, stage) (BARRIERS_AT + 8 * ((g) * Q_STAGES + (stage)))
#define Q_EMPTY(g, stage) (Q_FULL(CONSUMERS, 0) + 8 * ((g) * Q_STAGES + (stage)))
#define K_FULL(stage) (Q_EMPTY(CONSUMERS, 0) + 8 * (stage))
#define K_EMPTY(stage) (K_FULL(STAGES) + 8 * (stage))
#define V_FULL(stage) (K_EMPTY(STAGES) + 8 * (stage))
#define V_EMPTY(stage) (V_FULL(STAGES) + 8 * (stage))
#define JOB_FULL(place) (V_EMPTY(STAGES) + 8 * (place))
#define JOB_EMPTY(place) (JOB_FULL(2) + 8 * (place))
#define JOB_WANTED JOB_EMPTY(2) // the loader is nearly done with the last one
#define BIAS_FULL(g, stage) (JOB_WANTED + 8 + 8 * ((g) * BIAS_STAGES + (stage)))
#define BIAS_EMPTY(g, stage) (BIAS_FULL(CONSUMERS, 0) + 8 * ((g) * BIAS_STAGES + (stage)))
static_assert((BIASED ? BIAS_EMPTY(CONSUMERS, 0) : BIAS_FULL(0, 0)) <= BARRIERS_AT + BARRIERS_BYTES, "room for the barriers");

// Named barriers: one for each consumer's warps, one for its turn.
#define OWN_BARRIER(g) (1 + (g))
#define TURN_BARRIER(g) (1 + CONSUMERS + (g))

#include "forward_rows_sm80.cuh"
#include "forward_keys_sm80.cuh"
#include "forward_fetch_sm90.cuh"
#include "forward_hide_sm90.cuh"
#include "forward_segments_sm90.cuh"

// From scores to powers of two.
DEVICE float factor_of(const dlattn_params &p) { return TERMS ? LOG2_E : CAPPED ? 1.0f : p.scale * LOG2_E; }

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
    const int PIECES = HEAD_E / 8, thread = thread_anew() % 128;
#pragma unroll 1
    for (int n = rows * PIECES + thread; n < BN * PIECES; n += 128) {
        const int row = n / PIECES, piece = n % PIECES;
        store_shared(v_tile + piece / 8 * (BN * PANEL_ROW) + row * PANEL_ROW + piece % 8 * 16, make_uint4(0, 0, 0, 0));
    }
    fence_for_engines();
    meet<128>(OWN_BARRIER(g));
}

// What is known of a tile when it is compiled.
template <bool VALUE>
struct flag {
    static constexpr bool value = VALUE;
};

// One consumer: rows 64 g to 64 g + 63 of each of the block's tiles.
DEVICE void consume(const dlattn_params &p, unsigned char *memory, int g) {
    const u32 base = shared_address(memory);
    const float factor = factor_of(p);
    ring<Q_STAGES> queries = {0, 0};
    ring<STAGES> keys = {0, 0}, values = {0, 0};
    ring<BIASED ? BIAS_STAGES : 1> biases = {0, 0};
    const float unit = ALIBI && RAW ? p.scale : 1.0f; // of scores, in natural ones
    const int warp_row = 64 * g + (int)threadIdx.x % 128 / 32 * 16;
    if (g == CONSUMERS - 1) pass_turn(g); // the first turn is the first consumer's

    for (int turn = 0;; turn++) {
        await_job(base, turn);
        const job *const j = job_at(memory, turn);
        if (!uniform(j->valid)) break;
        const loop_facts *const facts = &j->facts;
        const int first = uniform(j->first), last = uniform(j->last);
        const bool has_rows = uniform(facts->row0) + 64 * g < uniform(facts->rows);
        const int own_first = SPANS && has_rows ? uniform(j->of[g].first) : first;
        const int own_last = !has_rows ? first : SPANS ? uniform(j->of[g].last) : last;
        const int whole_first = SPANS ? uniform(j->of[g].whole_first) : 0, whole_last = SPANS ? uniform(j->of[g].whole_last) : 0;
        const u32 q_tile = base + queries.stage * Q_BYTES, q_rows = q_tile + g * ROWS_BYTES;
        const unsigned char *const own = memory + (turn & 1) * JOB_BYTES; // LIMITS_AT and RANGES_AT count from here

        float o[MT][ET][4] = {}, scores[MT][NT][4], m[MT][2] = {{-INFINITE, -INFINITE}}, l[MT][2] = {}, ratio[MT][2];
        u32 weights[BN / 16][4];

        // Does tile n of keys hold what the mask tensor or segments hide? And what: asked while its products are under way.
        const auto is_marked = [&](int n, auto partly) {
            if (!SEGMENTS || MASKED) return partly.value && MASKED;
            const consumer_span &span = ((const job *)(own + JOB_AT))->of[g];
            return partly.value && (n < span.alike_first || n >= span.alike_last);
        };
        const auto mark = [&](int n, auto partly) {
            hidden_scores hidden = {{0, 0}};
            const int row = facts->row0 + thread_anew() / 32 * 16 + thread_anew() % 32 / 4;
            if (MASKED && partly.value) mark_masked(&hidden, p, *facts, row, n * BN);
            if (SEGMENTS && is_marked(n, partly)) mark_other_segments(&hidden, p, *facts, row, n * BN);
            return hidden;
        };
        // The scores of tile n of keys to weights. Must o be multiplied by the ratio before their product is added?
        // partly: may some be hidden?
        const auto weigh = [&](int n, auto partly, const hidden_scores &hidden) {
            const int j0 = n * BN;
            const bool marked = is_marked(n, partly);
            bool hides = partly.value && j0 + BN > facts->s.N;
            if (INTERVAL && partly.value) hides = meet_keys(own, j0) != TILE_WHOLE;
            if (CAPPED && !TERMS && !hides && !marked && is_capped_little(scores, m, p.scale, p.softcap)) {
                weigh_capped_little(scores, m, l, p.scale, p.softcap);
                return false;
            }
            if (CAPPED) cap_tile(scores, p.scale, p.softcap, TERMS ? 1.0f : LOG2_E);
            float offset[2] = {0.0f, 0.0f};
            if (BIASED) {
                barrier_wait(base + BIAS_FULL(g, biases.stage), biases.lap);
                add_bias(scores[0], base + BIAS_TILE(g, biases.stage) + warp_row % 64 * PANEL_ROW, CAPPED ? 1.0f : p.scale);
            }
            if (ALIBI) add_slopes(scores[0], offset, facts->context, j->slope, facts->row0 + warp_row, j0);
            if (hides) {
                if (INTERVAL) hide_ends(scores, own, j0);
                else hide_past(scores, j0 + lane_id() % 4 * 2, facts->s.N);
            }
            if (marked) hide_marked(scores, hidden);
            const bool raised = weigh_scores<ALIBI>(scores, m, l, ratio, factor, offset, unit);
            if (BIASED) { // Only now, behind a branch on all scores: an arrival overtakes loads that wait for shared memory.
                release(base + BIAS_EMPTY(g, biases.stage));
                biases.next();
            }
            return raised;
        };
        const auto drop = [&](int n) {
            if (DROPPED)
                drop_weights(scores[0], facts->key, p.dropout_threshold, (u32)(facts->s.b * p.H + facts->h), facts->row0 + warp_row,
                             n * BN);
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
            const hidden_scores hidden = mark(n - 1, partly);
            products_wait<1>();
            keep(scores[0]);
            release(base + K_EMPTY(keys.stage));
            keys.next();
            const bool raised = weigh(n - 1, partly, hidden);
            drop(n - 1);
            keep(scores[0]);
            products_wait<0>();
            keep(o[0]);
            release(base + V_EMPTY(values.stage));
            values.next();
            if (raised) scale_rows(o, ratio);
            pack_weights(weights, scores[0]);
        };

        // A tile of keys that only other consumers' rows see.
        const auto skip = [&] {
            barrier_wait(base + K_FULL(keys.stage), keys.lap);
            await_turn(g);
            pass_turn(g);
            release(base + K_EMPTY(keys.stage));
            keys.next();
            barrier_wait(base + V_FULL(values.stage), values.lap);
            release(base + V_EMPTY(values.stage));
            values.next();
        };

#pragma unroll 1
        for (int n = last; n > own_last; n--) skip();
        int n = own_last - 1;
        barrier_wait(base + Q_FULL(g, queries.stage), queries.lap);
        if (n >= own_first) {
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
            const hidden_scores hidden = mark(n, flag<true>());
            products_wait<0>();
            keep(scores[0]);
            release(base + K_EMPTY(keys.stage));
            keys.next();
            weigh(n, flag<true>(), hidden);
            drop(n);
            pack_weights(weights, scores[0]);

            for (; n > own_first; n--) {
                if (MASKED || (SPANS && (n - 1 < whole_first || n > whole_last))) step(n, flag<true>());
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
        if (SPANS)
#pragma unroll 1
            for (int n = own_first, end = uniform(job_at(memory, turn)->first); n > end; n--) skip();
        meet<128>(OWN_BARRIER(g)); // all four warps have done with Q
        finish(q_tile, o, m, l, factor, p, *facts);
        fence_for_engines();
        leave_job(base, turn);
        release(base + Q_EMPTY(g, queries.stage));
        queries.next();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    forward_sm90(const __grid_constant__ dlattn_params p, const __grid_constant__ dlattn_maps maps) {
    extern __shared__ __align__(1024) unsigned char memory[];
    const u32 base = shared_address(memory);
    const int role = uniform((int)threadIdx.x / 128);
    if (threadIdx.x == 0) {
        for (int g = 0; g < CONSUMERS; g++) {
            for (int stage = 0; stage < Q_STAGES; stage++) {
                barrier_init(base + Q_FULL(g, stage), 1);
                barrier_init(base + Q_EMPTY(g, stage), 4);
            }
        }
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(base + K_FULL(stage), 1);
            barrier_init(base + K_EMPTY(stage), CONSUMER_WARPS);
            barrier_init(base + V_FULL(stage), 1);
            barrier_init(base + V_EMPTY(stage), CONSUMER_WARPS);
        }
        for (int place = 0; place < 2; place++) {
            barrier_init(base + JOB_FULL(place), 32);
            barrier_init(base + JOB_EMPTY(place), 32 * (CONSUMER_WARPS + BIASED));
        }
        barrier_init(base + JOB_WANTED, 32);
        for (int n = 0; BIASED && n < BIAS_TILES; n++) {
            barrier_init(base + BIAS_FULL(0, n), 1);
            barrier_init(base + BIAS_EMPTY(0, n), 4);
        }
        barriers_are_ready();
    }
    __syncthreads();
    if (role == CONSUMERS) {
        keep_few_registers<PRODUCER_REGISTERS>();
        const int warp = uniform((int)threadIdx.x % 128 / 32);
        if (warp == 0) fetch_tiles(p, maps, memory);
        if (warp == 1) scout(p, memory);
        if (BIASED && warp == 2) fetch_biases(p, maps, memory);
    } else {
        take_registers<CONSUMER_REGISTERS>();
        consume(p, memory, role);
    }
}
