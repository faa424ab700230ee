// backward_prepare.cu: what the backward needs of every row before its main pass, and the gradient of the sinks.
//
// Entry backward_prepare: 256 threads, grid 2 * ceil(M / 128) * H * B (64 rows a block), no options. It writes
//
//     delta = sum_e dout * out - dlse,     lse2 = lse * log2(e)
//
// for every row up to the end of its sequence's last 128: rows past the sequence and rows with lse -inf get delta 0 and
// lse2 +inf, which makes all their probabilities exact zeros, whatever dout, out and dlse hold there. Where dq is summed
// (p.dq_columns), it writes the zeros that the sums and the counts of finished blocks begin with; where there are segments,
// their ranges (p.row_segments).
//
// Entry dsinks: 512 threads, grid H, no options, after backward_prepare. dsinks[h] = -sum exp(sink - lse) * delta.
#include "dq_sum.cuh"

#define LANES 32
#define ROWS 64
#define WARPS 8
#define SINK_THREADS 512

// Are rows of the tensor made of aligned 16-byte chunks, each of `chunk` elements, a power of 2?
DEVICE bool in_chunks(const dlattn_view &t, int chunk) {
    return t.stride[3] == 1 && ((t.stride[0] | t.stride[1] | t.stride[2]) & (chunk - 1)) == 0 && t.data % 16 == 0;
}

// sum + a . b over two elements of 16 bits each.
DEVICE float dot_pair(int dtype, u32 a, u32 b, float sum) {
    const u16 a0 = (u16)a, a1 = (u16)(a >> 16), b0 = (u16)b, b1 = (u16)(b >> 16);
    if (dtype == DLATTN_TYPE_F16)
        return fmaf(float_of_f16(a1), float_of_f16(b1), fmaf(float_of_f16(a0), float_of_f16(b0), sum));
    return fmaf(float_of_bf16(a1), float_of_bf16(b1), fmaf(float_of_bf16(a0), float_of_bf16(b0), sum));
}

// a . b over 16 bytes.
DEVICE float dot_chunk(int dtype, const uint4 &a, const uint4 &b) {
    if (dtype == DLATTN_TYPE_F32) {
        float sum = __uint_as_float(a.x) * __uint_as_float(b.x);
        sum = fmaf(__uint_as_float(a.y), __uint_as_float(b.y), sum);
        sum = fmaf(__uint_as_float(a.z), __uint_as_float(b.z), sum);
        return fmaf(__uint_as_float(a.w), __uint_as_float(b.w), sum);
    }
    const float half = dot_pair(dtype, a.y, b.y, dot_pair(dtype, a.x, b.x, 0.0f));
    return dot_pair(dtype, a.w, b.w, dot_pair(dtype, a.z, b.z, half));
}

// The lane's part of sum_e out * dout of the rows that start at elements out_at and dout_at.
DEVICE float dot_part(const dlattn_params &p, i64 out_at, i64 dout_at, int lane) {
    float sum = 0.0f;
    for (int e = lane; e < p.E; e += LANES) {
        const float x = load_float(p.out, out_at + e * p.out.stride[3]);
        sum = fmaf(x, load_float(p.dout, dout_at + e * p.dout.stride[3]), sum);
    }
    return sum;
}

// What is read of one row.
typedef struct row_terms {
    float lse, dlse, sum; // sum: the lane's part
} row_terms;

// One row, by `lanes` lanes of 16 bytes each, or where chunk is 0 by a warp. All loads are independent of each other.
DEVICE row_terms read_row(const dlattn_params &p, const sequence &s, int h, int i, int lane, int chunk) {
    const i64 token = s.q_begin + i, out_at = at(p.out, s.b, token, h), dout_at = at(p.dout, s.b, token, h);
    row_terms r = {-INFINITE, 0.0f, 0.0f};
    if (i >= s.M) return r;
    if (lane == 0) r.lse = ((const float *)p.lse.data)[at(p.lse, s.b, h, token)];
    if (lane == 0 && p.dlse.data) r.dlse = ((const float *)p.dlse.data)[at(p.dlse, s.b, h, token)];
    if (!chunk) r.sum = dot_part(p, out_at, dout_at, lane);
    else if (lane * chunk < p.E)
        r.sum = dot_chunk(p.out.dtype, ((const uint4 *)(p.out.data + out_at * (16 / chunk)))[lane],
                          ((const uint4 *)(p.dout.data + dout_at * (16 / chunk)))[lane]);
    return r;
}

DEVICE void finish_row(const dlattn_params &p, const row_terms &r, i64 row, int lane, int lanes) {
    float sum = r.sum;
    for (int other = 1; other < lanes; other *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
    if (lane != 0) return;
    const bool empty = r.lse == -INFINITE;
    ((float *)p.delta)[row] = empty ? 0.0f : sum - r.dlse;
    ((float *)p.lse2)[row] = empty ? INFINITE : r.lse * LOG2_E;
}

// The sums of dq of ROWS rows, which lie together whatever their order (dq_sum.cuh).
DEVICE void clear_dq_sum(const dlattn_params &p, i64 row) {
    float4 *sums = (float4 *)((float *)p.dq_sum + row * p.dq_columns);
    for (int n = (int)threadIdx.x; n < ROWS / 4 * p.dq_columns; n += LANES * WARPS) sums[n] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

// The least and the largest of 32 neighbouring segments, element i being this lane's, of `count` that there are, to range n.
DEVICE void find_range(const dlattn_view &t, int b, int i, int count, u64 ranges, i64 n) {
    i64 lo = DLATTN_I64_MAX, hi = DLATTN_I64_MIN;
    if (i < count) lo = hi = load_int(t, at(t, b, i));
    for (int other = 1; other < LANES; other *= 2) {
        const i64 low = __shfl_xor_sync(0xffffffffu, lo, other), high = __shfl_xor_sync(0xffffffffu, hi, other);
        lo = low < lo ? low : lo;
        hi = high > hi ? high : hi;
    }
    if (threadIdx.x % LANES != 0) return;
    ((i64 *)ranges)[2 * n] = lo;
    ((i64 *)ranges)[2 * n + 1] = hi;
}

// The ranges of the block's rows, and of its share of all keys. `part`: which block of `parts` of the sequence.
DEVICE void find_segments(const dlattn_params &p, const sequence &s, int part, int parts) {
    const int warp = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    if (warp < ROWS / LANES) {
        const int n = part * (ROWS / LANES) + warp;
        find_range(p.q_segments, s.b, n * LANES + lane, s.M, p.row_segments, s.b * (p.head_rows / LANES) + n);
        return;
    }
    const int ranges = (int)segment_ranges(p.N), step = parts * (WARPS - ROWS / LANES);
    for (int n = part * (WARPS - ROWS / LANES) + warp - ROWS / LANES; n < ranges; n += step)
        find_range(p.kv_segments, s.b, n * LANES + lane, s.N, p.key_segments, (i64)s.b * ranges + n);
}

extern "C" __global__ void __launch_bounds__(LANES *WARPS) backward_prepare(const __grid_constant__ dlattn_params p) {
    let_next_begin();
    const u32 blocks = (u32)((p.M + DLATTN_ROW_ALIGNMENT - 1) / DLATTN_ROW_ALIGNMENT) * (DLATTN_ROW_ALIGNMENT / ROWS);
    const int i0 = (int)(blockIdx.x % blocks) * ROWS, h = (int)(blockIdx.x / blocks % p.H);
    const sequence s = read_sequence(p, (int)(blockIdx.x / blocks / p.H));
    if (p.q_segments.data && h == 0) find_segments(p, s, (int)(blockIdx.x % blocks), (int)blocks);
    if (p.dq_columns && i0 == 0 && threadIdx.x == 0) *finished_blocks(p, s.b, h / p.heads_per_group) = 0;
    if (i0 / DLATTN_ROW_ALIGNMENT * DLATTN_ROW_ALIGNMENT >= s.M) return;

    int chunk = 16 / size_of_type(p.dout.dtype), lanes = LANES; // of one row
    if (p.out.dtype != p.dout.dtype || p.E & (chunk - 1) || p.E > LANES * chunk || !in_chunks(p.out, chunk) ||
        !in_chunks(p.dout, chunk))
        chunk = 0;
    while (chunk && lanes / 2 * chunk >= p.E && lanes > 8) lanes /= 2;
    const int lane = (int)threadIdx.x % lanes, step = LANES * WARPS / lanes; // step: 8, 16 or 32
    const i64 row = row_of(p, s, h, i0);
    clear_dq_sum(p, row);
    for (int r = (int)threadIdx.x / lanes; r < ROWS; r += 2 * step) { // two rows at a time, for more loads under way
        const row_terms one = read_row(p, s, h, i0 + r, lane, chunk);
        const row_terms two = read_row(p, s, h, i0 + r + step, lane, chunk);
        finish_row(p, one, row + r, lane, lanes);
        finish_row(p, two, row + r + step, lane, lanes);
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
