// convert_dq.cu: the float sums of dq (dq_sum.cuh) times scale, rounded once, to dq through its strides.
//
// -D: HEAD_D, as of the kernel that summed. Grid: ceil(M/64) * H * B blocks of 256 threads, 64 rows each. Rows past the
// end of a sequence are blank.cu's. It may begin while the last blocks of the main pass run: it waits for those of its head.
#include "dq_sum.cuh"

#define ROWS 64
#define OCTETS (HEAD_D / 8)

static_assert(HEAD_D % 16 == 0 && DLATTN_ROW_ALIGNMENT % ROWS == 0, "tiles");

// Eight neighbours of a row, `count` of which exist.
DEVICE void store_octet(const dlattn_view &t, i64 index, int count, const float x[8]) {
    bool half = t.dtype != DLATTN_TYPE_F32;
    u64 address = t.data + (u64)(index * (half ? 2 : 4));
    if (count < 8 || t.stride[3] != 1 || address % 16) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < count) store_float(t, index + i * t.stride[3], x[i]);
        return;
    }
    if (!half) {
        ((float4 *)address)[0] = make_float4(x[0], x[1], x[2], x[3]);
        ((float4 *)address)[1] = make_float4(x[4], x[5], x[6], x[7]);
        return;
    }
    u32 word[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u16 lo = t.dtype == DLATTN_TYPE_F16 ? f16_of_float(x[2 * i]) : bf16_of_float(x[2 * i]);
        u16 hi = t.dtype == DLATTN_TYPE_F16 ? f16_of_float(x[2 * i + 1]) : bf16_of_float(x[2 * i + 1]);
        word[i] = (u32)lo | (u32)hi << 16;
    }
    *(uint4 *)address = make_uint4(word[0], word[1], word[2], word[3]);
}

extern "C" __global__ void __launch_bounds__(256) convert_dq(const __grid_constant__ dlattn_params p) {
    int tiles = (p.M + ROWS - 1) / ROWS, pair = (int)blockIdx.x / tiles, h = pair % p.H;
    int i0 = (int)blockIdx.x % tiles * ROWS;
    sequence s = read_sequence(p, pair / p.H);
    if (blockIdx.x == gridDim.x - 1) wait_for_kernel_before(); // who waits for this kernel, waits for that one
    if (i0 >= s.M) return;
    wait_for_blocks(p, s.b, h / p.heads_per_group, (u32)p.key_tiles);
    i64 first_row = row_of(p, s, h, i0);
    for (int item = (int)threadIdx.x; item < ROWS / 2 * OCTETS; item += 256) {
        int octet = item % OCTETS, r = item / OCTETS % 8, block = item / OCTETS / 8;
        int i = i0 + 16 * block + r;
        if (i >= s.M || 8 * octet >= p.D) continue;
        const float *sums = dq_sum_block(p, first_row + 16 * block, 8 * octet, HEAD_D);
        float upper[8], lower[8];
#pragma unroll
        for (int t = 0; t < 4; t++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
                upper[2 * t + c] = sums[dq_sum_index(4 * r + t, c)] * p.scale;
                lower[2 * t + c] = sums[dq_sum_index(4 * r + t, c + 2)] * p.scale;
            }
        i64 index = at(p.dq, s.b, s.q_begin + i, h, 8 * octet);
        store_octet(p.dq, index, p.D - 8 * octet, upper);
        if (i + 8 < s.M) store_octet(p.dq, index + 8 * p.dq.stride[1], p.D - 8 * octet, lower);
    }
}
