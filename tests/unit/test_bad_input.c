/* test_bad_input.c: every bad input gets its code and its sentence, and no byte of any tensor changes. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bad_input_cases.h"
#include "call.h"
#include "no_driver.h"

enum {
    FORWARD = 1,
    BACKWARD = 2,
    BOTH = FORWARD | BACKWARD,
    MASKS = 4, /* dlattn_dropout_mask */
    MERGE = 8,
    QUERIES = 16,         /* workspace, prepare and explain of the functions named besides it */
    QUERIES_FORWARD = 32, /* only those of the forward */
    WITHOUT_MESSAGE = 64  /* exec itself is bad: the sentence is in dlattn_last_error alone */
};

static void ints(call *c, int tensor, int32_t v0, int32_t v1, int32_t v2) {
    set_ints(c, tensor, (const int32_t[3]){v0, v1, v2}, 3);
}

#define DEFINE_SPOILER(name, functions, code, sentence, ...)        \
    static void spoil_##name(call *c, DLTensor *t, dlattn_attention *a) { \
        (void)c, (void)t, (void)a;                                  \
        __VA_ARGS__;                                                \
    }
BAD_INPUTS(DEFINE_SPOILER)

typedef struct bad_input {
    const char *name;
    int functions;
    int32_t status;
    const char *sentence;
    void (*spoil)(call *, DLTensor *, dlattn_attention *);
} bad_input;

#define ROW(name, functions, code, sentence, ...) {#name, functions, DLATTN_ERR_##code, sentence, spoil_##name},
static const bad_input bad_inputs[] = {BAD_INPUTS(ROW)};
enum { BAD_INPUTS_COUNT = (int)(sizeof bad_inputs / sizeof bad_inputs[0]) };

static uint64_t bytes_told, least_told;
static char text[4096];

static int32_t forward(call *c) { return dlattn_forward(c->a, c->o, &c->exec); }
static int32_t backward(call *c) { return dlattn_backward(c->a, c->g, &c->exec); }
static int32_t dropout_mask(call *c) { return dlattn_dropout_mask(c->a, c->keep, &c->exec); }
static int32_t merge(call *c) { return dlattn_merge(c->p, c->o, &c->exec); }
static int32_t forward_workspace(call *c) {
    return dlattn_forward_workspace(c->a, c->o, &c->exec, &bytes_told, &least_told);
}
static int32_t backward_workspace(call *c) {
    return dlattn_backward_workspace(c->a, c->g, &c->exec, &bytes_told, &least_told);
}
static int32_t forward_prepare(call *c) { return dlattn_prepare(c->a, c->o, NULL, &c->exec); }
static int32_t backward_prepare(call *c) { return dlattn_prepare(c->a, NULL, c->g, &c->exec); }
static int32_t forward_explain(call *c) { return dlattn_explain(c->a, c->o, NULL, &c->exec, text, sizeof text); }
static int32_t backward_explain(call *c) { return dlattn_explain(c->a, NULL, c->g, &c->exec, text, sizeof text); }

typedef struct function {
    const char *name;
    int32_t (*call)(call *);
    int wanted; /* all these bits */
} function;

static const function functions[] = {
    {"forward", forward, FORWARD},
    {"backward", backward, BACKWARD},
    {"dropout_mask", dropout_mask, MASKS},
    {"merge", merge, MERGE},
    {"forward_workspace", forward_workspace, FORWARD | QUERIES},
    {"backward_workspace", backward_workspace, BACKWARD | QUERIES},
    {"forward_prepare", forward_prepare, FORWARD | QUERIES},
    {"backward_prepare", backward_prepare, BACKWARD | QUERIES},
    {"forward_explain", forward_explain, FORWARD | QUERIES},
    {"backward_explain", backward_explain, BACKWARD | QUERIES},
    {"forward_workspace", forward_workspace, QUERIES_FORWARD},
    {"forward_prepare", forward_prepare, QUERIES_FORWARD},
    {"forward_explain", forward_explain, QUERIES_FORWARD},
};
enum { FUNCTIONS_COUNT = (int)(sizeof functions / sizeof functions[0]) };

static void check_refused(const bad_input *bad, const function *f) {
    static call c, before;
    make_call(&c);
    bad->spoil(&c, c.t, &c.attention);
    c.message[0] = 1; /* not a NUL: the call must end it */
    before = c;
    bytes_told = least_told = 77;
    int32_t status = f->call(&c);
    const char *sentence = dlattn_last_error();
    cr_expect_eq(status, bad->status, "%s of %s: %s \"%s\"", f->name, bad->name, dlattn_status_name(status), sentence);
    cr_expect(strstr(sentence, bad->sentence), "%s of %s says \"%s\", not \"%s\"", f->name, bad->name, sentence,
              bad->sentence);
    if (!(bad->functions & WITHOUT_MESSAGE))
        cr_expect_str_eq(c.message, sentence, "%s of %s: message", f->name, bad->name);
    cr_expect(memcmp(c.memory, before.memory, sizeof c.memory) == 0, "%s of %s wrote to a tensor", f->name, bad->name);
    cr_expect(memcmp(c.t, before.t, sizeof c.t) == 0, "%s of %s changed a DLTensor", f->name, bad->name);
    cr_expect(bytes_told == 77 && least_told == 77, "%s of %s told a workspace", f->name, bad->name);
}

Test(bad_input, code_sentence_and_nothing_written) {
    for (int i = 0; i < BAD_INPUTS_COUNT; i++) {
        int calls = 0;
        for (int f = 0; f < FUNCTIONS_COUNT; f++) {
            if ((bad_inputs[i].functions & functions[f].wanted) != functions[f].wanted) continue;
            check_refused(&bad_inputs[i], &functions[f]);
            calls++;
        }
        cr_assert(calls > 0, "%s is never called", bad_inputs[i].name);
    }
}

/* Otherwise every refusal above could be for another reason. */
Test(bad_input, unspoilt_calls_succeed) {
    static call c;
    for (int f = 0; f < FUNCTIONS_COUNT; f++) {
        make_call(&c);
        int32_t status = functions[f].call(&c);
        cr_expect_eq(status, DLATTN_OK, "%s: %s", functions[f].name, dlattn_last_error());
        cr_expect_str_eq(dlattn_last_error(), "", "%s", functions[f].name);
        cr_expect_str_eq(c.message, "", "%s", functions[f].name);
    }
}

/* A workspace one byte below what the query calls the least. */
Test(bad_input, workspace_below_the_least) {
    static call c, before;
    make_call(&c);
    cr_assert_eq(forward_workspace(&c), DLATTN_OK);
    cr_assert(bytes_told >= least_told);
    if (least_told == 0) return; /* a plan without workspace takes any */
    unsigned char *memory = malloc((size_t)least_told + 64);
    c.exec.workspace = (void *)(((uintptr_t)memory + 15) & ~(uintptr_t)15);
    c.exec.workspace_bytes = least_told - 1;
    before = c;
    cr_expect_eq(forward(&c), DLATTN_ERR_WORKSPACE);
    cr_expect(strstr(c.message, "expected at least"), "%s", c.message);
    cr_expect(memcmp(c.memory, before.memory, sizeof c.memory) == 0);
    c.exec.workspace_bytes = least_told;
    cr_expect_eq(forward(&c), DLATTN_OK, "%s", c.message);
    free(memory);
}

/* What a caller of a later version may hand over: more bytes, all zero; and what it may not. */
Test(bad_input, structs_of_the_future) {
    static call c;
    struct {
        dlattn_attention known;
        unsigned char later[24];
    } future;
    make_call(&c);
    memset(&future, 0, sizeof future);
    future.known = c.attention;
    future.known.struct_size = sizeof future;
    c.a = &future.known;
    cr_expect_eq(forward(&c), DLATTN_OK, "%s", c.message);
    future.later[23] = 1;
    cr_expect_eq(forward(&c), DLATTN_ERR_UNSUPPORTED);
    cr_expect(strstr(c.message, "attention sets byte 279, expected zeros past the 256 bytes"), "%s", c.message);
}

Test(bad_input, structs_of_the_cache) {
    dlattn_cache cache = {.struct_size = 8};
    dlattn_rotation rotation = {.struct_size = 8};
    cr_expect_eq(dlattn_kv_append(&cache, NULL), DLATTN_ERR_ARGUMENT);
    cr_expect_eq(dlattn_rotary(&rotation, NULL), DLATTN_ERR_ARGUMENT);
    cr_expect_eq(dlattn_kv_append(NULL, NULL), DLATTN_ERR_ARGUMENT);
    cr_expect_eq(dlattn_rotary(NULL, NULL), DLATTN_ERR_ARGUMENT);
}
