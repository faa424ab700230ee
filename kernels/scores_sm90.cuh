// scores_sm90.cuh: what forward_sm90 adds to a consumer's tile of scores, a dense bias and ALiBi, and what dropout takes from
// its weights.
//
// A tile s[NT][4] is 16 rows of one warp by 8 NT keys, in the fragments of mma.cuh; `row` is the warp's first row, j0 the
// tile's first key.
#ifndef DLATTN_SCORES_SM90_CUH
#define DLATTN_SCORES_SM90_CUH

#include "score_tiles.cuh"
#include "wgmma_sm90.cuh"

// s = scale s + bias. tile: this warp's rows of it, in panels of 64 keys by 64 rows as the copy engine writes them. ldmatrix
// hands each thread the pairs that belong to its scores, four blocks of 8 x 8 at once and no bank twice: an eighth of the
// instructions of single loads.
template <int NT>
DEVICE void add_bias(float (&s)[NT][4], u32 tile, float scale) {
    const u32 lane = lane_by_rows<PANEL>();
#pragma unroll
    for (int k = 0; k < NT / 2; k++) {
        u32 pairs[4];
        load_fragment(pairs, fragment_address<PANEL>(tile + k / 4 * (64 * PANEL_ROW), lane, 0, k % 4 * 16));
#pragma unroll
        for (int x = 0; x < 4; x++) {
            const u32 both = pairs[x];
            float low = float_of_element((u16)both), high = float_of_element((u16)(both >> 16));
            if (TYPE == DLATTN_TYPE_BF16) {
                low = __uint_as_float(both << 16);
                high = __uint_as_float(both & 0xffff0000u);
            }
            float *const to = s[2 * k + x / 2] + x % 2 * 2;
            to[0] = fmaf(to[0], scale, low);
            to[1] = fmaf(to[1], scale, high);
        }
    }
}

// s += -slope |i' - j'|, less `offset`, which belongs to all keys of a row alike and is left to weigh_scores: where the tile lies
// on one side of the diagonal the distance is linear in the key, and one multiply-add by a constant does a score. by: the slope
// in units of s; offset is in natural ones. first: the distance of this thread's first score, exact where floats count. Keys count from
// the tile's middle: the sums are rounded by their size, so that steep slopes cost less of the scores' last bits.
template <int NT>
DEVICE void add_slopes(float (&s)[NT][4], float (&offset)[2], const score_context &context, float by, int row, int j0) {
    const i64 distance = dlattn_add_sat(context.distance, row - j0);
    const float first = (float)distance + (float)(lane_id() / 4 - lane_id() % 4 * 2);
    const bool above = distance <= -15;
    const int MIDDLE = 4 * NT;
    if (above || distance >= 8 * NT - 1) {
        const float slope = above ? context.slope : -context.slope, step = above ? -by : by;
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) s[n][c] = fmaf(step, (float)(KEY_OF(n, c) - MIDDLE), s[n][c]);
        offset[0] = slope * (first - (float)MIDDLE);
        offset[1] = slope * (first + (float)(8 - MIDDLE));
    } else {
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) s[n][c] = fmaf(-by, fabsf(first + (float)(ROW_OF(0, c) - KEY_OF(n, c))), s[n][c]);
        offset[0] = offset[1] = 0.0f;
    }
}

// Dropped weights become 0; kept ones are left to be scaled with their row. row is a multiple of 16 and j0 of 32: then the four
// words of a Philox call are this thread's 16 elements of a 16 x 32 block, in order, and four bytes are compared at once: bit 7
// of each byte of the result tells.
DEVICE u32 kept_bytes(u32 x, int threshold) {
    const u32 all = (u32)threshold * 0x01010101u, low = all & 0x7f7f7f7fu;
    return (x & ~all) | (~(x ^ all) & ((x | 0x80808080u) - low));
}

// Bytes of 255 where the picked byte of x has bit 7, else 0. which: four times the byte, plus 8.
template <u32 WHICH>
DEVICE u32 spread_signs(u32 x) {
    u32 mask;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(mask) : "r"(x), "n"(WHICH));
    return mask;
}

// kept: bit 7 of each byte, of a tile's elements.
template <int NT>
DEVICE void find_kept(u32 (&kept)[NT], const dlattn_philox_key &key, int threshold, u32 head, int row, int j0) {
#pragma unroll
    for (int block = 0; block < NT / 4; block++) {
        u32 words[4] = {(u32)(j0 + 32 * block + lane_id()), (u32)row / 16, head, key.offset_low};
        dlattn_philox(words, key.k0, key.k1);
#pragma unroll
        for (int n = 0; n < 4; n++) kept[4 * block + n] = kept_bytes(words[n], threshold);
    }
}

// Of weights as operands: two at a time, half the instructions of single scores.
template <int NT>
DEVICE void drop_weights(u32 (&weights)[NT / 2][4], const u32 (&kept)[NT]) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
        weights[n / 2][n % 2 * 2] &= spread_signs<0x9988>(kept[n]);
        weights[n / 2][n % 2 * 2 + 1] &= spread_signs<0xbbaa>(kept[n]);
    }
}

// Of scores that are weights already.
template <int NT>
DEVICE void drop_scores(float (&s)[NT][4], const u32 (&kept)[NT]) {
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            if (!(kept[n] & 0x80u << 8 * c)) s[n][c] = 0.0f;
}

#endif
