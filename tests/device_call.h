/* device_call.h: the calls of the library on tensors in host memory, made wherever the checks are told to run.
 *
 * On the CPU a call goes straight to the library. Elsewhere every guarded allocation that a tensor of the call lies in
 * is copied to device memory whole, gaps, poison and fences included; the call sees the same strides and offsets there;
 * then all of it is copied back. So the judges look at host memory only and miss no stray write. The calls run on a
 * stream of their own, with a poisoned workspace of the size that the query names unless exec brings one. */
#ifndef DLATTN_TESTS_DEVICE_CALL_H
#define DLATTN_TESTS_DEVICE_CALL_H

#include <dlattn/dlattn.h>

/* DEVICE_CUDA_HOST: copies in host memory, declared kDLCUDAHost, which the CPU serves: tries this file without a GPU. */
enum { DEVICE_CPU, DEVICE_CUDA_HOST, DEVICE_CUDA };

typedef struct device_options {
    int32_t kind;
    int32_t ordinal; /* CUDA: which device */
    int32_t tight;   /* copies without fences, a workspace never written by us: lets compute-sanitizer see more */
} device_options;

/* Chooses where calls run. 0, or 1 with a sentence in why. Not to be called before a fork that uses CUDA after it. */
int device_select(const device_options *options, char *why, size_t bytes);
int32_t device_kind(void);

/* What went wrong in the last call apart from the library: "" if nothing. After device_lost() the context is of no more
 * use, and the process must end. */
const char *device_message(void);
int device_lost(void);

/* From now on calls are captured into a graph, whose memory is filled with data only after the capture;
 * then the graph is launched. CUDA only. On from device_select until a check turns it off. */
void device_capture(int on);

/* As the functions of dlattn.h. */
int32_t device_forward(const dlattn_attention *a, const dlattn_outputs *o, const dlattn_exec *exec);
int32_t device_backward(const dlattn_attention *a, const dlattn_gradients *g, const dlattn_exec *exec);
int32_t device_forward_workspace(const dlattn_attention *a, const dlattn_outputs *o, const dlattn_exec *exec, uint64_t *bytes,
                                 uint64_t *minimum);
int32_t device_backward_workspace(const dlattn_attention *a, const dlattn_gradients *g, const dlattn_exec *exec, uint64_t *bytes,
                                  uint64_t *minimum);
int32_t device_prepare(const dlattn_attention *a, const dlattn_outputs *o, const dlattn_gradients *g, const dlattn_exec *exec);
int32_t device_explain(const dlattn_attention *a, const dlattn_outputs *o, const dlattn_gradients *g, const dlattn_exec *exec,
                       char *text, int64_t text_bytes);
int32_t device_merge(const dlattn_parts *parts, const dlattn_outputs *o, const dlattn_exec *exec);
int32_t device_dropout_mask(const dlattn_attention *a, DLTensor *keep, const dlattn_exec *exec);

/* Repeated calls on memory that stays on the device, for timing. Makes the copies once; run only enqueues. */
typedef struct device_call device_call;
device_call *device_call_new(const dlattn_attention *a, const dlattn_outputs *o, const dlattn_gradients *g, int32_t *status);
void device_call_reserve(device_call *call, uint64_t bytes); /* a workspace of at least so many, for plans that change */
int32_t device_call_run(device_call *call); /* the backward where gradients were given, else the forward */
void device_call_free(device_call *call);

/* Runs the call `count` times between two events; milliseconds of device time for all of them, or a negative number. */
double device_call_time(device_call *call, int32_t count);
int device_wait(void); /* for everything enqueued; 0 if all went well */

#endif
