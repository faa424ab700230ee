// pages_sm80.cuh: where forward_sm80 copies tiles of K and V from: the rows of a tensor, or with -DPAGED=1 (default 0)
// pages.
//
// Part of forward_sm80.cu: uses its options. Tiles are asked for from the last to the first, of each K before V. Each warp
// copies BN / WARPS rows of a tile of pages: one lane knows where a row lies and tells those that copy it. It has looked
// that up a tile ahead, so that the copies need not wait; nothing else is kept in registers through the loop.
#ifndef DLATTN_PAGES_SM80_CUH
#define DLATTN_PAGES_SM80_CUH

#include "forward_rows_sm80.cuh"

#ifndef PAGED
#define PAGED 0
#endif

#if !PAGED

typedef tile_source key_source;
typedef const u16 *key_column, *value_column; // what a thread remembers from tile to tile, see load_tile_and_step_back

// K or V, which `t` says, of kv head g.
DEVICE key_source source_of_keys(const dlattn_params &p, const dlattn_view &t, const sequence &s, int g, int columns,
                                 const loop_facts *facts) {
    const key_source source = {(const u16 *)t.data + at(t, s.b, s.k_begin, g), t.stride[1], t.stride[3], s.N, columns};
    return source;
}

DEVICE key_column column_of_keys(const key_source &keys, int row) { return column_of<HEAD_D>(keys, row); }

DEVICE value_column column_of_values(const key_source &values, int row, key_column *beside) {
    return column_of<HEAD_E>(values, row);
}

DEVICE void load_keys(u32 k_tile, const key_source &keys, int row, key_column *column) {
    load_tile_and_step_back<BN, HEAD_D, THREADS, ALIGNED>(k_tile, keys, row, column);
}

DEVICE void load_values(u32 v_tile, const key_source &values, int row, value_column *column) {
    load_tile_and_step_back<BN, HEAD_E, THREADS, ALIGNED>(v_tile, values, row, column);
}

#else

#define OWN_ROWS (BN / WARPS) // of a warp
static_assert(BN % WARPS == 0 && OWN_ROWS <= 32, "a lane for each row");

typedef struct key_source {
    const dlattn_params *p;
    const dlattn_view *t;
    const loop_facts *facts;
    int columns;
} key_source;

// Where this lane's row lies; V's rows lie where K's do.
typedef struct key_column {
    int page, token;
} key_column;
typedef key_column *value_column;

DEVICE key_source source_of_keys(const dlattn_params &p, const dlattn_view &t, const sequence &s, int g, int columns,
                                 const loop_facts *facts) {
    const key_source source = {&p, &t, facts, columns};
    return source;
}

// No page is asked for rows that are not there, below 0 or past the end; one that does not exist is read as page 0.
DEVICE key_column column_of_keys(const key_source &keys, int row) {
    const dlattn_params &p = *keys.p;
    const int thread = thread_anew(), key = row + thread / 32 * OWN_ROWS + thread % 32;
    key_column found = {0, 0};
    if (thread % 32 >= OWN_ROWS || key < 0 || key >= keys.facts->s.N) return found;
    const int n = key / p.page;
    const i64 id = load_int(p.block_table, at(p.block_table, keys.facts->s.b, n));
    if (0 <= id && id < p.k.extent[0]) found.page = (int)id;
    found.token = key - n * p.page;
    return found;
}

DEVICE value_column column_of_values(const key_source &values, int row, key_column *beside) { return beside; }

// The lanes run through V the other way round than through K: what is derived from them would else be kept from one to the
// other, for which there are too few registers.
template <int COLS, bool KEYS>
DEVICE void load_from_pages(u32 tile, const key_source &from, int row, key_column own) {
    const int CHUNKS = COLS / 8, COUNT = OWN_ROWS * CHUNKS, thread = thread_anew(), first = thread / 32 * OWN_ROWS;
    const dlattn_view &t = *from.t;
    const int lane = KEYS ? thread % 32 : 31 - thread % 32;
    const int g = PACKED ? from.facts->h : from.facts->h / from.p->heads_per_group, left = from.facts->s.N - row - first;
    const u16 *const head = (const u16 *)t.data + at(t, 0, 0, g);
#pragma unroll 4 // more at once would need too many registers
    for (int base = 0; base < COUNT; base += 32) {
        const int n = base + lane, r = n / CHUNKS, chunk = n % CHUNKS;
        const int page = __shfl_sync(0xffffffffu, own.page, r & 31), token = __shfl_sync(0xffffffffu, own.token, r & 31);
        if (COUNT % 32 != 0 && n >= COUNT) continue;
        const int count = r < left ? larger(0, smaller(8, from.columns - 8 * chunk)) : 0;
        const u16 *data = head + page * t.stride[0] + token * t.stride[1] + 8 * chunk * (ALIGNED ? 1 : t.stride[3]);
        const u32 to = tile + chunk_offset<COLS>(first + r, chunk);
        if (ALIGNED) copy_async(to, data, count > 0 ? 16 : 0);
        else store_shared(to, gather(data, t.stride[3], count));
    }
}

DEVICE void load_keys(u32 k_tile, const key_source &keys, int row, key_column *column) {
    load_from_pages<HEAD_D, true>(k_tile, keys, row, *column);
}

DEVICE void load_values(u32 v_tile, const key_source &values, int row, value_column *column) {
    load_from_pages<HEAD_E, false>(v_tile, values, row, **column);
    **column = column_of_keys(values, row - BN);
}

#endif

#endif
