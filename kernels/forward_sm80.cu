// forward_sm80.cu: the forward on tensor cores by mma.sync, for fp16 (sm_75 on) and bf16 (sm_80 on): FlashAttention 2's
// shape.
//
// Entry forward_sm80. Options: TYPE; HEAD_D, HEAD_E: D and E padded to multiples of 16; BM, BN: rows and keys of a
// tile, multiples of 16; WARPS: each owns BM / WARPS rows, 16 or 32; STAGES: 1 or 2 tiles of K and of V in shared
// memory; Q_REGISTERS: 1 keeps Q's fragments in registers; ALIGNED: 1 when q, k and v have unit inner strides and
// 16-byte aligned rows; SPLIT: 1 writes partial results for `combine`; PACKED: 1 makes a row of every (query, head of a
// group) pair, so that few queries with many heads fill a tile (features INTERVAL and SOFTCAP only); BIAS: how the
// dense bias is read: 0 by elements, 1 or 2 by 16-byte copies when it has unit inner stride and aligned rows and is of
// TYPE (1) or float (2); PAGED: 1 when keys lie in pages; FEATURES.
//
// Grid: row_tiles * splits * heads * B of 32 WARPS threads; heads is G when PACKED (and row_tiles counts packed rows),
// else H. One block computes one tile of rows over its keys, from the last tile of keys to the first. Rows from M_b on
// are not written.
#include "score_tiles.cuh"
#include "softmax.cuh"

#define THREADS (WARPS * 32)
#define MT (BM / (16 * WARPS)) // fragments of 16 rows of a warp
#define NT (BN / 8)
#define ET (HEAD_E / 8)
#define DEPTH (HEAD_D / 16)
#define INTERVAL (((FEATURES) & DLATTN_FEATURE_INTERVAL) != 0)
#define SEGMENTS (((FEATURES) & DLATTN_FEATURE_SEGMENTS) != 0)
#define SCORED (((FEATURES) & FEATURES_SCORED) != 0)
#define CAPPED (((FEATURES) & FEATURES_SCORED) == DLATTN_FEATURE_SOFTCAP) // and nothing added to it

static_assert(BM % (16 * WARPS) == 0 && MT >= 1 && BN % 16 == 0 && HEAD_D % 16 == 0 && HEAD_E % 16 == 0, "tile sizes");
static_assert(STAGES == 1 || STAGES == 2, "stages");
static_assert(!BIAS || ((FEATURES) & DLATTN_FEATURE_BIAS) != 0, "a way to read a bias that is there");
static_assert(!PACKED || ((FEATURES) & ~(DLATTN_FEATURE_INTERVAL | DLATTN_FEATURE_SOFTCAP)) == 0,
              "features of packed rows");

// Shared memory, in bytes. The result leaves through the space of Q, K and V.
#define Q_BYTES (BM * HEAD_D * 2)
#define K_BYTES (BN * HEAD_D * 2)
#define V_BYTES (BN * HEAD_E * 2)
#define BIAS_AT (Q_BYTES + STAGES * (K_BYTES + V_BYTES))
#define BIAS_WARP_BYTES (16 * MT * BN * 2 * BIAS)
#define LIMITS_AT (BIAS_AT + WARPS * BIAS_WARP_BYTES)
#define RANGES_AT (LIMITS_AT + BM * 8)                    // of each warp's rows
#define FACTS_AT (RANGES_AT + WARPS * 16)
#define FACTS_BYTES 128                                   // of the block, see loop_facts
#define SEGMENTS_AT (FACTS_AT + FACTS_BYTES)              // of two tiles of keys, in turns
#define SEGMENT_RANGES_AT (SEGMENTS_AT + 2 * BN * 8)      // of each warp's rows; and as much again while they are found
#define SEEN_AT (SEGMENT_RANGES_AT + 2 * WARPS * 16)      // what meet_segments found
static_assert(BM * HEAD_E * 2 <= BIAS_AT, "the result fits");

#include "forward_rows.cuh"
#include "forward_keys.cuh"
#include "forward_segments_sm80.cuh"
#include "pages_sm80.cuh"

// As many as fit or, sharing keys less well, 32.
DEVICE u32 heads_together(const dlattn_params &p, u32 tiles, int fit) { return (u32)larger(32, fit); }
DEVICE u32 heads_at_end(const dlattn_params &p, u32 tiles) { return 0; }

// This thread's first row in the block's tile, its first key in a tile, and where its warp's bias lies.
DEVICE int own_row() { return thread_anew() / 32 * (16 * MT) + thread_anew() % 32 / 4; }
DEVICE int own_key() { return thread_anew() % 4 * 2; }
DEVICE u32 own_bias() { return BIAS_AT + thread_anew() / 32 * BIAS_WARP_BYTES; }

// What a tile of keys brings along: its segments, unless they are all `alike`, and this warp's tile of bias.
DEVICE void load_terms(u32 memory, const dlattn_params &p, const loop_facts &facts, int j0, bool alike) {
    const sequence &s = facts.s;
    if (SEGMENTS && !alike)
        load_segments<THREADS>(memory + SEGMENTS_AT + j0 / BN % 2 * (BN * 8), p, facts.context, j0, s.N);
#if BIAS
    __syncwarp(); // the last one has been read
    const int row0 = facts.row0 + thread_anew() / 32 * (16 * MT);
    load_bias<16 * MT>(memory + own_bias(), p, facts.context, row0, s.M, j0, s.N);
#endif
    if (SEGMENTS || BIAS) copies_commit();
}

// With one stage: all have read K's tile and V's has come; the next K may.
DEVICE void next_keys(u32 k_tile, const key_source &keys, int j0, bool more, key_column *column) {
    copies_wait<0>();
    __syncthreads();
    if (more) load_keys(k_tile, keys, j0, column);
    copies_commit();
}

// From scores to powers of two, the sign of the scale being absorbed in Q. Computed anew where it is needed.
DEVICE float factor_of(const dlattn_params &p) {
    float scale = p.scale;
    asm volatile("" : "+f"(scale));
    return CAPPED ? 1.0f : SCORED ? LOG2_E : scale == 0.0f ? LOG2_E : fabsf(scale) * LOG2_E;
}

// s = Q K^T for this warp's rows and 8 OCTETS keys. q: Q's fragments, read here unless they stay in registers.
template <int OCTETS>
DEVICE void multiply_keys(float (&s)[MT][OCTETS][4], u32 (&q)[Q_REGISTERS ? DEPTH : 1][MT][4], u32 q_tile, u32 k_tile) {
    u32 by_rows = lane_by_rows<HEAD_D>(), by_columns = lane_by_columns<HEAD_D>();
    forget(by_rows);
    forget(by_columns);
    EACH_SCORE(MT, OCTETS) s[a][n][c] = 0.0f;
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        u32 (&left)[MT][4] = q[Q_REGISTERS ? k : 0];
        if (!Q_REGISTERS)
#pragma unroll
            for (int a = 0; a < MT; a++)
                load_fragment(left[a], fragment_address<HEAD_D>(q_tile, by_rows, 16 * a, 16 * k));
#pragma unroll
        for (int n = 0; n < OCTETS; n += 2) {
            u32 right[4];
            load_fragment(right, fragment_address<HEAD_D>(k_tile, by_columns, 8 * n, 16 * k));
#pragma unroll
            for (int a = 0; a < MT; a++) {
                mma(s[a][n], left[a], right[0], right[1]);
                mma(s[a][n + 1], left[a], right[2], right[3]);
            }
        }
    }
}

// o += P V, with P the weights in s rounded to the element type.
template <int OCTETS>
DEVICE void multiply_values(float (&o)[MT][ET][4], const float (&s)[MT][OCTETS][4], u32 v_tile) {
    u32 by_rows = lane_by_rows<HEAD_E>();
    forget(by_rows);
#pragma unroll
    for (int k = 0; k < OCTETS / 2; k++) {
        u32 left[MT][4];
#pragma unroll
        for (int a = 0; a < MT; a++) pack_fragment(left[a], &s[a][2 * k]);
#pragma unroll
        for (int e = 0; e < ET; e += 2) {
            u32 right[4];
            load_fragment_trans(right, fragment_address<HEAD_E>(v_tile, by_rows, 16 * k, 8 * e));
#pragma unroll
            for (int a = 0; a < MT; a++) {
                mma(o[a][e], left[a], right[0], right[1]);
                mma(o[a][e + 1], left[a], right[2], right[3]);
            }
        }
    }
}

// Is a tile's work there twice, with and without the hiding? It pays where most tiles need nothing of the kind, by 2 to 5 %
// at head size 128; with more features it would only take longer to compile, and with pages need too many registers.
#define TWO_WAYS ((FEATURES) == DLATTN_FEATURE_INTERVAL && !PAGED)

// With two stages, where all of the tile is there, a warp takes what its rows see in part in pieces of so many keys: those
// that none of them sees cost nothing, those that all see are not compared. 0: it does not.
#ifndef PIECE
#define PIECE (TWO_WAYS && STAGES == 2 ? 32 : 0)
#endif

// The pieces that this warp's rows see of tile `tile`.
DEVICE void attend_pieces(float (&o)[MT][ET][4], float (&m)[MT][2], float (&l)[MT][2], u32 (&q)[Q_REGISTERS ? DEPTH : 1][MT][4],
                          int tile, const unsigned char *memory, float factor) {
    const int KEYS = PIECE ? PIECE : 32, warp = thread_anew() / 32, j0 = tile * BN;
    const key_range own = ((const key_range *)(memory + RANGES_AT))[warp];
    u32 q_rows = shared_address(memory);
    forget(q_rows); // what follows from it is not kept
    const u32 k_tile = q_rows + Q_BYTES + tile % 2 * K_BYTES, v_tile = q_rows + Q_BYTES + 2 * K_BYTES + tile % 2 * V_BYTES;
    q_rows += warp * (16 * MT * HEAD_D * 2);
    const limits *const rows = (const limits *)(memory + LIMITS_AT);
    const int first = larger(0, own.lo - j0) / KEYS, end = (smaller(BN, own.hi - j0) + KEYS - 1) / KEYS;
#pragma unroll 1
    for (int n = end - 1; n >= first; n--) {
        const int j = j0 + n * KEYS;
        float s[MT][KEYS / 8][4];
        multiply_keys(s, q, q_rows, k_tile + n * (KEYS * HEAD_D * 2));
        if (j < own.full_lo) hide_before(s, rows, j);
        if (j + KEYS > own.full_hi) hide_after(s, rows, j);
        softmax_step(s, o, m, l, factor);
        multiply_values(o, s, v_tile + n * (KEYS * HEAD_E * 2));
    }
}

// What is known of a tile when it is compiled.
template <bool VALUE>
struct flag {
    static constexpr bool value = VALUE;
};

extern "C" __global__ void __launch_bounds__(THREADS) forward_sm80(const __grid_constant__ dlattn_params p) {
    extern __shared__ __align__(128) unsigned char memory[];
    const block_place place = place_of(p, blockIdx.x);
    const sequence s = read_sequence(p, place.b);
    const int rows = PACKED ? s.M * p.heads_per_group : s.M;
    if (place.row0 >= rows) return;
    const int g = PACKED ? place.h : place.h / p.heads_per_group;
    loop_facts *const facts = (loop_facts *)(memory + FACTS_AT);
    const key_source keys = source_of_keys(p, p.k, s, g, p.D, facts), values = source_of_keys(p, p.v, s, g, p.E, facts);
    const u32 q_tile = shared_address(memory), k_tiles = q_tile + Q_BYTES, v_tiles = k_tiles + STAGES * K_BYTES;
    const int warp_row = 16 * MT * ((int)threadIdx.x / 32);
    const u32 segments = q_tile + SEGMENTS_AT;

    load_queries(q_tile, p, s, place.h, place.row0, rows);
    if (threadIdx.x == 0) {
        facts->s = s;
        facts->row0 = place.row0;
        facts->rows = rows;
        facts->h = place.h;
        facts->split = place.split;
        if (((FEATURES) & ~(DLATTN_FEATURE_INTERVAL | DLATTN_FEATURE_SOFTCAP)) != 0)
            facts->context = score_context_of(p, s, place.h);
        if (HAS(p, DLATTN_FEATURE_DROPOUT)) facts->key = dropout_key(p);
    }
    if (SEGMENTS || BIAS || PAGED) __syncthreads();

    // Which tiles of keys.
    key_range seen = {0, s.N};
    if (INTERVAL) seen = find_ranges(memory, p, s, place.row0, rows);
    if (SEGMENTS) seen = meet_segments(seen, memory, p, facts->context, place.row0, rows);
    int first = INTERVAL || SEGMENTS ? smaller(seen.lo, seen.hi) / BN : 0, last = (seen.hi + BN - 1) / BN;
    if (SPLIT) {
        const int count = last - first, begin = first;
        first = begin + (int)((i64)count * place.split / p.splits);
        last = begin + (int)((i64)count * (place.split + 1) / p.splits);
    }

    const int top = last - 1;
    key_column k_column = column_of_keys(keys, top * BN);
    value_column v_column = column_of_values(values, top * BN, &k_column);
    if (last > first) {
        load_keys(k_tiles + top % STAGES * K_BYTES, keys, top * BN, &k_column);
        if (STAGES == 2) load_values(v_tiles + top % 2 * V_BYTES, values, top * BN, &v_column);
        load_terms(q_tile, p, *facts, top * BN, SEGMENTS && are_alike(seen, top * BN));
    }
    copies_commit();

    if (!SCORED && !(p.scale > 0.0f)) {
        copies_wait<0>();
        absorb_sign(q_tile, p.scale);
    }

    u32 q[Q_REGISTERS ? DEPTH : 1][MT][4];
    const u32 q_own = q_tile + warp_row * (HEAD_D * 2);
    if (Q_REGISTERS) {
        copies_wait<0>();
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k++)
#pragma unroll
            for (int a = 0; a < MT; a++)
                load_fragment(q[Q_REGISTERS ? k : 0][a],
                              fragment_address<HEAD_D>(q_own, lane_by_rows<HEAD_D>(), 16 * a, 16 * k));
    }

    float o[MT][ET][4] = {}, m[MT][2], l[MT][2] = {};
#pragma unroll
    for (int a = 0; a < MT; a++) m[a][0] = m[a][1] = -INFINITE;

    key_range *const seen_there = (key_range *)(memory + SEEN_AT);
    if (threadIdx.x == 0) {
        facts->first = first;
        if (SEGMENTS) *seen_there = seen;
    }
    if (last <= first) { // finish expects that all of Q has come
        copies_wait<0>();
        __syncthreads();
    }

    const auto load_next_terms = [&](int n) {
        if (n > facts->first) load_terms(q_tile, p, *facts, (n - 1) * BN, SEGMENTS && are_alike(*seen_there, (n - 1) * BN));
    };

    // One tile of keys for this warp's rows, from their products. whole: none of its scores is hidden by ends or segments.
    // mixed: some are by segments. hides: is what hides compiled?
    const auto attend = [&](float (&scores)[MT][NT][4], int n, bool whole, bool mixed, auto hides) {
        const int j0 = n * BN;
        const u32 v_tile = v_tiles + (STAGES == 2 ? n % 2 : 0) * V_BYTES;
        if (!BIAS) load_next_terms(n);
        if (CAPPED && !HAS(p, DLATTN_FEATURE_MASK) && whole && is_capped_little(scores, m, p.scale, p.softcap)) {
            weigh_capped_little(scores, m, l, p.scale, p.softcap);
            if (HAS(p, DLATTN_FEATURE_DROPOUT))
                drop_tile(scores, p, facts->key, facts->s, facts->h, facts->row0 + own_row(), j0 + own_key());
            multiply_values(o, scores, v_tile); // here again, so that it is mixed with the weights' work
            return;
        }
        if (SCORED)
            score_tile(scores, p, facts->context, facts->row0 + own_row(), j0 + own_key(), facts->s.M, facts->s.N,
                       q_tile + own_bias(), CAPPED ? LOG2_E : 1.0f);
        if (BIAS) load_next_terms(n); // this one's bias has been read
        if (SEGMENTS && mixed)
            hide_other_segments(scores, p, facts->context, segments + n % 2 * (BN * 8), facts->row0 + own_row(), facts->s.M);
        if (HAS(p, DLATTN_FEATURE_MASK))
            hide_masked(scores, p, facts->context, facts->row0 + own_row(), j0 + own_key(), facts->s.M, facts->s.N);
        if (INTERVAL && hides.value) hide_ends(scores, memory, j0);
        else if (hides.value && j0 + BN > s.N) hide_past(scores, j0 + own_key(), s.N);
        softmax_step(scores, o, m, l, factor_of(p));
        if (HAS(p, DLATTN_FEATURE_DROPOUT))
            drop_tile(scores, p, facts->key, facts->s, facts->h, facts->row0 + own_row(), j0 + own_key());
        multiply_values(o, scores, v_tile);
    };

    for (int n = top; n >= first; n--) {
        copies_wait<0>();
        __syncthreads();
        if (STAGES == 1) {
            load_values(v_tiles, values, n * BN, &v_column);
            copies_commit();
        } else if (n > facts->first) {
            load_keys(k_tiles + (n - 1) % 2 * K_BYTES, keys, (n - 1) * BN, &k_column);
            load_values(v_tiles + (n - 1) % 2 * V_BYTES, values, (n - 1) * BN, &v_column);
            copies_commit();
        }
        int segments_meet = TILE_WHOLE, ends_meet = n * BN + BN > s.N ? TILE_PARTLY : TILE_WHOLE;
        if (SEGMENTS && !are_alike(*seen_there, n * BN)) {
            const segment_range *ranges = (const segment_range *)(memory + SEGMENT_RANGES_AT);
            segments_meet = compare_segments(segments + n % 2 * (BN * 8), p, ranges[thread_anew() / 32], n * BN, s.N);
        }
        if (INTERVAL) ends_meet = meet_keys(memory, n * BN);
        if (PIECE && ends_meet == TILE_PARTLY) {
            attend_pieces(o, m, l, q, n, memory, factor_of(p));
            continue;
        }
        const bool apart = segments_meet == TILE_APART || ends_meet == TILE_APART; // this warp only helps to copy
        float scores[MT][NT][4];
        // With two stages there is no register left for q_own.
        const u32 q_rows = STAGES == 2 ? q_tile + thread_anew() / 32 * (16 * MT * HEAD_D * 2) : q_own;
        if (!apart) multiply_keys(scores, q, q_rows, k_tiles + (STAGES == 2 ? n % 2 : 0) * K_BYTES);
        // In one place: all warps must meet at the same barrier.
        if (STAGES == 1) next_keys(k_tiles, keys, (n - 1) * BN, n > facts->first, &k_column);
        if (apart) {
            load_next_terms(n);
        } else if (PIECE) {
            attend(scores, n, true, false, flag<false>());
        } else if (TWO_WAYS && segments_meet == TILE_WHOLE && ends_meet == TILE_WHOLE) {
            attend(scores, n, true, false, flag<false>());
        } else {
            const bool mixed = segments_meet == TILE_PARTLY;
            attend(scores, n, !mixed && ends_meet == TILE_WHOLE, mixed, flag<true>());
        }
    }
    finish(shared_address(memory), o, m, l, factor_of(p), p, *facts);
}
