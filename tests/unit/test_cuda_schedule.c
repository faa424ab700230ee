/* test_cuda_schedule.c: what a CUDA call launches and the workspace it asks for, on every architecture, without a GPU. */
#include <criterion/criterion.h>
#include <string.h>

#include "arguments.h"
#include "options.h"
#include "schedule.h"

static const int32_t archs[] = DLATTN_ARCHS;
enum { NUM_ARCHS = (int)(sizeof archs / sizeof archs[0]) };

static operand dense(int32_t dtype, int64_t e0, int64_t e1, int64_t e2, int64_t e3) {
    operand o = {.dtype = dtype, .extent = {e0, e1, e2, e3}, .stride = {e1 * e2 * e3, e2 * e3, e3, 1}};
    for (int d = 0; d < 4; d++)
        if (o.extent[d] == 1) o.stride[d] = 0;
    return o;
}

static problem make_forward(int32_t dtype, int64_t B, int64_t H, int64_t G, int64_t M, int64_t N, int64_t D) {
    problem p;
    memset(&p, 0, sizeof p);
    p.op = DLATTN_OP_FORWARD;
    p.dtype = dtype;
    p.device_type = kDLCUDA;
    p.B = B, p.H = H, p.G = G, p.M = M, p.N = N, p.D = p.E = D;
    p.scale = 1;
    p.q = p.out = dense(dtype, B, M, H, D);
    p.k = p.v = dense(dtype, B, N, G, D);
    p.lse = dense(DLATTN_T_F32, B, H, M, 1);
    return p;
}

static problem make_backward(int32_t dtype, int64_t B, int64_t H, int64_t G, int64_t M, int64_t N, int64_t D) {
    problem p = make_forward(dtype, B, H, G, M, N, D);
    p.op = DLATTN_OP_BACKWARD;
    p.dout = p.dq = p.q;
    p.dk = p.dv = p.k;
    return p;
}

static cuda_schedule made(const problem *p, int32_t arch, uint64_t room) {
    const cuda_device device = dlattn__cuda_device_like(arch);
    cuda_schedule s;
    char note[256] = "";
    cr_assert_eq(dlattn__schedule(&s, p, NULL, &device, room, note, sizeof note), DLATTN_OK, "sm_%d: %s", (int)arch, note);
    return s;
}

static bool launches(const cuda_schedule *s, const char *entry) {
    for (int32_t n = 0; n < s->step_count; n++)
        if (strcmp(s->steps[n].request.entry, entry) == 0) return true;
    return false;
}

static int64_t defined(const kernel_request *r, const char *name) {
    for (int32_t n = 0; n < r->count; n++)
        if (strcmp(r->defines[n].name, name) == 0) return r->defines[n].value;
    return -1;
}

Test(cuda_schedule, many_tiles_are_one_launch_without_workspace) {
    const problem p = make_forward(DLATTN_T_BF16, 4, 32, 8, 4096, 4096, 128);
    for (int n = 0; n < NUM_ARCHS; n++) {
        const cuda_schedule s = made(&p, archs[n], UINT64_MAX);
        cr_expect(s.step_count == 1 && s.splits == 1 && s.workspace.total == 0, "sm_%d", (int)archs[n]);
        cr_expect(s.steps[0].blocks > 0 && s.steps[0].request.smem_bytes <= dlattn__cuda_device_like(archs[n]).smem_bytes);
    }
}

Test(cuda_schedule, short_queries_on_long_keys_are_split) {
    const problem p = make_forward(DLATTN_T_F16, 1, 8, 8, 16, 65536, 128);
    for (int n = 0; n < NUM_ARCHS; n++) {
        const cuda_schedule s = made(&p, archs[n], UINT64_MAX);
        cr_expect(s.splits > 1 && launches(&s, "combine"), "sm_%d: %d splits", (int)archs[n], (int)s.splits);
        cr_expect(s.workspace.total >= (uint64_t)(s.splits * s.row_count * (p.E + 1) * 4));
        const cuda_schedule whole = made(&p, archs[n], 0);
        cr_expect(whole.splits == 1 && whole.workspace.total == s.workspace.least && !launches(&whole, "combine"));
        const cuda_schedule half = made(&p, archs[n], s.workspace.total / 2);
        cr_expect(half.splits < s.splits && half.workspace.total <= s.workspace.total / 2);
    }
}

/* Decoding from pages is launched as decoding from one piece, by the kernels that look pages up. */
Test(cuda_schedule, keys_in_pages_take_the_same_tiles) {
    for (int32_t n = 0; n < NUM_ARCHS; n++) {
        for (int64_t M = 1; M <= 1000; M += 999) {
            problem p = make_forward(DLATTN_T_F16, 2, 32, 8, M, 8192, 128);
            const cuda_schedule whole = made(&p, archs[n], UINT64_MAX);
            p.page = 256;
            p.k = p.v = dense(DLATTN_T_F16, 64, 256, 8, 128);
            p.block_table = dense(DLATTN_T_I32, 2, 32, 1, 1);
            const cuda_schedule paged = made(&p, archs[n], UINT64_MAX);
            cr_assert(paged.main->tuned && paged.main->pages, "sm_%d: %s", (int)archs[n], paged.main->name);
            cr_assert_eq(defined(&paged.steps[0].request, "PAGED"), 1);
            if (!whole.main->pages) continue; /* there is a faster kernel that knows no pages */
            cr_assert_eq(paged.main, whole.main);
            cr_assert_eq(paged.splits, whole.splits);
            cr_assert_eq(defined(&whole.steps[0].request, "PAGED"), 0);
            cr_assert_eq(defined(&paged.steps[0].request, "PACKED"), M == 1);
        }
    }
}

/* Blocks that stay: in a fixed order where tiles are equal; else by a counter, or one for each tile where that has no room. */
Test(cuda_schedule, blocks_of_the_hopper_forward_stay) {
    problem p = make_forward(DLATTN_T_BF16, 1, 16, 4, 16384, 16384, 128);
    cuda_schedule s = made(&p, 90, UINT64_MAX);
    const int64_t multiprocessors = dlattn__cuda_device_like(90).multiprocessors;
    cr_expect(launches(&s, "forward_sm90") && s.steps[0].blocks == multiprocessors && !s.counts && s.workspace.total == 0);
    p.flags = DLATTN_CAUSAL;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "forward_sm90") && s.steps[0].blocks == multiprocessors && s.counts && s.workspace.total == 256);
    s = made(&p, 90, 0);
    const int64_t tiles = (16384 + s.main->rows - 1) / s.main->rows * 16;
    cr_expect(launches(&s, "forward_sm90") && s.steps[0].blocks == tiles && !s.counts && s.workspace.total == 0);
}

/* A small kernel finds their spans first, and clears the counter; without room for them another forward serves. */
Test(cuda_schedule, the_hopper_forward_is_told_of_segments) {
    problem p = make_forward(DLATTN_T_BF16, 4, 16, 16, 4096, 4096, 128);
    p.q_segments = p.kv_segments = dense(DLATTN_T_I64, 4, 4096, 1, 1);
    cuda_schedule s = made(&p, 90, UINT64_MAX);
    cr_assert(s.step_count == 2 && launches(&s, "segments_sm90") && launches(&s, "forward_sm90") && s.spans && s.counts);
    cr_expect(s.steps[1].early && defined(&s.steps[0].request, "BN") == defined(&s.steps[1].request, "BN"));
    const int64_t spans = 4 * (s.steps[0].row_tiles + s.steps[0].key_tiles);
    cr_expect(s.steps[0].row_tiles == 64 && 8 * s.steps[0].blocks >= spans && s.workspace.total == (uint64_t)spans * 16 + 256);
    const cuda_schedule fits = made(&p, 90, s.workspace.total);
    cr_expect(fits.spans && fits.workspace.total == s.workspace.total);
    const cuda_schedule cramped = made(&p, 90, s.workspace.total - 257);
    cr_expect(launches(&cramped, "forward_sm80") && !cramped.spans && !launches(&cramped, "segments_sm90"));
}

/* The mask tensor is read in pieces of 16 bytes. */
Test(cuda_schedule, the_hopper_forward_reads_aligned_masks) {
    problem p = make_forward(DLATTN_T_BF16, 4, 16, 16, 4096, 4096, 128);
    p.mask = dense(DLATTN_T_U8, 4, 1, 4096, 4096);
    cuda_schedule s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "forward_sm90") && s.step_count == 1);
    p.mask.stride[2] = 4097;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "forward_sm80"));
}

static void expect_other_kernel(const problem *p, const char *why) {
    const cuda_schedule s = made(p, 90, UINT64_MAX);
    cr_expect_not(launches(&s, "forward_sm90"), "%s", why);
}

Test(cuda_schedule, the_hopper_forward_takes_what_tensor_maps_describe) {
    const problem plain = make_forward(DLATTN_T_F16, 2, 16, 4, 4096, 4096, 128);
    cuda_schedule s = made(&plain, 90, UINT64_MAX);
    cr_assert(launches(&s, "forward_sm90"));
    problem p = plain;
    p.k.stride[1] += 4;
    expect_other_kernel(&p, "rows at multiples of 8 bytes");
    p = plain;
    p.v.stride[1] = -p.v.stride[1];
    expect_other_kernel(&p, "a negative stride");
    p = plain;
    p.q.stride[1] = 0;
    expect_other_kernel(&p, "one row many times");
    p = plain;
    p.k.stride[0] = p.v.stride[0] = 0;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "forward_sm90"), "one sequence of keys many times");
    p = plain;
    p.scale = -1;
    expect_other_kernel(&p, "a negative scale");
    p = make_forward(DLATTN_T_F16, 2, 16, 4, 4096, 4096, 256);
    p.D = 128, p.q = dense(DLATTN_T_F16, 2, 4096, 16, 128), p.k = dense(DLATTN_T_F16, 2, 4096, 4, 128);
    expect_other_kernel(&p, "values longer than keys");
    p = plain;
    p.bias = dense(DLATTN_T_F16, 1, 1, 4096, 4096);
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "forward_sm90") && s.main->keys % 64 == 0, "a bias by tiles of whole panels");
    p.bias.stride[2] += 4;
    expect_other_kernel(&p, "a bias with rows at multiples of 8 bytes");
    p.bias = dense(DLATTN_T_F32, 1, 1, 4096, 4096);
    expect_other_kernel(&p, "a bias of another type");
    p.bias = dense(DLATTN_T_F16, 1, 1, 1, 4096);
    expect_other_kernel(&p, "a bias that broadcasts over rows");
    p = plain;
    p.dropout_threshold = 26;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "forward_sm90") && s.main->keys % 32 == 0, "dropout by whole blocks");
    p.mask = dense(DLATTN_T_U8, 2, 1, 4096, 4096);
    expect_other_kernel(&p, "dropout and a mask");
    p.mask.dtype = 0;
    p.flags = DLATTN_POSITIONS;
    expect_other_kernel(&p, "dropout that is counted from positions");
    p = make_forward(DLATTN_T_F16, 2, 16, 4, 4096, 0, 128);
    expect_other_kernel(&p, "no keys");
    cuda_device old = dlattn__cuda_device_like(90);
    char note[256];
    old.tensor_maps = false;
    cr_assert_eq(dlattn__schedule(&s, &plain, NULL, &old, UINT64_MAX, note, sizeof note), DLATTN_OK);
    cr_expect(launches(&s, "forward_sm80"));
}

static void expect_other_backward(const problem *p, const char *why) {
    const cuda_schedule s = made(p, 90, UINT64_MAX);
    cr_expect(launches(&s, "backward_sm80") && !launches(&s, "backward_sm90") && !launches(&s, "backward_wide_sm90"), "%s", why);
}

Test(cuda_schedule, the_hopper_backward_takes_terms_and_what_tensor_maps_describe) {
    const problem plain = make_backward(DLATTN_T_F16, 2, 16, 4, 4096, 4096, 128);
    cuda_schedule s = made(&plain, 90, UINT64_MAX);
    cr_assert(launches(&s, "backward_sm90") && launches(&s, "convert_dq") && s.dq_columns == 128);
    s = made(&plain, 80, UINT64_MAX);
    cr_expect(launches(&s, "backward_sm80"));
    problem p = plain;
    p.flags = DLATTN_CAUSAL;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "backward_sm90"), "causal");
    p = plain;
    p.flags = DLATTN_DETERMINISTIC;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "backward_sm90") && launches(&s, "backward_dq_sm80"), "without sums of dq");
    p = plain;
    p.scale = -1;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "backward_sm90"), "any scale");
    p = plain;
    p.dout.stride[1] += 4;
    expect_other_backward(&p, "rows at multiples of 8 bytes");
    p = plain;
    p.dout.stride[2] = -p.dout.stride[2];
    expect_other_backward(&p, "a negative stride");
    p = plain;
    p.softcap = 30;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "backward_sm90"), "a softcap");
    p.dropout_threshold = 26;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "backward_sm90"), "and dropout");
    p.flags = DLATTN_POSITIONS;
    expect_other_backward(&p, "dropout that is counted from positions");
    p = plain;
    p.mask = dense(DLATTN_T_U8, 2, 1, 4096, 4096);
    expect_other_backward(&p, "a mask tensor");
    p = plain;
    p.bias = dense(DLATTN_T_F16, 1, 1, 4096, 4096);
    expect_other_backward(&p, "a bias");
    p = make_backward(DLATTN_T_F16, 2, 16, 4, 4096, 4096, 128);
    p.D = 64, p.q = dense(DLATTN_T_F16, 2, 4096, 16, 64), p.k = dense(DLATTN_T_F16, 2, 4096, 4, 64);
    expect_other_backward(&p, "values longer than keys");
}

Test(cuda_schedule, the_hopper_backward_of_large_heads) {
    const problem plain = make_backward(DLATTN_T_BF16, 2, 16, 4, 4096, 4096, 256);
    cuda_schedule s = made(&plain, 90, UINT64_MAX);
    cr_assert(launches(&s, "backward_wide_sm90") && launches(&s, "convert_dq") && s.dq_columns == 256);
    problem p = make_backward(DLATTN_T_F16, 2, 16, 4, 4096, 4096, 136);
    p.flags = DLATTN_CAUSAL;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "backward_wide_sm90") && s.dq_columns == 192, "a head that is padded");
    p.dropout_threshold = 26;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "backward_wide_sm90"), "dropout");
    p = plain;
    p.flags = DLATTN_DETERMINISTIC;
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "backward_wide_sm90") && launches(&s, "backward_dq_sm80"), "without sums of dq");
    p = make_backward(DLATTN_T_BF16, 2, 16, 4, 4096, 130, 256);
    s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "backward_wide_sm90") && s.steps[1].key_tiles == 4 && s.steps[1].blocks == 2 * 4 * 4, "whole clusters");
    p = plain;
    p.dropout_threshold = 26;
    expect_other_backward(&p, "dropout, whose bits do not fit into shared memory");
    p = plain;
    p.mask = dense(DLATTN_T_U8, 2, 1, 4096, 4096);
    expect_other_backward(&p, "a mask tensor");
    p = plain;
    p.q.stride[1] += 4;
    expect_other_backward(&p, "rows at multiples of 8 bytes");
    s = made(&plain, 80, UINT64_MAX);
    cr_expect(launches(&s, "backward_sm80"));
}

/* Every row of the table can be asked for by its name, is then taken or refuses, and says who it is. */
Test(cuda_schedule, a_row_that_is_forced_is_taken_or_refuses) {
    problem problems[] = {make_forward(DLATTN_T_BF16, 2, 16, 4, 4096, 4096, 64), make_forward(DLATTN_T_F16, 1, 8, 8, 1, 8192, 128),
                          make_forward(DLATTN_T_BF16, 1, 4, 4, 100, 300, 192), make_forward(DLATTN_T_BF16, 2, 4, 4, 1000, 1000, 128)};
    problems[3].bias = dense(DLATTN_T_BF16, 1, 1, 1000, 1000);
    const cuda_device device = dlattn__cuda_device_like(90);
    int taken = 0, refused = 0;
    for (int32_t n = 0; dlattn__variant_row(n); n++) {
        char name[DLATTN_VARIANT_NAME], found[DLATTN_VARIANT_NAME], note[256];
        dlattn__variant_name(name, dlattn__variant_row(n));
        if (dlattn__variant_row(n)->kernel != DLATTN_KERNEL_FORWARD) continue;
        cr_assert_eq(dlattn__option_set("cuda_variant", name), DLATTN_OK, "%s", name);
        for (size_t m = 0; m < sizeof problems / sizeof problems[0]; m++) {
            cuda_schedule s;
            if (dlattn__schedule(&s, &problems[m], NULL, &device, UINT64_MAX, note, sizeof note) == DLATTN_OK) {
                dlattn__variant_name(found, s.main);
                cr_expect_str_eq(found, name);
                cr_expect(s.main->head >= problems[m].D && s.main->first_arch <= 90 && s.main->last_arch >= 90, "%s", name);
                cr_expect(!problems[m].bias.dtype || !s.main->tensor_maps || !(s.main->avoided & DLATTN_FEATURE_BIAS), "%s", name);
                taken++;
            } else {
                cr_expect(strncmp(note, name, strlen(name)) == 0 && strstr(note, "no kernel for it"), "%s", note);
                refused++;
            }
        }
    }
    cr_assert(taken > 20 && refused > 10, "%d, %d", taken, refused);
    cuda_schedule s;
    char note[256];
    cr_assert_eq(dlattn__option_set("cuda_variant", "sm80:64x48"), DLATTN_OK);
    cr_expect_eq(dlattn__schedule(&s, &problems[0], NULL, &device, UINT64_MAX, note, sizeof note), DLATTN_ERR_UNSUPPORTED);
    cr_expect(strstr(note, "sm80:64x48: no kernel for it: no kernel of this name"), "%s", note);
    cr_assert_eq(dlattn__option_set("cuda_variant", "sm80:128x6"), DLATTN_OK, "the beginning of a number");
    cr_expect_eq(dlattn__schedule(&s, &problems[0], NULL, &device, UINT64_MAX, note, sizeof note), DLATTN_ERR_UNSUPPORTED);
    dlattn__option_set("cuda_variant", NULL);
}

Test(cuda_schedule, dq_is_reduced_when_there_is_room_and_order_is_free) {
    problem p = make_backward(DLATTN_T_BF16, 2, 8, 2, 1024, 1024, 64);
    for (int n = 0; n < NUM_ARCHS; n++) {
        const cuda_schedule free_order = made(&p, archs[n], UINT64_MAX), poor = made(&p, archs[n], 0);
        cr_expect_not(launches(&poor, "convert_dq"), "sm_%d", (int)archs[n]);
        cr_expect(poor.dq && poor.dq_columns == 0);
        cr_expect(poor.workspace.total == free_order.workspace.least);
        cr_expect(poor.workspace.total <= free_order.workspace.total);
        p.flags = DLATTN_DETERMINISTIC;
        const cuda_schedule fixed = made(&p, archs[n], UINT64_MAX);
        cr_expect(fixed.dq && !launches(&fixed, "convert_dq"));
        p.flags = 0;
        if (!free_order.main->tuned) continue;
        cr_expect(launches(&free_order, "convert_dq") && !free_order.dq, "sm_%d", (int)archs[n]);
        cr_expect(free_order.dq_columns >= p.D);
        cr_expect(free_order.workspace.total >= free_order.workspace.dq_sum + (uint64_t)(free_order.row_count * p.D * 4));
    }
}

Test(cuda_schedule, later_kernels_begin_early_where_they_can_wait) {
    problem p = make_backward(DLATTN_T_BF16, 8, 32, 8, 2048, 2048, 64);
    for (int n = 0; n < NUM_ARCHS; n++) {
        const cuda_schedule s = made(&p, archs[n], UINT64_MAX);
        if (!s.main->tuned) continue;
        cr_assert(s.step_count == 3 && launches(&s, "convert_dq"));
        cr_expect_not(s.steps[0].early, "what comes before is not ours");
        cr_expect(s.steps[1].early == (archs[n] >= 90) && s.steps[2].early == (archs[n] >= 90), "sm_%d", (int)archs[n]);
        cr_expect(s.steps[2].key_tiles * p.G * p.B == s.steps[1].blocks, "it counts the blocks of a key head");
    }
    const problem small = make_backward(DLATTN_T_BF16, 1, 8, 8, 512, 512, 64);
    const cuda_schedule one_wave = made(&small, 90, UINT64_MAX);
    cr_expect(!one_wave.steps[1].early && !one_wave.steps[2].early, "nothing to share");
    problem none = make_backward(DLATTN_T_BF16, 2, 8, 2, 1024, 0, 64);
    const cuda_schedule s = made(&none, 90, UINT64_MAX);
    cr_expect(s.steps[1].blocks == 0 && !s.steps[2].early, "there is no kernel before to wait in");
    p.dtype = DLATTN_T_F32;
    p.q.dtype = p.k.dtype = p.v.dtype = p.dout.dtype = p.dq.dtype = p.dk.dtype = p.dv.dtype = DLATTN_T_F32;
    const cuda_schedule readable = made(&p, 90, UINT64_MAX);
    for (int32_t n = 0; n < readable.step_count; n++) cr_expect_not(readable.steps[n].early);
}

Test(cuda_schedule, only_what_is_wanted_is_launched) {
    problem p = make_backward(DLATTN_T_BF16, 1, 2, 2, 300, 200, 64);
    p.bias = p.dbias = dense(DLATTN_T_F32, 1, 1, 300, 200);
    p.sinks = p.dsinks = dense(DLATTN_T_F32, 2, 1, 1, 1);
    const operand absent = {0};
    p.dq = p.dk = p.dv = absent;
    cuda_schedule s = made(&p, 90, UINT64_MAX);
    cr_expect(launches(&s, "backward_prepare") && launches(&s, "dsinks") && s.step_count == 3);
    p.dbias = absent;
    s = made(&p, 90, UINT64_MAX);
    cr_expect_eq(s.step_count, 2);
    p = make_backward(DLATTN_T_BF16, 1, 2, 2, 300, 200, 64);
    p.dk = p.dv = absent;
    p.flags = DLATTN_DETERMINISTIC;
    s = made(&p, 90, UINT64_MAX);
    cr_expect_eq(s.step_count, 2, "dq alone: %d steps", (int)s.step_count);
}

Test(cuda_schedule, rows_outside_sequences_are_blanked) {
    problem p = make_forward(DLATTN_T_BF16, 2, 4, 4, 128, 128, 64);
    cuda_schedule s = made(&p, 80, UINT64_MAX);
    cr_expect_not(launches(&s, "blank"));
    p.seqlens_q = dense(DLATTN_T_I32, 2, 1, 1, 1);
    s = made(&p, 80, UINT64_MAX);
    cr_expect(launches(&s, "blank"));
    p = make_backward(DLATTN_T_BF16, 2, 4, 4, 128, 128, 64);
    p.seqlens_k = dense(DLATTN_T_I32, 2, 1, 1, 1);
    s = made(&p, 80, UINT64_MAX);
    cr_expect(launches(&s, "blank"));
}

Test(cuda_schedule, unaligned_rows_take_the_unaligned_kernel) {
    problem p = make_forward(DLATTN_T_BF16, 1, 4, 4, 1024, 1024, 64);
    cuda_schedule s = made(&p, 80, UINT64_MAX);
    if (!s.main->tuned) return;
    cr_expect_eq(defined(&s.steps[0].request, "ALIGNED"), 1);
    p.k.stride[1] += 1;
    s = made(&p, 80, UINT64_MAX);
    cr_expect_eq(defined(&s.steps[0].request, "ALIGNED"), 0);
}

Test(cuda_schedule, float32_is_plain_arithmetic) {
    const problem p = make_forward(DLATTN_T_F32, 1, 4, 4, 1024, 1024, 64);
    const cuda_schedule s = made(&p, 90, UINT64_MAX);
    cr_expect_str_eq(s.main->name, "generic");
}

Test(cuda_schedule, packed_rows_have_tiles_of_their_own) {
    problem p = make_backward(DLATTN_T_BF16, 1, 4, 4, 1000, 1000, 64);
    p.B = 7;
    p.packed_q = p.packed_k = 1;
    p.cu_seqlens_q = p.cu_seqlens_k = dense(DLATTN_T_I32, 8, 1, 1, 1);
    const cuda_schedule s = made(&p, 80, UINT64_MAX);
    /* the start of sequence b is at most (tokens before it + 128 b) rounded down, its end 128 further than its rows */
    cr_expect(s.head_rows >= 1000 + 7 * 128 && s.row_count == s.head_rows * 4);
}

Test(cuda_schedule, a_bound_covers_every_device) {
    problem problems[] = {make_forward(DLATTN_T_F16, 1, 8, 8, 16, 65536, 128), make_forward(DLATTN_T_BF16, 2, 16, 4, 1, 8192, 64),
                          make_forward(DLATTN_T_BF16, 1, 4, 4, 300, 4096, 192), make_backward(DLATTN_T_F16, 2, 8, 2, 512, 512, 128),
                          make_forward(DLATTN_T_BF16, 2, 8, 8, 700, 2048, 64)};
    enum { PROBLEMS = (int)(sizeof problems / sizeof problems[0]) };
    problems[4].q_segments = dense(DLATTN_T_I32, 2, 700, 1, 1), problems[4].kv_segments = dense(DLATTN_T_I32, 2, 2048, 1, 1);
    problems[1].flags = DLATTN_CAUSAL | DLATTN_WINDOW, problems[1].window_left = 2047, problems[1].window_right = -1;
    for (int n = 0; n < NUM_ARCHS * PROBLEMS; n++) {
        const problem *p = &problems[n % PROBLEMS];
        cuda_workspace bound;
        char note[256];
        cr_assert_eq(dlattn__schedule_bound(&bound, p, archs[n / PROBLEMS], note, sizeof note), DLATTN_OK, "%s", note);
        for (int32_t multiprocessors = 1; multiprocessors <= 200; multiprocessors += 13) {
            cuda_device device = dlattn__cuda_device_like(archs[n / PROBLEMS]);
            cuda_schedule s;
            device.multiprocessors = multiprocessors;
            cr_assert_eq(dlattn__schedule(&s, p, NULL, &device, UINT64_MAX, note, sizeof note), DLATTN_OK);
            cr_expect(s.workspace.total <= bound.total && s.workspace.least <= bound.least, "problem %d, sm_%d with %d", n % PROBLEMS,
                      (int)archs[n / PROBLEMS], (int)multiprocessors);
        }
    }
}

/* A window's short piece of long keys is not cut into pieces that hold nothing. */
Test(cuda_schedule, pieces_are_of_the_keys_that_are_seen) {
    problem p = make_forward(DLATTN_T_BF16, 1, 8, 8, 1, 65536, 64);
    const cuda_schedule whole = made(&p, 80, UINT64_MAX);
    p.flags = DLATTN_CAUSAL | DLATTN_WINDOW, p.window_left = 2047, p.window_right = -1;
    const cuda_schedule window = made(&p, 80, UINT64_MAX);
    cr_expect(whole.splits > 8 && window.splits == 8, "%d, %d", (int)whole.splits, (int)window.splits);
    p.window_left = 255;
    cr_expect_eq(made(&p, 80, UINT64_MAX).splits, 1);
    p.window_left = INT64_MAX;
    cr_expect_eq(made(&p, 80, UINT64_MAX).splits, whole.splits);
    p.flags = DLATTN_BLOCK_WINDOW, p.block_size = 512, p.block_count = 4;
    cr_expect_eq(made(&p, 80, UINT64_MAX).splits, 8);
}

Test(cuda_schedule, unequal_head_sizes_fit_the_warps) {
    static const int64_t sizes[] = {1, 16, 33, 64, 80, 96, 128, 130, 192, 200, 256};
    for (size_t d = 0; d < sizeof sizes / sizeof sizes[0]; d++)
        for (size_t e = 0; e < sizeof sizes / sizeof sizes[0]; e++) {
            problem p = make_backward(DLATTN_T_F16, 1, 4, 2, 100, 100, sizes[d]);
            p.E = sizes[e];
            const cuda_schedule s = made(&p, 80, UINT64_MAX);
            if (!s.main->tuned) continue;
            const kernel_request *r = &s.steps[1].request; /* after backward_prepare */
            cr_assert_str_eq(r->entry, "backward_sm80");
            const int64_t shared = 16 * defined(r, "ROW_WARPS"), D = defined(r, "HEAD_D"), E = defined(r, "HEAD_E");
            cr_expect(D >= p.D && E >= p.E && D % shared == 0 && E % shared == 0, "%d, %d: %d, %d for warps of %d", (int)p.D,
                      (int)p.E, (int)D, (int)E, (int)shared);
        }
}
