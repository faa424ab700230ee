/* pairs.c: how many scores of a problem are not masked: what a rate of operations is counted from. */
#include "pairs.h"

#include "oracle.h"

__extension__ typedef __int128 wide;

static wide floor_div(wide a, wide b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

/* Visible keys of row i of sequence b when every mask is an interval: the oracle's rules as limits of j. */
static int64_t interval_size(const dlattn_attention *a, const oracle_side *keys, int64_t b, int64_t i) {
    wide row = i + (wide)oracle_distance(a, b, 0, 0), low = 0, high = keys->length - 1; /* j = j' - k_start */
    wide shift = !(a->flags & DLATTN_POSITIONS) ? 0 : a->k_starts ? tensor_get_int(a->k_starts, b) : a->k_start;
    if (shift < 0) low = -shift;
    if (a->flags & DLATTN_CAUSAL && row < high) high = row;
    if (a->flags & DLATTN_WINDOW && a->window_left >= 0 && row - a->window_left > low) low = row - a->window_left;
    if (a->flags & DLATTN_WINDOW && a->window_right >= 0 && row + a->window_right < high) high = row + a->window_right;
    if (a->flags & DLATTN_BLOCK_WINDOW) {
        wide block = floor_div(row + shift, a->block_size), size = a->block_size;
        wide first = (block - a->block_count + 1) * size - shift, last = (block + 1) * size - 1 - shift;
        if (first > low) low = first;
        if (last < high) high = last;
    }
    return high < low ? 0 : (int64_t)(high - low + 1);
}

double count_pairs(const dlattn_attention *a) {
    oracle_side queries, keys;
    double pairs = 0;
    oracle_sides(a, 0, &queries, &keys);
    for (int64_t b = 0, batch = queries.count; b < batch; b++) {
        oracle_sides(a, b, &queries, &keys);
        int intervals = !a->mask && !a->q_segments, heads_differ = a->mask != NULL;
        for (int64_t h = 0; h < (heads_differ ? queries.heads : 1); h++)
            for (int64_t i = 0; i < queries.length; i++) {
                int64_t row = 0;
                if (intervals) row = interval_size(a, &keys, b, i);
                else
                    for (int64_t j = 0; j < keys.length; j++) row += oracle_visible(a, b, h, i, j);
                pairs += (double)row * (double)(heads_differ ? 1 : queries.heads);
            }
    }
    return pairs;
}
