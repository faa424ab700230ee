// forward_sm80.cu: the forward on tensor cores by mma.sync, for fp16 (sm_75 on) and bf16 (sm_80 on): FlashAttention 2's shape.
//
// Entry forward_sm80. Options: TYPE; HEAD_D, HEAD_E: D and E padded to multiples of 16; BM, BN: rows and keys of a tile,
// multiples of 16; WARPS: each owns BM / WARPS rows, 16 or 32; STAGES: 1 or 2 tiles of K and of V in shared memory;
// Q_REGISTERS: 1 keeps Q's fragments in registers; ALIGNED: 1 when q, k and v have unit inner strides and 16-byte aligned
// rows; SPLIT: 1 writes partial results for `combine`; PACKED: 1 makes a row of every (query, head of a group) pair, so that
// few queries with many heads fill a tile (features INTERVAL and SOFTCAP only); BIAS: how the dense bias is read: 0 by
// elements, 1 or 2 by 16-byte copies when it has unit inner stride and aligned rows and is of TYPE (1) or float (2); FEATURES.
//
// Grid: row_tiles * splits * heads * B of 32 WARPS threads; heads is G when PACKED (and row_tiles counts packed rows), else
// H. One block computes one tile of rows over its keys, from the last tile of keys to the first. Rows from M_b on are not
// written.
#include "scores_sm80.cuh"
#include "softmax_sm80.cuh"

#define THREADS (WARPS * 32)
#define MT (BM / (16 * WARPS)) // fragments of 16 rows of a warp
#define NT (BN / 8)
#define ET (HEAD_E / 8)
#define DEPTH (HEAD_D / 16)
#define INTERVAL (((FEATURES) & DLATTN_FEATURE_INTERVAL) != 0)
#define SEGMENTS (((FEATURES) & DLATTN_FEATURE_SEGMENTS) != 0)
#define SCORED (((FEATURES) & FEATURES_SCORED) != 0)

static_assert(BM % (16 * WARPS) == 0 && MT >= 1 && BN % 16 == 0 && HEAD_D % 16 == 0 && HEAD_E % 16 == 0, "tile sizes");
static_assert(STAGES == 1 || STAGES == 2, "stages");
static_assert(!BIAS || ((FEATURES) & DLATTN_FEATURE_BIAS) != 0, "a way to read a bias that is there");
static_assert(!PACKED || ((FEATURES) & ~(DLATTN_FEATURE_INTERVAL | DLATTN_FEATURE_SOFTCAP)) == 0, "features of packed rows");

// Shared memory, in bytes. The result leaves through the space of Q, K and V.
#define Q_BYTES (BM * HEAD_D * 2)
#define K_BYTES (BN * HEAD_D * 2)
#define V_BYTES (BN * HEAD_E * 2)
#define BIAS_AT (Q_BYTES + STAGES * (K_BYTES + V_BYTES))
#define BIAS_WARP_BYTES (16 * MT * BN * 2 * BIAS)
#define LIMITS_AT (BIAS_AT + WARPS * BIAS_WARP_BYTES)
#define RANGES_AT (LIMITS_AT + BM * 8)                    // of each warp's rows
#define SEGMENTS_AT (RANGES_AT + WARPS * 16)              // of two tiles of keys, in turns
#define SEGMENT_RANGES_AT (SEGMENTS_AT + 2 * BN * 8)      // of each warp's rows; and as much again while they are found
static_assert(BM * HEAD_E * 2 <= BIAS_AT, "the result fits");

// What is derived from x is computed again where it is needed, instead of being kept in registers through the loop.
DEVICE void forget(u32 &x) { asm volatile("" : "+r"(x)); }

typedef struct block_place {
    int row0, split, h, b; // first row of the tile; h: kv head when PACKED
} block_place;

// Row tiles of one head follow each other, so that its keys stay in L2. Interval masks make tiles of unequal length, and
// causal ones the last rows the longest: then the tiles of many heads go together, the longest first, or the last head's
// longest tile would end alone. As many heads as L2 holds or, sharing keys less well, 32.
DEVICE block_place place_of(const dlattn_params &p, u32 block) {
    const u32 heads = (PACKED ? p.G : p.H) * p.B, splits = SPLIT ? p.splits : 1, tiles = p.row_tiles;
    u32 together = 1;
    if (INTERVAL) together = larger(32, (16 << 20) / (p.D + p.E) / larger(p.N, 1));
    const u32 chunk = block / (together * tiles * splits), rest = block - chunk * (together * tiles * splits);
    const u32 count = smaller(together, heads - chunk * together), head = chunk * together + rest / splits % count;
    const u32 tile = rest / splits / count;
    block_place place;
    place.row0 = (int)(INTERVAL ? tiles - 1 - tile : tile) * BM;
    place.split = SPLIT ? (int)(rest % splits) : 0;
    place.h = (int)(head % (PACKED ? p.G : p.H));
    place.b = (int)(head / (PACKED ? p.G : p.H));
    return place;
}

// What a row of the tile stands for.
DEVICE int query_of(const dlattn_params &p, int row) { return PACKED ? row / p.heads_per_group : row; }
DEVICE int head_of(const dlattn_params &p, int h, int row) {
    return PACKED ? h * p.heads_per_group + row % p.heads_per_group : h;
}

// What some rows see: keys outside [lo, hi) are hidden from all of them, keys in [full_lo, full_hi) from none.
typedef struct key_range {
    int lo, hi, full_lo, full_hi;
} key_range;

DEVICE key_range joined(key_range a, key_range b) {
    key_range r = {smaller(a.lo, b.lo), larger(a.hi, b.hi), larger(a.full_lo, b.full_lo), smaller(a.full_hi, b.full_hi)};
    return r;
}

// Every row's limits and what each warp's rows see to shared memory; returns what the tile's rows see.
DEVICE key_range find_ranges(unsigned char *memory, const dlattn_params &p, const sequence &s, int row0, int rows) {
    limits *row_limit = (limits *)(memory + LIMITS_AT);
    key_range *ranges = (key_range *)(memory + RANGES_AT), own = {0x7fffffff, 0, 0, 0x7fffffff};
    const dlattn_mask mask = mask_of(p, s);
    const int warp = (int)threadIdx.x / 32;
#pragma unroll
    for (int first = 0; first < 16 * MT; first += 32) {
        const int r = 16 * MT * warp + first + lane_id();
        if (first + lane_id() < 16 * MT) {
            const bool there = row0 + r < rows;
            limits seen = {0, 0};
            if (there) seen = row_limits(p, s, mask, query_of(p, row0 + r));
            row_limit[r] = seen;
            if (there) {
                key_range row = {seen.lo < seen.hi ? seen.lo : 0x7fffffff, seen.hi, seen.lo, seen.hi};
                own = joined(own, row);
            }
        }
    }
#pragma unroll
    for (int lane = 1; lane < 32; lane *= 2) {
        key_range other = {__shfl_xor_sync(0xffffffffu, own.lo, lane), __shfl_xor_sync(0xffffffffu, own.hi, lane),
                           __shfl_xor_sync(0xffffffffu, own.full_lo, lane), __shfl_xor_sync(0xffffffffu, own.full_hi, lane)};
        own = joined(own, other);
    }
    if (lane_id() == 0) ranges[warp] = own;
    __syncthreads();
    key_range all = ranges[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) all = joined(all, ranges[w]);
    return all;
}

// With segments: each warp's range of them to shared memory; returns `seen` without the keys at both ends that lie outside
// the range of all rows.
DEVICE key_range meet_segments(key_range seen, unsigned char *memory, const dlattn_params &p, const score_context &c, int row0,
                               int rows) {
    segment_range *ranges = (segment_range *)(memory + SEGMENT_RANGES_AT), own = {DLATTN_I64_MAX, DLATTN_I64_MIN};
    key_range *hulls = (key_range *)(ranges + WARPS), hull = {0x7fffffff, 0, 0, 0};
    const int warp = (int)threadIdx.x / 32, row = row0 + 16 * MT * warp + lane_id();
    if (lane_id() < 16 * MT && row < rows)
        own.lo = own.hi = load_int(p.q_segments, c.q_segments_at + row * p.q_segments.stride[1]);
#pragma unroll
    for (int lane = 1; lane < 32; lane *= 2) {
        const i64 lo = __shfl_xor_sync(0xffffffffu, own.lo, lane), hi = __shfl_xor_sync(0xffffffffu, own.hi, lane);
        own.lo = lo < own.lo ? lo : own.lo;
        own.hi = hi > own.hi ? hi : own.hi;
    }
    if (lane_id() == 0) ranges[warp] = own;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        own.lo = ranges[w].lo < own.lo ? ranges[w].lo : own.lo;
        own.hi = ranges[w].hi > own.hi ? ranges[w].hi : own.hi;
    }
    // Where no key is seen, lo is the largest number.
#pragma unroll 4
    for (int j = smaller(seen.lo, seen.hi) + (int)threadIdx.x; j < seen.hi; j += THREADS) {
        const i64 segment = load_int(p.kv_segments, c.kv_segments_at + j * p.kv_segments.stride[1]);
        if (own.lo <= segment && segment <= own.hi) {
            hull.lo = smaller(hull.lo, j);
            hull.hi = j + 1;
        }
    }
#pragma unroll
    for (int lane = 1; lane < 32; lane *= 2) {
        hull.lo = smaller(hull.lo, __shfl_xor_sync(0xffffffffu, hull.lo, lane));
        hull.hi = larger(hull.hi, __shfl_xor_sync(0xffffffffu, hull.hi, lane));
    }
    if (lane_id() == 0) hulls[warp] = hull;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        hull.lo = smaller(hull.lo, hulls[w].lo);
        hull.hi = larger(hull.hi, hulls[w].hi);
    }
    return hull;
}

// Does this warp see any, or all, of the keys [j0, j0 + BN)?
DEVICE bool reaches(const unsigned char *memory, int j0) {
    const key_range own = ((const key_range *)(memory + RANGES_AT))[thread_anew() / 32];
    return j0 < own.hi && j0 + BN > own.lo;
}

DEVICE bool is_full(const unsigned char *memory, int j0) {
    const key_range own = ((const key_range *)(memory + RANGES_AT))[thread_anew() / 32];
    return own.full_lo <= j0 && j0 + BN <= own.full_hi;
}

// Q's rows [row0, row0 + BM) to shared memory.
DEVICE void load_queries(u32 tile, const dlattn_params &p, const sequence &s, int h, int row0, int rows) {
    if (!PACKED) {
        const tile_source from = {(const u16 *)p.q.data + at(p.q, s.b, s.q_begin, h), p.q.stride[1], p.q.stride[3], rows, p.D};
        load_tile<BM, HEAD_D, THREADS, ALIGNED>(tile, from, row0);
        return;
    }
    const u16 *data = (const u16 *)p.q.data + at(p.q, s.b, s.q_begin);
    for (int n = (int)threadIdx.x; n < BM * (HEAD_D / 8); n += THREADS) {
        const int r = n / (HEAD_D / 8), chunk = n % (HEAD_D / 8), row = smaller(row0 + r, rows - 1);
        const int count = row0 + r < rows ? larger(0, smaller(8, p.D - 8 * chunk)) : 0;
        const u16 *first = data + query_of(p, row) * p.q.stride[1] + head_of(p, h, row) * p.q.stride[2] +
                           8 * chunk * (ALIGNED ? 1 : p.q.stride[3]);
        const u32 place = tile + chunk_offset<HEAD_D>(r, chunk);
        if (ALIGNED) copy_async(place, first, 2 * count);
        else store_shared(place, gather(first, p.q.stride[3], count));
    }
}

// The largest score is found before it is scaled, which is right for a positive scale only: a negative one goes into Q's
// signs, and for zero Q becomes q * 0 (0, or NaN where q is not finite) and the scale 1.
DEVICE void absorb_sign(u32 tile, float scale) {
    __syncthreads();
    for (int n = (int)threadIdx.x; n < Q_BYTES / 4; n += THREADS) {
        u32 x;
        asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(tile + 4 * n) : "memory");
        if (scale < 0.0f) x ^= 0x80008000u;
        else x = pack(float_of_element((u16)x) * 0.0f, float_of_element((u16)(x >> 16)) * 0.0f);
        store_shared(tile + 4 * n, x);
    }
    __syncthreads();
}

// This thread's first row in the block's tile, its first key in a tile, and where its warp's bias lies.
DEVICE int own_row() { return thread_anew() / 32 * (16 * MT) + thread_anew() % 32 / 4; }
DEVICE int own_key() { return thread_anew() % 4 * 2; }
DEVICE u32 own_bias() { return BIAS_AT + thread_anew() / 32 * BIAS_WARP_BYTES; }

// What a tile of keys brings along: its segments, and this warp's tile of bias.
DEVICE void load_terms(u32 memory, const dlattn_params &p, const score_context &context, int row0, int rows, int j0, int N) {
    if (SEGMENTS) load_segments<THREADS>(memory + SEGMENTS_AT + j0 / BN % 2 * (BN * 8), p, context, j0, N);
#if BIAS
    __syncwarp(); // the last one has been read
    load_bias<16 * MT>(memory + own_bias(), p, context, row0 + thread_anew() / 32 * (16 * MT), rows, j0, N);
#endif
    if (SEGMENTS || BIAS) copies_commit();
}

// With one stage: all have read K's tile and V's has come; the next K may.
DEVICE void next_keys(u32 k_tile, const tile_source &keys, int j0, bool more, const u16 **column) {
    copies_wait<0>();
    __syncthreads();
    if (more) load_tile_and_step_back<BN, HEAD_D, THREADS, ALIGNED>(k_tile, keys, j0, column);
    copies_commit();
}

// s = Q K^T for this warp's rows. q: Q's fragments, read here unless they stay in registers.
DEVICE void multiply_keys(float (&s)[MT][NT][4], u32 (&q)[Q_REGISTERS ? DEPTH : 1][MT][4], u32 q_tile, u32 k_tile) {
    u32 by_rows = lane_by_rows<HEAD_D>(), by_columns = lane_by_columns<HEAD_D>();
    forget(by_rows);
    forget(by_columns);
    EACH_SCORE(MT, NT) s[a][n][c] = 0.0f;
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        u32 (&left)[MT][4] = q[Q_REGISTERS ? k : 0];
        if (!Q_REGISTERS)
#pragma unroll
            for (int a = 0; a < MT; a++)
                load_fragment(left[a], fragment_address<HEAD_D>(q_tile, by_rows, 16 * a, 16 * k));
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
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
DEVICE void multiply_values(float (&o)[MT][ET][4], const float (&s)[MT][NT][4], u32 v_tile) {
    u32 by_rows = lane_by_rows<HEAD_E>();
    forget(by_rows);
#pragma unroll
    for (int k = 0; k < NT / 2; k++) {
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

// Two neighbours of a row, `count` of which exist, as float.
DEVICE void store_floats(float *to, i64 stride, float x, float y, int count) {
    if (count > 0) to[0] = x;
    if (count > 1) to[stride] = y;
}

// Has out 16-byte aligned rows?
DEVICE bool stores_chunks(const dlattn_params &p) {
    return p.out.stride[3] == 1 && ((p.out.data | 2 * (u64)(p.out.stride[0] | p.out.stride[1] | p.out.stride[2])) & 15) == 0;
}

// out's rows, of the element type: rounded, through shared memory, so that whole rows are written at once.
DEVICE void store_rows(u32 tile, const float (&o)[MT][ET][4], const dlattn_params &p, const sequence &s, int h, int row0,
                       int rows) {
    const int thread = thread_anew(), lane = thread % 32, warp_row = 16 * MT * (thread / 32), g = lane / 4, t = lane % 4;
    __syncthreads(); // the last tiles have been read
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int e = 0; e < ET; e++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                store_shared(tile + element_offset<HEAD_E>(warp_row + 16 * a + 8 * half + g, 8 * e + 2 * t),
                             pack(o[a][e][2 * half], o[a][e][2 * half + 1]));
    __syncwarp();
    const bool chunks = stores_chunks(p);
    for (int n = lane; n < 16 * MT * (HEAD_E / 8); n += 32) { // each warp its own rows
        const int r = warp_row + n / (HEAD_E / 8), chunk = n % (HEAD_E / 8), row = row0 + r, count = p.E - 8 * chunk;
        if (row >= rows || count <= 0) continue;
        const uint4 x = load_shared(tile + chunk_offset<HEAD_E>(r, chunk));
        u16 *to = (u16 *)p.out.data + at(p.out, s.b, s.q_begin + query_of(p, row), head_of(p, h, row)) +
                  8 * chunk * p.out.stride[3];
        if (chunks && count >= 8) {
            *(uint4 *)to = x;
        } else {
            const u32 word[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (i < count) to[i * p.out.stride[3]] = (u16)(word[i / 2] >> (i % 2 * 16));
        }
    }
}

// From the running sums to out and lse, or to this split's part of them.
DEVICE void finish(u32 tile, float (&o)[MT][ET][4], const float (&m)[MT][2], const float (&l)[MT][2], float factor,
                   const dlattn_params &p) {
    u32 block = blockIdx.x;
    forget(block);
    const block_place place = place_of(p, block);
    const sequence s = read_sequence(p, place.b);
    const int rows = PACKED ? s.M * p.heads_per_group : s.M;
    const int thread = thread_anew(), first = place.row0 + 16 * MT * (thread / 32) + thread % 32 / 4, t = thread % 4;
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = first + 16 * a + 8 * half, i = query_of(p, row), h = head_of(p, place.h, row);
            float sink = 0.0f;
            const bool sunk = !SPLIT && p.sinks.data;
            if (sunk) sink = load_float(p.sinks, at(p.sinks, h));
            const row_end end = end_of_row(m[a][half], sum_of_quad(l[a][half]), factor, sunk, sink);
            const float by = HAS(p, DLATTN_FEATURE_DROPOUT) ? end.factor * p.dropout_scale : end.factor;
#pragma unroll
            for (int e = 0; e < ET; e++) {
                // Nothing visible gives 0, even where 0 was multiplied by infinity.
                o[a][e][2 * half] = by == 0.0f ? 0.0f : o[a][e][2 * half] * by;
                o[a][e][2 * half + 1] = by == 0.0f ? 0.0f : o[a][e][2 * half + 1] * by;
            }
            if (row >= rows) continue;
            const i64 part = place.split * p.row_count + row_of(p, s, h, i);
            if (t == 0 && SPLIT) ((float *)p.partial_lse)[part] = end.lse;
            if (t == 0 && !SPLIT && p.lse.data) store_float(p.lse, at(p.lse, s.b, h, s.q_begin + i), end.lse);
            if (SPLIT || p.out.dtype != TYPE) {
                const i64 stride = SPLIT ? 1 : p.out.stride[3];
                float *to = SPLIT ? (float *)p.partial_out + part * p.E : (float *)p.out.data + at(p.out, s.b, s.q_begin + i, h);
#pragma unroll
                for (int e = 0; e < ET; e++)
                    store_floats(to + (8 * e + 2 * t) * stride, stride, o[a][e][2 * half], o[a][e][2 * half + 1],
                                 p.E - 8 * e - 2 * t);
            }
        }
    if (!SPLIT && p.out.dtype == TYPE) store_rows(tile, o, p, s, place.h, place.row0, rows);
}

extern "C" __global__ void __launch_bounds__(THREADS) forward_sm80(const __grid_constant__ dlattn_params p) {
    extern __shared__ __align__(128) unsigned char memory[];
    const block_place place = place_of(p, blockIdx.x);
    const sequence s = read_sequence(p, place.b);
    const int rows = PACKED ? s.M * p.heads_per_group : s.M;
    if (place.row0 >= rows) return;
    const int g = PACKED ? place.h : place.h / p.heads_per_group;
    const tile_source keys = {(const u16 *)p.k.data + at(p.k, s.b, s.k_begin, g), p.k.stride[1], p.k.stride[3], s.N, p.D};
    const tile_source values = {(const u16 *)p.v.data + at(p.v, s.b, s.k_begin, g), p.v.stride[1], p.v.stride[3], s.N, p.E};
    const u32 q_tile = shared_address(memory), k_tiles = q_tile + Q_BYTES, v_tiles = k_tiles + STAGES * K_BYTES;
    const int warp_row = 16 * MT * ((int)threadIdx.x / 32);
    const u32 segments = q_tile + SEGMENTS_AT;

    load_queries(q_tile, p, s, place.h, place.row0, rows);
    const score_context context = score_context_of(p, s, PACKED ? place.h * p.heads_per_group : place.h);

    // Which tiles of keys.
    key_range seen = {0, s.N, 0, s.N};
    if (INTERVAL) seen = find_ranges(memory, p, s, place.row0, rows);
    if (SEGMENTS) seen = meet_segments(seen, memory, p, context, place.row0, rows);
    int first = smaller(seen.lo, seen.hi) / BN, last = (seen.hi + BN - 1) / BN;
    if (SPLIT) {
        const int count = last - first, begin = first;
        first = begin + (int)((i64)count * place.split / p.splits);
        last = begin + (int)((i64)count * (place.split + 1) / p.splits);
    }

    const u16 *k_column = column_of<HEAD_D>(keys, (last - 1) * BN), *v_column = column_of<HEAD_E>(values, (last - 1) * BN);
    if (last > first) {
        const int stage = (last - 1) % STAGES, j0 = (last - 1) * BN;
        load_tile_and_step_back<BN, HEAD_D, THREADS, ALIGNED>(k_tiles + stage * K_BYTES, keys, j0, &k_column);
        if (STAGES == 2) load_tile_and_step_back<BN, HEAD_E, THREADS, ALIGNED>(v_tiles + stage * V_BYTES, values, j0, &v_column);
        load_terms(q_tile, p, context, place.row0, rows, j0, s.N);
    }
    copies_commit();

    float scale = p.scale;
    if (!SCORED && !(scale > 0.0f)) {
        copies_wait<0>();
        absorb_sign(q_tile, scale);
        scale = scale < 0.0f ? -scale : 1.0f;
    }
    const float factor = SCORED ? LOG2_E : scale * LOG2_E; // from scores to powers of two
    dlattn_philox_key key = {0, 0, 0};
    if (HAS(p, DLATTN_FEATURE_DROPOUT)) key = dropout_key(p);

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

    for (int n = last - 1; n >= first; n--) {
        const u32 k_tile = k_tiles + (STAGES == 2 ? n % 2 * K_BYTES : 0), v_tile = v_tiles + (STAGES == 2 ? n % 2 * V_BYTES : 0);
        const int j0 = n * BN;
        copies_wait<0>();
        __syncthreads();
        if (STAGES == 1) {
            load_tile_and_step_back<BN, HEAD_E, THREADS, ALIGNED>(v_tile, values, j0, &v_column);
            copies_commit();
        } else if (n > first) {
            load_tile_and_step_back<BN, HEAD_D, THREADS, ALIGNED>(k_tiles + (n - 1) % 2 * K_BYTES, keys, j0 - BN, &k_column);
            load_tile_and_step_back<BN, HEAD_E, THREADS, ALIGNED>(v_tiles + (n - 1) % 2 * V_BYTES, values, j0 - BN, &v_column);
            copies_commit();
        }
        // The ranges of a warp are read anew each time: registers are scarce.
        int meeting = SEGMENTS_EQUAL;
        if (SEGMENTS)
            meeting = compare_segments(segments + n % 2 * (BN * 8), p,
                                       ((const segment_range *)(memory + SEGMENT_RANGES_AT))[thread_anew() / 32], j0, s.N);
        if (meeting == SEGMENTS_APART || (INTERVAL && !reaches(memory, j0))) { // nothing for this warp: it only helps to copy
            if (STAGES == 1) next_keys(k_tile, keys, j0 - BN, n > first, &k_column);
            if (n > first) load_terms(q_tile, p, context, place.row0, rows, j0 - BN, s.N);
            continue;
        }
        float scores[MT][NT][4];
        multiply_keys(scores, q, q_own, k_tile);
        if (STAGES == 1) next_keys(k_tile, keys, j0 - BN, n > first, &k_column);
        if (SCORED) score_tile(scores, p, context, place.row0 + own_row(), j0 + own_key(), s.M, s.N, q_tile + own_bias());
        if (n > first) load_terms(q_tile, p, context, place.row0, rows, j0 - BN, s.N);
        if (SEGMENTS && meeting == SEGMENTS_MIXED)
            hide_other_segments(scores, p, context, segments + n % 2 * (BN * 8), place.row0 + own_row(), s.M);
        if (HAS(p, DLATTN_FEATURE_MASK)) hide_masked(scores, p, context, place.row0 + own_row(), j0 + own_key(), s.M, s.N);
        if (INTERVAL) {
            if (!is_full(memory, j0)) hide_outside(scores, (const limits *)(memory + LIMITS_AT), j0);
        } else if (j0 + BN > s.N) {
            hide_past(scores, j0 + own_key(), s.N);
        }
        softmax_step(scores, o, m, l, factor);
        if (HAS(p, DLATTN_FEATURE_DROPOUT)) drop_tile(scores, p, key, s, place.h, place.row0 + own_row(), j0 + own_key());
        multiply_values(o, scores, v_tile);
    }
    copies_wait<0>(); // Q's copy, when there was no key
    finish(shared_address(memory), o, m, l, factor, p);
}
