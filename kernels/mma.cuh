// mma.cuh: the vocabulary of the tensor-core kernels for sm_75 to sm_120: 16-bit tiles in swizzled shared memory,
// ldmatrix fragments, mma.sync, cp.async, exp2. The kernels for sm_90 have the fragments and small words from here.
//
// -DTYPE=DLATTN_TYPE_F16 or DLATTN_TYPE_BF16 (sm_80 on) is the element type of every tile. sm_75 has no cp.async and
// only the m16n8k8 mma: both are replaced here, so that the kernels have one source.
//
// Fragments, with g = lane / 4 and t = lane % 4:
//   c[0..3] of a 16 x 8 product: (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)
//   a[0..3] of a 16 x 16 left operand, pairs along k: (g, 2t) (g+8, 2t) (g, 2t+8) (g+8, 2t+8)
//   b[0..1] of a 16 x 8 right operand, pairs along k: (k 2t, n g) (k 2t+8, n g)
#ifndef DLATTN_MMA_CUH
#define DLATTN_MMA_CUH

#include "element.cuh"

#if __CUDA_ARCH__ < 800 && TYPE == DLATTN_TYPE_BF16
#error "sm_75 has no bf16 mma: the generic kernel serves it"
#endif

// A tile of scores s[MT][NT][4]: 16 MT rows by 8 NT keys of one warp. Element c of (a, n) lies ROW_OF and KEY_OF past the
// thread's own first row and key.
#define EACH_SCORE(MT, NT)                          \
    _Pragma("unroll") for (int a = 0; a < MT; a++)  \
    _Pragma("unroll") for (int n = 0; n < NT; n++)  \
    _Pragma("unroll") for (int c = 0; c < 4; c++)

#define ROW_OF(a, c) (16 * (a) + 8 * ((c) / 2))
#define KEY_OF(n, c) (8 * (n) + (c) % 2)

DEVICE int smaller(int a, int b) { return a < b ? a : b; }
DEVICE int larger(int a, int b) { return a > b ? a : b; }

DEVICE u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

DEVICE int lane_id() { return (int)(threadIdx.x & 31); }

// The thread's number read anew: what is derived from it is computed where it is needed, instead of being kept in
// registers through a loop.
DEVICE int thread_anew() {
    u32 x;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
    return (int)(x & 1023u);
}

// Arithmetic ----------------------------------------------------------------------------------------------------------

// 2^x; subnormal results are 0, exp2(-inf) = 0.
DEVICE float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// (lo, hi) rounded to the element type; lo in the low half.
DEVICE u32 pack(float lo, float hi) {
    u32 r;
#if __CUDA_ARCH__ < 800
    r = (u32)f16_of_float(lo) | (u32)f16_of_float(hi) << 16;
#elif TYPE == DLATTN_TYPE_BF16
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
#endif
    return r;
}

DEVICE u16 element_of_float(float x) { return (u16)pack(x, 0.0f); }

DEVICE float float_of_element(u16 bits) { return TYPE == DLATTN_TYPE_BF16 ? float_of_bf16(bits) : float_of_f16(bits); }

// c += a * b: 16 x 16 by 16 x 8.
DEVICE void mma(float c[4], const u32 a[4], u32 b0, u32 b1) {
#if __CUDA_ARCH__ < 800
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[2]), "r"(a[3]), "r"(b1));
#elif TYPE == DLATTN_TYPE_BF16
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// The left operand of columns [16 k, 16 k + 16) out of a row of 16 x 8 products: c points at products 2k and 2k + 1.
DEVICE void pack_fragment(u32 a[4], const float (*c)[4]) {
    a[0] = pack(c[0][0], c[0][1]);
    a[1] = pack(c[0][2], c[0][3]);
    a[2] = pack(c[1][0], c[1][1]);
    a[3] = pack(c[1][2], c[1][3]);
}

// Tiles ---------------------------------------------------------------------------------------------------------------
// A tile is ROWS x COLS elements, rows dense, COLS a multiple of 16, its base a multiple of 128 bytes. The 16-byte
// chunks of a row are permuted by an exclusive or with the row, so that eight rows at one column touch all banks once.

template <int COLS>
DEVICE int swizzle_of_row(int row) {
    return COLS % 64 == 0 ? row & 7 : COLS % 32 == 0 ? (row >> 1) & 3 : (row >> 2) & 1;
}

// Byte offset of chunk `chunk` (8 elements) of a row.
template <int COLS>
DEVICE u32 chunk_offset(int row, int chunk) {
    return (u32)(row * (COLS * 2) + ((chunk ^ swizzle_of_row<COLS>(row)) << 4));
}

// Byte offset of element (row, col).
template <int COLS>
DEVICE u32 element_offset(int row, int col) {
    return chunk_offset<COLS>(row, col >> 3) + (u32)((col & 7) << 1);
}

// ldmatrix takes one row address per lane. By rows: lanes 0-15 rows 0-15 of the left 8 columns, 16-31 of the right 8.
// By columns: lanes 0-7 left, 8-15 right of rows 0-7; 16-31 the same of rows 8-15. Keep the result for the whole
// kernel; fragment_address moves it to (row, col), a multiple of 8 rows and 16 columns, with one xor and constants.
template <int COLS>
DEVICE u32 lane_by_rows() {
    return chunk_offset<COLS>(lane_id() & 15, lane_id() >> 4);
}

template <int COLS>
DEVICE u32 lane_by_columns() {
    return chunk_offset<COLS>((lane_id() & 7) | ((lane_id() >> 4) << 3), (lane_id() >> 3) & 1);
}

template <int COLS>
DEVICE u32 fragment_address(u32 tile, u32 lane, int row, int col) {
    const int permuted = COLS % 64 == 0 ? 7 : COLS % 32 == 0 ? 3 : 1, chunk = col >> 3;
    return (tile + (lane ^ (u32)((chunk & permuted) << 4))) + (u32)(row * (COLS * 2) + ((chunk & ~permuted) << 4));
}

// What x4 and x4.trans give for a tile stored as [r][c], at (row, col):
//   load,       by rows:    left operand a[0..3] with m = r, k = c
//   load,       by columns: right operands with n = r, k = c: b of n 0-7 in r[0..1], of n 8-15 in r[2..3]   (K of QK^T)
//   load_trans, by rows:    right operands with k = r, n = c: b of n 0-7 in r[0..1], of n 8-15 in r[2..3]   (V of PV)
//   load_trans, by columns: left operand with k = r, m = c
DEVICE void load_fragment(u32 r[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

DEVICE void load_fragment_trans(u32 r[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

DEVICE void store_shared(u32 address, uint4 x) {
    asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};"
                 :: "r"(address), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
}

DEVICE void store_shared(u32 address, u32 x) {
    asm volatile("st.shared.b32 [%0], %1;" :: "r"(address), "r"(x) : "memory");
}

DEVICE uint4 load_shared(u32 address) {
    uint4 x;
    asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(address) : "memory");
    return x;
}

// Copies from global memory -------------------------------------------------------------------------------------------

// 16 bytes of which the first `bytes` (0 to 16) are read, the rest is zero. Done after copies_commit and copies_wait.
DEVICE void copy_async(u32 shared, const void *global, int bytes) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 :: "r"(shared), "l"(__cvta_generic_to_global(global)), "r"(bytes) : "memory");
#else
    uint4 x = make_uint4(0, 0, 0, 0);
    if (bytes == 16) x = *(const uint4 *)global;
    else if (bytes > 0) {
        u32 word[4] = {0, 0, 0, 0};
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (2 * i < bytes) word[i / 2] |= (u32)((const u16 *)global)[i] << (i % 2 * 16);
        x = make_uint4(word[0], word[1], word[2], word[3]);
    }
    store_shared(shared, x);
#endif
}

// 4 or 8 bytes.
DEVICE void copy_small_async(u32 shared, const void *global, int bytes) {
#if __CUDA_ARCH__ >= 800
    const u64 from = __cvta_generic_to_global(global);
    if (bytes == 8) asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" :: "r"(shared), "l"(from) : "memory");
    else asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(shared), "l"(from) : "memory");
#else
    store_shared(shared, ((const u32 *)global)[0]);
    if (bytes == 8) store_shared(shared + 4, ((const u32 *)global)[1]);
#endif
}

DEVICE void copies_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most PENDING of this thread's newest groups are under way. __syncthreads() after it, as ever.
template <int PENDING>
DEVICE void copies_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
#endif
}

// What a tile is copied from: rows of `cols` elements. All 16-bit.
typedef struct tile_source {
    const u16 *data;            // element (0, 0)
    i64 row_stride, col_stride; // in elements
    int rows, cols;             // what there is; the rest of the tile becomes zero
} tile_source;

// 8 elements from `first` with stride, `count` of which exist.
DEVICE uint4 gather(const u16 *first, i64 stride, int count) {
    u32 word[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < count) word[i / 2] |= (u32)first[i * stride] << (i % 2 * 16);
    return make_uint4(word[0], word[1], word[2], word[3]);
}

// Does a thread of the copy below stay in its column, with the permutation repeating at each of its rows? Then it needs
// one address, moved by constants.
template <int ROWS, int COLS, int THREADS, bool WHOLE>
DEVICE constexpr bool copies_by_column() {
    return WHOLE && THREADS % (COLS / 8) == 0 && THREADS / (COLS / 8) % 8 == 0 && ROWS % (THREADS / (COLS / 8)) == 0;
}

// This thread's first element of the rows from `row` on, when it copies by column.
template <int COLS>
DEVICE const u16 *column_of(const tile_source &from, int row) {
    return from.data + (row + (int)threadIdx.x / (COLS / 8)) * from.row_stride + (int)threadIdx.x % (COLS / 8) * 8;
}

// From `first` on, `left` rows of which exist, if this thread is inside the columns.
template <int ROWS, int COLS, int THREADS>
DEVICE void load_column(u32 tile, const u16 *first, i64 row_stride, int left, bool inside) {
    const int STEP = THREADS / (COLS / 8);
    const u32 to = tile + chunk_offset<COLS>((int)threadIdx.x / (COLS / 8), (int)threadIdx.x % (COLS / 8));
#pragma unroll
    for (int k = 0; k < ROWS / STEP; k++) {
        copy_async(to + k * STEP * COLS * 2, first, inside && k * STEP < left ? 16 : 0);
        first += STEP * row_stride;
    }
}

// Rows [row, row + ROWS) of the source to the tile at shared address `tile`, by THREADS threads.
// WHOLE: unit column stride, 16-byte aligned rows and cols a multiple of 8: asynchronous. Else any strides, done when
// the threads have met.
template <int ROWS, int COLS, int THREADS, bool WHOLE>
DEVICE void load_tile(u32 tile, const tile_source &from, int row) {
    if constexpr (copies_by_column<ROWS, COLS, THREADS, WHOLE>()) {
        const u16 *first = column_of<COLS>(from, row);
        const int thread = thread_anew(), left = from.rows - row - thread / (COLS / 8);
        load_column<ROWS, COLS, THREADS>(tile, first, from.row_stride, left, 8 * (thread % (COLS / 8)) < from.cols);
    } else {
        const int CHUNKS = COLS / 8, COUNT = ROWS * CHUNKS;
#pragma unroll 2 // more at once would need too many registers
        for (int base = 0; base < COUNT; base += THREADS) {
            const int n = base + (int)threadIdx.x, r = n / CHUNKS, c = n % CHUNKS;
            if (COUNT % THREADS != 0 && n >= COUNT) break;
            const int most = row + r < from.rows ? from.cols - 8 * c : 0, count = most < 0 ? 0 : most > 8 ? 8 : most;
            const u16 *first = from.data + (row + r) * from.row_stride + 8 * c * (WHOLE ? 1 : from.col_stride);
            if (WHOLE) copy_async(tile + chunk_offset<COLS>(r, c), first, count > 0 ? 16 : 0);
            else store_shared(tile + chunk_offset<COLS>(r, c), gather(first, from.col_stride, count));
        }
    }
}

// What this thread copies in a loop that goes down tile by tile: its first element, and how many rows there are from there
// on; far below 0 past the last column.
typedef struct tile_column {
    const u16 *first;
    int left;
} tile_column;

template <int COLS>
DEVICE tile_column tile_column_of(const tile_source &from, int row) {
    const int thread = (int)threadIdx.x, left = from.rows - row - thread / (COLS / 8);
    const tile_column own = {column_of<COLS>(from, row), thread % (COLS / 8) * 8 < from.cols ? left : -0x7fffffff - 1};
    return own;
}

// load_tile for such a loop: *column is tile_column_of<COLS>(from, row) and moves with it, which spares the loop products
// and registers.
template <int ROWS, int COLS, int THREADS, bool WHOLE>
DEVICE void load_tile_and_step_back(u32 tile, const tile_source &from, int row, tile_column *column) {
    if constexpr (copies_by_column<ROWS, COLS, THREADS, WHOLE>()) {
        load_column<ROWS, COLS, THREADS>(tile, column->first, from.row_stride, column->left, true);
        column->first -= ROWS * from.row_stride;
        column->left += ROWS;
    } else {
        load_tile<ROWS, COLS, THREADS, WHOLE>(tile, from, row);
    }
}

#endif
