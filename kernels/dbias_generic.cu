// dbias_generic.cu: the gradient of the bias, summed over whatever the bias was broadcast over.
//
// Entry dbias_generic: 256 threads, grid ceil(extent[2] / 64) * ceil(extent[3] / 64) * extent[1] * extent[0] of dbias,
// times p.splits where that is above 1; no dynamic shared memory. Options: TYPE (required), FEATURES, TF32. It reads
// delta and lse2 and writes every element of dbias, zeros past the sequences included.
//
// A block owns a tile of dbias and loops over the sequences, heads, row tiles and key tiles that broadcast into it, in
// this order: no atomics, and the same bits in every run. With i or j broadcast that leaves few blocks with much to do.
// Then splits > 1 cuts each loop into so many pieces, whose sums go to partial_out, float [split][element of dbias,
// compact], and
//
// entry dbias_sum: 256 threads, grid ceil(elements / 256), adds them up in order and writes dbias.
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

// One row tile of (sequence, head) adds its tiles of keys.
DEVICE void add_row_tile(fragment &sums, tile_memory *t, const dlattn_params &p, const sequence &s, int h, int i0,
                         index_range keys) {
    const dlattn_mask mask = mask_of(p, s);
    const gradient_context c = gradient_context_of(p, s, h);
    const limits seen = find_limits(t, p, s, mask, i0);
    const int first = seen.lo / TILE, last = tiles_of(seen.hi);
    for (int j = keys.from > first ? keys.from : first; j < keys.to && j < last; j++) {
        fragment gradients;
        gradient_tile<false>(gradients, t, p, c, i0, j * TILE);
#pragma unroll
        for (int n = 0; n < 16; n++) sums[n] += gradients[n];
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

DEVICE i64 elements_of(const dlattn_view &t) { return (i64)t.extent[0] * t.extent[1] * t.extent[2] * t.extent[3]; }

// Where piece `split` of the sums goes.
DEVICE dlattn_view partial_view(const dlattn_params &p, int split) {
    dlattn_view t = p.dbias;
    t.data = p.partial_out + (u64)(split * elements_of(t)) * sizeof(float);
    t.dtype = DLATTN_TYPE_F32;
    t.stride[3] = 1;
    for (int d = 3; d > 0; d--) t.stride[d - 1] = t.stride[d] * t.extent[d];
    return t;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) dbias_generic(const __grid_constant__ dlattn_params p) {
    __shared__ __align__(16) tile_memory memory;
    tile_memory *t = &memory;
    const int *extent = p.dbias.extent, row_tiles = tiles_of(extent[2]), key_tiles = tiles_of(extent[3]);
    u32 x = blockIdx.x;
    const int j0 = (int)(x % key_tiles) * TILE, i0 = (int)(x / key_tiles % row_tiles) * TILE;
    x = x / key_tiles / row_tiles;
    const int h = (int)(x % extent[1]), b = (int)(x / extent[1] % extent[0]);
    const int split = (int)(x / extent[1] / extent[0]), splits = p.splits > 1 ? p.splits : 1;
    const index_range batch = indices(extent[0], b, p.B), heads = indices(extent[1], h, p.H);
    const index_range rows = indices(extent[2], i0 / TILE, tiles_of(p.M));
    const index_range keys = indices(extent[3], j0 / TILE, tiles_of(p.N));

    fragment sums = {};
    const int num_heads = heads.to - heads.from, num_rows = rows.to - rows.from;
    const i64 work = (i64)(batch.to - batch.from) * num_heads * num_rows;
    for (i64 n = work * split / splits; n < work * (split + 1) / splits; n++) {
        const sequence s = read_sequence(p, batch.from + (int)(n / num_rows / num_heads));
        const int first = (rows.from + (int)(n % num_rows)) * TILE;
        if (first < s.M) add_row_tile(sums, t, p, s, heads.from + (int)(n / num_rows % num_heads), first, keys);
    }

    const bool over_rows = extent[2] == 1, over_columns = extent[3] == 1;
    const dlattn_view to = splits > 1 ? partial_view(p, split) : p.dbias;
    const i64 start = at(to, b, h, i0, j0);
    __syncthreads();
    for (int n = 0; n < 16; n++) t->scores[own_place(n)] = sums[n];
    __syncthreads();
    if (over_rows || over_columns) {
        const int n = (int)threadIdx.x, count = over_rows ? extent[3] - j0 : extent[2] - i0;
        if (n < TILE && n < count)
            store_float(to, start + n * to.stride[over_rows ? 3 : 2], reduced(t, over_rows, over_columns, n));
        return;
    }
    for (int n = (int)threadIdx.x; n < TILE * TILE; n += THREADS) {
        const int r = n / TILE, c = n % TILE;
        if (i0 + r < extent[2] && j0 + c < extent[3])
            store_float(to, start + r * to.stride[2] + c * to.stride[3], t->scores[r * SCORE_STRIDE + c]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) dbias_sum(const __grid_constant__ dlattn_params p) {
    const dlattn_view &to = p.dbias;
    const i64 count = elements_of(to), n = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (n >= count) return;
    float sum = 0.0f;
    for (int split = 0; split < p.splits; split++) sum += ((const float *)p.partial_out)[split * count + n];
    const i64 j = n % to.extent[3], i = n / to.extent[3] % to.extent[2], x = n / to.extent[3] / to.extent[2];
    store_float(to, at(to, x / to.extent[1], x % to.extent[1], i, j), sum);
}
