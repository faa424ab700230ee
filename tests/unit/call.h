/* call.h: one small valid call of each function, for tests that spoil it. Every tensor has 4 KiB of its own. */
#ifndef DLATTN_TESTS_CALL_H
#define DLATTN_TESTS_CALL_H

#include <stdint.h>
#include <string.h>

#include <dlattn/dlattn.h>

enum { B = 2, M = 3, N = 5, H = 4, G = 2, D = 8, E = 6 };

/* Tensors of a call; q to RNG are inputs of an attention. */
enum {
    Q, K, V, BIAS, MASK, SLOPES, SINKS, Q_SEGMENTS, KV_SEGMENTS, CU_Q, CU_K, SEQLENS_Q, SEQLENS_K, Q_STARTS, K_STARTS,
    RNG, OUT, LSE, DOUT, DLSE, DQ, DK, DV, DBIAS, DSINKS, KEEP, PART_OUT_0, PART_OUT_1, PART_LSE_0, PART_LSE_1, TENSORS
};
enum { TENSOR_BYTES = 4096 };

typedef struct call {
    DLTensor t[TENSORS];
    int64_t shape[TENSORS][5], strides[TENSORS][5];
    dlattn_attention attention;
    dlattn_outputs outputs;
    dlattn_gradients gradients;
    dlattn_parts parts;
    const DLTensor *part_out[2], *part_lse[2];
    dlattn_exec exec;
    char message[512];
    /* What is handed over: NULL in a test makes the call receive NULL. */
    const dlattn_attention *a;
    const dlattn_outputs *o;
    const dlattn_gradients *g;
    const dlattn_parts *p;
    DLTensor *keep;
    _Alignas(64) unsigned char memory[TENSORS][TENSOR_BYTES];
} call;

static inline void set_type(call *c, int i, int code, int bits) {
    c->t[i].dtype = (DLDataType){(uint8_t)code, (uint8_t)bits, 1};
}

/* A compact tensor in its own memory. */
static inline DLTensor *set_tensor(call *c, int i, int code, int bits, int rank, int64_t e0, int64_t e1, int64_t e2,
                                   int64_t e3) {
    const int64_t extents[4] = {e0, e1, e2, e3};
    int64_t stride = 1;
    for (int d = rank - 1; d >= 0; d--) {
        c->shape[i][d] = extents[d];
        c->strides[i][d] = stride;
        stride *= extents[d];
    }
    c->t[i] = (DLTensor){.data = c->memory[i], .device = {kDLCPU, 0}, .ndim = rank, .shape = c->shape[i],
                         .strides = c->strides[i]};
    set_type(c, i, code, bits);
    return &c->t[i];
}

static inline void set_ints(call *c, int i, const int32_t *values, int count) {
    memcpy(c->memory[i], values, (size_t)count * sizeof *values);
}

static inline void make_call(call *c) {
    memset(c, 0, sizeof *c);
    memset(c->memory, 0xA5, sizeof c->memory);
    for (int i = 0; i <= RNG; i++) memset(c->memory[i], 0, TENSOR_BYTES);
    const int f = kDLFloat, n = kDLInt;
    set_tensor(c, Q, f, 32, 4, B, M, H, D), set_tensor(c, K, f, 32, 4, B, N, G, D);
    set_tensor(c, V, f, 32, 4, B, N, G, E);
    set_tensor(c, BIAS, f, 32, 4, B, H, M, N), set_tensor(c, MASK, kDLBool, 8, 4, B, H, M, N);
    set_tensor(c, SLOPES, f, 32, 1, H, 0, 0, 0), set_tensor(c, SINKS, f, 32, 1, H, 0, 0, 0);
    set_tensor(c, Q_SEGMENTS, n, 32, 2, B, M, 0, 0), set_tensor(c, KV_SEGMENTS, n, 32, 2, B, N, 0, 0);
    set_tensor(c, CU_Q, n, 32, 1, B + 1, 0, 0, 0), set_tensor(c, CU_K, n, 32, 1, B + 1, 0, 0, 0);
    set_tensor(c, SEQLENS_Q, n, 32, 1, B, 0, 0, 0), set_tensor(c, SEQLENS_K, n, 32, 1, B, 0, 0, 0);
    set_tensor(c, Q_STARTS, n, 32, 1, B, 0, 0, 0), set_tensor(c, K_STARTS, n, 32, 1, B, 0, 0, 0);
    set_tensor(c, RNG, n, 64, 1, 2, 0, 0, 0);
    set_tensor(c, OUT, f, 32, 4, B, M, H, E), set_tensor(c, DOUT, f, 32, 4, B, M, H, E);
    set_tensor(c, LSE, f, 32, 3, B, H, M, 0), set_tensor(c, DLSE, f, 32, 3, B, H, M, 0);
    set_tensor(c, DQ, f, 32, 4, B, M, H, D), set_tensor(c, DK, f, 32, 4, B, N, G, D);
    set_tensor(c, DV, f, 32, 4, B, N, G, E);
    set_tensor(c, DBIAS, f, 32, 4, B, H, M, N), set_tensor(c, DSINKS, f, 32, 1, H, 0, 0, 0);
    set_tensor(c, KEEP, kDLUInt, 8, 4, B, H, M, N);
    for (int i = 0; i < 2; i++) {
        c->part_out[i] = set_tensor(c, PART_OUT_0 + i, f, 32, 4, B, M, H, E);
        c->part_lse[i] = set_tensor(c, PART_LSE_0 + i, f, 32, 3, B, H, M, 0);
    }
    DLTensor *t = c->t;
    c->attention = (dlattn_attention){.struct_size = sizeof c->attention, .q = &t[Q], .k = &t[K], .v = &t[V]};
    c->outputs = (dlattn_outputs){sizeof c->outputs, &t[OUT], &t[LSE]};
    c->gradients = (dlattn_gradients){.struct_size = sizeof c->gradients, .out = &t[OUT], .lse = &t[LSE],
                                      .dout = &t[DOUT], .dq = &t[DQ], .dk = &t[DK], .dv = &t[DV]};
    c->parts = (dlattn_parts){sizeof c->parts, c->part_out, c->part_lse, 2, DLATTN_BSHD, 0};
    c->exec = (dlattn_exec){.struct_size = sizeof c->exec, .message = c->message, .message_bytes = sizeof c->message};
    c->a = &c->attention, c->o = &c->outputs, c->g = &c->gradients, c->p = &c->parts, c->keep = &t[KEEP];
}

/* q, out, dout and dq become tokens of two sequences; k, v, dk and dv likewise. */
static inline void pack_q(call *c) {
    const int32_t cu[B + 1] = {0, M, 2 * M};
    const int f = kDLFloat;
    set_tensor(c, Q, f, 32, 3, B * M, H, D, 0), set_tensor(c, DQ, f, 32, 3, B * M, H, D, 0);
    set_tensor(c, OUT, f, 32, 3, B * M, H, E, 0), set_tensor(c, DOUT, f, 32, 3, B * M, H, E, 0);
    set_tensor(c, LSE, f, 32, 2, H, B * M, 0, 0);
    set_ints(c, CU_Q, cu, B + 1);
    c->attention.cu_seqlens_q = &c->t[CU_Q];
}

static inline void pack_k(call *c) {
    const int32_t cu[B + 1] = {0, N, 2 * N};
    const int f = kDLFloat;
    set_tensor(c, K, f, 32, 3, B * N, G, D, 0), set_tensor(c, DK, f, 32, 3, B * N, G, D, 0);
    set_tensor(c, V, f, 32, 3, B * N, G, E, 0), set_tensor(c, DV, f, 32, 3, B * N, G, E, 0);
    set_ints(c, CU_K, cu, B + 1);
    c->attention.cu_seqlens_k = &c->t[CU_K];
}

#endif
