// dbias_generic.cu: the gradient of the bias, summed over whatever the bias was broadcast over.
//
// Entry dbias_generic: 256 threads, grid ceil(extent[2] / 64) * ceil(extent[3] / 64) * extent[1] * extent[0] of dbias, no
// dynamic shared memory. Options: TYPE (required), FEATURES. It reads delta and lse2 and writes every element of dbias, zeros
// past the sequences included.
//
// A block owns a tile of dbias and loops over the sequences, heads, row tiles and key tiles that broadcast into it, in this
// order: no atomics, and the same bits in every run. With i and j both broadcast there are few blocks, and it is slow.
#undef HEAD
#define HEAD 64 // no accumulator depends on it
#include "generic_gradient.cuh"

// The indices of one dimension that broadcast into a block: its own, or all `count` of them when the extent is 1.
typedef struct index_range {
    int from, to;
} index_range;

DEVICE index_range indices(int extent, int own, int count) {
    index_range r = {own, own + 1};
    if (extent == 1) r = {0, count};
    return r;
}

DEVICE int tiles_of(int size) { return (size + TILE - 1) / TILE; }

// One (sequence, head) and its tiles of rows and keys.
DEVICE void add_head(fragment &sums, tile_memory *t, const dlattn_params &p, const sequence &s, int h, index_range rows,
                     index_range keys) {
    const dlattn_mask mask = mask_of(p, s);
    const gradient_context c = gradient_context_of(p, s, h);
    for (int i = rows.from; i < rows.to && i * TILE < s.M; i++) {
        const limits seen = find_limits(t, p, s, mask, i * TILE);
        const int first = seen.lo / TILE, last = tiles_of(seen.hi);
        for (int j = keys.from > first ? keys.from : first; j < keys.to && j < last; j++) {
            fragment gradients;
            gradient_tile<false>(gradients, t, p, c, i * TILE, j * TILE);
#pragma unroll
            for (int n = 0; n < 16; n++) sums[n / 4][n % 4] += gradients[n / 4][n % 4];
        }
    }
}

// The tile's sum over its rows, its columns or both, for dimensions of extent 1.
DEVICE float reduced(const tile_memory *t, bool over_rows, bool over_columns, int n) {
    float sum = 0.0f;
    for (int r = 0; r < (over_rows ? TILE : 1); r++)
        for (int c = 0; c < (over_columns ? TILE : 1); c++)
            sum += t->scores[(over_rows ? r : n) * SCORE_STRIDE + (over_columns ? c : n)];
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) dbias_generic(const __grid_constant__ dlattn_params p) {
    __shared__ __align__(16) tile_memory memory;
    tile_memory *t = &memory;
    const int *extent = p.dbias.extent, row_tiles = tiles_of(extent[2]), key_tiles = tiles_of(extent[3]);
    u32 x = blockIdx.x;
    const int j0 = (int)(x % key_tiles) * TILE, i0 = (int)(x / key_tiles % row_tiles) * TILE;
    x = x / key_tiles / row_tiles;
    const int b = (int)(x / extent[1]), h = (int)(x % extent[1]);
    const index_range batch = indices(extent[0], b, p.B), heads = indices(extent[1], h, p.H);
    const index_range rows = indices(extent[2], i0 / TILE, tiles_of(p.M)), keys = indices(extent[3], j0 / TILE, tiles_of(p.N));

    fragment sums = {};
    for (int from_b = batch.from; from_b < batch.to; from_b++) {
        const sequence s = read_sequence(p, from_b);
        for (int from_h = heads.from; from_h < heads.to; from_h++) add_head(sums, t, p, s, from_h, rows, keys);
    }

    const bool over_rows = extent[2] == 1, over_columns = extent[3] == 1;
    const i64 start = at(p.dbias, b, h, i0, j0);
    share_scores(t, sums);
    __syncthreads();
    if (over_rows || over_columns) {
        const int n = (int)threadIdx.x, count = over_rows ? extent[3] - j0 : extent[2] - i0;
        if (n < TILE && n < count)
            store_float(p.dbias, start + n * p.dbias.stride[over_rows ? 3 : 2], reduced(t, over_rows, over_columns, n));
        return;
    }
    for (int n = (int)threadIdx.x; n < TILE * TILE; n += THREADS) {
        const int r = n / TILE, c = n % TILE;
        if (i0 + r < extent[2] && j0 + c < extent[3])
            store_float(p.dbias, start + r * p.dbias.stride[2] + c * p.dbias.stride[3], t->scores[r * SCORE_STRIDE + c]);
    }
}
