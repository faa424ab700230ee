// pages_sm80.cuh: where forward_sm80 copies tiles of K and V from: the rows of a tensor, or with -DPAGED=1 (default 0)
// pages.
//
// Part of forward_sm80.cu: uses its options. Tiles are asked for from the last to the first, of each K before V. Each warp
// copies BN / WARPS rows of a tile of pages: one lane knows where a row lies and tells those that copy it. It has looked
// that up a tile ahead, so that the copies need not wait; nothing else is kept in registers through the loop.
#ifndef DLATTN_PAGES_SM80_CUH
#define DLATTN_PAGES_SM80_CUH

#include "forward_rows.cuh"

#ifndef PAGED
#define PAGED 0
#endif

#if !PAGED

typedef tile_source key_source;
typedef tile_column key_column, value_column; // what a thread remembers from tile to tile, see load_tile_and_step_back

// K or V, which `t` says, of kv head g.
DEVICE key_source source_of_keys(const dlattn_params &p, const dlattn_view &t, const sequence &s, int g, int columns,
                                 const loop_facts *facts) {
    const key_source source = {(const u16 *)t.data + at(t, s.b, s.k_begin, g), t.stride[1], t.stride[3], s.N, columns};
    return source;
}

DEVICE key_column column_of_keys(const key_source &keys, int row) { return tile_column_of<HEAD_D>(keys, row); }

DEVICE value_column column_of_values(const key_source &values, int row, key_column *beside) {
    return tile_column_of<HEAD_E>(values, row);
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

// Where this lane's row lies: the words of its table entry, looked at when they have come, and the token of the page. V's
// rows lie where K's do.
typedef struct key_column {
    u32 low, high;
    int token;
} key_column;
typedef key_column *value_column;

DEVICE key_source source_of_keys(const dlattn_params &p, const dlattn_view &t, const sequence &s, int g, int columns,
                                 const loop_facts *facts) {
    const key_source source = {&p, &t, facts, columns};
    return source;
}

// Of the tile from key `row` on. Rows that are not there, below 0 or past the end, look where the nearest one does.
DEVICE key_column column_of_keys(const key_source &keys, int row) {
    const dlattn_params &p = *keys.p;
    const int thread = thread_anew(), last = keys.facts->s.N - 1;
    const int key = larger(0, smaller(row + thread / 32 * OWN_ROWS + thread % 32, last)), n = (int)((u32)key / (u32)p.page);
    const i64 index = at(p.block_table, keys.facts->s.b, n);
    key_column found = {0, 0, key - n * p.page};
    if (last < 0) return found; // the table may be empty
    if (p.block_table.dtype == DLATTN_TYPE_I64) {
        const u64 entry = ((const u64 *)p.block_table.data)[index];
        found.low = (u32)entry;
        found.high = (u32)(entry >> 32);
    } else {
        found.low = ((const u32 *)p.block_table.data)[index];
    }
    return found;
}

// A page that does not exist is page 0.
DEVICE int page_of(const dlattn_params &p, const key_column &column) {
    const bool wide = p.block_table.dtype == DLATTN_TYPE_I64 && column.high != 0;
    return wide || column.low >= (u32)p.k.extent[0] ? 0 : (int)column.low;
}

DEVICE value_column column_of_values(const key_source &values, int row, key_column *beside) { return beside; }

template <int COLS>
DEVICE void load_from_pages(u32 tile, const key_source &from, int row, key_column own) {
    const int CHUNKS = COLS / 8, COUNT = OWN_ROWS * CHUNKS, thread = thread_anew(), first = thread / 32 * OWN_ROWS;
    const int lane = thread % 32, left = from.facts->s.N - row - first;
    const int g = PACKED ? from.facts->h : (int)((u32)from.facts->h / (u32)from.p->heads_per_group);
    const dlattn_view &t = *from.t;
    const u64 own_row = t.data + 2 * (u64)at(t, page_of(*from.p, own), own.token, g);
    if constexpr (ALIGNED && 32 % CHUNKS == 0 && OWN_ROWS % 8 == 0) { // a lane stays in its column
        const int STEP = 32 / CHUNKS, r = lane / CHUNKS, chunk = lane % CHUNKS;
        const bool inside = 8 * chunk < from.columns;
        const u32 to = tile + chunk_offset<COLS>(first + r, chunk);
#pragma unroll(MT > 1 ? 4 : 8) // more at once would need too many registers
        for (int k = 0; k < OWN_ROWS; k += STEP) {
            const u16 *data = (const u16 *)__shfl_sync(0xffffffffu, own_row, k + r) + 8 * chunk;
            copy_async((to ^ (u32)(swizzle_of_row<COLS>(k) << 4)) + k * (COLS * 2), data, inside && k < left - r ? 16 : 0);
        }
    } else {
#pragma unroll 2
        for (int base = 0; base < COUNT; base += 32) {
            const int n = base + lane, r = n / CHUNKS, chunk = n % CHUNKS;
            const u16 *data = (const u16 *)__shfl_sync(0xffffffffu, own_row, r & 31) + 8 * chunk * (ALIGNED ? 1 : t.stride[3]);
            if (COUNT % 32 != 0 && n >= COUNT) continue;
            const int count = r < left ? larger(0, smaller(8, from.columns - 8 * chunk)) : 0;
            const u32 to = tile + chunk_offset<COLS>(first + r, chunk);
            if (ALIGNED) copy_async(to, data, count > 0 ? 16 : 0);
            else store_shared(to, gather(data, t.stride[3], count));
        }
    }
}

DEVICE void load_keys(u32 k_tile, const key_source &keys, int row, key_column *column) {
    load_from_pages<HEAD_D>(k_tile, keys, row, *column);
}

DEVICE void load_values(u32 v_tile, const key_source &values, int row, value_column *column) {
    load_from_pages<HEAD_E>(v_tile, values, row, **column);
    **column = column_of_keys(values, row - BN);
}

#endif

#endif
