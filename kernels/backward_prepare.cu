// backward_prepare.cu: what the backward needs of every row before its main pass, and the gradient of the sinks.
//
// Entry backward_prepare: 256 threads, grid 4 * ceil(M / 128) * H * B (32 rows a block), no options. It writes
//
//     delta = sum_e dout * out - dlse,     lse2 = lse * log2(e)
//
// for every row up to the end of its sequence's last 128: rows past the sequence and rows with lse -inf get delta 0 and lse2
// +inf, which makes all their probabilities exact zeros, and their dout, out and dlse are not read.
//
// Entry dsinks: 512 threads, grid H, no options, after backward_prepare. dsinks[h] = -sum exp(sink - lse) * delta.
#include "sequence.cuh"

#define LANES 32
#define ROWS 32
#define WARPS 8
#define SINK_THREADS 512

// Four neighbouring elements of a row whose elements are contiguous and aligned to four.
DEVICE float4 load_four(const dlattn_view &t, i64 index) {
    if (t.dtype == DLATTN_TYPE_F32) return *(const float4 *)((const float *)t.data + index);
    const ushort4 x = *(const ushort4 *)((const u16 *)t.data + index);
    if (t.dtype == DLATTN_TYPE_F16)
        return make_float4(float_of_f16(x.x), float_of_f16(x.y), float_of_f16(x.z), float_of_f16(x.w));
    return make_float4(float_of_bf16(x.x), float_of_bf16(x.y), float_of_bf16(x.z), float_of_bf16(x.w));
}

DEVICE bool in_fours(const dlattn_view &t) {
    return t.stride[3] == 1 && t.stride[0] % 4 == 0 && t.stride[1] % 4 == 0 && t.stride[2] % 4 == 0 &&
           t.data % (4 * size_of_type(t.dtype)) == 0;
}

// The lane's part of sum_e a * b over rows that start at elements a_at and b_at.
DEVICE float dot_part(const dlattn_params &p, i64 out_at, i64 dout_at, int lane, int lanes, bool fours) {
    float sum = 0.0f;
    if (fours) {
        for (int e = 4 * lane; e < p.E; e += 4 * lanes) {
            const float4 x = load_four(p.out, out_at + e), y = load_four(p.dout, dout_at + e);
            sum = fmaf(x.x, y.x, fmaf(x.y, y.y, fmaf(x.z, y.z, fmaf(x.w, y.w, sum))));
        }
        return sum;
    }
    for (int e = lane; e < p.E; e += lanes)
        sum = fmaf(load_float(p.out, out_at + e * p.out.stride[3]), load_float(p.dout, dout_at + e * p.dout.stride[3]), sum);
    return sum;
}

extern "C" __global__ void __launch_bounds__(LANES *WARPS) backward_prepare(const __grid_constant__ dlattn_params p) {
    const u32 blocks = (u32)((p.M + DLATTN_ROW_ALIGNMENT - 1) / DLATTN_ROW_ALIGNMENT) * (DLATTN_ROW_ALIGNMENT / ROWS);
    const int i0 = (int)(blockIdx.x % blocks) * ROWS, h = (int)(blockIdx.x / blocks % p.H);
    const sequence s = read_sequence(p, (int)(blockIdx.x / blocks / p.H));
    if (i0 / DLATTN_ROW_ALIGNMENT * DLATTN_ROW_ALIGNMENT >= s.M) return;

    const bool fours = p.E % 4 == 0 && in_fours(p.out) && in_fours(p.dout);
    const int lanes = fours && p.E <= 64 ? LANES / 2 : LANES; // of a row
    const int lane = (int)threadIdx.x % lanes, first = (int)threadIdx.x / lanes, step = LANES * WARPS / lanes;
    const i64 row = row_of(p, s, h, i0);
#pragma unroll 4
    for (int r = first; r < ROWS; r += step) {
        const int i = i0 + r;
        const i64 token = s.q_begin + i;
        float lse = -INFINITE, sum = 0.0f;
        if (i < s.M) lse = load_float(p.lse, at(p.lse, s.b, h, token));
        const bool empty = lse == -INFINITE;
        if (!empty) sum = dot_part(p, at(p.out, s.b, token, h), at(p.dout, s.b, token, h), lane, lanes, fours);
        for (int other = 1; other < lanes; other *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
        if (lane != 0) continue;
        if (!empty && p.dlse.data) sum -= load_float(p.dlse, at(p.dlse, s.b, h, token));
        ((float *)p.delta)[row + r] = sum;
        ((float *)p.lse2)[row + r] = empty ? INFINITE : lse * LOG2_E;
    }
}

extern "C" __global__ void __launch_bounds__(SINK_THREADS) dsinks(const __grid_constant__ dlattn_params p) {
    __shared__ double parts[SINK_THREADS];
    const int h = (int)blockIdx.x;
    const double sink = load_float(p.sinks, at(p.sinks, h));
    double sum = 0.0;
    for (i64 n = threadIdx.x; n < (i64)p.B * p.M; n += SINK_THREADS) {
        const sequence s = read_sequence(p, (int)(n / p.M));
        const int i = (int)(n % p.M);
        if (i >= s.M) continue;
        const float lse = load_float(p.lse, at(p.lse, s.b, h, s.q_begin + i));
        if (lse != -INFINITE) sum -= exp(sink - lse) * ((const float *)p.delta)[row_of(p, s, h, i)];
    }
    parts[threadIdx.x] = sum;
    for (int half = SINK_THREADS / 2; half > 0; half /= 2) { // a tree: the order is fixed
        __syncthreads();
        if ((int)threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    if (threadIdx.x == 0) store_float(p.dsinks, at(p.dsinks, h), (float)parts[0]);
}
