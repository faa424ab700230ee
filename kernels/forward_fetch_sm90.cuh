// forward_fetch_sm90.cuh: which tiles of rows a block of forward_sm90 computes, which keys they meet, and the producer that
// fetches all that.
//
// Part of forward_sm90.cu: uses its options and its map of shared memory.
#ifndef DLATTN_FORWARD_FETCH_SM90_CUH
#define DLATTN_FORWARD_FETCH_SM90_CUH

#include "forward_keys_sm80.cuh"
#include "tma_sm90.cuh"

// With three consumers fewer registers are left for each; both sums are what a multiprocessor has.
#define PRODUCER_REGISTERS (CONSUMERS == 3 ? 32 : 40)
#define CONSUMER_REGISTERS (CONSUMERS == 3 ? 160 : 232)

// Work ------------------------------------------------------------------------------------------------------------------

DEVICE u32 tile_count(const dlattn_params &p) { return (u32)p.row_tiles * (u32)p.H * (u32)p.B; }

// Those that fit, the heads of a group sharing keys; but enough that all multiprocessors have tiles of about one length.
DEVICE u32 heads_together(const dlattn_params &p, u32 tiles, int fit) {
    return (u32)larger(fit * p.heads_per_group, 256 / tiles + 1);
}

// Tiles of keys that some row of [row0, row0 + rows) sees, and those that all rows see wholly: [first, last) each.
typedef struct tile_span {
    int first, last, whole_first, whole_last;
} tile_span;

DEVICE tile_span span_of(const dlattn_params &p, const sequence &s, int row0, int rows) {
    tile_span span = {0, (s.N + BN - 1) / BN, 0, s.N / BN};
    if (INTERVAL) { // neither end of a row's interval falls from row to row
        const dlattn_mask mask = mask_of(p, s);
        const dlattn_interval low = dlattn_mask_ends(&mask, row0);
        const dlattn_interval high = dlattn_mask_ends(&mask, smaller(row0 + rows, s.M) - 1);
        span.last = high.hi > 0 ? ((int)high.hi + BN - 1) / BN : 0;
        span.first = smaller(low.lo < s.N ? (int)low.lo / BN : s.N / BN, span.last);
        span.whole_last = low.hi > 0 ? (int)low.hi / BN : 0;
        span.whole_first = high.lo < s.N ? ((int)high.lo + BN - 1) / BN : span.last;
    }
    return span;
}

// A tile of rows (tile_count: there is no more) and its tiles of keys reach the consumers through two places in shared
// memory, filled and emptied in turns.
typedef struct work {
    u32 number;
    int first, last;
} work;

DEVICE void post_work(u32 base, int turn, const work &w) {
    const u32 place = turn & 1, lap = turn >> 1 & 1;
    barrier_wait(base + WORK_EMPTY(place), lap ^ 1u);
    if (lane_id() == 0) {
        store_shared(base + WORK_AT(place), make_uint4(w.number, (u32)w.first, (u32)w.last, 0));
        barrier_arrive(base + WORK_FULL(place));
    }
}

DEVICE work receive_work(u32 base, int turn) {
    const u32 place = turn & 1, lap = turn >> 1 & 1;
    barrier_wait(base + WORK_FULL(place), lap);
    const uint4 x = load_shared(base + WORK_AT(place));
    __syncwarp();
    if (lane_id() == 0) barrier_arrive(base + WORK_EMPTY(place));
    const work w = {(u32)uniform((int)x.x), uniform((int)x.y), uniform((int)x.z)};
    return w;
}

// The tile after this one, asked for early. With a counter the first block that is done takes the next one.
DEVICE u32 next_tile(const dlattn_params &p, u32 number) {
    if (!p.next_tile) return number + gridDim.x;
    return gridDim.x + (lane_id() == 0 ? atomicAdd((u32 *)p.next_tile, 1u) : 0u);
}

// The producer ----------------------------------------------------------------------------------------------------------

// Has the tensor tokens behind this sequence's keys?
DEVICE bool tokens_follow(const dlattn_params &p, const sequence &s) { return s.k_begin + s.N < p.tokens_k; }

// Rows of a tensor to panels of shared memory.
template <int ROWS, int COLS>
DEVICE void fetch_rows(u32 to, const tensor_map *map, const dlattn_view &view, i64 row, int head, int b, u32 barrier) {
    const int batch = view.stride[0] ? b : 0; // a repeated dimension has one place
    if (view.stride[2] == 0) head = 0;
    barrier_expect(barrier, ROWS * COLS * 2);
#pragma unroll
    for (int column = 0; column < COLS; column += PANEL)
        fetch_box(to + column / PANEL * (ROWS * PANEL_ROW), map, column, (int)row, head, batch, barrier);
}

// One warp: fetches what the consumers will need, in their order, as soon as there is room.
DEVICE void fetch_tiles(const dlattn_params &p, const dlattn_maps &maps, u32 base) {
    const bool leads = lane_id() == 0;
    ring<STAGES> keys = {0, 0}, values = {0, 0};
    u32 q_phase = 0, next = blockIdx.x;
    for (int turn = 0;; turn++) {
        work w = {__shfl_sync(0xffffffffu, next, 0), 0, 0};
        if (w.number >= tile_count(p)) {
            post_work(base, turn, w);
            break;
        }
        next = next_tile(p, w.number);
        const block_place place = place_of(p, w.number);
        const sequence s = read_sequence(p, place.b);
        if (place.row0 < s.M) {
            const tile_span span = span_of(p, s, place.row0, BM);
            w.first = span.first;
            w.last = span.last;
        }
        post_work(base, turn, w);
        if (place.row0 >= s.M) continue;
        const int kv_head = place.h / p.heads_per_group;
#pragma unroll
        for (int g = 0; g < CONSUMERS; g++) { // rows without keys too: their result leaves through Q's memory
            barrier_wait(base + Q_EMPTY(g), q_phase ^ 1u);
            if (leads && w.last > w.first)
                fetch_rows<64, HEAD_D>(base + g * ROWS_BYTES, &maps.q, p.q, s.q_begin + place.row0 + 64 * g, place.h, s.b,
                                       base + Q_FULL(g));
            else if (leads) barrier_arrive(base + Q_FULL(g));
        }
        q_phase ^= 1u;
        for (int n = w.last - 1; n >= w.first - 1; n--) { // V one tile later than K, as the consumers want them
            if (n >= w.first) {
                barrier_wait(base + K_EMPTY(keys.stage), keys.lap ^ 1u);
                if (leads)
                    fetch_rows<BN, HEAD_D>(base + K_AT + keys.stage * K_BYTES, &maps.k, p.k, s.k_begin + n * BN, kv_head, s.b,
                                           base + K_FULL(keys.stage));
                keys.next();
            }
            if (n < w.last - 1) {
                barrier_wait(base + V_EMPTY(values.stage), values.lap ^ 1u);
                if (leads)
                    fetch_rows<BN, HEAD_E>(base + V_AT + values.stage * V_BYTES, &maps.v, p.v, s.k_begin + (n + 1) * BN, kv_head,
                                           s.b, base + V_FULL(values.stage));
                values.next();
            }
        }
    }
}

#endif
