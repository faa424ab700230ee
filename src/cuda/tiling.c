/* tiling.c: how a row of the table cuts a forward into tiles of rows and pieces of keys. */
#include "tiling.h"

#include "params.h"

enum {
    MAX_SPLITS = 64,
    SPLIT_KEYS = 256,        /* fewer keys are not worth a part of their own */
    FEWEST_SPLIT_KEYS = 1024 /* fewer keys take less time than joining parts */
};

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static double least(double a, double b) { return a < b ? a : b; }

/* Few query rows on shared keys: the heads of a group go into one tile, which then is less empty. */
static bool should_pack(const variant *v, const problem *p, const specialisation *how) {
    const uint32_t packable = DLATTN_FEATURE_INTERVAL | DLATTN_FEATURE_SOFTCAP;
    return v->tuned && !v->tensor_maps && p->H > p->G && p->M < v->rows && !(how->features & ~packable);
}

static int64_t common_divisor(int64_t a, int64_t b) {
    while (b) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* In double, since a window's bounds may be INT64_MAX. Rows of a tile that begins anywhere at a multiple of their number meet
 * (rows - gcd) / size blocks beyond the first one, in the middle. */
double dlattn__window_keys(const problem *p, int64_t rows) {
    double keys = (double)p->N;
    const bool bounded = p->window_left >= 0 && (p->flags & DLATTN_CAUSAL || p->window_right >= 0);
    if (p->flags & DLATTN_WINDOW && bounded)
        keys = least(keys, (double)p->window_left + (p->flags & DLATTN_CAUSAL ? 0 : (double)p->window_right) + (double)rows);
    if (p->flags & DLATTN_BLOCK_WINDOW)
        keys = least(keys, (double)p->block_size * (double)p->block_count + (double)(rows - common_divisor(rows, p->block_size)));
    return keys;
}

/* So many that every multiprocessor has a block, where the tiles alone are too few. */
static int64_t choose_splits(const variant *v, const problem *p, int64_t tiles, const cuda_device *device) {
    const int64_t slots = (int64_t)device->multiprocessors * v->residents, keys = (int64_t)dlattn__window_keys(p, p->M);
    if (v->tensor_maps || tiles == 0 || 2 * tiles > slots || keys < FEWEST_SPLIT_KEYS) return 1;
    const int64_t splits = smaller(smaller(slots / tiles, keys / SPLIT_KEYS), MAX_SPLITS);
    return splits < 2 ? 1 : splits;
}

tiling dlattn__tile(const variant *v, const problem *p, const specialisation *how, const cuda_device *device) {
    tiling t = {.packed = should_pack(v, p, how)};
    const int64_t group = t.packed ? p->H / p->G : 1;
    t.heads = p->H / group;
    t.tiles = divide_up(p->M * group, v->rows);
    t.busy = p->B * t.tiles;
    if (p->packed_q) t.busy = smaller(t.busy, divide_up(p->q.extent[1] * group, v->rows) + p->B);
    t.busy *= t.heads;
    t.splits = choose_splits(v, p, t.busy, device);
    return t;
}
