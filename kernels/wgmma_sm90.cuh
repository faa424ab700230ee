// wgmma_sm90.cuh: products of a warpgroup (four warps, 64 rows) on Hopper's tensor cores, with operands in swizzled shared
// memory or in registers.
//
// -DTYPE=... is the element type of all operands. A tile in shared memory is cut into panels of 64 columns; a panel's rows
// are 128 bytes each, dense, its base a multiple of 1024 bytes, its 16-byte chunks permuted by an exclusive or of the chunk's
// number with the row's (mod 8): what TMA writes with a 128-byte swizzle. Products are the same fragments as mma.cuh's
// 16 x 8 ones: warp w of the four has rows 16 w to 16 w + 15.
//
// The order is: product_fence (registers of operands and sums are as the code says), products, products_commit,
// products_wait; what a product reads or sums must not be touched between. keep() ties plain code to that order.
#ifndef DLATTN_WGMMA_SM90_CUH
#define DLATTN_WGMMA_SM90_CUH

#include "mma.cuh"

#if TYPE == DLATTN_TYPE_BF16
#define WGMMA_TYPES "k16.f32.bf16.bf16 "
#else
#define WGMMA_TYPES "k16.f32.f16.f16 "
#endif

// Descriptors -----------------------------------------------------------------------------------------------------------

#define PANEL 64       // columns
#define PANEL_ROW 128  // bytes

// The upper half of a descriptor: 128-byte swizzle, 1024 bytes from eight rows to the next eight.
#define DESCRIPTOR_HIGH (1u << 30 | 1024u >> 4)

// An operand whose rows run along the sum's dimension: a row is 64 columns of a panel, the sum goes along the columns (q and k
// in q k^T). The next 16 columns lie 32 bytes further.
DEVICE u64 descriptor_by_rows(u32 address) { return (u64)DESCRIPTOR_HIGH << 32 | 1u << 16 | (address & 0x3ffffu) >> 4; }

// An operand whose rows are the sum's dimension (v in p v); panels lie `panel_bytes` apart. The next 16 rows lie 2048 bytes
// further.
DEVICE u64 descriptor_by_columns(u32 address, u32 panel_bytes) {
    return (u64)DESCRIPTOR_HIGH << 32 | (panel_bytes >> 4) << 16 | (address & 0x3ffffu) >> 4;
}

// Order -----------------------------------------------------------------------------------------------------------------

DEVICE void product_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most PENDING of the newest groups are under way.
template <int PENDING>
DEVICE void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(PENDING) : "memory");
}

// No code that reads or writes these registers moves across this line.
template <int COUNT>
DEVICE void keep(float (&x)[COUNT][4]) {
#pragma unroll
    for (int n = 0; n < COUNT; n++) asm volatile("" : "+f"(x[n][0]), "+f"(x[n][1]), "+f"(x[n][2]), "+f"(x[n][3]) :: "memory");
}

template <int COUNT>
DEVICE void keep(u32 (&x)[COUNT][4]) {
#pragma unroll
    for (int n = 0; n < COUNT; n++) asm volatile("" : "+r"(x[n][0]), "+r"(x[n][1]), "+r"(x[n][2]), "+r"(x[n][3]) :: "memory");
}

// Products --------------------------------------------------------------------------------------------------------------
// One instruction takes N / 2 registers of sums, which inline assembly wants named one by one: here by tens and by eights.

#define TEN(t) "%" #t "0,%" #t "1,%" #t "2,%" #t "3,%" #t "4,%" #t "5,%" #t "6,%" #t "7,%" #t "8,%" #t "9,"
#define TENS_3 TEN() TEN(1) TEN(2)
#define TENS_4 TENS_3 TEN(3)
#define TENS_5 TENS_4 TEN(4)
#define TENS_6 TENS_5 TEN(5)
#define TENS_8 TENS_6 TEN(6) TEN(7)
#define TENS_12 TENS_8 TEN(8) TEN(9) TEN(10) TEN(11)
#define LAST_2(t) "%" #t "0,%" #t "1"
#define LAST_4(t) LAST_2(t) ",%" #t "2,%" #t "3"
#define LAST_6(t) LAST_4(t) ",%" #t "4,%" #t "5"
#define LAST_8(t) LAST_6(t) ",%" #t "6,%" #t "7"
#define LAST_10(t) LAST_8(t) ",%" #t "8,%" #t "9"

#define SUMS_16(d, n)                                                                          \
    "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3]), "+f"(d[n + 1][0]), "+f"(d[n + 1][1]), \
        "+f"(d[n + 1][2]), "+f"(d[n + 1][3])
#define SUMS_32(d, n) SUMS_16(d, n), SUMS_16(d, n + 2)
#define SUMS_64(d, n) SUMS_32(d, n), SUMS_32(d, n + 4)
#define SUMS_128(d, n) SUMS_64(d, n), SUMS_64(d, n + 8)

// d = a b^T (accumulate 0) or d += a b^T: a: 64 rows, b: 8 COUNT rows, both by rows in shared memory, 16 columns of them.
// d += a b: a: 16 columns in registers, b by columns: 16 rows, 8 COUNT columns.
#define PRODUCTS(N, REGISTERS, A, B, C, D, E, ...)                                                                  \
    DEVICE void product(float (&d)[N / 8][4], u64 a, u64 b, int accumulate) {                                          \
        asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %" #C ", 0;\n\t"                                            \
                     "wgmma.mma_async.sync.aligned.m64n" #N WGMMA_TYPES "{" REGISTERS "}, %" #A ", %" #B ", p, 1, 1, 0, 0;\n\t}" \
                     : __VA_ARGS__ : "l"(a), "l"(b), "r"(accumulate));                                                 \
    }                                                                                                                  \
    DEVICE void product(float (&d)[N / 8][4], const u32 (&a)[4], u64 b) {                                              \
        asm volatile("{\n\t.reg .pred p;\n\tsetp.eq.b32 p, 0, 0;\n\t"                                                 \
                     "wgmma.mma_async.sync.aligned.m64n" #N WGMMA_TYPES "{" REGISTERS "}, {%" #A ",%" #B ",%" #C ",%" #D \
                     "}, %" #E ", p, 1, 1, 1;\n\t}"                                                                   \
                     : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                              \
    }

// d = a b or d += a b: a: 64 rows by rows, b: 16 rows of 64 columns by columns, both in shared memory.
DEVICE void product_by_columns(float (&d)[8][4], u64 a, u64 columns, int accumulate) {
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %34, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n64" WGMMA_TYPES "{" TENS_3 LAST_2(3) "}, %32, %33, p, 1, 1, 0, 1;\n\t}"
                 : SUMS_64(d, 0) : "l"(a), "l"(columns), "r"(accumulate));
}

PRODUCTS(64, TENS_3 LAST_2(3), 32, 33, 34, 35, 36, SUMS_64(d, 0))
PRODUCTS(80, TENS_3 LAST_10(3), 40, 41, 42, 43, 44, SUMS_64(d, 0), SUMS_16(d, 8))
PRODUCTS(96, TENS_4 LAST_8(4), 48, 49, 50, 51, 52, SUMS_64(d, 0), SUMS_32(d, 8))
PRODUCTS(112, TENS_5 LAST_6(5), 56, 57, 58, 59, 60, SUMS_64(d, 0), SUMS_32(d, 8), SUMS_16(d, 12))
PRODUCTS(128, TENS_6 LAST_4(6), 64, 65, 66, 67, 68, SUMS_128(d, 0))
PRODUCTS(160, TENS_6 TEN(6) LAST_10(7), 80, 81, 82, 83, 84, SUMS_128(d, 0), SUMS_32(d, 16))
PRODUCTS(176, TENS_8 LAST_8(8), 88, 89, 90, 91, 92, SUMS_128(d, 0), SUMS_32(d, 16), SUMS_16(d, 20))
PRODUCTS(192, TENS_8 TEN(8) LAST_6(9), 96, 97, 98, 99, 100, SUMS_128(d, 0), SUMS_64(d, 16))
PRODUCTS(256, TENS_12 LAST_8(12), 128, 129, 130, 131, 132, SUMS_128(d, 0), SUMS_128(d, 16))

#endif
