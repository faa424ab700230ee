/* world.c: fills the world of the libffi test and lists the valid calls made on it, at least one per function. */
#include "world.h"

#include <math.h>
#include <string.h>

static DLTensor tensor_of(void *data, int64_t *shape, int32_t ndim, DLDataTypeCode code, uint8_t bits) {
    return (DLTensor){.data = data, .device = {kDLCPU, 0}, .ndim = ndim, .dtype = {(uint8_t)code, bits, 1},
                      .shape = shape};
}

static void fill(float *x, int32_t count, float step) {
    for (int32_t i = 0; i < count; i++) x[i] = step * (float)((i * 7) % 11 - 5);
}

static void reset_tensors(world *w) {
    memcpy(w->head_shape, (int64_t[]){1, 3, 2, 4}, sizeof w->head_shape);
    memcpy(w->row_shape, (int64_t[]){1, 2, 3}, sizeof w->row_shape);
    memcpy(w->score_shape, (int64_t[]){1, 2, 3, 3}, sizeof w->score_shape);
#define HEADS(name) w->t##name = tensor_of(w->name, w->head_shape, 4, kDLFloat, 32)
    HEADS(q); HEADS(k); HEADS(v); HEADS(out); HEADS(dout); HEADS(dq); HEADS(dk); HEADS(dv);
    HEADS(second_out); HEADS(merged_out);
#undef HEADS
    w->tlse = tensor_of(w->lse, w->row_shape, 3, kDLFloat, 32);
    w->tsecond_lse = tensor_of(w->second_lse, w->row_shape, 3, kDLFloat, 32);
    w->tmerged_lse = tensor_of(w->merged_lse, w->row_shape, 3, kDLFloat, 32);
    w->tkeep = tensor_of(w->keep, w->score_shape, 4, kDLUInt, 8);
    memcpy(w->angle_shape, (int64_t[]){3, 2}, sizeof w->angle_shape);
    w->batch_shape[0] = 1;
    w->tcosines = tensor_of(w->cosines, w->angle_shape, 2, kDLFloat, 32);
    w->tsines = tensor_of(w->sines, w->angle_shape, 2, kDLFloat, 32);
    w->tseqlens = tensor_of(w->seqlens, w->batch_shape, 1, kDLInt, 32);
}

void world_reset(world *w) {
    memset(w, 0, sizeof *w);
    fill(w->q, VALUES, 0.1f), fill(w->k, VALUES, 0.2f), fill(w->v, VALUES, 0.3f);
    fill(w->out, VALUES, 0.05f), fill(w->dout, VALUES, 0.4f), fill(w->second_out, VALUES, 0.6f);
    fill(w->lse, ROWS, 0.1f), fill(w->second_lse, ROWS, 0.2f);
    fill(w->cosines, ROWS, 0.1f), fill(w->sines, ROWS, 0.15f);
    float *written[] = {w->dq, w->dk, w->dv, w->merged_out};
    for (int32_t p = 0; p < 4; p++)
        for (int32_t i = 0; i < VALUES; i++) written[p][i] = NAN;
    for (int32_t i = 0; i < ROWS; i++) w->merged_lse[i] = NAN;
    memset(w->keep, 0xee, sizeof w->keep);
    reset_tensors(w);
    w->outs[0] = &w->tout, w->outs[1] = &w->tsecond_out;
    w->lses[0] = &w->tlse, w->lses[1] = &w->tsecond_lse;
    w->attention = (dlattn_attention){.struct_size = sizeof w->attention, .q = &w->tq, .k = &w->tk, .v = &w->tv,
                                      .dropout = 0.5, .seed = 1, .flags = DLATTN_CAUSAL};
    w->outputs = (dlattn_outputs){sizeof w->outputs, &w->tout, &w->tlse};
    w->merged = (dlattn_outputs){sizeof w->merged, &w->tmerged_out, &w->tmerged_lse};
    w->gradients = (dlattn_gradients){.struct_size = sizeof w->gradients, .out = &w->tout, .lse = &w->tlse,
                                      .dout = &w->tdout, .dq = &w->tdq, .dk = &w->tdk, .dv = &w->tdv};
    w->exec = (dlattn_exec){.struct_size = sizeof w->exec, .message = w->message,
                            .message_bytes = sizeof w->message, .num_threads = 1};
    w->parts = (dlattn_parts){sizeof w->parts, w->outs, w->lses, 2, DLATTN_BSHD, 0};
    w->cache = (dlattn_cache){.struct_size = sizeof w->cache, .k_new = &w->tk, .v_new = &w->tv,
                              .seqlens = &w->tseqlens, .k_cache = &w->tdk, .v_cache = &w->tdv};
    w->rotation = (dlattn_rotation){.struct_size = sizeof w->rotation, .x = &w->tq, .cosines = &w->tcosines,
                                    .sines = &w->tsines, .out = &w->tdq};
}

/* ---- arguments, in the order of the header ---------------------------------------------------------------------- */

#define INIT(name)                                     \
    static void init_##name(world *w, value *values) { \
        values[0].pointer = &w->name;                  \
        values[1].sint64 = sizeof w->name;             \
    }
INIT(attention)
INIT(outputs)
INIT(gradients)
INIT(exec)
INIT(parts)
INIT(cache)
INIT(rotation)

static void forward(world *w, value *values) {
    values[0].pointer = &w->attention, values[1].pointer = &w->outputs, values[2].pointer = &w->exec;
}

static void forward_without_exec(world *w, value *values) {
    forward(w, values);
    values[2].pointer = NULL;
}

static void forward_as_gradients(world *w, value *values) {
    forward(w, values);
    values[1].pointer = &w->exec; /* a struct of another size: its struct_size is larger and its tail not zero */
}

static void backward(world *w, value *values) {
    values[0].pointer = &w->attention, values[1].pointer = &w->gradients, values[2].pointer = &w->exec;
}

static void forward_workspace(world *w, value *values) {
    forward(w, values);
    values[3].pointer = &w->bytes, values[4].pointer = &w->minimum_bytes;
}

static void backward_workspace(world *w, value *values) {
    backward(w, values);
    values[3].pointer = &w->bytes, values[4].pointer = &w->minimum_bytes;
}

static void prepare(world *w, value *values) {
    values[0].pointer = &w->attention, values[1].pointer = &w->outputs;
    values[2].pointer = &w->gradients, values[3].pointer = &w->exec;
}

static void explain_forward(world *w, value *values) {
    values[0].pointer = &w->attention, values[1].pointer = &w->outputs, values[3].pointer = &w->exec;
    values[4].pointer = w->text, values[5].sint64 = sizeof w->text;
}

static void explain_backward(world *w, value *values) {
    explain_forward(w, values);
    values[1].pointer = NULL, values[2].pointer = &w->gradients;
}

static void explain_machine(world *w, value *values) {
    values[4].pointer = w->text, values[5].sint64 = sizeof w->text;
}

static void merge(world *w, value *values) {
    values[0].pointer = &w->parts, values[1].pointer = &w->merged, values[2].pointer = &w->exec;
}

static void dropout_mask(world *w, value *values) {
    values[0].pointer = &w->attention, values[1].pointer = &w->tkeep, values[2].pointer = &w->exec;
}

static void kv_append(world *w, value *values) { values[0].pointer = &w->cache, values[1].pointer = &w->exec; }
static void rotary(world *w, value *values) { values[0].pointer = &w->rotation, values[1].pointer = &w->exec; }
static void nothing(world *w, value *values) { (void)w, (void)values; }

static void set_log(world *w, value *values) {
    (void)w;
    values[0].pointer = "log", values[1].pointer = "0";
}

static void unset_log(world *w, value *values) {
    set_log(w, values);
    values[1].pointer = NULL;
}

static void unknown_option(world *w, value *values) {
    set_log(w, values);
    values[0].pointer = "colour";
}

static void shape_code(world *w, value *values) {
    (void)w;
    values[0].sint32 = DLATTN_ERR_SHAPE;
}

static void unknown_code(world *w, value *values) {
    (void)w;
    values[0].sint32 = 12345;
}

enum {
    VERSION = 10000 * DLATTN_VERSION_MAJOR + 100 * DLATTN_VERSION_MINOR + DLATTN_VERSION_PATCH,
    UNSUPPORTED = DLATTN_ERR_UNSUPPORTED,
    ARGUMENT = DLATTN_ERR_ARGUMENT
};

const scenario scenarios[] = {
    {"dlattn_attention_init", "its size", init_attention, 0, NULL},
    {"dlattn_outputs_init", "its size", init_outputs, 0, NULL},
    {"dlattn_gradients_init", "its size", init_gradients, 0, NULL},
    {"dlattn_exec_init", "its size", init_exec, 0, NULL},
    {"dlattn_parts_init", "its size", init_parts, 0, NULL},
    {"dlattn_cache_init", "its size", init_cache, 0, NULL},
    {"dlattn_rotation_init", "its size", init_rotation, 0, NULL},
    {"dlattn_forward", "a small problem", forward, 0, NULL},
    {"dlattn_forward", "without exec", forward_without_exec, 0, NULL},
    {"dlattn_forward", "an exec for outputs", forward_as_gradients, UNSUPPORTED, NULL},
    {"dlattn_backward", "a small problem", backward, 0, NULL},
    {"dlattn_forward_workspace", "a small problem", forward_workspace, 0, NULL},
    {"dlattn_backward_workspace", "a small problem", backward_workspace, 0, NULL},
    {"dlattn_prepare", "both directions", prepare, 0, NULL},
    {"dlattn_explain", "the forward", explain_forward, 0, NULL},
    {"dlattn_explain", "the backward", explain_backward, 0, NULL},
    {"dlattn_explain", "the machine", explain_machine, 0, NULL},
    {"dlattn_merge", "two parts", merge, 0, NULL},
    {"dlattn_dropout_mask", "half", dropout_mask, 0, NULL},
    {"dlattn_kv_append", "a cache", kv_append, 0, NULL},
    {"dlattn_rotary", "a rotation", rotary, 0, NULL},
    {"dlattn_version", "no argument", nothing, VERSION, NULL},
    {"dlattn_abi_version", "no argument", nothing, DLATTN_ABI_VERSION, NULL},
    {"dlattn_set_option", "log off", set_log, 0, NULL},
    {"dlattn_set_option", "log as it was", unset_log, 0, NULL},
    {"dlattn_last_error", "after a success", nothing, 0, ""},
    {"dlattn_set_option", "an unknown name", unknown_option, ARGUMENT, NULL},
    {"dlattn_status_name", "a known code", shape_code, 0, "DLATTN_ERR_SHAPE"},
    {"dlattn_status_name", "an unknown code", unknown_code, 0, "DLATTN_ERR_UNKNOWN"},
};
const int32_t scenario_count = sizeof scenarios / sizeof scenarios[0];
