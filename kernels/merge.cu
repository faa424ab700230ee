// merge.cu: dlattn_merge on the device: joins results of a problem that the caller split over its keys.
//
// Entry merge: 256 threads, grid ceil(M / 8) * H * B, no options; its parameter is a dlattn_merge_params. One warp per
// row. A part with lse -inf is left out, whatever its out holds. The result may overwrite a part in place, element by
// element: more than DLATTN_MERGE_PARTS parts are joined by merging the first ones, and then that result with the next
// ones (which rounds once more for each further launch when out has 16 bits, and needs the merged lse).
#include "shared/merge_params.h"
#include "warp.cuh"

#define ROWS_PER_BLOCK 8
#define COLUMNS (256 / LANES) // of the largest E, per lane

DEVICE float part_lse(const dlattn_merge_part &part, int b, int h, int i) {
    return ((const float *)part.lse)[b * part.lse_stride[0] + h * part.lse_stride[1] + i * part.lse_stride[2]];
}

// out[c] += weight * the part's element lane + 32 c.
DEVICE void add_part(float (&out)[COLUMNS], const dlattn_merge_part &part, int b, int h, int i, int lane, int E,
                     float weight) {
    const i64 row = b * part.out_stride[0] + i * part.out_stride[1] + h * part.out_stride[2];
    dlattn_view t = {part.out, {0, 0, 0, 0}, {0, 0, 0, 0}, part.out_dtype, 0};
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
        const int e = lane + c * LANES;
        if (e < E) out[c] = fmaf(weight, load_float(t, row + e * part.out_stride[3]), out[c]);
    }
}

extern "C" __global__ void __launch_bounds__(256) merge(const __grid_constant__ dlattn_merge_params p) {
    const int lane = (int)threadIdx.x % LANES, row_blocks = (p.M + ROWS_PER_BLOCK - 1) / ROWS_PER_BLOCK;
    const int i = (int)(blockIdx.x % row_blocks) * ROWS_PER_BLOCK + (int)threadIdx.x / LANES;
    const int h = (int)(blockIdx.x / row_blocks % p.H), b = (int)(blockIdx.x / row_blocks / p.H);
    if (i >= p.M) return;

    float top = -INFINITE;
    for (int n = lane; n < p.count; n += LANES) top = fmaxf(top, part_lse(p.parts[n], b, h, i));
    top = warp_largest(top);
    double sum = 0.0; // of exp(lse - top); fmaxf dropped NaN: it is here again
    for (int n = lane; n < p.count; n += LANES) {
        const float lse = part_lse(p.parts[n], b, h, i);
        if (lse != -INFINITE) sum += exp((double)lse - top);
    }
    sum = warp_sum(sum);

    const float inverse = sum == 0.0 ? 0.0f : (float)(1.0 / sum);
    float out[COLUMNS] = {};
    for (int n = 0; n < p.count; n++) {
        const float lse = part_lse(p.parts[n], b, h, i);
        if (lse != -INFINITE) add_part(out, p.parts[n], b, h, i, lane, p.E, exp2f((lse - top) * LOG2_E) * inverse);
    }
    const i64 out_at = at(p.out, b, i, h);
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
        const int e = lane + c * LANES;
        if (e < p.E) store_float(p.out, out_at + e * p.out.stride[3], out[c]);
    }
    __syncwarp(); // the merged lse may be a part's
    if (lane == 0 && p.lse.data)
        store_float(p.lse, at(p.lse, b, h, i), sum == 0.0 ? -INFINITE : (float)(top + log(sum)));
}
