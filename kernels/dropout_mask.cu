// dropout_mask.cu: dlattn_dropout_mask on the device, byte by byte from the specification; kernels are tested against it.
//
// Entry dropout_mask: 256 threads, no options, any grid (each thread goes on by the grid's size until all is written);
// min(ceil(count / 256), 65536) blocks are enough. Of the parameters it reads keep, the dropout and the positions.
#include "sequence.cuh"

extern "C" __global__ void __launch_bounds__(256) dropout_mask(const __grid_constant__ dlattn_params p) {
    const i64 heads = p.keep.extent[1], rows = p.keep.extent[2], keys = p.keep.extent[3];
    const i64 count = p.keep.extent[0] * heads * rows * keys, step = (i64)gridDim.x * blockDim.x;
    const dlattn_philox_key key = dropout_key(p);
    for (i64 n = (i64)blockIdx.x * blockDim.x + threadIdx.x; n < count; n += step) {
        const i64 j = n % keys, i = n / keys % rows, h = n / keys / rows % heads, b = n / keys / rows / heads;
        i64 q_position = 0, k_position = 0;
        if (p.positions) {
            q_position = p.q_starts.data ? load_int(p.q_starts, at(p.q_starts, b)) : p.q_start;
            k_position = p.k_starts.data ? load_int(p.k_starts, at(p.k_starts, b)) : p.k_start;
        }
        // Unsigned: rows that are no sequence's may lie past the end of int64. The byte repeats long before that.
        const i64 row = (i64)((u64)i + (u64)q_position), column = (i64)((u64)j + (u64)k_position);
        const bool kept = p.dropout_threshold == 0 ||
                          dlattn_dropout_byte(&key, (u32)(b * heads + h), row, column) >= (u32)p.dropout_threshold;
        ((unsigned char *)p.keep.data)[at(p.keep, b, h, i, j)] = kept;
    }
}
