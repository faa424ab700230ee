/* test_blank.c: rows and tokens of no sequence get zeros (lse -inf), and nothing else is written.
 *
 * Every tensor begins as NaN. What is then a number has been written. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "cpu.h"

enum { B = 3, HEADS = 2, TOKENS = 12, WIDTH = 3, STEP = 2, ROOM = B * TOKENS * HEADS * WIDTH * STEP };

static float out[ROOM], lse[ROOM], dq[ROOM], dk[ROOM], dv[ROOM];

static void poison(void) {
    float *const all[] = {out, lse, dq, dk, dv};
    for (int n = 0; n < 5; n++) memset(all[n], 0xff, ROOM * sizeof(float));
}

/* [b, token, h, e], every number followed by a gap. */
static operand rows_operand(int64_t batch) {
    return (operand){DLATTN_T_F32, 0, {batch, TOKENS, HEADS, WIDTH},
                     {batch > 1 ? TOKENS * HEADS * WIDTH * STEP : 0, HEADS * WIDTH * STEP, WIDTH * STEP, STEP}};
}
static operand lse_operand(int64_t batch) {
    return (operand){DLATTN_T_F32, 0, {batch, HEADS, TOKENS, 1}, {batch > 1 ? HEADS * TOKENS : 0, TOKENS, 1, 0}};
}
static operand lengths(void) { return (operand){DLATTN_T_I32, 0, {B + 1, 1, 1, 1}, {1, 0, 0, 0}}; }

static problem problem_of(int32_t op, bool packed) {
    const int64_t batch = packed ? 1 : B;
    problem p = {.op = op, .dtype = DLATTN_T_F32, .B = B, .H = HEADS, .G = HEADS, .M = TOKENS, .N = TOKENS, .D = WIDTH,
                 .E = WIDTH, .packed_q = packed, .packed_k = packed};
    p.q = p.k = p.v = p.out = rows_operand(batch);
    p.lse = lse_operand(batch);
    if (op == DLATTN_OP_BACKWARD) p.dq = p.dk = p.dv = rows_operand(batch);
    return p;
}

static buffers buffers_of(void) { return (buffers){.out = out, .lse = lse, .dq = dq, .dk = dk, .dv = dv}; }

/* `mine(b, token)`: does a sequence have it? Rows that one has are untouched, all others 0, gaps untouched. */
typedef bool owner(int64_t b, int64_t token);

static void expect_rows(const float *data, int64_t batch, owner *mine, const char *name) {
    for (int64_t n = 0; n < batch * TOKENS * HEADS * WIDTH; n++) {
        const int64_t token = n / WIDTH / HEADS % TOKENS, b = n / WIDTH / HEADS / TOKENS;
        cr_assert(mine(b, token) ? isnan(data[n * STEP]) : data[n * STEP] == 0, "%s: b %d, token %d is %g", name, (int)b,
                  (int)token, data[n * STEP]);
        cr_assert(isnan(data[n * STEP + 1]), "%s: wrote into the gap behind b %d, token %d", name, (int)b, (int)token);
    }
}

static void expect_lse(int64_t batch, owner *mine) {
    for (int64_t n = 0; n < batch * HEADS * TOKENS; n++) {
        const int64_t token = n % TOKENS, b = n / TOKENS / HEADS;
        cr_assert(mine(b, token) ? isnan(lse[n]) : lse[n] == -INFINITY, "lse of b %d, token %d is %g", (int)b, (int)token, lse[n]);
    }
    cr_assert(isnan(lse[batch * HEADS * TOKENS]), "wrote past lse");
}

static bool everything(int64_t b, int64_t token) { return b >= 0 && token >= 0; }

Test(blank, full_sequences_are_left_alone) {
    const problem p = problem_of(DLATTN_OP_FORWARD, false);
    const buffers x = buffers_of();
    poison();
    dlattn__cpu_blank(&p, &x);
    expect_rows(out, B, everything, "out");
    expect_lse(B, everything);
}

static const int32_t used_q[B] = {5, 0, TOKENS}, used_k[B] = {0, TOKENS, 7};
static bool used_query(int64_t b, int64_t token) { return token < used_q[b]; }
static bool used_key(int64_t b, int64_t token) { return token < used_k[b]; }

/* Poisons every output and blanks those of a padded problem with the lengths above. */
static void blank_padded(int32_t op) {
    problem p = problem_of(op, false);
    buffers x = buffers_of();
    p.seqlens_q = p.seqlens_k = lengths();
    x.seqlens_q = used_q;
    x.seqlens_k = used_k;
    poison();
    dlattn__cpu_blank(&p, &x);
}

Test(blank, rows_past_a_padded_sequence) {
    blank_padded(DLATTN_OP_FORWARD);
    expect_rows(out, B, used_query, "out");
    expect_lse(B, used_query);
}

Test(blank, gradients_each_by_their_own_side) {
    blank_padded(DLATTN_OP_BACKWARD);
    expect_rows(dq, B, used_query, "dq");
    expect_rows(dk, B, used_key, "dk");
    expect_rows(dv, B, used_key, "dv");
    expect_rows(out, B, everything, "out"); /* the backward only reads it */
    expect_lse(B, everything);
}

Test(blank, an_absent_gradient) {
    problem p = problem_of(DLATTN_OP_BACKWARD, false);
    buffers x = buffers_of();
    p.seqlens_k = lengths();
    x.seqlens_k = used_k;
    p.dk = (operand){0};
    x.dk = NULL;
    poison();
    dlattn__cpu_blank(&p, &x);
    expect_rows(dv, B, used_key, "dv");
    expect_rows(dq, B, everything, "dq");
}

/* Sequences at [2, 5), [5, 5) and [5, 10) of 12 tokens; of the last only three tokens are used. */
static const int32_t starts[B + 1] = {2, 5, 5, 10}, used_packed[B] = {3, 0, 3};
static bool packed_token(int64_t b, int64_t token) { return b == 0 && ((token >= 2 && token < 5) || (token >= 5 && token < 8)); }

Test(blank, tokens_before_between_and_after) {
    problem p = problem_of(DLATTN_OP_FORWARD, true);
    buffers x = buffers_of();
    p.cu_seqlens_q = p.cu_seqlens_k = p.seqlens_q = lengths();
    x.cu_seqlens_q = x.cu_seqlens_k = starts;
    x.seqlens_q = used_packed;
    poison();
    dlattn__cpu_blank(&p, &x);
    expect_rows(out, 1, packed_token, "out");
    expect_lse(1, packed_token);
}

static bool first_two(int64_t b, int64_t token) { return b == 0 && (token == 2 || token == 3 || token == 5 || token == 6); }

Test(blank, tokens_past_the_longest_length) {
    problem p = problem_of(DLATTN_OP_FORWARD, true);
    buffers x = buffers_of();
    p.cu_seqlens_q = p.cu_seqlens_k = lengths();
    x.cu_seqlens_q = x.cu_seqlens_k = starts;
    p.M = 2;
    poison();
    dlattn__cpu_blank(&p, &x);
    expect_rows(out, 1, first_two, "out");
    expect_lse(1, first_two);
}

Test(blank, no_sequences_at_all) {
    problem p = problem_of(DLATTN_OP_FORWARD, true);
    buffers x = buffers_of();
    p.B = 0;
    p.cu_seqlens_q = p.cu_seqlens_k = lengths();
    x.cu_seqlens_q = x.cu_seqlens_k = starts;
    poison();
    dlattn__cpu_blank(&p, &x);
    for (int64_t n = 0; n < TOKENS * HEADS * WIDTH; n++) cr_assert_eq(out[n * STEP], 0);
}
