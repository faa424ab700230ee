/* test_wild_input.c: random nonsense in every field: a query answers or refuses with a sentence, and never overflows.
 *
 * Queries alone, since they look at no data: what they accept may claim memory that is not there. Run under ASan and
 * UBSan this also checks that no plan overflows. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>

#include "call.h"

static call c;
static uint64_t random_state;

static uint64_t draw(uint64_t below) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % below;
}

static int64_t wild_number(void) {
    static const int64_t numbers[] = {INT64_MIN, INT64_MIN + 1, -(INT64_C(1) << 32), -3, -1, 0, 0, 1, 1, 2, 3, 5, 8, 255, 257,
                                      INT64_C(1) << 20, INT64_C(1) << 31, INT64_C(1) << 40, INT64_C(1) << 62, INT64_MAX};
    return numbers[draw(sizeof numbers / sizeof numbers[0])];
}

static void spoil_tensor(DLTensor *t, int64_t *shape, int64_t *strides) {
    switch (draw(7)) {
    case 0: t->ndim = (int32_t)draw(7) - 1; break;
    case 1: t->dtype.code = (uint8_t)draw(18); break;
    case 2: t->dtype.bits = (uint8_t)(8u << draw(4)); break;
    case 3: t->strides = NULL; break;
    case 4: strides[draw(4)] = wild_number(); break;
    case 5: shape[draw(4)] = wild_number(); break;
    default: t->byte_offset = (uint64_t)wild_number(); break;
    }
}

/* One extent of all tensors at once, so that large problems stay consistent and get past the shape checks. */
static void resize(int64_t from) {
    int64_t to = wild_number();
    for (int i = 0; i < TENSORS; i++) {
        c.t[i].strides = NULL;
        for (int d = 0; d < c.t[i].ndim && d < 4; d++)
            if (c.shape[i][d] == from) c.shape[i][d] = to;
    }
}

static void spoil_number(dlattn_attention *a) {
    static const double reals[] = {0, -1, 0.3, 1, 2, 1e300, NAN, INFINITY};
    double real = reals[draw(8)];
    switch (draw(12)) {
    case 0: a->max_seqlen_q = wild_number(); break;
    case 1: a->max_seqlen_k = wild_number(); break;
    case 2: a->window_left = wild_number(); break;
    case 3: a->window_right = wild_number(); break;
    case 4: a->block_size = wild_number(); break;
    case 5: a->block_count = wild_number(); break;
    case 6: a->q_start = wild_number(); break;
    case 7: a->k_start = wild_number(); break;
    case 8: a->scale = real; break;
    case 9: a->softcap = real; break;
    case 10: a->dropout = real; break;
    default: a->layout = (int32_t)draw(3); break;
    }
}

static void add_terms(dlattn_attention *a) {
    if (draw(4) == 0) a->bias = &c.t[BIAS], c.gradients.dbias = &c.t[DBIAS];
    if (draw(4) == 0) a->mask = &c.t[MASK];
    if (draw(8) == 0) a->alibi_slopes = &c.t[SLOPES];
    if (draw(8) == 0) a->sinks = &c.t[SINKS], c.gradients.dsinks = &c.t[DSINKS];
    if (draw(8) == 0) a->q_segments = &c.t[Q_SEGMENTS], a->kv_segments = &c.t[KV_SEGMENTS];
    if (draw(8) == 0) a->seqlens_k = &c.t[SEQLENS_K];
    if (draw(4) == 0) pack_q(&c);
    if (draw(4) == 0) pack_k(&c);
    a->flags = (uint32_t)draw(draw(8) ? 256 : 1024);
}

static void make_wild_call(void) {
    static const int64_t sizes[] = {B, M, N, H, D, E};
    make_call(&c);
    add_terms(&c.attention);
    while (draw(2)) resize(sizes[draw(6)]);
    while (draw(3) == 0) spoil_number(&c.attention);
    while (draw(3) == 0) {
        int i = (int)draw(TENSORS);
        spoil_tensor(&c.t[i], c.shape[i], c.strides[i]);
    }
    c.exec.num_threads = draw(16) ? (int32_t)draw(9) : (int32_t)wild_number();
}

static int accepted, refused[16];

static void judge(const char *name, int32_t status, uint64_t bytes, uint64_t least) {
    if (status == DLATTN_OK) {
        accepted++;
        cr_assert(least <= bytes, "%s: at least %" PRIu64 " but %" PRIu64 " at best", name, least, bytes);
        cr_assert(bytes < UINT64_C(1) << 63, "%s wants %" PRIu64 " bytes", name, bytes);
        cr_assert_str_eq(dlattn_last_error(), "");
        return;
    }
    cr_assert(status > 0 && status <= DLATTN_ERR_UNSUPPORTED, "%s: %d %s", name, (int)status, dlattn_last_error());
    cr_assert(dlattn_last_error()[0] && strcmp(c.message, dlattn_last_error()) == 0, "%s: no sentence", name);
    refused[status]++;
}

Test(wild_input, queries_answer_or_refuse) {
    static char text[4096];
    for (int n = 0; n < 20000; n++) {
        uint64_t bytes = 0, least = 0;
        random_state = (uint64_t)n;
        draw(2);
        make_wild_call();
        int32_t forward = dlattn_forward_workspace(c.a, c.o, &c.exec, &bytes, &least);
        judge("forward_workspace", forward, bytes, least);
        bytes = least = 0;
        int32_t backward = dlattn_backward_workspace(c.a, c.g, &c.exec, &bytes, &least);
        judge("backward_workspace", backward, bytes, least);
        cr_assert_eq(dlattn_explain(c.a, c.o, NULL, &c.exec, text, sizeof text), forward, "problem %d:\n%s", n, text);
        cr_assert_eq(dlattn_explain(c.a, NULL, c.g, &c.exec, text, sizeof text), backward, "problem %d:\n%s", n, text);
    }
    cr_log_info("accepted %d, refused as argument %d, shape %d, dtype %d, unsupported %d", accepted,
                refused[DLATTN_ERR_ARGUMENT], refused[DLATTN_ERR_SHAPE], refused[DLATTN_ERR_DTYPE],
                refused[DLATTN_ERR_UNSUPPORTED]);
    cr_expect(accepted > 500 && refused[DLATTN_ERR_ARGUMENT] > 500 && refused[DLATTN_ERR_SHAPE] > 500, "all kinds are met");
    cr_expect(refused[DLATTN_ERR_DTYPE] > 100 && refused[DLATTN_ERR_UNSUPPORTED] > 100, "all kinds are met");
}
