// generic_forward.cu: attention in plain fused multiply-adds, for any element type, head size, strides and mask.
//
// Entry forward_generic: 256 threads, grid row_tiles * splits * H * B, no dynamic shared memory. Options: TYPE
// (required), HEAD = 64, 128 or 256, FEATURES, TF32, PAGED. Tiles of 64 rows and 64 keys.
//
// One block computes 64 rows of one (sequence, head) over all their keys, or with splits > 1 over one piece of them;
// then it writes partial_out (normalised) and partial_lse, which the kernel `combine` joins. Everything is float32.
#include "generic_tile.cuh"

// The running softmax of the thread's rows. `sum` is the thread's own columns' part until the end.
typedef struct softmax_rows {
    float top[ROWS_OWNED], sum[ROWS_OWNED];
} softmax_rows;

// Below any finite score and finite itself, so that a score of -inf gives exp(-inf) = 0 and not NaN.
#define SCORE_FLOOR (-3.402823466e38f)

DEVICE float exp_of(float x) { return exp2f(x * LOG2_E); }

// The thread's own products q.k become scores, -inf where hidden.
DEVICE void finish_scores(tile_memory *t, const dlattn_params &p, const score_context &c, int i0, int j0) {
#pragma unroll 1
    for (int n = 0; n < 16; n++) {
        const int r = own_row(n), i = i0 + r, j = j0 + own_column(n);
        float *score = t->scores + own_place(n), derivative;
        const bool visible = t->lo[r] <= j && j < t->hi[r] && element_visible(p, c, i, j);
        *score = visible ? score_of(p, c, *score, i, j, &derivative) : -INFINITE;
    }
}

// Scores become exp(score - top); what was summed under the old top is scaled to the new one. fmaxf drops NaN, which
// then lives on in the sum.
DEVICE void exponentiate(tile_memory *t, softmax_rows *rows, fragment (&out)[WIDE_SLICES]) {
    float top[ROWS_OWNED];
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++) {
        top[m] = rows->top[m];
#pragma unroll
        for (int k = 0; k < ROW_LENGTH; k++) top[m] = fmaxf(top[m], t->scores[own_place(own_index(m, k))]);
    }
    largest_of_rows(top, t);
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++) {
        const float factor = exp_of(rows->top[m] - top[m]);
        rows->top[m] = top[m];
        rows->sum[m] *= factor;
#pragma unroll
        for (int k = 0; k < ROW_LENGTH; k++) {
            float *s = t->scores + own_place(own_index(m, k));
            const float e = exp_of(*s - top[m]);
            *s = rounded(e);
            rows->sum[m] += e;
        }
#pragma unroll
        for (int k = 0; k < ROW_LENGTH * WIDE_SLICES; k++)
            out[k / ROW_LENGTH][own_index(m, k % ROW_LENGTH)] *= factor;
    }
}

// Dropped probabilities become 0; the kept ones are scaled with the whole row at the end.
DEVICE void drop(tile_memory *t, const dlattn_params &p, const dlattn_philox_key &key, const sequence &s, int h, int i0,
                 int j0) {
#pragma unroll 1
    for (int n = 0; n < 16; n++)
        if (dropout_factor(p, key, s, h, i0 + own_row(n), j0 + own_column(n)) == 0.0f) t->scores[own_place(n)] = 0.0f;
}

// From the running sums to row i's out and lse. The sink is one more score that has no value.
DEVICE void finish_row(const dlattn_params &p, const sequence &s, int h, int i, int split, float top, float sum,
                       const fragment (&out)[WIDE_SLICES], int m) {
    float factor = sum == 0.0f ? 0.0f : 1.0f; // no visible key: 0, whatever was multiplied by 0
    if (p.splits == 1 && p.sinks.data) {
        const float sink = load_float(p.sinks, at(p.sinks, h)), both = fmaxf(top, sink);
        factor *= exp_of(top - both);
        sum = sum * exp_of(top - both) + exp_of(sink - both);
        top = both;
    }
    const bool empty = sum == 0.0f;
    const float lse = empty ? -INFINITE : top + logf(sum);
    factor = empty ? 0.0f : factor / sum * p.dropout_scale;
    if (p.splits > 1) {
        const i64 row = split * p.row_count + row_of(p, s, h, i);
        dlattn_view part = {p.partial_out, {0, 0, 0, 1}, {0, 0, 0, 0}, DLATTN_TYPE_F32, 0};
        if (!empty) store_row(part, row * p.E, out, m, factor, factor == 0.0f, p.E); // combine does not read the others
        if (speaks_for_row()) ((float *)p.partial_lse)[row] = lse;
        return;
    }
    store_row(p.out, at(p.out, s.b, s.q_begin + i, h), out, m, factor, factor == 0.0f, p.E);
    if (speaks_for_row() && p.lse.data) store_float(p.lse, at(p.lse, s.b, h, s.q_begin + i), lse);
}

extern "C" __global__ void __launch_bounds__(THREADS, HEAD > 128 ? 1 : 2)
    forward_generic(const __grid_constant__ dlattn_params p) {
    __shared__ __align__(16) tile_memory memory;
    tile_memory *t = &memory;
    const block_place place = place_of(p, p.row_tiles, p.B * p.H, p.splits, true);
    const int h = place.head % p.H, g = h / p.heads_per_group, i0 = place.tile * TILE;
    const sequence s = read_sequence(p, place.head / p.H);
    if (i0 >= s.M) return;

    const dlattn_mask mask = mask_of(p, s);
    const score_context c = score_context_of(p, s, h);
    dlattn_philox_key key = {0, 0, 0};
    if (HAS(p, DLATTN_FEATURE_DROPOUT)) key = dropout_key(p);
    const limits seen = find_limits(t, p, s, mask, i0);
    const int first = seen.lo / TILE, tiles = (seen.hi + TILE - 1) / TILE - first;
    const int from = first + (int)((i64)tiles * place.split / p.splits);
    const int to = first + (int)((i64)tiles * (place.split + 1) / p.splits);
    const tile_source q = source_of(p.q, s.b, s.q_begin + i0, h, s.M - i0, p.D);

    fragment scores, out[WIDE_SLICES];
    softmax_rows state;
    clear(out);
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++) {
        state.top[m] = SCORE_FLOOR;
        state.sum[m] = 0.0f;
    }
    for (int tile = from; tile < to; tile++) {
        const int j0 = tile * TILE;
        dot_tiles(scores, t, q, keys_of(p, p.k, s, j0, g, p.D));
#pragma unroll
        for (int n = 0; n < 16; n++) t->scores[own_place(n)] = scores[n]; // free since dot_tiles has synchronised
        finish_scores(t, p, c, i0, j0);
        exponentiate(t, &state, out);
        if (HAS(p, DLATTN_FEATURE_DROPOUT)) drop(t, p, key, s, h, i0, j0);
        add_rows(out, t, keys_of(p, p.v, s, j0, g, p.E));
    }
    sums_of_rows(state.sum, t);
#pragma unroll
    for (int m = 0; m < ROWS_OWNED; m++) {
        const int i = i0 + own_row(own_index(m, 0));
        if (i < s.M) finish_row(p, s, h, i, place.split, state.top[m], state.sum[m], out, m);
    }
}
