/* test_problem.c: what a valid call becomes: sizes, operands, addresses, sequences. Backends rely on each line. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "backend.h"
#include "call.h"
#include "problem.h"
#include "tensor.h"

static problem p;
static buffers x;
static call c;

static void read_forward(void) {
    cr_assert_eq(dlattn__problem_forward(&p, &x, c.a, c.o, true), DLATTN_OK, "%s", dlattn_last_error());
}

static void read_backward(void) {
    cr_assert_eq(dlattn__problem_backward(&p, &x, c.a, c.g, true), DLATTN_OK, "%s", dlattn_last_error());
}

static void expect_dims(const char *name, const int64_t found[4], int64_t d0, int64_t d1, int64_t d2, int64_t d3) {
    const int64_t wanted[4] = {d0, d1, d2, d3};
    char a[DLATTN_SHAPE_TEXT], b[DLATTN_SHAPE_TEXT];
    cr_expect(memcmp(found, wanted, sizeof wanted) == 0, "%s is %s, not %s", name, dlattn__shape_text(a, found, 4),
              dlattn__shape_text(b, wanted, 4));
}

/* Swaps dimensions 1 and 2: the same elements in the other layout. */
static void transpose(int i) {
    int64_t extent = c.shape[i][1], stride = c.strides[i][1];
    c.shape[i][1] = c.shape[i][2], c.strides[i][1] = c.strides[i][2];
    c.shape[i][2] = extent, c.strides[i][2] = stride;
}

Test(problem, sizes_and_defaults) {
    make_call(&c);
    read_forward();
    cr_expect(p.op == DLATTN_OP_FORWARD && p.dtype == DLATTN_T_F32 && p.device_type == kDLCPU);
    cr_expect(p.B == B && p.H == H && p.G == G && p.M == M && p.N == N && p.D == D && p.E == E);
    cr_expect_eq(p.scale, 1 / sqrt((double)D));
    cr_expect(p.bias.dtype == DLATTN_T_NONE && p.dq.dtype == DLATTN_T_NONE && !x.bias && !x.dq);
    cr_expect(x.q == c.t[Q].data && x.out == c.t[OUT].data && x.lse == c.t[LSE].data);
    expect_dims("lse", p.lse.extent, B, H, M, 1);
    expect_dims("lse strides", p.lse.stride, H * M, M, 1, 0);
}

Test(problem, layouts_give_the_same_operands) {
    static problem other;
    make_call(&c);
    read_backward();
    other = p;
    const int transposed[] = {Q, K, V, OUT, DOUT, DQ, DK, DV};
    for (int i = 0; i < 8; i++) transpose(transposed[i]);
    c.attention.layout = DLATTN_BHSD;
    read_backward();
    cr_expect(memcmp(&p, &other, sizeof p) == 0);
    expect_dims("k", p.k.extent, B, N, G, D);
    expect_dims("k strides", p.k.stride, N * G * D, G * D, D, 1);
}

Test(problem, packed_sides_have_no_batch_stride) {
    make_call(&c);
    pack_q(&c);
    pack_k(&c);
    read_backward();
    cr_expect(p.packed_q && p.packed_k && p.B == B && p.M == B * M && p.N == B * N);
    expect_dims("q", p.q.extent, 1, B * M, H, D);
    expect_dims("q strides", p.q.stride, 0, H * D, D, 1);
    expect_dims("dv", p.dv.extent, 1, B * N, G, E);
    expect_dims("lse", p.lse.extent, 1, H, B * M, 1);
    expect_dims("lse strides", p.lse.stride, 0, B * M, 1, 0);
    c.attention.layout = DLATTN_BHSD;
    set_tensor(&c, Q, kDLFloat, 32, 3, H, B * M, D, 0);
    c.shape[K][0] = c.shape[V][0] = G, c.shape[K][1] = c.shape[V][1] = B * N;
    c.shape[OUT][0] = H, c.shape[OUT][1] = B * M;
    c.strides[OUT][0] = B * M * E, c.strides[OUT][1] = E;
    read_forward();
    expect_dims("q", p.q.extent, 1, B * M, H, D);
    expect_dims("q strides", p.q.stride, 0, D, B * M * D, 1);
}

Test(problem, sides_are_packed_independently) {
    make_call(&c);
    pack_k(&c);
    read_forward();
    cr_expect(!p.packed_q && p.packed_k && p.B == B && p.M == M && p.N == B * N);
}

Test(problem, max_seqlen_bounds_lengths_and_sets_packed_bias) {
    make_call(&c);
    c.attention.max_seqlen_q = 2;
    c.attention.max_seqlen_k = 100;
    c.attention.bias = &c.t[BIAS]; /* padded: the extents of the tensors, whatever max_seqlen says */
    read_forward();
    cr_expect(p.M == 2 && p.N == N);
    expect_dims("out", p.out.extent, B, M, H, E);
    make_call(&c);
    pack_q(&c);
    pack_k(&c);
    c.attention.max_seqlen_q = 4;
    c.attention.max_seqlen_k = 100;
    c.attention.bias = set_tensor(&c, BIAS, kDLFloat, 32, 2, 4, 100, 0, 0);
    read_forward();
    cr_expect(p.M == 4 && p.N == B * N);
    expect_dims("bias", p.bias.extent, 1, 1, 4, 100);
    expect_dims("bias strides", p.bias.stride, 0, 0, 100, 1);
}

Test(problem, strides_of_extent_1_are_0) {
    make_call(&c);
    set_tensor(&c, Q, kDLFloat, 32, 4, B, 1, H, D), set_tensor(&c, OUT, kDLFloat, 32, 4, B, 1, H, E);
    set_tensor(&c, LSE, kDLFloat, 32, 3, B, H, 1, 0);
    c.strides[Q][1] = INT64_MAX;
    c.strides[OUT][1] = 0;
    c.strides[LSE][2] = INT64_MIN;
    read_forward();
    expect_dims("q strides", p.q.stride, H * D, 0, D, 1);
    expect_dims("lse strides", p.lse.stride, H, 1, 0, 0);
}

Test(problem, bias_is_right_aligned) {
    static const int64_t shapes[][5] = {{1, N},       {1, 1},          {2, M, N},      {2, 1, N},
                                        {3, H, 1, 1}, {4, B, 1, M, 1}, {4, 1, 1, 1, 1}};
    for (int s = 0; s < 7; s++) {
        const int64_t *e = shapes[s] + 1;
        int rank = (int)shapes[s][0];
        int64_t wanted[4] = {1, 1, 1, 1};
        for (int d = 0; d < rank; d++) wanted[4 - rank + d] = e[d];
        make_call(&c);
        c.attention.bias = set_tensor(&c, BIAS, kDLFloat, 32, rank, e[0], e[1], e[2], e[3]);
        c.gradients.dbias = set_tensor(&c, DBIAS, kDLFloat, 32, rank, e[0], e[1], e[2], e[3]);
        read_backward();
        expect_dims("bias", p.bias.extent, wanted[0], wanted[1], wanted[2], wanted[3]);
        for (int d = 0; d < 4; d++)
            if (wanted[d] == 1) cr_expect_eq(p.bias.stride[d], 0);
        cr_expect(memcmp(&p.bias, &p.dbias, sizeof p.bias) == 0);
    }
}

Test(problem, slopes_per_head_or_per_batch_and_head) {
    make_call(&c);
    c.attention.alibi_slopes = &c.t[SLOPES];
    read_forward();
    expect_dims("slopes", p.alibi_slopes.extent, 1, H, 1, 1);
    expect_dims("slopes strides", p.alibi_slopes.stride, 0, 1, 0, 0);
    set_tensor(&c, SLOPES, kDLFloat, 32, 2, B, H, 0, 0);
    read_forward();
    expect_dims("slopes strides", p.alibi_slopes.stride, H, 1, 0, 0);
    set_tensor(&c, SLOPES, kDLFloat, 32, 2, 1, H, 0, 0);
    read_forward();
    expect_dims("slopes strides", p.alibi_slopes.stride, 0, 1, 0, 0);
}

Test(problem, dropout_threshold) {
    static const double rates[] = {0, 1e-9, 0.001, 0.1, 0.25, 0.5, 0.998, 0.9999, 1};
    static const int32_t thresholds[] = {0, 1, 1, 26, 64, 128, 255, 255, 256};
    for (int i = 0; i < 9; i++) {
        make_call(&c);
        c.attention.dropout = rates[i];
        read_forward();
        cr_expect_eq(p.dropout_threshold, thresholds[i], "rate %g", rates[i]);
    }
}

Test(problem, scale_as_given) {
    static const double scales[] = {0, -2.5, 1e-300};
    for (int i = 0; i < 3; i++) {
        make_call(&c);
        c.attention.flags = DLATTN_SCALE;
        c.attention.scale = scales[i];
        read_forward();
        cr_expect_eq(p.scale, scales[i]);
    }
}

Test(problem, equal_calls_have_equal_bytes) {
    static problem other;
    make_call(&c);
    memset(&p, 0x11, sizeof p);
    read_forward();
    other = p;
    memset(&p, 0xEE, sizeof p);
    c.attention.window_left = 9; /* means nothing without DLATTN_WINDOW */
    c.attention.block_size = 9;
    read_forward();
    cr_expect(memcmp(&p, &other, sizeof p) == 0);
}

Test(problem, dtypes_of_each_tensor) {
    static const struct {
        int code, bits;
        int32_t dtype;
    } types[] = {{kDLFloat, 16, DLATTN_T_F16}, {kDLBfloat, 16, DLATTN_T_BF16}, {kDLFloat, 32, DLATTN_T_F32},
                 {kDLFloat, 64, DLATTN_T_F64}};
    static const int own[] = {Q, K, V, DOUT}, either[] = {OUT, DQ, DK, DV, BIAS, DBIAS, SLOPES, SINKS, DSINKS};
    for (int type = 0; type < 4; type++)
        for (int wide = 0; wide < 2; wide++) {
            make_call(&c);
            c.attention.bias = &c.t[BIAS], c.attention.alibi_slopes = &c.t[SLOPES], c.attention.sinks = &c.t[SINKS];
            c.gradients.dbias = &c.t[DBIAS], c.gradients.dsinks = &c.t[DSINKS], c.gradients.dlse = &c.t[DLSE];
            for (int i = 0; i < 4; i++) set_type(&c, own[i], types[type].code, types[type].bits);
            for (int i = 0; i < 9 && !wide; i++) set_type(&c, either[i], types[type].code, types[type].bits);
            int lse_bits = types[type].bits == 64 ? 64 : 32;
            set_type(&c, LSE, kDLFloat, lse_bits), set_type(&c, DLSE, kDLFloat, lse_bits);
            read_backward();
            int32_t expected = wide ? DLATTN_T_F32 : types[type].dtype;
            cr_expect(p.dtype == types[type].dtype && p.dout.dtype == types[type].dtype);
            cr_expect(p.dq.dtype == expected && p.bias.dtype == expected && p.dsinks.dtype == expected);
            cr_expect_eq(p.lse.dtype, lse_bits == 64 ? DLATTN_T_F64 : DLATTN_T_F32);
        }
}

Test(problem, rng_state_forms) {
    static const int codes[] = {kDLInt, kDLUInt, kDLUInt}, bits[] = {64, 64, 32};
    for (int i = 0; i < 3; i++) {
        make_call(&c);
        c.attention.rng_state = set_tensor(&c, RNG, codes[i], bits[i], 1, bits[i] == 32 ? 4 : 2, 0, 0, 0);
        read_forward();
        cr_expect_eq(p.rng_state.dtype, bits[i] == 32 ? DLATTN_T_I32 : DLATTN_T_I64);
        cr_expect(x.rng_state == c.memory[RNG]);
    }
}

Test(problem, zero_sizes_need_no_data) {
    for (int empty = 0; empty < 4; empty++) {
        make_call(&c);
        const int64_t b = empty == 0 ? 0 : B, m = empty == 1 ? 0 : M, n = empty == 2 ? 0 : N, h = empty == 3 ? 0 : H;
        const int64_t g = empty == 3 ? 0 : G;
        set_tensor(&c, Q, kDLFloat, 32, 4, b, m, h, D), set_tensor(&c, DQ, kDLFloat, 32, 4, b, m, h, D);
        set_tensor(&c, K, kDLFloat, 32, 4, b, n, g, D), set_tensor(&c, DK, kDLFloat, 32, 4, b, n, g, D);
        set_tensor(&c, V, kDLFloat, 32, 4, b, n, g, E), set_tensor(&c, DV, kDLFloat, 32, 4, b, n, g, E);
        set_tensor(&c, OUT, kDLFloat, 32, 4, b, m, h, E), set_tensor(&c, DOUT, kDLFloat, 32, 4, b, m, h, E);
        set_tensor(&c, LSE, kDLFloat, 32, 3, b, h, m, 0);
        for (int i = 0; i < TENSORS; i++) {
            int zero = 0;
            for (int d = 0; d < c.t[i].ndim; d++) zero |= c.shape[i][d] == 0;
            if (zero) c.t[i].data = NULL;
        }
        read_forward();
        read_backward();
        cr_expect(p.B == b && p.M == m && p.N == n && p.H == h && p.G == g);
    }
}

Test(problem, no_query_heads_but_kv_heads) {
    make_call(&c);
    set_tensor(&c, Q, kDLFloat, 32, 4, B, M, 0, D), set_tensor(&c, OUT, kDLFloat, 32, 4, B, M, 0, E);
    set_tensor(&c, LSE, kDLFloat, 32, 3, B, 0, M, 0);
    read_forward();
    cr_expect(p.H == 0 && p.G == G);
}

Test(problem, host_memory_is_one_device) {
    make_call(&c);
    c.t[K].device = (DLDevice){kDLCUDAHost, 3};
    c.t[OUT].device = (DLDevice){kDLCPU, 1};
    read_forward();
    cr_expect_eq(p.device_type, kDLCPU);
}

Test(problem, byte_offset_and_null_strides) {
    make_call(&c);
    c.t[Q].data = c.memory;
    c.t[Q].byte_offset = K * TENSOR_BYTES + 16;
    c.t[Q].strides = NULL;
    read_forward();
    cr_expect(x.q == c.memory[K] + 16);
    expect_dims("q strides", p.q.stride, M * H * D, H * D, D, 1);
}

Test(problem, queries_ignore_data) {
    make_call(&c);
    for (int i = 0; i < TENSORS; i++) c.t[i].data = NULL, c.t[i].byte_offset = UINT64_MAX;
    cr_expect_eq(dlattn__problem_forward(&p, NULL, c.a, c.o, false), DLATTN_OK, "%s", dlattn_last_error());
    cr_expect_eq(dlattn__problem_backward(&p, NULL, c.a, c.g, false), DLATTN_OK, "%s", dlattn_last_error());
}

Test(problem, dropout_mask_reads_no_q) {
    make_call(&c);
    c.t[Q].data = c.t[K].data = c.t[V].data = NULL;
    cr_expect_eq(dlattn__problem_dropout_mask(&p, &x, c.a, c.keep), DLATTN_OK, "%s", dlattn_last_error());
    cr_expect(p.op == DLATTN_OP_DROPOUT_MASK && x.keep == c.memory[KEEP]);
    expect_dims("keep", p.keep.extent, B, H, M, N);
}

/* dq, dk and dv inside one buffer, element by element. */
Test(problem, interleaved_gradients_are_legal) {
    make_call(&c);
    set_tensor(&c, K, kDLFloat, 32, 4, B, M, H, D), set_tensor(&c, V, kDLFloat, 32, 4, B, M, H, D);
    set_tensor(&c, OUT, kDLFloat, 32, 4, B, M, H, D), set_tensor(&c, DOUT, kDLFloat, 32, 4, B, M, H, D);
    for (int i = 0; i < 3; i++) {
        set_tensor(&c, DQ + i, kDLFloat, 32, 4, B, M, H, D);
        for (int d = 0; d < 4; d++) c.strides[DQ + i][d] *= 3;
        c.t[DQ + i].data = c.memory[DQ] + 4 * i;
    }
    read_backward();
    cr_expect(x.dk == c.memory[DQ] + 4 && p.dk.stride[3] == 3);
}

Test(problem, inputs_may_share_and_run_backwards) {
    make_call(&c);
    set_tensor(&c, V, kDLFloat, 32, 4, B, N, G, D);
    set_tensor(&c, OUT, kDLFloat, 32, 4, B, M, H, D);
    c.t[V].data = c.t[K].data;
    c.strides[Q][0] = 0; /* one batch read twice */
    c.strides[K][1] = -c.strides[K][1];
    c.t[K].byte_offset = (uint64_t)((N - 1) * G * D * 4);
    c.strides[OUT][2] = -c.strides[OUT][2];
    c.t[OUT].byte_offset = (uint64_t)((H - 1) * D * 4);
    read_forward();
    cr_expect_eq(p.k.stride[1], -G * D);
}

typedef struct expected_sequence {
    int64_t q_begin, k_begin, M, N, q_position, k_position;
} expected_sequence;

static void expect_sequence(int64_t b, expected_sequence e) {
    cr_assert_eq(dlattn__problem_check_lengths(&p, &x), DLATTN_OK, "%s", dlattn_last_error());
    sequence s = dlattn__sequence(&p, &x, b);
    cr_expect(s.q_begin == e.q_begin && s.k_begin == e.k_begin, "begins %d %d", (int)s.q_begin, (int)s.k_begin);
    cr_expect(s.M == e.M && s.N == e.N, "lengths %d %d", (int)s.M, (int)s.N);
    cr_expect(s.q_position == e.q_position && s.k_position == e.k_position, "positions %d %d", (int)s.q_position,
              (int)s.k_position);
}

Test(sequence, padded) {
    make_call(&c);
    read_forward();
    expect_sequence(1, (expected_sequence){0, 0, M, N, N - M, 0});
    c.attention.flags = DLATTN_TOP_LEFT;
    c.attention.seqlens_k = &c.t[SEQLENS_K];
    set_ints(&c, SEQLENS_K, (const int32_t[]){5, 1}, 2);
    read_forward();
    expect_sequence(1, (expected_sequence){0, 0, M, 1, 0, 0});
    c.attention.flags = 0;
    read_forward();
    expect_sequence(1, (expected_sequence){0, 0, M, 1, 1 - M, 0});
}

/* Lengths are clamped before the offset between queries and keys is taken. */
Test(sequence, clamped_to_max_seqlen) {
    make_call(&c);
    c.attention.max_seqlen_k = 4;
    read_forward();
    expect_sequence(0, (expected_sequence){0, 0, M, 4, 4 - M, 0});
}

Test(sequence, packed_with_empty_sequence_and_spare_tokens) {
    make_call(&c);
    pack_q(&c);
    pack_k(&c);
    set_ints(&c, CU_Q, (const int32_t[]){1, 1, 5}, 3);
    set_ints(&c, CU_K, (const int32_t[]){2, 9, 9}, 3);
    c.attention.seqlens_q = &c.t[SEQLENS_Q];
    set_ints(&c, SEQLENS_Q, (const int32_t[]){0, 2}, 2);
    read_forward();
    expect_sequence(0, (expected_sequence){1, 2, 0, 7, 7, 0});
    expect_sequence(1, (expected_sequence){1, 9, 2, 0, -2, 0});
}

Test(sequence, positions_and_int64_vectors_of_any_stride) {
    make_call(&c);
    c.attention.flags = DLATTN_POSITIONS;
    c.attention.q_start = 100;
    c.attention.k_start = -3;
    read_forward();
    expect_sequence(1, (expected_sequence){0, 0, M, N, 100, -3});
    set_tensor(&c, K_STARTS, kDLInt, 64, 1, B, 0, 0, 0);
    ((int64_t *)c.memory[K_STARTS])[0] = INT64_C(1) << 40;
    ((int64_t *)c.memory[K_STARTS])[2] = -7;
    c.t[K_STARTS].byte_offset = 16;
    c.strides[K_STARTS][0] = -2;
    c.attention.k_starts = &c.t[K_STARTS];
    read_forward();
    expect_sequence(0, (expected_sequence){0, 0, M, N, 100, -7});
    expect_sequence(1, (expected_sequence){0, 0, M, N, 100, INT64_C(1) << 40});
}

/* Does brute force find two elements at one address, and do all of them lie side by side? */
static void brute_force(const int64_t extent[4], const int64_t stride[4], bool *overlaps, bool *dense) {
    unsigned char seen[256] = {0};
    int64_t count = 0, low = 128, high = 128;
    *overlaps = false;
    for (int64_t a = 0; a < extent[0]; a++)
        for (int64_t b = 0; b < extent[1]; b++)
            for (int64_t d = 0; d < extent[2]; d++)
                for (int64_t e = 0; e < extent[3]; e++) {
                    int64_t at = 128 + a * stride[0] + b * stride[1] + d * stride[2] + e * stride[3];
                    *overlaps = *overlaps || seen[at]++;
                    low = at < low ? at : low, high = at > high ? at : high;
                    count++;
                }
    *dense = !*overlaps && count == high - low + 1;
}

Test(tensor, overlap_and_density_by_brute_force) {
    const role any = {"x", "[...]", DLATTN_TYPES_BOOL, 4, 4, true, false};
    uint64_t random = 7;
    int found[2] = {0, 0};
    for (int n = 0; n < 40000; n++) {
        int64_t extent[4], stride[4];
        int axes = 0;
        for (int d = 0; d < 4; d++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            extent[d] = 1 + (int64_t)(random >> 40) % 3;
            stride[d] = (int64_t)(random >> 50) % 25 - 12;
            axes += extent[d] > 1;
        }
        DLTensor dl = {.device = {kDLCPU, 0}, .ndim = 4, .dtype = {kDLUInt, 8, 1}, .shape = extent, .strides = stride};
        tensor t;
        bool overlaps, dense;
        cr_assert_eq(dlattn__tensor_read(&t, &any, &dl), DLATTN_OK);
        brute_force(extent, stride, &overlaps, &dense);
        cr_assert(t.overlaps_itself || !overlaps, "an overlap was missed");
        cr_assert(t.overlaps_itself == overlaps || axes > 2, "an overlap was imagined");
        cr_assert_eq(t.dense, dense);
        found[overlaps]++;
    }
    cr_expect(found[0] > 1000 && found[1] > 1000, "both kinds are met");
}
