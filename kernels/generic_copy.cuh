// generic_copy.cuh: from a tensor of any type and strides to float tiles in shared memory, in two steps: what has been
// fetched into registers travels while the threads compute, and is placed when its room is free.
//
// Included by generic_tile.cuh, after `rounded`. Rows made of aligned groups of four elements go this way; all others
// are read one by one when they are placed. With -DPAGED=1 (default 0) keys lie in pages.
#ifndef DLATTN_GENERIC_COPY_CUH
#define DLATTN_GENERIC_COPY_CUH

#ifndef PAGED
#define PAGED 0
#endif

#if TYPE == DLATTN_TYPE_F32
typedef uint4 four;
DEVICE float load_input(u64 data, i64 index) { return rounded(((const float *)data)[index]); }
DEVICE float4 floats_of(const four &x) {
    return make_float4(rounded(__uint_as_float(x.x)), rounded(__uint_as_float(x.y)), rounded(__uint_as_float(x.z)),
                       rounded(__uint_as_float(x.w)));
}
#else
static_assert(TYPE == DLATTN_TYPE_F16 || TYPE == DLATTN_TYPE_BF16, "TYPE is one of DLATTN_TYPE_F16, _BF16, _F32");
typedef ushort4 four;
DEVICE float float_of_input(u16 x) { return TYPE == DLATTN_TYPE_F16 ? float_of_f16(x) : float_of_bf16(x); }
DEVICE float load_input(u64 data, i64 index) { return float_of_input(((const u16 *)data)[index]); }
DEVICE float4 floats_of(const four &x) {
    return make_float4(float_of_input(x.x), float_of_input(x.y), float_of_input(x.z), float_of_input(x.w));
}
#endif

// Rows of one (sequence, head): the first element's address, strides in elements. At most TILE of them. Where keys are
// paged, the first element is that of the head in page 0.
typedef struct tile_source {
    u64 data;
    i64 row_stride, column_stride;
    int rows, columns;
    bool in_fours;
#if PAGED
    const dlattn_params *paged; // NULL: row r is r * row_stride on
    i64 page_stride;
    int b, first, pages;        // sequence; key of row 0; pages that exist
#endif
} tile_source;

// Where row r begins. A page that does not exist is read as page 0.
DEVICE i64 row_at(const tile_source &s, int r) {
#if PAGED
    if (!s.paged) return r * s.row_stride;
    const int key = s.first + r, page = s.paged->page;
    const i64 id = load_int(s.paged->block_table, at(s.paged->block_table, s.b, key / page));
    return (id < 0 || id >= s.pages ? 0 : id) * s.page_stride + key % page * s.row_stride;
#else
    return r * s.row_stride;
#endif
}

DEVICE tile_source source_of(const dlattn_view &t, int b, i64 token, int head, int rows, int columns) {
    const u64 bytes = TYPE == DLATTN_TYPE_F32 ? 4 : 2;
    tile_source s;
    s.data = t.data + (u64)at(t, b, token, head) * bytes;
    s.row_stride = t.stride[1];
    s.column_stride = t.stride[3];
    s.rows = rows < TILE ? rows : TILE;
    s.columns = columns;
    s.in_fours = t.stride[3] == 1 && columns % 4 == 0 && s.data % (4 * bytes) == 0 && t.stride[1] % 4 == 0;
#if PAGED
    s.paged = 0;
#endif
    return s;
}

// Keys j0 .. of k or v.
DEVICE tile_source keys_of(const dlattn_params &p, const dlattn_view &t, const sequence &q, int j0, int head, int columns) {
#if PAGED
    tile_source s = source_of(t, 0, 0, head, q.N - j0, columns);
    s.in_fours = s.in_fours && t.stride[0] % 4 == 0;
    s.paged = &p;
    s.page_stride = t.stride[0];
    s.b = q.b;
    s.first = j0;
    s.pages = t.extent[0];
    return s;
#else
    return source_of(t, q.b, q.k_begin + j0, head, q.N - j0, columns);
#endif
}

// A thread's part of TILE rows of COLUMNS elements.
template <int COLUMNS>
struct panel {
    four fours[TILE * COLUMNS / 4 / THREADS];
};

// Columns c0 .. on their way. What lies past the source's rows or columns is 0 and not read.
template <int COLUMNS>
DEVICE void fetch(panel<COLUMNS> &to, const tile_source &from, int c0) {
    const int c = c0 + (int)threadIdx.x % (COLUMNS / 4) * 4;
    if (!from.in_fours) return;
#pragma unroll
    for (int n = 0; n < TILE * COLUMNS / 4 / THREADS; n++) {
        const int r = (int)threadIdx.x / (COLUMNS / 4) + n * (4 * THREADS / COLUMNS);
        to.fours[n] = four();
        if (r < from.rows && c < from.columns) to.fours[n] = *((const four *)from.data + (row_at(from, r) + c) / 4);
    }
}

// Into shared memory, as operands of a product.
template <int COLUMNS, int STRIDE>
DEVICE void place(float *to, const panel<COLUMNS> &fetched, const tile_source &from, int c0) {
    if (from.in_fours) {
        float *first = to + (int)threadIdx.x / (COLUMNS / 4) * STRIDE + (int)threadIdx.x % (COLUMNS / 4) * 4;
#pragma unroll
        for (int n = 0; n < TILE * COLUMNS / 4 / THREADS; n++)
            *(float4 *)(first + n * (4 * THREADS / COLUMNS) * STRIDE) = floats_of(fetched.fours[n]);
        return;
    }
    const int c = (int)threadIdx.x % COLUMNS;
#pragma unroll 4
    for (int r = (int)threadIdx.x / COLUMNS; r < TILE; r += THREADS / COLUMNS) {
        float x = 0.0f;
        if (r < from.rows && c0 + c < from.columns)
            x = load_input(from.data, row_at(from, r) + (c0 + c) * from.column_stride);
        to[r * STRIDE + c] = x;
    }
}

#endif
