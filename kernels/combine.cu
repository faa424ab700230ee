// combine.cu: joins the pieces that a forward kernel made of split keys, adds the sink, and writes out and lse.
//
// Entry combine: 256 threads, grid ceil(M / 8) * H * B, no options. One warp per row. Pieces with lse -inf are not
// read.
#include "sequence.cuh"
#include "warp.cuh"

#define ROWS_PER_BLOCK 8
#define COLUMNS (256 / LANES) // of the largest E, per lane

extern "C" __global__ void __launch_bounds__(256) combine(const __grid_constant__ dlattn_params p) {
    const int lane = (int)threadIdx.x % LANES, row_blocks = (p.M + ROWS_PER_BLOCK - 1) / ROWS_PER_BLOCK;
    const int i = (int)(blockIdx.x % row_blocks) * ROWS_PER_BLOCK + (int)threadIdx.x / LANES;
    const int h = (int)(blockIdx.x / row_blocks % p.H);
    const sequence s = read_sequence(p, (int)(blockIdx.x / row_blocks / p.H));
    if (i >= s.M) return;
    const i64 row = row_of(p, s, h, i);
    const float *lses = (const float *)p.partial_lse + row, *outs = (const float *)p.partial_out + row * p.E;

    float top = -INFINITE, sink = -INFINITE;
    for (int n = lane; n < p.splits; n += LANES) top = fmaxf(top, lses[n * p.row_count]);
    if (p.sinks.data) sink = load_float(p.sinks, at(p.sinks, h));
    top = fmaxf(warp_largest(top), sink);

    // Double, because lse is to be exact to 2 ulp and the pieces have spent one. fmaxf dropped NaN: it is here again.
    double sum = 0.0;
    for (int n = lane; n < p.splits; n += LANES) {
        const float lse = lses[n * p.row_count];
        if (lse != -INFINITE) sum += exp((double)lse - top);
    }
    sum = warp_sum(sum);
    if (sink != -INFINITE) sum += exp((double)sink - top);

    const bool empty = sum == 0.0;
    const float inverse = empty ? 0.0f : (float)(1.0 / sum);
    float out[COLUMNS] = {};
    for (int n = 0; n < p.splits; n++) {
        const float lse = lses[n * p.row_count];
        if (lse == -INFINITE) continue;
        const float weight = exp2f((lse - top) * LOG2_E) * inverse;
        const float *part = outs + n * p.row_count * p.E;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            const int e = lane + c * LANES;
            if (e < p.E) out[c] = fmaf(weight, part[e], out[c]);
        }
    }
    const i64 out_at = at(p.out, s.b, s.q_begin + i, h);
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
        const int e = lane + c * LANES;
        if (e < p.E) store_float(p.out, out_at + e * p.out.stride[3], out[c]);
    }
    if (lane == 0 && p.lse.data)
        store_float(p.lse, at(p.lse, s.b, h, s.q_begin + i), empty ? -INFINITE : (float)(top + log(sum)));
}
