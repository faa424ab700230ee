// backward_rows_sm80.cuh: tiles of rows of backward_sm80 on their way into shared memory: q, dout and what else their scores need.
//
// Part of backward_sm80.cu: uses its options, its map of shared memory and its contexts.
#ifndef DLATTN_BACKWARD_ROWS_SM80_CUH
#define DLATTN_BACKWARD_ROWS_SM80_CUH

#include "backward_parts.cuh"

// The tiles of a head follow each other, so a thread's addresses move by constants. They wait in shared memory, 8 bytes for
// each thread: to make them anew took a quarter of the loop's instructions.
enum { Q_ROWS, DOUT_ROWS, STATISTICS, SUMS };

// The thread's address for this tile. make: makes it for the first tile of a head.
template <int WHICH, typename MAKE>
DEVICE u64 cursor(const backward_context &c, row_tile tile, i64 step, const MAKE &make) {
    if (!ADDRESSES_MOVE) return make();
    volatile u64 *own = (volatile u64 *)(shared_bytes + CURSORS_AT) + WHICH * THREADS + thread_anew();
    const u64 address = tile.i0 == c.first_row ? make() : *own + step;
    *own = address;
    return address;
}

// BM rows of q or dout, a thread in its column.
template <int WHICH, int COLS>
DEVICE void load_by_cursor(const dlattn_view &t, const backward_context &c, u32 to, row_tile tile, int cols) {
    const int CHUNKS = COLS / 8, STEP = THREADS / CHUNKS ? THREADS / CHUNKS : 1;
    const int thread = thread_anew(), column = thread % CHUNKS * 8, r = thread / CHUNKS;
    const auto own_row = [&] {
        return t.data + 2 * (u64)(at(t, c.s.b, c.s.q_begin + tile.i0 + r, tile.h) + column);
    };
    u64 from = cursor<WHICH>(c, tile, 2 * BM * t.stride[1], own_row);
    to += chunk_offset<COLS>(r, thread % CHUNKS);
    if (tile.i0 + BM <= c.s.M && cols == COLS) { // all of it is there
#pragma unroll
        for (int n = 0; n < BM / STEP; n++) copy_async(to + n * STEP * COLS * 2, (const void *)(from + n * STEP * 2 * t.stride[1]), 16);
        return;
    }
    const int left = column < cols ? c.s.M - tile.i0 - r : 0;
#pragma unroll 1
    for (int n = 0; n < BM / STEP; n++) {
        copy_async(to + n * STEP * COLS * 2, (const void *)from, left > n * STEP ? 16 : 0);
        from += STEP * 2 * t.stride[1];
    }
}

// The tile's rows of q or dout.
template <int WHICH, int COLS>
DEVICE void load_operand(const dlattn_view &t, const backward_context &c, u32 to, row_tile tile, int cols) {
    if (ADDRESSES_MOVE) {
        load_by_cursor<WHICH, COLS>(t, c, to, tile, cols);
        return;
    }
    tile_source from = tile_source_of(t, c.s.b, c.s.q_begin, tile.h, c.s.M, cols);
    load_tile_in_steps<BM, COLS, THREADS, ALIGNED>(to, from, tile.i0);
}

DEVICE void load_q(const dlattn_params &p, const backward_context &c, u32 shared, row_tile tile, int stage) {
    load_operand<Q_ROWS, HEAD_D>(p.q, c, shared + Q_AT + stage * BM * HEAD_D * 2, tile, p.D);
}

// lse2 and delta: 16 bytes each for the first threads.
DEVICE void load_statistics(const dlattn_params &p, const backward_context &c, u32 shared, row_tile tile, int stage) {
    const int n = thread_anew(), HALF = BM / 4;
    if (n >= 2 * HALF) return;
    const auto own_four = [&] {
        return (n < HALF ? p.lse2 : p.delta) + 4 * (u64)(row_of(p, c.s, tile.h, tile.i0) + 4 * (n % HALF));
    };
    const u64 from = cursor<STATISTICS>(c, tile, 4 * BM, own_four);
    copy_async(shared + (n < HALF ? LSE_AT : DELTA_AT) + stage * BM * 4 + n % HALF * 16, (const void *)from, 16);
}

DEVICE void load_terms(const dlattn_params &p, const backward_context &c, u32 shared, row_tile tile, int stage) {
    load_operand<DOUT_ROWS, HEAD_E>(p.dout, c, shared + DOUT_AT + stage * BM * HEAD_E * 2, tile, p.E);
    if (BIAS_TILE) {
        tile_source bias = {(const u16 *)p.bias.data + at(p.bias, c.s.b, tile.h, 0, c.j0), p.bias.stride[2], 1, c.s.M, c.s.N - c.j0};
        load_tile_in_steps<BM, BN, THREADS, true>(shared + BIAS_AT + stage * BM * BN * 2, bias, tile.i0);
    }
    load_statistics(p, c, shared, tile, stage);
    const int n = thread_anew();
    if (n >= BM || sees_all<BM, BN>(p, c, tile, 0, 0)) return;
    ((u32 *)(shared_bytes + LIMITS_AT))[stage * BM + n] = limits_of_row(p, c, tile, n);
    if (HAS(p, DLATTN_FEATURE_SEGMENTS) && tile.i0 + n < c.s.M)
        ((i64 *)(shared_bytes + Q_SEGMENTS_AT))[stage * BM + n] =
            load_int(p.q_segments, at(p.q_segments, c.s.b, tile.i0 + n));
}

DEVICE void load_rows(const dlattn_params &p, const backward_context &c, u32 shared, row_tile tile, int stage) {
    load_q(p, c, shared, tile, stage);
    load_terms(p, c, shared, tile, stage);
}

#endif
