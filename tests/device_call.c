/* device_call.c: one call of the library with its tensors moved to the device: the structs, the workspace, the graph. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device_memory.h"

enum { MAX_TENSORS = 48, MAX_PARTS = 8, WORKSPACE_SHIFT = 16 };

struct device_call {
    DLTensor tensors[MAX_TENSORS];
    guarded_block *blocks[MAX_TENSORS]; /* each once */
    int tensor_count, block_count;
    dlattn_attention attention;
    dlattn_outputs outputs;
    dlattn_gradients gradients;
    dlattn_parts parts;
    const DLTensor *part_outs[MAX_PARTS], *part_lses[MAX_PARTS];
    DLTensor *keep;
    dlattn_exec exec;
    unsigned char *own_workspace;
    uint64_t own_bytes;
    int32_t (*run)(struct device_call *);
};

/* ---- tensors ------------------------------------------------------------------------------------------------------- */

static void *move_address(device_call *c, void *host) {
    guarded_block *block = guarded_find(host);
    void *there = device_address(host);
    for (int n = 0; n < c->block_count; n++)
        if (c->blocks[n] == block) return there;
    assert(c->block_count < MAX_TENSORS);
    c->blocks[c->block_count++] = block;
    return there;
}

static DLTensor *move(device_call *c, const DLTensor *t) {
    if (!t) return NULL;
    assert(c->tensor_count < MAX_TENSORS);
    DLTensor *there = &c->tensors[c->tensor_count++];
    *there = *t;
    there->device = device_id();
    if (t->data) there->data = move_address(c, t->data);
    return there;
}

static const dlattn_attention *move_attention(device_call *c, const dlattn_attention *a) {
    const DLTensor **fields[] = {
        &c->attention.q, &c->attention.k, &c->attention.v, &c->attention.bias, &c->attention.mask, &c->attention.alibi_slopes,
        &c->attention.sinks, &c->attention.q_segments, &c->attention.kv_segments, &c->attention.cu_seqlens_q,
        &c->attention.cu_seqlens_k, &c->attention.seqlens_q, &c->attention.seqlens_k, &c->attention.block_table,
        &c->attention.q_starts, &c->attention.k_starts, &c->attention.rng_state};
    c->attention = *a;
    for (size_t n = 0; n < sizeof fields / sizeof *fields; n++) *fields[n] = move(c, *fields[n]);
    return &c->attention;
}

static const dlattn_outputs *move_outputs(device_call *c, const dlattn_outputs *o) {
    if (!o) return NULL;
    c->outputs = (dlattn_outputs){o->struct_size, move(c, o->out), move(c, o->lse)};
    return &c->outputs;
}

static const dlattn_gradients *move_gradients(device_call *c, const dlattn_gradients *g) {
    if (!g) return NULL;
    c->gradients = (dlattn_gradients){g->struct_size,   move(c, g->out), move(c, g->lse), move(c, g->dout),  move(c, g->dlse),
                                      move(c, g->dq),   move(c, g->dk),  move(c, g->dv),  move(c, g->dbias), move(c, g->dsinks)};
    return &c->gradients;
}

/* ---- exec ---------------------------------------------------------------------------------------------------------- */

static const dlattn_exec *move_exec(device_call *c, const dlattn_exec *exec) {
    c->exec = exec ? *exec : (dlattn_exec){.struct_size = sizeof c->exec};
    c->exec.stream = device_now.stream;
    if (c->exec.workspace) c->exec.workspace = move_address(c, c->exec.workspace);
    return &c->exec;
}

/* A workspace of the size asked for, aligned to 16 bytes and no more, unless the caller brought one. */
static void bring_workspace(device_call *c, uint64_t bytes) {
    if (c->exec.workspace || bytes == 0 || !device_now.driver) return;
    c->own_bytes = bytes;
    c->own_workspace = (unsigned char *)guarded_alloc((size_t)bytes + WORKSPACE_SHIFT) + WORKSPACE_SHIFT;
    c->exec.workspace = device_now.options.tight ? device_address(c->own_workspace) : move_address(c, c->own_workspace);
    c->exec.workspace_bytes = bytes;
}

static void drop_workspace(device_call *c) {
    if (c->own_workspace) guarded_free(c->own_workspace - WORKSPACE_SHIFT);
    c->own_workspace = NULL;
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

static int upload_all(const device_call *c) {
    int failed = 0;
    for (int n = 0; n < c->block_count; n++) failed |= device_upload(c->blocks[n]);
    return failed;
}

static int32_t run_captured(device_call *c) {
    const device_driver *d = device_now.driver;
    void *graph = NULL, *executable = NULL;
    for (int n = 0; n < c->block_count; n++)
        if (device_fill(c->blocks[n], GUARDED_POISON)) return DLATTN_ERR_CUDA; /* the capture may read no data */
    if (device_error(d->cuStreamBeginCapture_v2(device_now.stream, DEVICE_CAPTURE_GLOBAL), "begin capture")) return DLATTN_ERR_CUDA;
    int32_t status = c->run(c);
    if (device_error(d->cuStreamEndCapture(device_now.stream, &graph), "end capture")) return DLATTN_ERR_CUDA;
    if (!status && (device_error(d->cuGraphInstantiateWithFlags(&executable, graph, 0), "cuGraphInstantiate") || upload_all(c) ||
                    device_error(d->cuGraphLaunch(executable, device_now.stream), "cuGraphLaunch") || device_wait()))
        status = DLATTN_ERR_CUDA;
    if (executable) d->cuGraphExecDestroy(executable);
    d->cuGraphDestroy(graph);
    return status;
}

/* Copies there, runs, copies back, looks at the workspace's fences. */
static int32_t run_there(device_call *c) {
    int32_t status = device_now.lost ? DLATTN_ERR_CUDA : DLATTN_OK;
    if (!status && device_now.capture) status = run_captured(c);
    else if (!status) status = upload_all(c) ? DLATTN_ERR_CUDA : c->run(c);
    if (!status && device_wait()) status = DLATTN_ERR_CUDA;
    for (int n = 0; n < c->block_count && !status; n++)
        if (device_download(c->blocks[n])) status = DLATTN_ERR_CUDA;
    if (!status && device_wait()) status = DLATTN_ERR_CUDA;
    if (!status && c->own_workspace && !guarded_intact(c->own_workspace, (size_t)c->own_bytes)) {
        snprintf(device_now.message, sizeof device_now.message, "memory outside the workspace of %llu bytes was written",
                 (unsigned long long)c->own_bytes);
        status = DLATTN_ERR_INTERNAL;
    }
    drop_workspace(c);
    return status;
}

static void begin(device_call *c) {
    *c = (device_call){.own_workspace = NULL};
    if (!device_now.lost) device_now.message[0] = 0;
}

static int32_t run_forward(device_call *c) { return dlattn_forward(&c->attention, &c->outputs, &c->exec); }
static int32_t run_backward(device_call *c) { return dlattn_backward(&c->attention, &c->gradients, &c->exec); }
static int32_t run_merge(device_call *c) { return dlattn_merge(&c->parts, &c->outputs, &c->exec); }
static int32_t run_dropout_mask(device_call *c) { return dlattn_dropout_mask(&c->attention, c->keep, &c->exec); }

/* Moves the structs of a forward (g NULL) or a backward and finds the workspace. */
static int32_t assemble(device_call *c, const dlattn_attention *a, const dlattn_outputs *o, const dlattn_gradients *g,
                        const dlattn_exec *exec) {
    uint64_t bytes = 0;
    begin(c);
    move_attention(c, a);
    move_outputs(c, o);
    move_gradients(c, g);
    move_exec(c, exec);
    c->run = g ? run_backward : run_forward;
    if (c->exec.workspace || !device_now.driver) return DLATTN_OK;
    int32_t status = g ? dlattn_backward_workspace(&c->attention, &c->gradients, &c->exec, &bytes, NULL)
                       : dlattn_forward_workspace(&c->attention, &c->outputs, &c->exec, &bytes, NULL);
    if (!status) bring_workspace(c, bytes);
    return status;
}

int32_t device_forward(const dlattn_attention *a, const dlattn_outputs *o, const dlattn_exec *exec) {
    device_call c;
    if (device_kind() == DEVICE_CPU) return dlattn_forward(a, o, exec);
    int32_t status = assemble(&c, a, o, NULL, exec);
    return status ? status : run_there(&c);
}

int32_t device_backward(const dlattn_attention *a, const dlattn_gradients *g, const dlattn_exec *exec) {
    device_call c;
    if (device_kind() == DEVICE_CPU) return dlattn_backward(a, g, exec);
    int32_t status = assemble(&c, a, NULL, g, exec);
    return status ? status : run_there(&c);
}

int32_t device_merge(const dlattn_parts *parts, const dlattn_outputs *o, const dlattn_exec *exec) {
    device_call c;
    if (device_kind() == DEVICE_CPU) return dlattn_merge(parts, o, exec);
    begin(&c);
    assert(parts->count <= MAX_PARTS);
    c.parts = *parts;
    c.parts.out = c.part_outs;
    c.parts.lse = c.part_lses;
    for (int64_t n = 0; n < parts->count; n++) c.part_outs[n] = move(&c, parts->out[n]), c.part_lses[n] = move(&c, parts->lse[n]);
    move_outputs(&c, o);
    move_exec(&c, exec);
    c.run = run_merge;
    return run_there(&c);
}

int32_t device_dropout_mask(const dlattn_attention *a, DLTensor *keep, const dlattn_exec *exec) {
    device_call c;
    if (device_kind() == DEVICE_CPU) return dlattn_dropout_mask(a, keep, exec);
    begin(&c);
    move_attention(&c, a);
    c.keep = move(&c, keep);
    move_exec(&c, exec);
    c.run = run_dropout_mask;
    return run_there(&c);
}

/* ---- questions ----------------------------------------------------------------------------------------------------- */

int32_t device_forward_workspace(const dlattn_attention *a, const dlattn_outputs *o, const dlattn_exec *exec, uint64_t *bytes,
                                 uint64_t *minimum) {
    device_call c;
    if (device_kind() == DEVICE_CPU) return dlattn_forward_workspace(a, o, exec, bytes, minimum);
    begin(&c);
    return dlattn_forward_workspace(move_attention(&c, a), move_outputs(&c, o), move_exec(&c, exec), bytes, minimum);
}

int32_t device_backward_workspace(const dlattn_attention *a, const dlattn_gradients *g, const dlattn_exec *exec, uint64_t *bytes,
                                  uint64_t *minimum) {
    device_call c;
    if (device_kind() == DEVICE_CPU) return dlattn_backward_workspace(a, g, exec, bytes, minimum);
    begin(&c);
    return dlattn_backward_workspace(move_attention(&c, a), move_gradients(&c, g), move_exec(&c, exec), bytes, minimum);
}

int32_t device_prepare(const dlattn_attention *a, const dlattn_outputs *o, const dlattn_gradients *g, const dlattn_exec *exec) {
    device_call c;
    if (device_kind() == DEVICE_CPU) return dlattn_prepare(a, o, g, exec);
    begin(&c);
    return dlattn_prepare(move_attention(&c, a), move_outputs(&c, o), move_gradients(&c, g), move_exec(&c, exec));
}

int32_t device_explain(const dlattn_attention *a, const dlattn_outputs *o, const dlattn_gradients *g, const dlattn_exec *exec,
                       char *text, int64_t text_bytes) {
    device_call c;
    if (device_kind() == DEVICE_CPU) return dlattn_explain(a, o, g, exec, text, text_bytes);
    begin(&c);
    return dlattn_explain(move_attention(&c, a), move_outputs(&c, o), move_gradients(&c, g), move_exec(&c, exec), text, text_bytes);
}

/* ---- repeated calls ------------------------------------------------------------------------------------------------ */

device_call *device_call_new(const dlattn_attention *a, const dlattn_outputs *o, const dlattn_gradients *g, int32_t *status) {
    device_call *c = malloc(sizeof *c);
    if (!c) abort();
    *status = assemble(c, a, g ? NULL : o, g, NULL);
    if (!*status && (upload_all(c) || device_wait())) *status = DLATTN_ERR_CUDA;
    return c;
}

void device_call_reserve(device_call *call, uint64_t bytes) {
    if (bytes <= call->own_bytes) return;
    if (call->own_workspace && !device_now.options.tight) call->block_count--; /* it was moved last */
    drop_workspace(call);
    call->exec.workspace = NULL;
    bring_workspace(call, bytes);
}

int32_t device_call_run(device_call *call) { return call->run(call); }

double device_call_time(device_call *call, int32_t count) {
    const device_driver *d = device_now.driver;
    void *begin_event = NULL, *end_event = NULL;
    float milliseconds = -1;
    int failed = device_error(d->cuEventCreate(&begin_event, DEVICE_EVENT_DEFAULT), "cuEventCreate") ||
                 device_error(d->cuEventCreate(&end_event, DEVICE_EVENT_DEFAULT), "cuEventCreate") ||
                 device_error(d->cuEventRecord(begin_event, device_now.stream), "cuEventRecord");
    for (int32_t n = 0; n < count && !failed; n++) failed = call->run(call) != DLATTN_OK;
    if (!failed) failed = device_error(d->cuEventRecord(end_event, device_now.stream), "cuEventRecord") || device_wait();
    if (!failed) d->cuEventElapsedTime(&milliseconds, begin_event, end_event);
    if (begin_event) d->cuEventDestroy_v2(begin_event);
    if (end_event) d->cuEventDestroy_v2(end_event);
    return failed ? -1 : (double)milliseconds;
}

void device_call_free(device_call *call) {
    drop_workspace(call);
    free(call);
}
