/* estimate.c: about how long a forward kernel takes, so that the fastest of those that serve a problem is chosen.
 *
 *     block = cost of a tile of rows + cut ends + tiles of keys * cost of one
 *     time  = start + (rounds of blocks * block + joining of pieces) beside the time that memory takes
 *
 * The costs are few and were fitted to the times of a sweep (costs.h). It only has to put kernels into the right order. */
#include "estimate.h"

#include <stdlib.h>

#include "params.h"

/* Of a row of the table, found by what names it. Times in microseconds. */
typedef struct row_cost {
    char family; /* 8: sm80, 9: sm90 */
    int32_t rows, keys, warps, stages, residents;
    double start;          /* from the launch to the first products, and back */
    double tile;           /* of a tile of rows, whatever its keys */
    double product, score; /* of a million scores: for 256 columns of q and v together; for the score itself */
} row_cost;

/* Of a family. */
typedef struct family_cost {
    double end;             /* of 100,000 scores at a cut end */
    double softcap;         /* what it adds to the cost of a tile of keys, as a fraction */
    double alone;           /* of the time with a second block beside it */
    double tail;            /* what the longest blocks add where they differ, in blocks */
    double bytes_per_us;    /* of memory that is read and written */
    bool overlaps;          /* does the kernel compute while it waits for memory? */
    double join, join_each; /* of pieces, and of each */
    double partial_per_us;  /* bytes of their partial results */
} family_cost;

#include "costs.h"

/* ---- what is to be done --------------------------------------------------------------------------------------------- */

static double larger(double a, double b) { return a > b ? a : b; }
static double least(double a, double b) { return a < b ? a : b; }
/* floor and ceil of what is not negative and fits: calls into libm would take longer than all else. */
static double whole(double a) { return (double)(int64_t)a; }
static double whole_up(double a) { return a > whole(a) ? whole(a) + 1 : whole(a); }
static double root(double a) { return __builtin_sqrt(a); }

/* Row i stands at key i + this; positions beyond any key are as good as the nearest ones. */
static double distance(const problem *p) {
    const double most = (double)p->N + (double)p->M;
    double d = (double)(p->N - p->M);
    if (p->flags & DLATTN_POSITIONS && !p->q_starts.dtype && !p->k_starts.dtype) d = (double)p->q_start - (double)p->k_start;
    else if (p->flags & DLATTN_TOP_LEFT) d = 0;
    return larger(-most, least(most, d));
}

/* Tiles of keys that rows of a window meet, in the middle: exactly where a tile of rows begins with one of keys. */
static double window_tiles(const variant *v, const problem *p, int64_t rows, double keys) {
    if (p->flags & DLATTN_BLOCK_WINDOW && p->block_size % v->keys == 0) return whole_up(keys / v->keys);
    if (p->flags & DLATTN_BLOCK_WINDOW || rows % v->keys != 0) return (keys - 1) / v->keys + 1;
    const int64_t first = (int64_t)distance(p) - p->window_left, last = first + (int64_t)keys - 1; /* by any multiple */
    const int64_t before = (-first / v->keys + 1) * v->keys;
    const int64_t shift = first < 0 ? before : 0;
    return (double)((last + shift) / v->keys - (first + shift) / v->keys + 1);
}

/* Tiles of keys that a tile of `rows` rows meets: in the middle, at most; and the ends that a mask cuts. */
static void count_tiles(workload *w, const variant *v, const problem *p, int64_t rows) {
    const double N = (double)p->N, all = whole_up(N / v->keys), keys = dlattn__window_keys(p, rows);
    const bool windowed = keys < N;
    w->tiles = w->most_tiles = windowed ? least(all, window_tiles(v, p, rows, keys)) : all;
    w->ends = windowed;
    if (!(p->flags & DLATTN_CAUSAL) || p->M < 2) return;
    /* The diagonal: rows see `low` to `high` keys, as far as the window lets them. Half a tile lies beyond it. */
    const double low = least(N, larger(0, distance(p) + (double)rows)), high = least(N, larger(low, distance(p) + (double)p->M));
    const double middle = high <= keys ? (low + high) / 2
                          : low < keys ? ((low + keys) / 2 * (keys - low) + keys * (high - keys)) / (high - low)
                                       : keys;
    w->ends += 1;
    if (high <= keys) w->most_tiles = least(all, high / v->keys + 0.5);
    if (middle < keys || !windowed) w->tiles = least(w->most_tiles, middle / v->keys + 0.5);
}

workload dlattn__workload(const variant *v, const problem *p, const specialisation *how, const cuda_device *device) {
    const tiling t = dlattn__tile(v, p, how, device);
    const int64_t group = t.packed ? p->H / p->G : 1, rows = (v->rows + group - 1) / group;
    const double width = 2 * (double)(p->D + p->E), seen = dlattn__window_keys(p, p->M);
    workload w = {.splits = (double)t.splits, .blocks = (double)t.busy * (double)t.splits};
    w.shared = v->warps == 4; /* two such blocks fit on a multiprocessor of Hopper */
    w.slots = device->multiprocessors * (w.shared ? 2.0 : 1.0);
    count_tiles(&w, v, p, rows < p->M ? rows : p->M);
    if (t.splits > 1) w.tiles = w.most_tiles = whole_up(w.tiles / w.splits);
    if (t.splits > 1) w.partial_bytes = 4 * w.splits * (double)(p->B * p->H * p->M * (p->E + 1));
    w.bytes = width * ((double)(p->B * p->G) * seen + (double)(p->B * p->H * p->M));
    w.width = (double)(dlattn__padded_head(v, p->D) + dlattn__padded_head(v, p->E));
    return w;
}

/* ---- how long that takes -------------------------------------------------------------------------------------------- */

/* How much two tiles differ, warps and stages the least; 0: not at all. */
static int32_t unlikeness(const row_cost *c, const variant *v) {
    int32_t differ = 8 * abs(c->rows - v->rows) + 8 * abs(c->keys - v->keys) + 8 * abs(c->warps - v->warps);
    return differ + 4 * abs(c->residents - v->residents) + abs(c->stages - (int32_t)dlattn__variant_stages(v));
}

/* A row that no sweep has seen costs as the one of its family that is most like it. */
static const row_cost *cost_of(const variant *v, bool *known) {
    const char family = v->tensor_maps ? 9 : 8;
    const row_cost *like = NULL;
    int32_t least_unlike = 0;
    for (size_t n = 0; n < sizeof row_costs / sizeof row_costs[0]; n++) {
        const row_cost *c = &row_costs[n];
        if (c->family != family) continue;
        const int32_t unlike = unlikeness(c, v);
        if (!like || unlike < least_unlike) like = c, least_unlike = unlike;
        if (unlike == 0) break;
    }
    *known = least_unlike == 0;
    return like;
}

/* Rounds in which the blocks run. Alone on its multiprocessor a block is faster. */
static double count_rounds(const workload *w, double alone) {
    const double full = whole(w->blocks / w->slots), rest = w->blocks - full * w->slots;
    if (rest <= 0) return full;
    return full + (w->shared && 2 * rest <= w->slots ? alone : 1);
}

/* All blocks, where their times differ: the device takes the next one whenever one has ended. */
static double unequal_blocks(const workload *w, const family_cost *f, double middle, double most) {
    if (w->blocks <= w->slots) return most * (w->shared && 2 * w->blocks <= w->slots ? f->alone : 1);
    return larger(most, w->blocks * middle / w->slots + f->tail * most);
}

double dlattn__estimate(const variant *v, const problem *p, const specialisation *how, const cuda_device *device) {
    const workload w = dlattn__workload(v, p, how, device);
    bool known;
    const row_cost *c = cost_of(v, &known);
    const family_cost *f = &family_costs[v->tensor_maps];
    const double scores = (double)v->rows * v->keys * 1e-6;
    double tile = scores * (c->product * w.width / 256 + c->score);
    if (how->features & DLATTN_FEATURE_SOFTCAP) tile *= 1 + f->softcap;
    const double fixed = c->tile + f->end * w.ends * v->rows * (64 + v->keys) * 1e-5;
    const double middle = fixed + tile * w.tiles, most = fixed + tile * w.most_tiles;
    double time = w.most_tiles - w.tiles <= 0.15 * w.most_tiles ? count_rounds(&w, f->alone) * middle : unequal_blocks(&w, f, middle, most);
    if (w.splits > 1) time += f->join + f->join_each * w.splits + w.partial_bytes / f->partial_per_us;
    const double memory = w.bytes / f->bytes_per_us;
    time = c->start + (f->overlaps ? larger(time, memory) : root(time * time + memory * memory));
    return known ? time : 1.02 * time; /* of two that seem alike the one that was timed */
}
