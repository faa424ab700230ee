// forward_rows.cuh: the rows of a tensor-core forward: which tile a block has, Q's way into shared memory, and the way out
// of sums to out, lse or partial results.
//
// Part of forward_sm80.cu and forward_sm90.cu: uses their options and maps of shared memory.
#ifndef DLATTN_FORWARD_ROWS_CUH
#define DLATTN_FORWARD_ROWS_CUH

#include "score_tiles.cuh"
#include "softmax.cuh"

// What a block knows of its place and sequence. It waits in shared memory: registers are scarce. `context` and `key` are
// there where the features ask for them.
typedef struct loop_facts {
    score_context context;
    sequence s;
    dlattn_philox_key key;
    int row0, rows; // the first row of the tile, and how many there are in all
    int h, split;
    int first;      // tile of keys
} loop_facts;
static_assert(sizeof(loop_facts) <= FACTS_BYTES, "room for the facts");

// What is derived from x is computed again where it is needed, instead of being kept in registers through the loop.
DEVICE void forget(u32 &x) { asm volatile("" : "+r"(x)); }

typedef struct block_place {
    int row0, split, h, b; // first row of the tile; h: kv head when PACKED
} block_place;

// Each kernel's own: of how many heads the tiles go together, and those of how many of all at the very end. fit: how many heads'
// keys and values L2 holds, about.
DEVICE u32 heads_together(const dlattn_params &p, u32 tiles, int fit);
DEVICE u32 heads_at_end(const dlattn_params &p, u32 tiles);

// A kernel may set BATCHES_TOGETHER to 1, where sequences share the bias: a head's tiles of all of them follow each other.
#ifndef BATCHES_TOGETHER
#define BATCHES_TOGETHER 0
#endif

// Row tiles of one head follow each other, so that its keys stay in L2. Interval masks make tiles of unequal length,
// and causal ones the last rows the longest: then the tiles of many heads go together, the longest first, or the last
// head's longest tile would end alone.
DEVICE block_place place_of(const dlattn_params &p, u32 block) {
    const u32 heads = (PACKED ? p.G : p.H) * p.B, splits = SPLIT ? p.splits : 1, tiles = p.row_tiles;
    block_place place;
    place.split = 0;
    if (SPLIT) {
        place.split = (int)(block % splits);
        block /= splits;
    }
    u32 head = block / tiles, tile = block - head * tiles;
    if (INTERVAL) {
        const float fit = __fdividef((float)(16 << 20), (float)(p.D + p.E) * (float)larger(p.N, 1));
        const u32 together = heads_together(p, tiles, (int)fit);
        u32 first = 0, count = heads;
        if (together < heads) {
            const u32 end = smaller(heads_at_end(p, tiles), heads), body = heads - end;
            first = block < body * tiles ? block / (together * tiles) * together : body;
            count = first < body ? smaller(together, body - first) : end;
        }
        const u32 rest = block - first * tiles;
        tile = rest / count;
        head = first + (rest - tile * count);
        tile = tiles - 1 - tile;
    }
    place.row0 = (int)tile * BM;
    place.b = (int)(head / (PACKED ? p.G : p.H));
    place.h = (int)head - place.b * (PACKED ? p.G : p.H);
#if BATCHES_TOGETHER
    if (p.bias.stride[0] == 0) {
        place.h = (int)head / p.B;
        place.b = (int)head - place.h * p.B;
    }
#endif
    return place;
}

// What a row of the tile stands for.
DEVICE int query_of(const dlattn_params &p, int row) { return PACKED ? row / p.heads_per_group : row; }
DEVICE int head_of(const dlattn_params &p, int h, int row) {
    return PACKED ? h * p.heads_per_group + row % p.heads_per_group : h;
}

// Q's rows [row0, row0 + BM) to shared memory.
DEVICE void load_queries(u32 tile, const dlattn_params &p, const sequence &s, int h, int row0, int rows) {
    if (!PACKED) {
        const u16 *const q = (const u16 *)p.q.data + at(p.q, s.b, s.q_begin, h);
        const tile_source from = {q, p.q.stride[1], p.q.stride[3], rows, p.D};
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

DEVICE u32 load_word(u32 address) {
    u32 x;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(address) : "memory");
    return x;
}

// The largest score is found before it is scaled, which is right for a positive scale only: a negative one goes into
// Q's signs, and for zero Q becomes q * 0 (0, or NaN where q is not finite) and the scale 1.
DEVICE void absorb_sign(u32 tile, float scale) {
    __syncthreads();
    for (int n = (int)threadIdx.x; n < Q_BYTES / 4; n += THREADS) {
        u32 x = load_word(tile + 4 * n);
        if (scale < 0.0f) x ^= 0x80008000u;
        else x = pack(float_of_element((u16)x) * 0.0f, float_of_element((u16)(x >> 16)) * 0.0f);
        store_shared(tile + 4 * n, x);
    }
    __syncthreads();
}

// Two neighbours of a row, `count` of which exist, as float.
DEVICE void store_floats(float *to, i64 stride, float x, float y, int count) {
    if (count > 1 && stride == 1 && ((u64)to & 7) == 0) {
        *(float2 *)to = make_float2(x, y);
        return;
    }
    if (count > 0) to[0] = x;
    if (count > 1) to[stride] = y;
}

// Has out 16-byte aligned rows?
DEVICE bool stores_chunks(const dlattn_params &p) {
    const u64 strides = p.out.stride[0] | p.out.stride[1] | p.out.stride[2];
    return p.out.stride[3] == 1 && ((p.out.data | 2 * strides) & 15) == 0;
}

// out's rows, of the element type: rounded, through shared memory, so that whole rows are written at once. Each warp
// has the place of its own rows of Q, which nobody else reads, if they are long enough.
DEVICE void store_rows(u32 tile, const float (&o)[MT][ET][4], const dlattn_params &p, const loop_facts &facts) {
    const int CHUNKS = HEAD_E / 8, COUNT = 16 * MT * CHUNKS / 32;
    const int thread = thread_anew(), lane = thread % 32, g = lane / 4, t = lane % 4, warp_row = 16 * MT * (thread / 32);
    if (HEAD_E > HEAD_D) __syncthreads(); // the last tiles have been read
    else tile += warp_row * (2 * (HEAD_D - HEAD_E));
    __syncwarp();
#pragma unroll
    for (int a = 0; a < MT; a++)
#pragma unroll
        for (int e = 0; e < ET; e++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                store_shared(tile + element_offset<HEAD_E>(warp_row + 16 * a + 8 * half + g, 8 * e + 2 * t),
                             pack(o[a][e][2 * half], o[a][e][2 * half + 1]));
    __syncwarp();
    const int rows = facts.rows, row0 = facts.row0 + warp_row, h = facts.h;
    const i64 base = at(p.out, facts.s.b, facts.s.q_begin);
    const bool chunks = stores_chunks(p);
    if (!PACKED && 32 % CHUNKS == 0 && chunks && p.E % 8 == 0) { // a lane stays in its column
        const int STEP = 32 / CHUNKS < 1 ? 1 : 32 / CHUNKS, r = lane / CHUNKS, left = rows - row0 - r;
        const bool inside = 8 * (lane % CHUNKS) < p.E;
        u16 *to = (u16 *)p.out.data + base + (row0 + r) * p.out.stride[1] + h * p.out.stride[2] + lane % CHUNKS * 8;
#pragma unroll
        for (int first = 0; first < COUNT; first += 4) {
            uint4 x[4];
#pragma unroll
            for (int n = 0; n < 4 && first + n < COUNT; n++)
                x[n] = load_shared(tile + chunk_offset<HEAD_E>(warp_row + r + (first + n) * STEP, lane % CHUNKS));
#pragma unroll
            for (int n = 0; n < 4 && first + n < COUNT; n++) {
                if (inside && (first + n) * STEP < left) *(uint4 *)to = x[n];
                to += STEP * p.out.stride[1];
            }
        }
        return;
    }
#pragma unroll 1
    for (int n = lane; n < 16 * MT * CHUNKS; n += 32) {
        const int r = n / CHUNKS, chunk = n % CHUNKS, row = row0 + r, count = p.E - 8 * chunk;
        if (row >= rows || count <= 0) continue;
        const u32 from = tile + chunk_offset<HEAD_E>(warp_row + r, chunk);
        u16 *to = (u16 *)p.out.data + base + query_of(p, row) * p.out.stride[1] + head_of(p, h, row) * p.out.stride[2] +
                  8 * chunk * p.out.stride[3];
        if (chunks && count >= 8) {
            *(uint4 *)to = load_shared(from);
            continue;
        }
#pragma unroll 1
        for (int i = 0; i < smaller(count, 8); i++) to[i * p.out.stride[3]] = (u16)(load_word(from + i / 2 * 4) >> (i % 2 * 16));
    }
}

// From the running sums to rows of the result in o, and to lse or this split's part of it. The four threads of a row share its
// sum: each ends one of the (up to four) rows they have in common, and tells the others.
DEVICE void end_rows(float (&o)[MT][ET][4], const float (&m)[MT][2], const float (&l)[MT][2], float factor, const dlattn_params &p,
                     const loop_facts &facts) {
    const int thread = thread_anew(), t = thread % 4, first = facts.row0 + 16 * MT * (thread / 32) + thread % 32 / 4;
    const int mine = t % (2 * MT);
    float sum = 0.0f, reference = 0.0f;
#pragma unroll
    for (int r = 0; r < 2 * MT; r++) {
        const float whole = sum_of_quad(l[r / 2][r % 2]);
        if (mine == r) sum = whole;
        if (mine == r) reference = m[r / 2][r % 2];
    }
    const int row = first + 8 * mine;
    const bool there = row < facts.rows;
    const int i = query_of(p, row), h = head_of(p, facts.h, row);
    const bool sunk = !SPLIT && p.sinks.data;
    float sink = 0.0f;
    if (sunk) sink = load_float(p.sinks, at(p.sinks, h));
    const row_end end = end_of_row(reference, sum, factor, sunk, sink);
    if (t < 2 * MT && there && SPLIT)
        ((float *)p.partial_lse)[facts.split * p.row_count + row_of(p, facts.s, h, i)] = end.lse;
    if (t < 2 * MT && there && !SPLIT && p.lse.data) ((float *)p.lse.data)[at(p.lse, facts.s.b, h, facts.s.q_begin + i)] = end.lse;

#pragma unroll
    for (int r = 0; r < 2 * MT; r++) {
        float by = __shfl_sync(0xffffffffu, end.factor, thread & 28 | r);
        if (HAS(p, DLATTN_FEATURE_DROPOUT)) by *= p.dropout_scale;
#pragma unroll
        for (int e = 0; e < ET; e++)
#pragma unroll
            for (int c = 2 * (r % 2); c < 2 * (r % 2) + 2; c++) o[r / 2][e][c] *= by;
        if (by == 0.0f) { // nothing visible gives 0, even where 0 was multiplied by infinity
#pragma unroll
            for (int e = 0; e < ET; e++) o[r / 2][e][2 * (r % 2)] = o[r / 2][e][2 * (r % 2) + 1] = 0.0f;
        }
    }
}

// Rows of the result to an out of floats: a loop that takes the first columns and moves the others up, since written out for each it was a
// quarter of all that the compiler was given of forward_sm90.
DEVICE void store_unrounded(const float (&o)[MT][ET][4], const dlattn_params &p, const loop_facts &facts, int first, int column) {
    const i64 stride = p.out.stride[3];
    float x[MT][ET][4];
#pragma unroll
    for (int n = 0; n < MT * ET * 4; n++) x[n / (4 * ET)][n / 4 % ET][n % 4] = o[n / (4 * ET)][n / 4 % ET][n % 4];
#pragma unroll 1
    for (; column < p.E; column += 8) {
#pragma unroll
        for (int r = 0; r < 2 * MT; r++) {
            const int row = first + 8 * r, i = query_of(p, row), h = head_of(p, facts.h, row);
            if (row < facts.rows)
                store_floats((float *)p.out.data + at(p.out, facts.s.b, facts.s.q_begin + i, h, column), stride,
                             x[r / 2][0][2 * (r % 2)], x[r / 2][0][2 * (r % 2) + 1], p.E - column);
        }
#pragma unroll
        for (int a = 0; a < MT; a++)
#pragma unroll
            for (int e = 0; e + 1 < ET; e++)
#pragma unroll
                for (int c = 0; c < 4; c++) x[a][e][c] = x[a][e + 1][c];
    }
}

// Rows of this split's part of the result, always float.
DEVICE void store_part(const float (&o)[MT][ET][4], const dlattn_params &p, const loop_facts &facts, int first, int column) {
#pragma unroll
    for (int r = 0; r < 2 * MT; r++) {
        const int row = first + 8 * r, i = query_of(p, row), h = head_of(p, facts.h, row);
        if (row >= facts.rows) continue;
        float *to = (float *)p.partial_out + (facts.split * p.row_count + row_of(p, facts.s, h, i)) * p.E;
#pragma unroll
        for (int e = 0; e < ET; e++)
            store_floats(to + 8 * e + column, 1, o[r / 2][e][2 * (r % 2)], o[r / 2][e][2 * (r % 2) + 1], p.E - 8 * e - column);
    }
}

DEVICE void store_floats_of_rows(const float (&o)[MT][ET][4], const dlattn_params &p, const loop_facts &facts) {
    const int thread = thread_anew(), column = thread % 4 * 2, first = facts.row0 + 16 * MT * (thread / 32) + thread % 32 / 4;
    if (SPLIT) store_part(o, p, facts, first, column);
    else store_unrounded(o, p, facts, first, column);
}

DEVICE void finish(u32 tile, float (&o)[MT][ET][4], const float (&m)[MT][2], const float (&l)[MT][2], float factor,
                   const dlattn_params &p, const loop_facts &facts) {
    end_rows(o, m, l, factor, p, facts);
    if (!SPLIT && p.out.dtype == TYPE) store_rows(tile, o, p, facts);
    else store_floats_of_rows(o, p, facts);
}

#endif
