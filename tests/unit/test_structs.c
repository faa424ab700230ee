/* test_structs.c: the structs of version 1.0, frozen, and the rules by which they may grow.
 *
 * The copies below are never edited: a program built against them must work with every later library. */
#include <criterion/criterion.h>
#include <stddef.h>
#include <string.h>

#include <dlattn/dlattn.h>

typedef struct frozen_attention {
    int64_t struct_size;
    const DLTensor *q, *k, *v;
    const DLTensor *bias, *mask, *alibi_slopes, *sinks, *q_segments, *kv_segments;
    const DLTensor *cu_seqlens_q, *cu_seqlens_k, *seqlens_q, *seqlens_k, *block_table, *q_starts, *k_starts;
    const DLTensor *rng_state;
    int64_t max_seqlen_q, max_seqlen_k;
    int64_t window_left, window_right, block_size, block_count, q_start, k_start;
    double scale, softcap, dropout;
    uint64_t seed, offset;
    uint32_t flags;
    int32_t layout;
} frozen_attention;

typedef struct frozen_outputs {
    int64_t struct_size;
    DLTensor *out, *lse;
} frozen_outputs;

typedef struct frozen_gradients {
    int64_t struct_size;
    const DLTensor *out, *lse, *dout, *dlse;
    DLTensor *dq, *dk, *dv, *dbias, *dsinks;
} frozen_gradients;

typedef struct frozen_exec {
    int64_t struct_size;
    void *stream, *workspace;
    uint64_t workspace_bytes;
    char *message;
    int64_t message_bytes;
    int32_t num_threads, reserved0;
} frozen_exec;

typedef struct frozen_parts {
    int64_t struct_size;
    const DLTensor *const *out, *const *lse;
    int64_t count;
    int32_t layout, reserved0;
} frozen_parts;

typedef struct frozen_cache {
    int64_t struct_size;
    const DLTensor *k_new, *v_new, *seqlens, *block_table, *batch_index;
    DLTensor *k_cache, *v_cache;
    int32_t layout, reserved0;
} frozen_cache;

typedef struct frozen_rotation {
    int64_t struct_size;
    const DLTensor *x, *cosines, *sines, *starts;
    DLTensor *out;
    int32_t layout, interleaved, inverse, reserved0;
} frozen_rotation;

_Static_assert(sizeof(frozen_attention) == 256 && sizeof(frozen_outputs) == 24 && sizeof(frozen_gradients) == 80 &&
                   sizeof(frozen_exec) == 56 && sizeof(frozen_parts) == 40 && sizeof(frozen_cache) == 72 &&
                   sizeof(frozen_rotation) == 64,
               "the frozen structs are the ones of 1.0");

#define SAME_PLACE(name, field)                                                  \
    _Static_assert(offsetof(dlattn_##name, field) == offsetof(frozen_##name, field), #name "." #field " has moved");
#define STILL_THERE(name, last)                                                              \
    _Static_assert(sizeof(dlattn_##name) >= sizeof(frozen_##name), #name " has lost fields"); \
    SAME_PLACE(name, last)
STILL_THERE(attention, layout)
SAME_PLACE(attention, q)
SAME_PLACE(attention, bias)
SAME_PLACE(attention, sinks)
SAME_PLACE(attention, cu_seqlens_q)
SAME_PLACE(attention, block_table)
SAME_PLACE(attention, rng_state)
SAME_PLACE(attention, max_seqlen_q)
SAME_PLACE(attention, window_left)
SAME_PLACE(attention, k_start)
SAME_PLACE(attention, scale)
SAME_PLACE(attention, seed)
SAME_PLACE(attention, flags)
STILL_THERE(outputs, lse)
STILL_THERE(gradients, dsinks)
SAME_PLACE(gradients, dq)
STILL_THERE(exec, reserved0)
SAME_PLACE(exec, message)
SAME_PLACE(exec, num_threads)
STILL_THERE(parts, reserved0)
SAME_PLACE(parts, count)
STILL_THERE(cache, reserved0)
SAME_PLACE(cache, k_cache)
STILL_THERE(rotation, reserved0)
SAME_PLACE(rotation, out)

/* ---- dlattn_X_init ---------------------------------------------------------------------------------------------- */

enum { ROOM = 1024, CANARY = 0x5a };

/* Written: struct_size, zeros up to it, and nothing behind it. */
static void check_init(int32_t (*init)(void *, int64_t), int64_t frozen_bytes) {
    const int64_t sizes[] = {frozen_bytes, frozen_bytes + 8, frozen_bytes + 100};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        _Alignas(8) unsigned char memory[ROOM];
        memset(memory, CANARY, sizeof memory);
        cr_assert_eq(init(memory, sizes[s]), DLATTN_OK);
        int64_t written;
        memcpy(&written, memory, sizeof written);
        cr_assert_eq(written, sizes[s]);
        for (int64_t i = sizeof written; i < ROOM; i++)
            cr_assert_eq(memory[i], i < sizes[s] ? 0 : CANARY, "byte %d of %d", (int)i, (int)sizes[s]);
    }
    const int64_t refused[] = {frozen_bytes - 1, 8, 0, -1, INT64_MIN};
    for (size_t s = 0; s < sizeof refused / sizeof refused[0]; s++) {
        _Alignas(8) unsigned char memory[ROOM];
        memset(memory, CANARY, sizeof memory);
        cr_assert_eq(init(memory, refused[s]), DLATTN_ERR_ARGUMENT, "size %d", (int)refused[s]);
        for (int64_t i = 0; i < ROOM; i++) cr_assert_eq(memory[i], CANARY);
        cr_assert_neq(dlattn_last_error()[0], '\0');
    }
    cr_assert_eq(init(NULL, frozen_bytes), DLATTN_ERR_ARGUMENT);
}

#define TEST_INIT(name)                                                       \
    static int32_t init_##name(void *memory, int64_t struct_size) {           \
        return dlattn_##name##_init(memory, struct_size);                     \
    }                                                                         \
    Test(structs, init_##name) { check_init(init_##name, sizeof(frozen_##name)); }
TEST_INIT(attention)
TEST_INIT(outputs)
TEST_INIT(gradients)
TEST_INIT(exec)
TEST_INIT(parts)
TEST_INIT(cache)
TEST_INIT(rotation)

/* ---- structs from the past and from the future ------------------------------------------------------------------ */

/* One query that sees one key: out must be v, 7. The structs stand in larger memory, as a later version's would. */
typedef struct call {
    float q, k, v, out;
    int64_t shape[4];
    DLTensor tensors[4];
    union {
        frozen_attention frozen;
        unsigned char room[ROOM];
    } attention;
    union {
        frozen_outputs frozen;
        unsigned char room[ROOM];
    } outputs;
} call;

static const float POISON = -12345.0f;

static void prepare_call(call *c) {
    memset(c, 0, sizeof *c);
    c->q = 1, c->k = 1, c->v = 7, c->out = POISON;
    for (int32_t d = 0; d < 4; d++) c->shape[d] = 1;
    float *data[] = {&c->q, &c->k, &c->v, &c->out};
    for (int32_t t = 0; t < 4; t++)
        c->tensors[t] = (DLTensor){.data = data[t], .device = {kDLCPU, 0}, .ndim = 4, .dtype = {kDLFloat, 32, 1},
                                   .shape = c->shape};
    c->attention.frozen = (frozen_attention){.struct_size = sizeof(frozen_attention), .q = &c->tensors[0],
                                             .k = &c->tensors[1], .v = &c->tensors[2]};
    c->outputs.frozen = (frozen_outputs){.struct_size = sizeof(frozen_outputs), .out = &c->tensors[3]};
}

static int32_t run(call *c) {
    return dlattn_forward((const dlattn_attention *)&c->attention, (const dlattn_outputs *)&c->outputs, NULL);
}

static void expect_refusal(call *c, int32_t status) {
    cr_assert_eq(run(c), status, "%s", dlattn_last_error());
    cr_assert_neq(dlattn_last_error()[0], '\0');
    cr_assert(c->out == POISON);
}

Test(structs, of_1_0_are_accepted) {
    call c;
    prepare_call(&c);
    memset(c.attention.room + sizeof(frozen_attention), CANARY, ROOM - sizeof(frozen_attention));
    memset(c.outputs.room + sizeof(frozen_outputs), CANARY, ROOM - sizeof(frozen_outputs));
    cr_assert_eq(run(&c), DLATTN_OK, "%s", dlattn_last_error());
    cr_assert(c.out == 7);
}

Test(structs, larger_with_a_zero_tail_are_accepted) {
    call c;
    prepare_call(&c);
    c.attention.frozen.struct_size = ROOM, c.outputs.frozen.struct_size = ROOM;
    cr_assert_eq(run(&c), DLATTN_OK, "%s", dlattn_last_error());
    cr_assert(c.out == 7);
}

Test(structs, an_unknown_field_that_is_set_is_unsupported) {
    const int64_t places[] = {sizeof(dlattn_attention), sizeof(dlattn_attention) + 5, ROOM - 1};
    for (size_t p = 0; p < sizeof places / sizeof places[0]; p++) {
        call c;
        prepare_call(&c);
        c.attention.frozen.struct_size = ROOM;
        c.attention.room[places[p]] = 1;
        expect_refusal(&c, DLATTN_ERR_UNSUPPORTED);
    }
    call c;
    prepare_call(&c);
    c.outputs.frozen.struct_size = ROOM;
    c.outputs.room[ROOM - 1] = 1;
    expect_refusal(&c, DLATTN_ERR_UNSUPPORTED);
}

Test(structs, smaller_than_1_0_are_refused) {
    const int64_t sizes[] = {sizeof(frozen_attention) - 8, 8, 0, -1, INT64_MIN};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        call c;
        prepare_call(&c);
        c.attention.frozen.struct_size = sizes[s];
        expect_refusal(&c, DLATTN_ERR_ARGUMENT);
    }
    call c;
    prepare_call(&c);
    c.outputs.frozen.struct_size = sizeof(frozen_outputs) - 1;
    expect_refusal(&c, DLATTN_ERR_ARGUMENT);
}

Test(structs, unknown_flags_are_unsupported) {
    for (int32_t bit = 8; bit < 32; bit++) {
        call c;
        prepare_call(&c);
        c.attention.frozen.flags = 1u << bit;
        expect_refusal(&c, DLATTN_ERR_UNSUPPORTED);
    }
}

Test(structs, reserved_fields_must_be_zero) {
    call c;
    prepare_call(&c);
    frozen_exec exec = {.struct_size = sizeof exec, .reserved0 = 1};
    cr_assert_neq(dlattn_forward((const dlattn_attention *)&c.attention, (const dlattn_outputs *)&c.outputs,
                                 (const dlattn_exec *)&exec),
                  DLATTN_OK);
    cr_assert(c.out == POISON);
}
