// kv_append.cu: dlattn_kv_append on the device: copies rows of keys and values into the cache.
//
// Entry kv_append: 256 threads, grid ceil(B * S * G / 8), no options; its parameter is a dlattn_append_params. One warp
// copies the key and the value of one (b, s, g). The host has not read the lengths: a token without a place is dropped.
#include "shared/cache_params.h"
#include "warp.cuh"

// `bytes` from one row to another in units of `unit`, both aligned to it.
template <typename word> DEVICE void copy_units(u64 to, u64 from, int bytes, int lane) {
    for (int n = lane; n < bytes / (int)sizeof(word); n += LANES) ((word *)to)[n] = ((const word *)from)[n];
}

template <typename word>
DEVICE void copy_elements(const dlattn_view &to, i64 to_at, const dlattn_view &from, i64 from_at, int count, int lane) {
    for (int n = lane; n < count; n += LANES)
        ((word *)to.data)[to_at + n * to.stride[3]] = ((const word *)from.data)[from_at + n * from.stride[3]];
}

DEVICE void copy_row(const dlattn_append_params &p, const dlattn_view &to, i64 to_at, const dlattn_view &from, i64 from_at,
                     int count, int lane) {
    const u64 to_address = to.data + to_at * p.element_bytes, from_address = from.data + from_at * p.element_bytes;
    if (p.unit == 16) copy_units<uint4>(to_address, from_address, count * p.element_bytes, lane);
    else if (p.element_bytes == 2) copy_elements<u16>(to, to_at, from, from_at, count, lane);
    else if (p.element_bytes == 4) copy_elements<u32>(to, to_at, from, from_at, count, lane);
    else copy_elements<u64>(to, to_at, from, from_at, count, lane);
}

extern "C" __global__ void __launch_bounds__(256) kv_append(const __grid_constant__ dlattn_append_params p) {
    const i64 item = (i64)blockIdx.x * 8 + threadIdx.x / LANES;
    const int lane = (int)threadIdx.x % LANES;
    if (item >= (i64)p.B * p.S * p.G) return;
    const int g = (int)(item % p.G), s = (int)(item / p.G % p.S), b = (int)(item / p.G / p.S);
    const i64 length = load_int(p.seqlens, at(p.seqlens, b)), capacity = p.pages ? (i64)p.pages * p.tokens : p.tokens;
    if (length < 0 || length >= capacity - s) return;
    i64 token = length + s, row = p.batch_index.data ? load_int(p.batch_index, at(p.batch_index, b)) : b;
    if (p.pages) {
        row = load_int(p.block_table, at(p.block_table, b, token / p.tokens));
        token %= p.tokens;
    }
    if (row < 0 || row >= p.rows) return;
    copy_row(p, p.k_cache, at(p.k_cache, row, token, g), p.k_new, at(p.k_new, b, s, g), p.D, lane);
    copy_row(p, p.v_cache, at(p.v_cache, row, token, g), p.v_new, at(p.v_new, b, s, g), p.E, lane);
}
