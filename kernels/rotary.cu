// rotary.cu: dlattn_rotary on the device: rotates pairs of elements by the angles of their position (Su et al., 2021).
//
// Entry rotary: 256 threads, grid ceil(B * S * H / 8), no options; its parameter is a dlattn_rotary_params. One warp per
// (b, s, h). Positions are clamped to the tables. A thread reads both elements of a pair before it writes them, so that
// out may be x itself.
#include "shared/cache_params.h"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(256) rotary(const __grid_constant__ dlattn_rotary_params p) {
    const i64 item = (i64)blockIdx.x * 8 + threadIdx.x / LANES;
    const int lane = (int)threadIdx.x % LANES;
    if (item >= (i64)p.B * p.S * p.H) return;
    const int h = (int)(item % p.H), s = (int)(item / p.H % p.S), b = (int)(item / p.H / p.S);
    // A start beyond the tables is clamped before s is added: the sum cannot overflow.
    const i64 last = p.positions - 1, start = p.starts.data ? load_int(p.starts, at(p.starts, b)) : 0;
    const i64 begin = start < -(i64)p.S ? -(i64)p.S : start > last ? last : start;
    const i64 position = begin + s < 0 ? 0 : begin + s > last ? last : begin + s;
    const i64 x_at = at(p.x, b, s, h), out_at = at(p.out, b, s, h);
    const int step = p.interleaved ? 2 : 1, other = p.interleaved ? 1 : p.pairs;
    for (int n = lane; n < p.pairs; n += LANES) {
        const float cosine = load_float(p.cosines, at(p.cosines, position, n));
        const float sine = load_float(p.sines, at(p.sines, position, n)) * (p.inverse ? -1.0f : 1.0f);
        const i64 first = n * step, second = first + other;
        const float x = load_float(p.x, x_at + first * p.x.stride[3]), y = load_float(p.x, x_at + second * p.x.stride[3]);
        store_float(p.out, out_at + first * p.out.stride[3], x * cosine - y * sine);
        store_float(p.out, out_at + second * p.out.stride[3], x * sine + y * cosine);
    }
    for (int n = 2 * p.pairs + lane; n < p.D; n += LANES)
        store_float(p.out, out_at + n * p.out.stride[3], load_float(p.x, x_at + n * p.x.stride[3]));
}
