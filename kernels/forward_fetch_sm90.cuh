// forward_fetch_sm90.cuh: the producer of forward_sm90: a warp that finds out which tiles of rows a block computes and which
// keys they meet, and one that fetches them, or with a bias two.
//
// Part of forward_sm90.cu: uses its options and its map of shared memory.
#ifndef DLATTN_FORWARD_FETCH_SM90_CUH
#define DLATTN_FORWARD_FETCH_SM90_CUH

#include "early.cuh"
#include "forward_keys.cuh"
#include "tma_sm90.cuh"

// With three consumers fewer registers are left for each; both sums are what a multiprocessor has.
#define PRODUCER_REGISTERS (CONSUMERS == 3 ? 32 : 40)
#define CONSUMER_REGISTERS (CONSUMERS == 3 ? 160 : 232)

// Work ------------------------------------------------------------------------------------------------------------------

DEVICE u32 tile_count(const dlattn_params &p) { return (u32)p.row_tiles * (u32)p.H * (u32)p.B; }

// A few, so that the first reads of keys and values from memory come now and then, not many at once; they are slower than the
// products. On an H100, causal, 1k keys: d64 296 -> 321, d128 394 -> 418, d256 395 -> 435; 16k the same.
DEVICE u32 heads_together(const dlattn_params &p, u32 tiles, int fit) {
    return 8;
}

// Enough that all multiprocessors end with short tiles.
DEVICE u32 heads_at_end(const dlattn_params &p, u32 tiles) {
    return (u32)larger(p.heads_per_group, 256 / tiles + 1);
}

// Tiles of keys that some row of a consumer sees, and those that all its rows see wholly: [first, last) each.
typedef struct consumer_span {
    int first, last, whole_first, whole_last;
    int alike_first, alike_last; // with segments: those of which all rows see all keys by segments
} consumer_span;

// What is known of a tile of rows before it is computed. It reaches the loader and the consumers through two places in shared
// memory, filled and emptied in turns, where its rows' limits and its warps' ranges of keys follow it. At the barriers of jobs
// each lane arrives for what it wrote or read itself.
typedef struct job {
    loop_facts facts;
    int valid;                 // 0: there are no more
    int first, last;           // tiles of keys that some row sees, [first, last)
    int start;                 // the first of them in order, see key_tile_after
    float slope;               // of ALiBi, in units of the scores
    float sink;
    int left;                  // rows from the first one on, perhaps more than BM
    int in_pieces;             // is out of TYPE, its rows aligned pieces of 16 bytes?
    i64 out, lse;              // places of the first row in them
    consumer_span of[CONSUMERS]; // with interval masks or segments
} job;
static_assert(sizeof(job) <= FACTS_BYTES && JOB_BYTES % 16 == 0, "room for the job");

DEVICE job *job_at(unsigned char *memory, int turn) { return (job *)(memory + JOB_AT + (turn & 1) * JOB_BYTES); }

DEVICE void await_job(u32 base, int turn) { barrier_wait(base + JOB_FULL(turn & 1), turn >> 1 & 1); }

// One warp of a consumer needs it no more.
DEVICE void leave_job(u32 base, int turn) { barrier_arrive(base + JOB_EMPTY(turn & 1)); }

// Tiles of keys come from the last to the first. With ALiBi and no interval mask they begin where the slopes' distance is least
// and go round: else each would raise the references of steep slopes' rows, until there. d128 4k: see docs/kernels.md.
#define ROUND (ALIBI && !INTERVAL)
DEVICE int key_tile_after(int n, int first, int last) { return ROUND && n == first ? last - 1 : n - 1; }

// The tile after this one. With a counter the first block that is nearly done takes the next one.
DEVICE u32 next_tile(const dlattn_params &p, u32 number) {
    if (!p.next_tile) return number + gridDim.x;
    return (u32)uniform((int)(gridDim.x + (lane_id() == 0 ? atomicAdd((u32 *)p.next_tile, 1u) : 0u)));
}

// The scout -------------------------------------------------------------------------------------------------------------

// What the ends of a tile's rows follow from: forward_keys's ends_of_row in 32 bits, since 64 and three divisions for each
// row need more registers than a producer has, and time.
typedef struct row_law {
    int lo, hi, least;        // the first row's ends, between -BM and N, which rise by one from row to row; no lo is below least
    int next;                 // rows until the next block of positions
    i64 block_lo, block_hi;   // the first row's block window
} row_law;

DEVICE int end_between(i64 end, int N) { return (int)clamp_to(end, -BM, N); }

DEVICE row_law law_of_rows(const dlattn_params &p, const sequence &s, int row0) {
    const i64 position = dlattn_add_sat(s.q_position, row0), local = dlattn_sub_sat(position, s.k_position);
    row_law law = {-BM, s.N, 0, 0, 0, 0};
    if (p.mask_kinds & DLATTN_MASK_CAUSAL) law.hi = end_between(dlattn_add_sat(local, 1), s.N);
    if (p.mask_kinds & DLATTN_MASK_WINDOW) {
        if (p.window_left >= 0) law.lo = end_between(dlattn_sub_sat(local, p.window_left), s.N);
        if (p.window_right >= 0) law.hi = smaller(law.hi, end_between(dlattn_add_sat(dlattn_add_sat(local, p.window_right), 1), s.N));
    }
    if (p.mask_kinds & DLATTN_MASK_POSITIVE) law.least = larger(end_between(dlattn_sub_sat(0, s.k_position), s.N), 0);
    if (p.mask_kinds & DLATTN_MASK_BLOCK_WINDOW) {
        const i64 size = p.block_size;
        i64 rest;
        if (((position | size) >> 32) == 0) {
            rest = (u32)position % (u32)size;
        } else {
            rest = position % size;
            if (rest < 0) rest += size;
        }
        law.next = (int)clamp_to(size - rest, 0, BM);
        law.block_hi = dlattn_add_sat(local, size - rest);
        const bool all = (float)p.block_count * (float)size > 4e18f; // more than there are numbers
        law.block_lo = all ? DLATTN_I64_MIN : dlattn_sub_sat(law.block_hi, p.block_count * size);
    }
    return law;
}

// `end` and `rows` more, at most N.
DEVICE int end_after(int end, int rows, int N) { return (u32)rows < (u32)N - (u32)end ? end + rows : N; }

DEVICE limits ends_by_law(const row_law &law, const dlattn_params &p, int N, int r) {
    limits ends = {larger(end_after(law.lo, r, N), law.least), larger(end_after(law.hi, r, N), 0)};
    if (p.mask_kinds & DLATTN_MASK_BLOCK_WINDOW) {
        i64 past = 0;
        if (r >= law.next) past = p.block_size >= BM ? p.block_size : ((r - law.next) / (int)p.block_size + 1) * p.block_size;
        ends.lo = larger(ends.lo, (int)clamp_to(dlattn_add_sat(law.block_lo, past), 0, N));
        ends.hi = smaller(ends.hi, (int)clamp_to(dlattn_add_sat(law.block_hi, past), 0, N));
    }
    return ends;
}

// The limits of the tile's rows and its warps' ranges to the job's memory, and its tiles of keys. The facts are read from there:
// registers are scarce.
DEVICE void find_keys(job *j, unsigned char *memory, const dlattn_params &p) {
    const int rows = smaller(BM, j->facts.rows - j->facts.row0), lane = lane_id();
    limits *const all = (limits *)(memory + LIMITS_AT);
    const row_law law = law_of_rows(p, j->facts.s, j->facts.row0);
#pragma unroll 1
    for (int r = lane; r < BM; r += 32) {
        const limits none = {0, 0};
        all[r] = r < rows ? ends_by_law(law, p, j->facts.s.N, r) : none;
    }
    __syncwarp();
    if (lane < CONSUMER_WARPS) {
        const limits low = all[16 * lane], high = all[larger(smaller(16 * lane + 15, rows - 1), 0)];
        const key_range own = {low.lo, high.hi, high.lo, low.hi}, nothing = {0x7fffffff, 0, 0, 0};
        ((key_range *)(memory + RANGES_AT))[lane] = 16 * lane < rows ? own : nothing;
    }
    if (lane < CONSUMERS) {
        const int last = (all[rows - 1].hi + BN - 1) / BN, first = smaller(all[0].lo / BN, last);
        j->last = last;
        j->first = first;
        if (64 * lane < rows) {
            const limits low = all[64 * lane], high = all[smaller(64 * lane + 63, rows - 1)];
            consumer_span &own = j->of[lane];
            own.last = larger((high.hi + BN - 1) / BN, first);
            own.first = smaller(larger(low.lo / BN, first), own.last);
            own.whole_first = (high.lo + BN - 1) / BN;
            own.whole_last = low.hi / BN;
        }
    }
}

// The job's facts and, without interval masks, its tiles of keys.
DEVICE void write_facts(job *j, const dlattn_params &p, const sequence &s, const block_place &place) {
    j->facts.s = s;
    j->facts.row0 = place.row0;
    j->facts.rows = s.M;
    j->facts.h = place.h;
    j->facts.split = 0;
    if (ALIBI) j->facts.context = score_context_of(p, s, place.h);
    if (ALIBI) j->slope = RAW ? j->facts.context.slope / p.scale : j->facts.context.slope;
    if (DROPPED) j->facts.key = dropout_key(p);
    j->valid = 1;
    j->left = s.M - place.row0;
    j->in_pieces = p.out.dtype == TYPE && stores_chunks(p) && p.E % 8 == 0;
    j->out = at(p.out, s.b, s.q_begin + place.row0, place.h);
    j->lse = at(p.lse, s.b, place.h, s.q_begin + place.row0);
    j->sink = p.sinks.data ? load_float(p.sinks, at(p.sinks, place.h)) : 0.0f;
    j->first = 0;
    j->last = (s.N + BN - 1) / BN;
    if (ROUND) j->start = (int)clamp_to(dlattn_add_sat(j->facts.context.distance, place.row0 + BM - 1) / BN, 0, larger(j->last - 1, 0));
}

// By segments, after find_keys: see forward_segments_sm90.cuh.
DEVICE void find_segments(job *j, const dlattn_params &p);

// One warp: finds out what is to be done, a little ahead of the others.
DEVICE void scout(const dlattn_params &p, unsigned char *memory) {
    const u32 base = shared_address(memory);
    int turn = 0;
    if (SEGMENTS) wait_for_kernel_before();
    for (u32 number = blockIdx.x; number < tile_count(p); number = next_tile(p, number)) {
        const block_place place = place_of(p, number);
        const sequence s = read_sequence(p, place.b);
        if (place.row0 >= s.M) continue;
        barrier_wait(base + JOB_EMPTY(turn & 1), turn >> 1 & 1 ^ 1);
        if (lane_id() == 0) write_facts(job_at(memory, turn), p, s, place);
        __syncwarp();
        if (INTERVAL) find_keys(job_at(memory, turn), memory + (turn & 1) * JOB_BYTES, p);
        __syncwarp();
        if (SEGMENTS) find_segments(job_at(memory, turn), p);
        __syncwarp();
        barrier_arrive(base + JOB_FULL(turn & 1));
        barrier_wait(base + JOB_WANTED, turn & 1); // tiles taken too early would be missing where others are done
        turn++;
    }
    barrier_wait(base + JOB_EMPTY(turn & 1), turn >> 1 & 1 ^ 1);
    if (lane_id() == 0) job_at(memory, turn)->valid = 0;
    barrier_arrive(base + JOB_FULL(turn & 1));
}

// The loader ------------------------------------------------------------------------------------------------------------

// Has the tensor tokens behind this sequence's keys?
DEVICE bool tokens_follow(const dlattn_params &p, const sequence &s) { return s.k_begin + s.N < p.tokens_k; }

// One warp: fetches what the consumers will need, in their order, as soon as there is room: V one tile later than K.
DEVICE void fetch_tiles(const dlattn_params &p, const dlattn_maps &maps, unsigned char *memory) {
    const u32 base = shared_address(memory);
    const bool leads = lane_id() == 0;
    ring<Q_STAGES> queries = {0, 0};
    ring<K_STAGES> keys = {0, 0};
    ring<STAGES> values = {0, 0};
    for (int turn = 0;; turn++) {
        await_job(base, turn);
        const job *const j = job_at(memory, turn);
        if (!uniform(j->valid)) break;
        const int first = uniform(j->first), last = uniform(j->last), b = j->facts.s.b, h = j->facts.h;
        const int q_row = (int)j->facts.s.q_begin + j->facts.row0, k_row = (int)j->facts.s.k_begin;
        const int kv_head = h / p.heads_per_group;
        if (last <= first) barrier_arrive(base + JOB_WANTED);
#pragma unroll
        for (int g = 0; g < CONSUMERS; g++) {
            barrier_wait(base + Q_EMPTY(g, queries.stage), queries.lap ^ 1u);
            // A tile that sees no key has its turn too: consumers wait for each.
            if (leads && last <= first) barrier_arrive(base + Q_FULL(g, queries.stage));
            if (leads && last > first)
                fetch_rows<64, HEAD_D>(base + queries.stage * Q_BYTES + g * ROWS_BYTES, &maps.q, p.q, q_row + 64 * g, h, b,
                                       base + Q_FULL(g, queries.stage));
        }
        queries.next();
        const auto fetch_values = [&](int n) {
            barrier_wait(base + V_EMPTY(values.stage), values.lap ^ 1u);
            if (leads)
                fetch_rows<BN, HEAD_E>(base + V_AT + values.stage * V_BYTES, &maps.v, p.v, k_row + n * BN, kv_head, b,
                                       base + V_FULL(values.stage));
            values.next();
        };
        int n = ROUND ? uniform(j->start) : last - 1, before = n;
        for (int left = last - first; left > 0; left--) {
            if (left == smaller(last - first, 2)) barrier_arrive(base + JOB_WANTED);
            barrier_wait(base + K_EMPTY(keys.stage), keys.lap ^ 1u);
            if (leads)
                fetch_rows<BN, HEAD_D>(base + K_AT + keys.stage * K_BYTES, &maps.k, p.k, k_row + n * BN, kv_head, b,
                                       base + K_FULL(keys.stage));
            keys.next();
            if (left < last - first) fetch_values(before);
            before = n;
            n = key_tile_after(n, first, last);
        }
        if (last > first) fetch_values(before);
    }
}

// Where there is a bias, one warp more: fetches each consumer's rows of it, a ring for each, since they skip tiles on their own.
DEVICE void fetch_biases(const dlattn_params &p, const dlattn_maps &maps, unsigned char *memory) {
    const u32 base = shared_address(memory);
    const bool leads = lane_id() == 0;
    ring<BIASED ? BIAS_STAGES : 1> stages[CONSUMERS] = {};
    for (int turn = 0;; turn++) {
        await_job(base, turn);
        const job *const j = job_at(memory, turn);
        if (!uniform(j->valid)) break;
        const int row0 = uniform(j->facts.row0), head = p.bias.stride[1] ? j->facts.h : 0, batch = p.bias.stride[0] ? j->facts.s.b : 0;
        int first[CONSUMERS], last[CONSUMERS], least = uniform(j->first), most = uniform(j->last);
#pragma unroll
        for (int g = 0; g < CONSUMERS; g++) {
            first[g] = INTERVAL ? uniform(j->of[g].first) : least;
            last[g] = INTERVAL ? uniform(j->of[g].last) : most;
            if (row0 + 64 * g >= uniform(j->facts.rows)) last[g] = first[g];
        }
        int n = ROUND ? uniform(j->start) : most - 1;
        leave_job(base, turn);
        for (int left = most - least; left > 0; left--, n = key_tile_after(n, least, most)) {
#pragma unroll
            for (int g = 0; g < CONSUMERS; g++) {
                if (n < first[g] || n >= last[g]) continue;
                const u32 full = base + BIAS_FULL(g, stages[g].stage), to = base + BIAS_TILE(g, stages[g].stage);
                barrier_wait(base + BIAS_EMPTY(g, stages[g].stage), stages[g].lap ^ 1u);
                if (leads) {
                    barrier_expect(full, BIAS_BYTES);
#pragma unroll
                    for (int key = 0; key < BN; key += PANEL)
                        fetch_box(to + key * PANEL_ROW, &maps.bias, n * BN + key, row0 + 64 * g, head, batch, full);
                }
                stages[g].next();
            }
        }
    }
}

#endif
