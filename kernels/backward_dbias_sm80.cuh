// backward_dbias_sm80.cuh: dbias from backward_sm80 itself, where it has an element for every score: ds as its products take it,
// and zeros for the rows that a block does not visit.
//
// Part of backward_sm80.cu.
#ifndef DLATTN_BACKWARD_DBIAS_SM80_CUH
#define DLATTN_BACKWARD_DBIAS_SM80_CUH

#include "backward_parts.cuh"

// Eight neighbours of a row of dbias from key j on, as far as they exist.
DEVICE void store_eight(const dlattn_view &t, i64 index, int j, uint4 x) {
    if (j + 8 <= t.extent[3]) {
        *(uint4 *)(t.data + 2 * (u64)index) = x;
        return;
    }
    const u32 words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int n = 0; n < 8; n++)
        if (j + n < t.extent[3]) ((u16 *)t.data)[index + n] = (u16)(words[n / 2] >> 16 * (n % 2));
}

// A warp's ds, left operands with keys down: 8 x 8 matrices, which are turned; then a lane of a quad takes the eight keys of one
// of four matrices: of four octets of keys, or where the warp has two, of two octets of rows.
DEVICE void write_dbias(const dlattn_params &p, const backward_context &c, const u32 (*ds)[NT / 2][4], row_tile tile, int row, int key) {
    const dlattn_view &t = p.dbias;
    const int KEY_OCTETS = MT == 1 ? 2 : 4, ROW_OCTETS = 4 / KEY_OCTETS, lane = thread_anew() & 31, own = lane & 3;
    static_assert(!DBIAS || MT == 1 || MT % 2 == 0, "16 keys, or multiples of 32");
    const int first = tile.i0 + row + 8 * (own / KEY_OCTETS) + (lane >> 2), j = c.j0 + key + 8 * (own % KEY_OCTETS);
    i64 index = at(t, c.s.b, tile.h, first, j);
#pragma unroll
    for (int n = 0; n < NT; n += ROW_OCTETS) {
#pragma unroll
        for (int m = 0; m < MT * 2; m += KEY_OCTETS) {
            u32 x[4];
#pragma unroll
            for (int w = 0; w < 4; w++) {
                const int keys = m + w % KEY_OCTETS, rows = n + w / KEY_OCTETS;
                x[w] = transpose(ds[keys / 2][rows / 2][rows % 2 * 2 + keys % 2]);
            }
            transpose_quad(x, thread_anew());
            if (first + 8 * n < t.extent[2]) store_eight(t, index + 8 * m, j + 8 * m, make_uint4(x[0], x[1], x[2], x[3]));
        }
        index += 8 * ROW_OCTETS * t.stride[2];
    }
}

// Zeros in the block's columns of dbias, but for rows [first, end), by the whole block.
DEVICE void blank_dbias(const dlattn_params &p, const backward_context &c, int first, int end) {
    const dlattn_view &t = p.dbias;
    const int heads = p.heads_per_group, j = c.j0 + (int)threadIdx.x % (BN / 8) * 8;
    if (j >= t.extent[3]) return;
    for (int h = c.g * heads; h < (c.g + 1) * heads; h++)
        for (int i = (int)threadIdx.x / (BN / 8); i < t.extent[2]; i += THREADS / (BN / 8)) {
            if (i >= first && i < end) i += (end - i + THREADS / (BN / 8) - 1) / (THREADS / (BN / 8)) * (THREADS / (BN / 8));
            if (i < t.extent[2]) store_eight(t, at(t, c.s.b, h, i, j), j, make_uint4(0, 0, 0, 0));
        }
}

#endif
