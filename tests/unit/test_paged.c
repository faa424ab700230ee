/* test_paged.c: paged keys give the bits of the same keys in one piece; what the pages hold elsewhere does not matter. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dlattn/dlattn.h"
#include "half.h"

enum { B = 3, H = 4, G = 2, N = 300, MOST_M = 200, D = 64, E = 32, POOL_TOKENS = 2100 };

/* One problem twice: keys padded, [B,N,G,D], and in pages that stand in the pool in a shuffled order. */
typedef struct trial {
    int32_t code, bits, page, M;
    float q[B * MOST_M * H * D], k[B * N * G * D], v[B * N * G * E], bias[H * N];
    float k_pool[POOL_TOKENS * G * D], v_pool[POOL_TOKENS * G * E];
    float out[2][B * MOST_M * H * E], lse[2][B * H * MOST_M];
    int32_t lengths[B], table[B * N];
    int64_t q_shape[4], k_shape[4], v_shape[4], k_pool_shape[4], v_pool_shape[4], out_shape[4], lse_shape[3], batch[1],
        table_shape[2], bias_shape[4];
    DLTensor tq, tk, tv, tk_pool, tv_pool, tout[2], tlse[2], tlengths, ttable, tbias;
    char message[256];
    dlattn_exec exec;
    dlattn_attention dense, paged;
} trial;

static DLTensor tensor_of(const trial *t, void *data, int64_t *shape, int32_t rank) {
    return (DLTensor){.data = data, .device = {kDLCPU, 0}, .ndim = rank,
                      .dtype = {(uint8_t)t->code, (uint8_t)t->bits, 1}, .shape = shape};
}

static void set(int64_t *shape, int64_t a, int64_t b, int64_t c, int64_t d) {
    shape[0] = a, shape[1] = b, shape[2] = c, shape[3] = d;
}

static float pseudo_random(uint32_t n) { /* in [-1, 1) */
    n = (n ^ n >> 16) * 0x7feb352du;
    n = (n ^ n >> 15) * 0x846ca68bu;
    return (float)((double)(n ^ n >> 16) / 0x1p31 - 1);
}

/* Numbers of the trial's type, in place of the floats' room. */
static void fill(const trial *t, void *to, int64_t count, uint32_t seed) {
    for (int64_t n = 0; n < count; n++) {
        const float x = pseudo_random(seed + (uint32_t)n);
        if (t->bits == 32) ((float *)to)[n] = x;
        else ((uint16_t *)to)[n] = t->code == kDLFloat ? dlattn__float_to_f16(x) : dlattn__float_to_bf16(x);
    }
}

/* Copies each page of each sequence to its place in the pool; the rest of the pool is NaN. */
static void make_pages(trial *t) {
    const int64_t bytes = t->bits / 8, pages = (N + t->page - 1) / t->page, all = B * pages + 2;
    memset(t->k_pool, 0xff, sizeof t->k_pool), memset(t->v_pool, 0xff, sizeof t->v_pool);
    for (int64_t b = 0; b < B; b++)
        for (int64_t n = 0; n < pages; n++) {
            const int64_t id = (b * pages + n) * 11 % (B * pages) + 1, first = n * t->page;
            const int64_t used = t->lengths[b] - first < t->page ? t->lengths[b] - first : t->page;
            t->table[b * pages + n] = used > 0 ? (int32_t)id : -12345;
            if (used <= 0) continue;
            memcpy((char *)t->k_pool + id * t->page * G * D * bytes, (char *)t->k + (b * N + first) * G * D * bytes,
                   (size_t)(used * G * D * bytes));
            memcpy((char *)t->v_pool + id * t->page * G * E * bytes, (char *)t->v + (b * N + first) * G * E * bytes,
                   (size_t)(used * G * E * bytes));
        }
    set(t->k_pool_shape, all, t->page, G, D), set(t->v_pool_shape, all, t->page, G, E);
    t->table_shape[0] = B, t->table_shape[1] = pages;
}

static void start(trial *t, int32_t code, int32_t bits, int32_t page, int32_t M) {
    memset(t, 0, sizeof *t);
    t->code = code, t->bits = bits, t->page = page, t->M = M;
    fill(t, t->q, B * M * H * D, 1), fill(t, t->k, B * N * G * D, 500000), fill(t, t->v, B * N * G * E, 900000);
    fill(t, t->bias, H * N, 77);
    memcpy(t->lengths, (int32_t[]){N, 131, 0}, sizeof t->lengths);
    make_pages(t);
    set(t->q_shape, B, M, H, D), set(t->k_shape, B, N, G, D), set(t->v_shape, B, N, G, E), set(t->out_shape, B, M, H, E);
    set(t->bias_shape, 1, H, 1, N);
    t->lse_shape[0] = B, t->lse_shape[1] = H, t->lse_shape[2] = M, t->batch[0] = B;
    t->tq = tensor_of(t, t->q, t->q_shape, 4), t->tk = tensor_of(t, t->k, t->k_shape, 4), t->tv = tensor_of(t, t->v, t->v_shape, 4);
    t->tk_pool = tensor_of(t, t->k_pool, t->k_pool_shape, 4), t->tv_pool = tensor_of(t, t->v_pool, t->v_pool_shape, 4);
    t->tbias = tensor_of(t, t->bias, t->bias_shape, 4);
    for (int n = 0; n < 2; n++) {
        t->tout[n] = tensor_of(t, t->out[n], t->out_shape, 4), t->tlse[n] = tensor_of(t, t->lse[n], t->lse_shape, 3);
        t->tlse[n].dtype = (DLDataType){kDLFloat, 32, 1};
        memset(t->out[n], 0xee + n, sizeof t->out[n]), memset(t->lse[n], 0xee + n, sizeof t->lse[n]);
    }
    t->tlengths = tensor_of(t, t->lengths, t->batch, 1), t->ttable = tensor_of(t, t->table, t->table_shape, 2);
    t->tlengths.dtype = t->ttable.dtype = (DLDataType){kDLInt, 32, 1};
    t->exec = (dlattn_exec){.struct_size = sizeof t->exec, .message = t->message, .message_bytes = sizeof t->message};
    t->dense = (dlattn_attention){.struct_size = sizeof t->dense, .q = &t->tq, .k = &t->tk, .v = &t->tv, .bias = &t->tbias,
                                  .seqlens_k = &t->tlengths, .max_seqlen_k = N, .flags = DLATTN_CAUSAL, .softcap = 20};
    t->paged = t->dense;
    t->paged.k = &t->tk_pool, t->paged.v = &t->tv_pool, t->paged.block_table = &t->ttable;
}

static int32_t forward(trial *t, int n) {
    const dlattn_outputs outputs = {sizeof outputs, &t->tout[n], &t->tlse[n]};
    return dlattn_forward(n ? &t->paged : &t->dense, &outputs, &t->exec);
}

static void expect_same(trial *t, const char *what) {
    cr_assert_eq(forward(t, 0), DLATTN_OK, "%s: %s", what, t->message);
    cr_assert_eq(forward(t, 1), DLATTN_OK, "%s: %s", what, t->message);
    const size_t bytes = (size_t)(B * t->M * H * E * t->bits / 8);
    cr_expect(memcmp(t->out[0], t->out[1], bytes) == 0, "%s: out", what);
    cr_expect(memcmp(t->lse[0], t->lse[1], (size_t)(B * H * t->M) * 4) == 0, "%s: lse", what);
    cr_expect(t->lse[1][0] > -100 && t->lse[1][0] < 100, "%s: lse %g", what, t->lse[1][0]);
}

/* One row decodes, 200 rows are packed; pages that hold tiles, parts of tiles, and more than all keys. */
Test(paged, the_bits_of_keys_in_one_piece) {
    static trial t;
    static const int32_t pages[] = {1, 16, 48, 64, 256, 300}, lengths[] = {1, 3, MOST_M};
    static const int32_t types[][2] = {{kDLFloat, 32}, {kDLFloat, 16}, {kDLBfloat, 16}};
    for (size_t n = 0; n < 6 * 3 * 3; n++) {
        char what[64];
        const int32_t *type = types[n / 18], page = pages[n % 6], M = lengths[n / 6 % 3];
        snprintf(what, sizeof what, "type %d of %d bits, pages of %d, %d rows", (int)type[0], (int)type[1], (int)page, (int)M);
        start(&t, type[0], type[1], page, M);
        expect_same(&t, what);
    }
}

Test(paged, layout_by_heads) {
    static trial t;
    int64_t k_strides[4] = {16 * G * D, D, G * D, 1}, v_strides[4] = {16 * G * E, E, G * E, 1};
    start(&t, kDLFloat, 32, 16, 3);
    cr_assert_eq(forward(&t, 0), DLATTN_OK);
    int64_t q_strides[4] = {3 * H * D, D, H * D, 1}, out_strides[4] = {3 * H * E, E, H * E, 1};
    set(t.q_shape, B, H, 3, D), set(t.out_shape, B, H, 3, E);
    set(t.k_pool_shape, t.k_pool_shape[0], G, 16, D), set(t.v_pool_shape, t.v_pool_shape[0], G, 16, E);
    t.tq.strides = q_strides, t.tout[1].strides = out_strides, t.tk_pool.strides = k_strides, t.tv_pool.strides = v_strides;
    t.paged.layout = DLATTN_BHSD;
    cr_assert_eq(forward(&t, 1), DLATTN_OK, "%s", t.message);
    cr_expect(memcmp(t.out[0], t.out[1], B * 3 * H * E * 4) == 0);
}

static void expect_refusal(trial *t, int32_t status, const char *sentence) {
    unsigned char poison = 0xef;
    cr_expect_eq(forward(t, 1), status, "%s", sentence);
    cr_expect(strstr(t->message, sentence), "%s\nexpected: %s", t->message, sentence);
    cr_expect(memcmp(t->out[1], &poison, 1) == 0, "out is untouched: %s", sentence);
}

Test(paged, refusals) {
    static trial t;
    start(&t, kDLFloat, 32, 16, 3);
    t.table[1] = (int32_t)t.k_pool_shape[0];
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "block_table[0,1] is 59, expected a page from 0 to 58");
    start(&t, kDLFloat, 32, 16, 3);
    t.paged.seqlens_k = NULL;
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "seqlens_k is NULL, expected the length of each paged sequence [B]");
    start(&t, kDLFloat, 32, 16, 3);
    t.lengths[0] = 19 * 16 + 1;
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "seqlens_k[0] is 305, expected 0 to 304");
    start(&t, kDLFloat, 32, 16, 3);
    t.table_shape[0] = B - 1;
    expect_refusal(&t, DLATTN_ERR_SHAPE, "block_table has shape [2,19], expected [3,*]");
    start(&t, kDLFloat, 32, 16, 3);
    t.paged.cu_seqlens_k = &t.tlengths;
    expect_refusal(&t, DLATTN_ERR_ARGUMENT, "block_table and cu_seqlens_k are both given, expected at most one");
    start(&t, kDLFloat, 32, 16, 3);
    t.v_pool_shape[0]--;
    expect_refusal(&t, DLATTN_ERR_SHAPE, "v has shape [58,16,2,32], expected [59,16,2,*] (k's pages and heads)");
}

Test(paged, there_is_no_backward) {
    static trial t;
    start(&t, kDLFloat, 32, 16, 3);
    const dlattn_gradients gradients = {.struct_size = sizeof gradients, .out = &t.tout[0], .lse = &t.tlse[0], .dout = &t.tout[1]};
    cr_expect_eq(dlattn_backward(&t.paged, &gradients, &t.exec), DLATTN_ERR_UNSUPPORTED);
    cr_expect(strstr(t.message, "block_table is given, expected NULL: paged keys have no backward"), "%s", t.message);
}
