// forward_sm90.cu: the forward on Hopper's tensor cores (wgmma), fp16 and bf16: warp specialised as FlashAttention 3 is.
//
// Entry forward_sm90. Options: TYPE; HEAD_D, HEAD_E: D and E padded to multiples of 64, E not above D; BM: rows of a tile, 64
// for each consumer; BN: keys of a tile, a multiple of 16; WARPS: all of a block: four for each consumer and four for the
// producer; STAGES: tiles of K and of V in shared memory; K_STAGES: of K, if not as many; Q_STAGES: tiles of Q there, 1 or 2;
// TURNS: 1 lets the consumers issue products in turns, so that one's weights meet the others' products; BIAS_STAGES: tiles of the
// bias there, if there is one; FEATURES: all, but SEGMENTS and MASK not together with ALIBI, BIAS and DROPOUT. The scale must be
// positive; rows of q, k, v and the bias have unit inner strides and are 16-byte aligned; the bias is of TYPE and does not broadcast
// over rows or keys. With dropout BN is a multiple of 32 and nothing is counted from positions; with a bias BN is a multiple of 64.
//
// Grid: any number of blocks; they share the row_tiles * H * B tiles. One warp of the producer finds out what is to be done,
// another one fetches Q, K and V by TMA; each consumer, four warps, computes 64 rows, from the last tile of keys to the first.
// Rows from M_b on are not written.
#include "scores_sm90.cuh"
#include "softmax_sm90.cuh"
#include "tma_sm90.cuh"
#include "wgmma_sm90.cuh"

#ifndef K_STAGES
#define K_STAGES STAGES
#endif
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
// Are references raised only when a tile's sums tell? Its K stays until then.
#define SUMS_TELL (HEAD_D <= 128 && !CAPPED && !SEGMENTS && !MASKED && !BIASED && (!INTERVAL || DROPPED || (ALIBI && HEAD_D == 64)))
#define SPLIT 0
#define PACKED 0
#define ALIGNED 1
#define BATCHES_TOGETHER BIASED // from memory a bias comes once, then from L2
// The next tile's first product is under way at this one's end: with three consumers and an interval mask their ends differ
// anyway (d64 window 1024: 383 with, 393 without). With a softcap the registers are those of the order ahead.
#define AHEAD (Q_STAGES > 1 && !(HEAD_D == 64 && INTERVAL && !CAPPED))
#define SCARCE ((CAPPED || ROUND) && HEAD_D == 64) // registers: with a softcap and an interval mask 40 bytes would spill, with ALiBi 12
#define DROP_PACKED (DROPPED && HEAD_D != 128) // d64 308 against 281 (H100, 4k), d256 581 against 560, but d128 431 against 459

static_assert(BM == 64 * CONSUMERS && BN % 16 == 0 && HEAD_D % PANEL == 0 && HEAD_E % PANEL == 0, "tile sizes");
static_assert(HEAD_E <= HEAD_D, "larger values than keys: not tried");
static_assert(!(SEGMENTS || MASKED) || !(ALIBI || BIASED || DROPPED), "features");
static_assert(!DROPPED || BN % 32 == 0, "whole blocks of dropout");
static_assert(!BIASED || (BN % PANEL == 0 && BIAS_STAGES > 0), "whole panels of bias");

// Shared memory, in bytes. Tiles consist of panels. Each consumer has its own rows of Q and of the bias.
#define ROWS_BYTES (64 * HEAD_D * 2)
#define Q_BYTES (CONSUMERS * ROWS_BYTES)
#define K_BYTES (BN * HEAD_D * 2)
#define V_BYTES (BN * HEAD_E * 2)
#define K_AT (Q_STAGES * Q_BYTES)
#define V_AT (K_AT + K_STAGES * K_BYTES)
#define BIAS_AT (V_AT + STAGES * V_BYTES)
#define BIAS_BYTES (64 * BN * 2)
#define BIAS_TILES (CONSUMERS * BIAS_STAGES)
#define BIAS_TILE(g, stage) (BIAS_AT + ((g) * BIAS_STAGES + (stage)) * BIAS_BYTES)
#define JOB_AT (BIAS_AT + BIASED * BIAS_TILES * BIAS_BYTES) // two of them, see job; each with what follows
#define FACTS_BYTES (CONSUMERS == 3 ? 256 : 224)
#define LIMITS_AT (JOB_AT + FACTS_BYTES)           // of each row of the first job; the second's lie JOB_BYTES further
#define RANGES_AT (LIMITS_AT + BM * 8)             // of each warp's rows
#define JOB_BYTES (FACTS_BYTES + BM * 8 + CONSUMER_WARPS * 16)
#define BARRIERS_AT (JOB_AT + 2 * JOB_BYTES)
#define BARRIERS_BYTES 288

// Barriers: of each consumer's Q, of each stage of K and V and of the two jobs, whether it is full and whether it is empty.
#define Q_FULL(g, stage) (BARRIERS_AT + 8 * ((g) * Q_STAGES + (stage)))
#define Q_EMPTY(g, stage) (Q_FULL(CONSUMERS, 0) + 8 * ((g) * Q_STAGES + (stage)))
#define K_FULL(stage) (Q_EMPTY(CONSUMERS, 0) + 8 * (stage))
#define K_EMPTY(stage) (K_FULL(K_STAGES) + 8 * (stage))
#define V_FULL(stage) (K_EMPTY(K_STAGES) + 8 * (stage))
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

#include "forward_rows.cuh"
#include "forward_keys.cuh"
#include "forward_fetch_sm90.cuh"
#include "forward_hide_sm90.cuh"
#include "forward_segments_sm90.cuh"
#include "forward_store_sm90.cuh"

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
    ring<K_STAGES> keys = {0, 0};
    ring<STAGES> values = {0, 0};
    ring<BIASED ? BIAS_STAGES : 1> biases = {0, 0};
    const float unit = ALIBI && RAW ? p.scale : 1.0f; // of scores, in natural ones
    const auto warp_row = [] { return thread_anew() / 32 * 16; };
    if (g == CONSUMERS - 1) pass_turn(g); // the first turn is the first consumer's

    float o[MT][ET][4], scores[MT][NT][4], m[MT][2], l[MT][2], ratio[MT][2];
    u32 weights[BN / 16][4];
    int own_first, own_last, whole_first, whole_last; // of the tile of rows under way
    int key_count = 0;                                // of its sequence
    int start = 0, skipped;                           // its first tile of keys in order, and how many others see before

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
    // Finds the tile of rows of this turn. Is there one?
    const auto find = [&](int turn) {
        await_job(base, turn);
        const job *const j = job_at(memory, turn);
        own_first = own_last = whole_first = whole_last = skipped = 0;
        if (!uniform(j->valid)) return false;
        const int first = uniform(j->first), last = uniform(j->last);
        const bool has_rows = uniform(j->facts.row0) + 64 * g < uniform(j->facts.rows);
        own_first = SPANS && has_rows ? uniform(j->of[g].first) : first;
        own_last = !has_rows ? first : SPANS ? uniform(j->of[g].last) : last;
        if (SPANS && !SCARCE) whole_first = uniform(j->of[g].whole_first);
        if (SPANS && !SCARCE) whole_last = uniform(j->of[g].whole_last);
        skipped = last - own_last;
        key_count = uniform(j->facts.s.N);
        if (ROUND) start = uniform(j->start);
        return true;
    };
    // Its first product. It is under way whatever follows, since ptxas wants to know what is: without a tile, or without keys for
    // this consumer, it is one of whatever lies there, and nobody looks.
    const auto begin = [&] {
        const bool own = own_last > own_first;
        if (own) {
            barrier_wait(base + Q_FULL(g, queries.stage), queries.lap);
            barrier_wait(base + K_FULL(keys.stage), keys.lap);
            await_turn(g);
        }
        keep(scores[0]);
        product_fence();
        multiply_keys(scores[0], base + queries.stage * Q_BYTES + g * ROWS_BYTES, base + K_AT + keys.stage * K_BYTES);
        products_commit();
        if (own) pass_turn(g);
    };

    bool more = find(0);
    if (AHEAD) {
#pragma unroll 1
        while (skipped-- > 0) skip();
        begin();
        products_wait<0>();
        keep(scores[0]);
    }
    for (int turn = 0; more; turn++) {
        const u32 q_rows = base + queries.stage * Q_BYTES + g * ROWS_BYTES;
        const loop_facts *const facts = &job_at(memory, turn)->facts;
        const unsigned char *const own = memory + (turn & 1) * JOB_BYTES; // LIMITS_AT and RANGES_AT count from here
        const bool sees = own_last > own_first;
#pragma unroll
        for (int e = 0; e < ET; e++) o[0][e][0] = o[0][e][1] = o[0][e][2] = o[0][e][3] = 0.0f;
        m[0][0] = m[0][1] = -INFINITE;
        l[0][0] = l[0][1] = 0.0f;

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
        // partly: may some be hidden? begins: is it the first tile of its rows?
        const auto weigh = [&](int n, auto partly, const hidden_scores &hidden, auto begins) {
            const int j0 = n * BN;
            const bool marked = is_marked(n, partly);
            bool hides = !INTERVAL && partly.value && j0 + BN > key_count, raised = false;
            if (INTERVAL && partly.value) hides = meet_keys(own, j0) != TILE_WHOLE;
            if (CAPPED && !TERMS && !hides && !marked && is_capped_little(scores, m, p.scale, p.softcap)) {
                weigh_capped_little(scores, m, l, p.scale, p.softcap);
                return false;
            }
            // Rows whose references have to be raised: of a tile after the first those alone that have none yet or, found
            // out by their sums, whose weights would be too large.
            bool asked[2] = {true, true};
            if (SUMS_TELL && !begins.value) asked[0] = m[0][0] == -INFINITE, asked[1] = m[0][1] == -INFINITE;
            for (;;) {
                if (CAPPED) cap_tile(scores, p.scale, p.softcap, TERMS ? 1.0f : LOG2_E);
                float offset[2] = {0.0f, 0.0f}, sum[2];
                if (BIASED) {
                    barrier_wait(base + BIAS_FULL(g, biases.stage), biases.lap);
                    add_bias(scores[0], base + BIAS_TILE(g, biases.stage) + warp_row() % 64 * PANEL_ROW, CAPPED ? 1.0f : p.scale);
                }
                if (ALIBI)
                    add_slopes(scores[0], offset, facts->context, ((const job *)(own + JOB_AT))->slope, facts->row0 + warp_row(), j0);
                if (hides) {
                    if (INTERVAL) hide_ends(scores, own, j0);
                    else hide_past(scores, j0 + lane_id() % 4 * 2, key_count);
                }
                if (marked) hide_marked(scores, hidden);
                if (!SUMS_TELL || begins.value || __any_sync(0xffffffffu, asked[0] || asked[1]))
                    raised |= raise_rows<ALIBI>(scores, m, l, ratio, factor, offset, unit, asked, SUMS_TELL ? 0.0f : RAISE_BY);
                weigh_scores<ALIBI>(scores, m, sum, factor, offset, unit);
                if (SUMS_TELL && !begins.value) {
                    const bool large[2] = {sum[0] >= WEIGHTS_UP_TO, sum[1] >= WEIGHTS_UP_TO};
                    if (meet_and_ask<128>(OWN_BARRIER(g), large[0] || large[1])) {
                        const u32 quad = 0xfu << (lane_id() & 28);
                        asked[0] = (__ballot_sync(0xffffffffu, large[0]) & quad) != 0;
                        asked[1] = (__ballot_sync(0xffffffffu, large[1]) & quad) != 0;
                        products_wait<0>();
                        keep(o[0]);
                        product_fence();
                        multiply_keys(scores[0], q_rows, base + K_AT + keys.stage * K_BYTES);
                        products_commit();
                        products_wait<0>();
                        keep(scores[0]);
                        continue;
                    }
                }
                l[0][0] += sum[0];
                l[0][1] += sum[1];
                break;
            }
            if (BIASED) { // Only now, behind a branch on all scores: an arrival overtakes loads that wait for shared memory.
                release(base + BIAS_EMPTY(g, biases.stage));
                biases.next();
            }
            return raised;
        };
        // The place of K, once its scores cannot be asked for again.
        const auto leave_keys = [&] {
            release(base + K_EMPTY(keys.stage));
            keys.next();
        };
        u32 kept[NT];
        const auto find_drops = [&](int n) {
            if constexpr (DROPPED)
                find_kept(kept, facts->key, p.dropout_threshold, (u32)(facts->s.b * p.H + facts->h), facts->row0 + warp_row(), n * BN);
        };
        // The end of a sequence inside tile n of keys: what V's memory holds behind.
        const auto clear = [&](int n) {
            const int left = (SCARCE ? facts->s.N : key_count) - n * BN;
            if (left >= BN || !tokens_follow(p, facts->s)) return;
            barrier_wait(base + V_FULL(values.stage), values.lap);
            clear_rows_past(base + V_AT + values.stage * V_BYTES, left, g);
        };
        const int final = ROUND && start + 1 < own_last ? start + 1 : own_first; // tile of keys in order
        // May the step from tile n of keys hide some of `after`?
        const auto meets_ends = [&](int n, int after) {
            const consumer_span &span = ((const job *)(own + JOB_AT))->of[g];
            return after < (SCARCE ? uniform(span.whole_first) : whole_first) || n > (SCARCE ? uniform(span.whole_last) : whole_last);
        };
        // The scores of tile `after`, while the tensor cores multiply tile n's weights with V.
        const auto step = [&](int n, int after, auto partly) {
            if (ROUND && partly.value) clear(n);
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
            const hidden_scores hidden = mark(after, partly);
            products_wait<1>();
            keep(scores[0]);
            if (!SUMS_TELL) leave_keys();
            const bool raised = weigh(after, partly, hidden, flag<false>());
            if (SUMS_TELL) leave_keys();
            if (DROPPED) find_drops(after);
            if (DROPPED && !DROP_PACKED) drop_scores(scores[0], kept);
            keep(scores[0]);
            products_wait<0>();
            keep(o[0]);
            release(base + V_EMPTY(values.stage));
            values.next();
            if (raised) scale_rows(o, ratio);
            pack_weights(weights, scores[0]);
            if (DROP_PACKED) drop_weights(weights, kept);
        };

        if (!AHEAD)
#pragma unroll 1
            while (skipped-- > 0) skip();
        if (sees) {
            int n = ROUND ? start : own_last - 1;
            if (!AHEAD) begin();
            if (!ROUND) clear(n);
            const hidden_scores hidden = mark(n, flag<true>());
            if (!AHEAD) {
                products_wait<0>();
                keep(scores[0]);
            }
            leave_keys();
            weigh(n, flag<true>(), hidden, flag<true>());
            pack_weights(weights, scores[0]);
            if (DROPPED) find_drops(n);
            if (DROPPED) drop_weights(weights, kept);

            while (n != final) {
                const int after = key_tile_after(n, own_first, own_last);
                const bool ends = ROUND && (n == own_last - 1 || after == own_last - 1); // the tile where the sequence does
                if (MASKED || ends || (SPANS && meets_ends(n, after))) step(n, after, flag<true>());
                else step(n, after, flag<false>());
                n = after;
            }
            if (ROUND) clear(n);
            barrier_wait(base + V_FULL(values.stage), values.lap);
        } else {
            barrier_wait(base + Q_FULL(g, queries.stage), queries.lap);
        }
        release(base + Q_EMPTY(g, queries.stage));
        queries.next();
        int rest = SPANS ? own_first - uniform(job_at(memory, turn)->first) : 0; // tiles of keys behind its own

        // The last product with V; without keys it is one of whatever lies there too.
        keep(weights);
        keep(o[0]);
        product_fence();
        multiply_values(o[0], weights, base + V_AT + values.stage * V_BYTES);
        products_commit();
        const auto done = [&] {
            if (!sees) return;
            release(base + V_EMPTY(values.stage));
            values.next();
        };
        float by[2];
        end_sums(by, m, l, factor, p, job_at(memory, turn));
        const rows_place place = place_of_rows(job_at(memory, turn));
        if (place.in_pieces) leave_job(base, turn);
        // Tiles that it has to skip come before the wait for the next job, which the loader asks for when these have been fetched.
        bool ended = !AHEAD || rest > 0;
        const auto end = [&] {
            products_wait<0>();
            done();
        };
        if (ended) end();
#pragma unroll 1
        while (rest-- > 0) skip();
        if (AHEAD) {
            more = find(turn + 1);
            if (skipped > 0 && !ended) {
                end();
                ended = true;
            }
#pragma unroll 1
            while (skipped-- > 0) skip();
            begin();
            products_wait<1>();
        }
        keep(o[0]);
        if (!ended) done();
        scale_sums(o, by);
        if (place.in_pieces) store_pieces(o, p, place);
        else store_rows_of(o, p, *facts);
        if (!place.in_pieces) leave_job(base, turn);
        if (AHEAD) {
            products_wait<0>();
            keep(scores[0]);
        } else {
            more = find(turn + 1);
        }
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
        for (int stage = 0; stage < K_STAGES; stage++) {
            barrier_init(base + K_FULL(stage), 1);
            barrier_init(base + K_EMPTY(stage), CONSUMER_WARPS);
        }
        for (int stage = 0; stage < STAGES; stage++) {
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
