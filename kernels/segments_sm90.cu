// segments_sm90.cu: what forward_sm90 wants to know of segments before it begins: the span of every 64 rows and of every tile of
// keys (segment_spans_sm90.cuh). It also clears the counter by which tiles of rows are taken.
//
// Entry segments_sm90: 256 threads, grid ceil(B * (row_tiles + key_tiles) / 8), where row_tiles counts 64 rows each. Option: BN, keys
// of a tile. One warp finds one span.
#include "early.cuh"
#include "segment_spans_sm90.cuh"

#define LANES 32
#define WARPS 8

// Of elements [first, first + SIZE), as far as there are any before `end`.
template <int SIZE>
DEVICE void find_span(u64 spans, int n, const dlattn_view &t, int b, int first, int end) {
    const int lane = (int)threadIdx.x % LANES;
    i64 segments[(SIZE + LANES - 1) / LANES];
    segment_span span = span_of_none();
    end = end < first + SIZE ? end : first + SIZE;
#pragma unroll
    for (int k = 0; k < (SIZE + LANES - 1) / LANES; k++) {
        const int i = first + k * LANES + lane;
        if (i < end) segments[k] = load_int(t, at(t, b, i));
    }
#pragma unroll
    for (int k = 0; k < (SIZE + LANES - 1) / LANES; k++)
        if (first + k * LANES + lane < end) widen(&span, segments[k]);
    for (int other = 1; other < LANES; other *= 2) {
        const int lo = __shfl_xor_sync(0xffffffffu, span.lo, other), hi = __shfl_xor_sync(0xffffffffu, span.hi, other);
        span.lo = lo < span.lo ? lo : span.lo;
        span.hi = hi > span.hi ? hi : span.hi;
        span.set |= __shfl_xor_sync(0xffffffffu, span.set, other);
    }
    if (lane == 0) ((segment_span *)spans)[n] = span;
}

extern "C" __global__ void __launch_bounds__(LANES *WARPS) segments_sm90(const __grid_constant__ dlattn_params p) {
    let_next_begin();
    const int number = (int)blockIdx.x * WARPS + (int)threadIdx.x / LANES, each = p.row_tiles + p.key_tiles;
    const int b = number / each, n = number - b * each;
    if (number == 0 && threadIdx.x == 0 && p.next_tile) *(u32 *)p.next_tile = 0;
    if (b >= p.B) return;
    const sequence s = read_sequence(p, b);
    if (n < p.row_tiles) find_span<SPAN_ROWS>(p.row_segments, b * p.row_tiles + n, p.q_segments, b, n * SPAN_ROWS, s.M);
    else find_span<BN>(p.key_segments, b * p.key_tiles + n - p.row_tiles, p.kv_segments, b, (n - p.row_tiles) * BN, s.N);
}
