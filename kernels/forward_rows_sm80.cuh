// forward_rows_sm80.cuh: the rows of forward_sm80: which tile a block has, Q's way into shared memory, and the way out
// of sums to out, lse or partial results.
//
// Part of forward_sm80.cu: uses its options and its map of shared memory.
#ifndef DLATTN_FORWARD_ROWS_SM80_CUH
#define DLATTN_FORWARD_ROWS_SM80_CUH

#include "scores_sm80.cuh"
#include "softmax_sm80.cuh"

// What is derived from x is computed again where it is needed, instead of being kept in registers through the loop.
DEVICE void forget(u32 &x) { asm volatile("" : "+r"(x)); }

typedef struct block_place {
    int row0, split, h, b; // first row of the tile; h: kv head when PACKED
} block_place;

// Row tiles of one head follow each other, so that its keys stay in L2. Interval masks make tiles of unequal length,
// and causal ones the last rows the longest: then the tiles of many heads go together, the longest first, or the last
// head's longest tile would end alone. As many heads as L2 holds or, sharing keys less well, 32.
DEVICE block_place place_of(const dlattn_params &p, u32 block) {
    const u32 heads = (PACKED ? p.G : p.H) * p.B, splits = SPLIT ? p.splits : 1, tiles = p.row_tiles;
    u32 together = 1;
    if (INTERVAL) together = smaller(larger(32, (16 << 20) / (p.D + p.E) / larger(p.N, 1)), heads);
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

// The largest score is found before it is scaled, which is right for a positive scale only: a negative one goes into
// Q's signs, and for zero Q becomes q * 0 (0, or NaN where q is not finite) and the scale 1.
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

// Two neighbours of a row, `count` of which exist, as float.
DEVICE void store_floats(float *to, i64 stride, float x, float y, int count) {
    if (count > 0) to[0] = x;
    if (count > 1) to[stride] = y;
}

// Has out 16-byte aligned rows?
DEVICE bool stores_chunks(const dlattn_params &p) {
    const u64 strides = p.out.stride[0] | p.out.stride[1] | p.out.stride[2];
    return p.out.stride[3] == 1 && ((p.out.data | 2 * strides) & 15) == 0;
}

// out's rows, of the element type: rounded, through shared memory, so that whole rows are written at once.
DEVICE void store_rows(u32 tile, const float (&o)[MT][ET][4], const dlattn_params &p, const sequence &s, int h,
                       int row0, int rows) {
    const int thread = thread_anew(), lane = thread % 32, g = lane / 4, t = lane % 4;
    const int warp_row = 16 * MT * (thread / 32);
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
                float *to = SPLIT ? (float *)p.partial_out + part * p.E
                                  : (float *)p.out.data + at(p.out, s.b, s.q_begin + i, h);
#pragma unroll
                for (int e = 0; e < ET; e++)
                    store_floats(to + (8 * e + 2 * t) * stride, stride, o[a][e][2 * half], o[a][e][2 * half + 1],
                                 p.E - 8 * e - 2 * t);
            }
        }
    if (!SPLIT && p.out.dtype == TYPE) store_rows(tile, o, p, s, place.h, place.row0, rows);
}

#endif
