// convert_dq.cu: the float sums of dq (dq_sum.cuh) times scale, rounded once, to dq through its strides.
//
// -D: HEAD_D, as of the kernel that summed. Grid: ceil(M/64) * H * B blocks of 256 threads, 64 rows each. Rows past the
// end of a sequence are blank.cu's. It may begin while the last blocks of the main pass run: it waits for those of its head.
#include "dq_sum.cuh"

#define ROWS 64
#define WARPS 8
#define QUADS (HEAD_D / 32)            // groups of 32 columns
#define ITEMS (ROWS / 16 * QUADS)      // of 16 rows and 32 columns; a warp takes several
#define OWN ((ITEMS + WARPS - 1) / WARPS)

static_assert(HEAD_D % 32 == 0 && DLATTN_ROW_ALIGNMENT % ROWS == 0, "tiles");

// Two neighbours, rounded; the first in the low half.
DEVICE u32 round_pair(int dtype, float x, float y) {
    if (dtype == DLATTN_TYPE_F16) return (u32)f16_of_float(x) | (u32)f16_of_float(y) << 16;
#if __CUDA_ARCH__ >= 800
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(y), "f"(x));
    return both;
#else
    return (u32)bf16_of_float(x) | (u32)bf16_of_float(y) << 16;
#endif
}

// Eight neighbours of a row, of 16 bits, `count` of which exist.
DEVICE void store_octet(const dlattn_view &t, i64 index, int count, const u32 word[4]) {
    const u64 address = t.data + 2 * (u64)index;
    if (count >= 8 && t.stride[3] == 1 && address % 16 == 0) {
        *(uint4 *)address = make_uint4(word[0], word[1], word[2], word[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < count) ((u16 *)t.data)[index + i * t.stride[3]] = (u16)(word[i / 2] >> (i % 2 * 16));
}

// Row i of 16 x 32: x[n]: this lane's two neighbours of columns [8 n, 8 n + 8). Through 16 bits each lane gets eight columns.
DEVICE void store_row(const dlattn_params &p, const sequence &s, int h, int i, int col, const float2 x[4]) {
    const int lane = (int)threadIdx.x % 32, t = lane % 4;
    const i64 row = at(p.dq, s.b, s.q_begin + i, h);
    if (p.dq.dtype == DLATTN_TYPE_F32) {
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const int first = col + 8 * n + 2 * t;
            if (i < s.M && first < p.D) store_float(p.dq, row + first * p.dq.stride[3], x[n].x * p.scale);
            if (i < s.M && first + 1 < p.D) store_float(p.dq, row + (first + 1) * p.dq.stride[3], x[n].y * p.scale);
        }
        return;
    }
    u32 word[4];
#pragma unroll
    for (int n = 0; n < 4; n++) word[n] = round_pair(p.dq.dtype, x[n].x * p.scale, x[n].y * p.scale);
    transpose_quad(word, lane);
    const int first = col + 8 * t;
    if (i < s.M && first < p.D) store_octet(p.dq, row + first * p.dq.stride[3], p.D - first, word);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) convert_dq(const __grid_constant__ dlattn_params p) {
    const int tiles = (p.M + ROWS - 1) / ROWS, pair = (int)blockIdx.x / tiles, h = pair % p.H;
    const int i0 = (int)blockIdx.x % tiles * ROWS, warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const sequence s = read_sequence(p, pair / p.H);
    if (blockIdx.x == gridDim.x - 1) wait_for_kernel_before(); // who waits for this kernel, waits for that one
    if (i0 >= s.M) return;
    wait_for_blocks(p, s.b, h / p.heads_per_group, (u32)p.key_tiles);
    const i64 first_row = row_of(p, s, h, i0);
    float4 x[OWN][4];
#pragma unroll
    for (int n = 0; n < OWN; n++) {
        const int item = warp + n * WARPS;
        if (ITEMS % WARPS != 0 && item >= ITEMS) break;
        const float *sums = dq_sum_block(p, first_row + item / QUADS * 16, item % QUADS * 32, HEAD_D);
#pragma unroll
        for (int octet = 0; octet < 4; octet++) x[n][octet] = dq_sum_read(sums + 128 * octet, lane);
    }
#pragma unroll
    for (int n = 0; n < OWN; n++) {
        const int item = warp + n * WARPS, i = i0 + item / QUADS * 16 + lane / 4, col = item % QUADS * 32;
        if (ITEMS % WARPS != 0 && item >= ITEMS) break;
        const float2 upper[4] = {{x[n][0].x, x[n][0].y}, {x[n][1].x, x[n][1].y}, {x[n][2].x, x[n][2].y}, {x[n][3].x, x[n][3].y}};
        const float2 lower[4] = {{x[n][0].z, x[n][0].w}, {x[n][1].z, x[n][1].w}, {x[n][2].z, x[n][2].w}, {x[n][3].z, x[n][3].w}};
        store_row(p, s, h, i, col, upper);
        store_row(p, s, h, i + 8, col, lower);
    }
}
