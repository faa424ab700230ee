/* xla_ffi.c: handlers by which XLA calls dlattn_forward and dlattn_backward on the CPU and on CUDA; see dlattn/jax.
 *
 * A program's call has buffers, and attributes that say what they are: the strings `arguments` and `results` hold one
 * word per buffer, the name of its field in dlattn_attention, dlattn_outputs or dlattn_gradients ("q k v bias"), or
 * "workspace". Every other attribute is a scalar field of dlattn_attention, or num_threads; an absent one is 0.
 *
 * The library is not linked: dlattn_xla_connect hands over the functions of the one that Python has loaded. Nothing is kept
 * between calls, and a call on CUDA does the same launches every time, so XLA may record it in a command buffer. */
#include <dlattn/dlattn.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "xla_abi.h"

#define EXPORT __attribute__((visibility("default")))

enum { MAX_TENSORS = 32, DEVICE_ORDINAL = 9 }; /* the latter: CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL */

typedef int32_t forward_function(const dlattn_attention *, const dlattn_outputs *, const dlattn_exec *);
typedef int32_t backward_function(const dlattn_attention *, const dlattn_gradients *, const dlattn_exec *);
typedef int32_t prepare_function(const dlattn_attention *, const dlattn_outputs *, const dlattn_gradients *,
                                 const dlattn_exec *);

static struct {
    forward_function *forward;
    backward_function *backward;
    prepare_function *prepare;
} library; /* written once, before any handler is registered */

/* One call: the structs of the library and what they point to. */
typedef struct call {
    dlattn_attention attention;
    dlattn_outputs outputs;
    dlattn_gradients gradients;
    dlattn_exec exec;
    const DLTensor *workspace;
    DLTensor tensors[MAX_TENSORS];
    int32_t count;
    char message[1024];
} call;

/* A name in a program, and where it goes in `call`. */
typedef struct slot {
    const char *name;
    size_t offset;
} slot;

#define OF(part, field) \
    { #field, offsetof(call, part.field) }

static const slot PROBLEM[] = {OF(attention, q),
                               OF(attention, k),
                               OF(attention, v),
                               OF(attention, bias),
                               OF(attention, mask),
                               OF(attention, alibi_slopes),
                               OF(attention, sinks),
                               OF(attention, q_segments),
                               OF(attention, kv_segments),
                               OF(attention, cu_seqlens_q),
                               OF(attention, cu_seqlens_k),
                               OF(attention, seqlens_q),
                               OF(attention, seqlens_k),
                               OF(attention, block_table),
                               OF(attention, q_starts),
                               OF(attention, k_starts),
                               OF(attention, rng_state),
                               OF(gradients, out),
                               OF(gradients, lse),
                               OF(gradients, dout),
                               OF(gradients, dlse),
                               {NULL, 0}};
static const slot FORWARD_RESULTS[] = {
    OF(outputs, out), OF(outputs, lse), {"workspace", offsetof(call, workspace)}, {NULL, 0}};
static const slot BACKWARD_RESULTS[] = {OF(gradients, dq),
                                        OF(gradients, dk),
                                        OF(gradients, dv),
                                        OF(gradients, dbias),
                                        OF(gradients, dsinks),
                                        {"workspace", offsetof(call, workspace)},
                                        {NULL, 0}};
static const slot INTEGERS[] = {OF(attention, max_seqlen_q),
                                OF(attention, max_seqlen_k),
                                OF(attention, window_left),
                                OF(attention, window_right),
                                OF(attention, block_size),
                                OF(attention, block_count),
                                OF(attention, q_start),
                                OF(attention, k_start),
                                OF(attention, seed),
                                OF(attention, offset),
                                {NULL, 0}};
static const slot NUMBERS[] = {OF(attention, scale), OF(attention, softcap), OF(attention, dropout), {NULL, 0}};
static const slot SHORT_INTEGERS[] = {OF(attention, flags), OF(attention, layout), OF(exec, num_threads), {NULL, 0}};

static const slot *find(const slot *slots, const char *name, size_t size) {
    for (; slots->name; slots++)
        if (strlen(slots->name) == size && !memcmp(slots->name, name, size)) return slots;
    return NULL;
}

static xla_error *fail(const xla_frame *frame, int32_t code, const char *sentence) {
    xla_error_arguments arguments = {offsetof(xla_error_arguments, code) + sizeof arguments.code, NULL, sentence, code};
    return frame->api->error_create(&arguments);
}

/* An error of this file: a program and a handler that do not fit together. */
static xla_error *fail_name(const xla_frame *frame, const char *what, const char *name, size_t size) {
    char sentence[256];
    snprintf(sentence, sizeof sentence, "dlattn: the program has %s '%.*s', which this version does not know", what,
             (int)(size < 128 ? size : 128), name);
    return fail(frame, XLA_INVALID_ARGUMENT, sentence);
}

static xla_error *fail_status(const xla_frame *frame, int32_t status, const char *sentence) {
    switch (status) {
    case DLATTN_ERR_ARGUMENT:
    case DLATTN_ERR_SHAPE:
    case DLATTN_ERR_DTYPE:
    case DLATTN_ERR_DEVICE: return fail(frame, XLA_INVALID_ARGUMENT, sentence);
    case DLATTN_ERR_UNSUPPORTED: return fail(frame, XLA_UNIMPLEMENTED, sentence);
    case DLATTN_ERR_OUT_OF_MEMORY: return fail(frame, XLA_RESOURCE_EXHAUSTED, sentence);
    case DLATTN_ERR_WORKSPACE:
    case DLATTN_ERR_CUDA:
    case DLATTN_ERR_COMPILE:
    case DLATTN_ERR_INTERNAL: return fail(frame, XLA_INTERNAL, sentence);
    default: return fail(frame, XLA_UNKNOWN, sentence);
    }
}

/* ---- attributes ----------------------------------------------------------------------------------------------------- */

static bool read_integer(const xla_scalar *scalar, int64_t *out) {
    if (scalar->dtype == XLA_S64 || scalar->dtype == XLA_U64)
        memcpy(out, scalar->value, 8);
    else if (scalar->dtype == XLA_S32) {
        int32_t narrow;
        memcpy(&narrow, scalar->value, 4);
        *out = narrow;
    } else
        return false;
    return true;
}

static bool read_number(const xla_scalar *scalar, double *out) {
    if (scalar->dtype == XLA_F64)
        memcpy(out, scalar->value, 8);
    else if (scalar->dtype == XLA_F32) {
        float narrow;
        memcpy(&narrow, scalar->value, 4);
        *out = narrow;
    } else
        return false;
    return true;
}

/* False: no field has this name, or not this type. */
static bool set_field(call *c, const xla_bytes *name, const xla_scalar *scalar) {
    const slot *s;
    int64_t integer;
    double number;
    if ((s = find(INTEGERS, name->data, name->size))) {
        if (!read_integer(scalar, &integer)) return false;
        memcpy((char *)c + s->offset, &integer, sizeof integer);
    } else if ((s = find(SHORT_INTEGERS, name->data, name->size))) {
        if (!read_integer(scalar, &integer) || integer != (int32_t)integer) return false;
        const int32_t narrow = (int32_t)integer;
        memcpy((char *)c + s->offset, &narrow, sizeof narrow);
    } else if ((s = find(NUMBERS, name->data, name->size))) {
        if (!read_number(scalar, &number)) return false;
        memcpy((char *)c + s->offset, &number, sizeof number);
    } else
        return false;
    return true;
}

static xla_error *read_attributes(call *c, xla_bytes *arguments, xla_bytes *results, const xla_frame *frame) {
    const xla_attributes *a = &frame->attributes;
    for (int64_t n = 0; n < a->count; n++) {
        const xla_bytes *name = a->names[n];
        if (a->types[n] == XLA_STRING && name->size == 9 && !memcmp(name->data, "arguments", 9))
            *arguments = *(const xla_bytes *)a->values[n];
        else if (a->types[n] == XLA_STRING && name->size == 7 && !memcmp(name->data, "results", 7))
            *results = *(const xla_bytes *)a->values[n];
        else if (a->types[n] != XLA_SCALAR || !set_field(c, name, a->values[n]))
            return fail_name(frame, "an attribute", name->data, name->size);
    }
    return NULL;
}

/* ---- buffers -------------------------------------------------------------------------------------------------------- */

static bool dtype_of(int32_t dtype, DLDataType *out) {
    static const struct {
        int32_t dtype;
        uint8_t code, bits;
    } types[] = {{XLA_F16, kDLFloat, 16}, {XLA_BF16, kDLBfloat, 16}, {XLA_F32, kDLFloat, 32}, {XLA_F64, kDLFloat, 64},
                 {XLA_S32, kDLInt, 32},   {XLA_S64, kDLInt, 64},     {XLA_U32, kDLUInt, 32},  {XLA_U64, kDLUInt, 64},
                 {XLA_PRED, kDLBool, 8},  {XLA_U8, kDLUInt, 8},      {XLA_S8, kDLInt, 8},     {XLA_S16, kDLInt, 16},
                 {XLA_U16, kDLUInt, 16}};
    for (size_t n = 0; n < sizeof types / sizeof types[0]; n++) {
        if (types[n].dtype != dtype) continue;
        *out = (DLDataType){types[n].code, types[n].bits, 1};
        return true;
    }
    return false;
}

/* Describes the buffers, whose names are the words of `names`, in the structs of the library. */
static xla_error *place_buffers(call *c, const slot *slots, xla_bytes names, const xla_buffers *buffers,
                                const xla_frame *frame) {
    const char *word = names.data, *end = names.data + names.size;
    for (int64_t n = 0; n < buffers->count; n++) {
        const char *stop = word < end ? memchr(word, ' ', (size_t)(end - word)) : NULL;
        const size_t size = (size_t)((stop ? stop : end) - word);
        const slot *s = find(slots, word, size);
        const xla_buffer *buffer = buffers->items[n];
        DLTensor *tensor = &c->tensors[c->count];
        if (!s || buffers->types[n] != XLA_BUFFER || c->count == MAX_TENSORS)
            return fail_name(frame, "a buffer", word, size);
        *tensor = (DLTensor){.data = buffer->data, .ndim = (int32_t)buffer->rank, .shape = buffer->dims};
        if (!dtype_of(buffer->dtype, &tensor->dtype)) return fail_name(frame, "a buffer of an odd type", word, size);
        memcpy((char *)c + s->offset, &tensor, sizeof tensor);
        c->count++;
        word = stop ? stop + 1 : end;
    }
    return NULL;
}

static void place_on(call *c, int32_t device_type, int32_t device_id) {
    for (int32_t n = 0; n < c->count; n++) c->tensors[n].device = (DLDevice){device_type, device_id};
}

/* The CUDA device of the first buffer that has one; 0 when all are empty. The driver is the one that XLA has loaded. */
static int32_t cuda_device(const call *c) {
    typedef int attribute_function(void *, int, unsigned long long);
    int32_t ordinal = 0;
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!driver) return 0;
    attribute_function *get = (attribute_function *)(uintptr_t)dlsym(driver, "cuPointerGetAttribute");
    for (int32_t n = 0; get && n < c->count; n++)
        if (c->tensors[n].data && !get(&ordinal, DEVICE_ORDINAL, (unsigned long long)(uintptr_t)c->tensors[n].data))
            break;
    dlclose(driver);
    return ordinal;
}

/* ---- calls ---------------------------------------------------------------------------------------------------------- */

typedef enum direction { FORWARD, BACKWARD } direction;

static xla_error *read_call(call *c, direction d, const xla_frame *frame) {
    xla_bytes arguments = {"", 0}, results = {"", 0};
    memset(c, 0, offsetof(call, tensors));
    c->attention.struct_size = sizeof c->attention;
    c->outputs.struct_size = sizeof c->outputs;
    c->gradients.struct_size = sizeof c->gradients;
    c->exec.struct_size = sizeof c->exec;
    c->exec.message = c->message;
    c->exec.message_bytes = sizeof c->message;
    c->count = 0;
    c->message[0] = 0;
    xla_error *error = read_attributes(c, &arguments, &results, frame);
    if (!error) error = place_buffers(c, PROBLEM, arguments, &frame->arguments, frame);
    if (!error)
        error = place_buffers(c, d == FORWARD ? FORWARD_RESULTS : BACKWARD_RESULTS, results, &frame->results, frame);
    return error;
}

static xla_error *run(call *c, direction d, const xla_frame *frame) {
    const int32_t status = d == FORWARD ? library.forward(&c->attention, &c->outputs, &c->exec)
                                        : library.backward(&c->attention, &c->gradients, &c->exec);
    return status == DLATTN_OK ? NULL : fail_status(frame, status, c->message);
}

/* Answers XLA's question for version and traits; false where this is a call. */
static bool is_query(const xla_frame *frame, uint32_t traits) {
    for (xla_extension *e = frame->extensions; e; e = e->next) {
        if (e->type != XLA_EXTENSION_METADATA) continue;
        xla_metadata *metadata = ((xla_metadata_extension *)e)->metadata;
        metadata->version.major = XLA_API_MAJOR;
        metadata->version.minor = XLA_API_MINOR;
        metadata->traits = traits;
        return true;
    }
    return false;
}

/* The library takes host memory for itself, and keeps it warm; the workspace is for CUDA. */
static xla_error *run_cpu(direction d, const xla_frame *frame) {
    call c;
    if (is_query(frame, 0)) return NULL;
    xla_error *error = read_call(&c, d, frame);
    if (error) return error;
    place_on(&c, kDLCPU, 0);
    return run(&c, d, frame);
}

static xla_error *read_cuda_call(call *c, direction d, const xla_frame *frame) {
    xla_error *error = read_call(c, d, frame);
    if (error) return error;
    place_on(c, kDLCUDA, cuda_device(c));
    if (c->workspace) {
        c->exec.workspace = c->workspace->data;
        c->exec.workspace_bytes = (uint64_t)c->workspace->shape[0];
    }
    return NULL;
}

static xla_error *run_cuda(direction d, const xla_frame *frame) {
    call c;
    if (is_query(frame, XLA_COMMAND_BUFFER_COMPATIBLE)) return NULL;
    xla_error *error = read_cuda_call(&c, d, frame);
    if (error) return error;
    xla_stream_arguments stream = {sizeof stream, NULL, frame->context, NULL};
    error = frame->api->stream_get(&stream);
    if (error) return error;
    c.exec.stream = stream.stream;
    return run(&c, d, frame);
}

/* XLA's stage before a run: compiles and loads the kernels, while nothing of this run is queued yet. */
static xla_error *prepare_cuda(direction d, const xla_frame *frame) {
    call c;
    if (is_query(frame, XLA_COMMAND_BUFFER_COMPATIBLE)) return NULL;
    xla_error *error = read_cuda_call(&c, d, frame);
    if (error) return error;
    const int32_t status =
        library.prepare(&c.attention, d == FORWARD ? &c.outputs : NULL, d == FORWARD ? NULL : &c.gradients, &c.exec);
    return status == DLATTN_OK ? NULL : fail_status(frame, status, c.message);
}

EXPORT void dlattn_xla_connect(forward_function *forward, backward_function *backward, prepare_function *prepare);
EXPORT xla_error *dlattn_xla_forward_cpu(xla_frame *frame);
EXPORT xla_error *dlattn_xla_backward_cpu(xla_frame *frame);
EXPORT xla_error *dlattn_xla_forward_cuda(xla_frame *frame);
EXPORT xla_error *dlattn_xla_backward_cuda(xla_frame *frame);
EXPORT xla_error *dlattn_xla_prepare_forward_cuda(xla_frame *frame);
EXPORT xla_error *dlattn_xla_prepare_backward_cuda(xla_frame *frame);

void dlattn_xla_connect(forward_function *forward, backward_function *backward, prepare_function *prepare) {
    library.forward = forward;
    library.backward = backward;
    library.prepare = prepare;
}

xla_error *dlattn_xla_forward_cpu(xla_frame *frame) { return run_cpu(FORWARD, frame); }
xla_error *dlattn_xla_backward_cpu(xla_frame *frame) { return run_cpu(BACKWARD, frame); }
xla_error *dlattn_xla_forward_cuda(xla_frame *frame) { return run_cuda(FORWARD, frame); }
xla_error *dlattn_xla_backward_cuda(xla_frame *frame) { return run_cuda(BACKWARD, frame); }
xla_error *dlattn_xla_prepare_forward_cuda(xla_frame *frame) { return prepare_cuda(FORWARD, frame); }
xla_error *dlattn_xla_prepare_backward_cuda(xla_frame *frame) { return prepare_cuda(BACKWARD, frame); }
