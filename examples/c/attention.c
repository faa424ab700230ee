/* Attention on plain C arrays: one causal layer forward and backward, with grouped heads. */
#include <stdio.h>
#include <stdlib.h>

#include <dlattn/dlattn.h>

enum { B = 1, M = 6, H = 4, G = 2, D = 8 }; /* batch, tokens, query heads, key/value heads, head size */

/* A compact float32 tensor of the given extents on the CPU. */
static DLTensor tensor(float *data, int rank, int64_t *shape) {
    return (DLTensor){.data = data, .device = {kDLCPU, 0}, .ndim = rank, .dtype = {kDLFloat, 32, 1}, .shape = shape};
}

static void fill(float *x, int count) {
    static uint32_t state = 1;
    for (int i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) / (float)(1 << 23) - 1.0f; /* in [-1, 1) */
    }
}

static void check(int32_t status) {
    if (status != DLATTN_OK) {
        fprintf(stderr, "%s: %s\n", dlattn_status_name(status), dlattn_last_error());
        exit(1);
    }
}

static void print(const char *name, const float *x, int count) {
    printf("%-20s", name);
    for (int i = 0; i < count; i++) printf(" % .4f", x[i]);
    printf("\n");
}

int main(void) {
    static float q[B * M * H * D], k[B * M * G * D], v[B * M * G * D], out[B * M * H * D], lse[B * H * M];
    static float dout[B * M * H * D], dq[B * M * H * D], dk[B * M * G * D], dv[B * M * G * D];
    fill(q, B * M * H * D);
    fill(k, B * M * G * D);
    fill(v, B * M * G * D);
    fill(dout, B * M * H * D); /* the gradient of some loss with respect to out */

    int64_t query_shape[] = {B, M, H, D}, key_shape[] = {B, M, G, D}, lse_shape[] = {B, H, M};
    DLTensor tq = tensor(q, 4, query_shape), tk = tensor(k, 4, key_shape), tv = tensor(v, 4, key_shape);
    DLTensor tout = tensor(out, 4, query_shape), tlse = tensor(lse, 3, lse_shape);
    DLTensor tdout = tensor(dout, 4, query_shape), tdq = tensor(dq, 4, query_shape);
    DLTensor tdk = tensor(dk, 4, key_shape), tdv = tensor(dv, 4, key_shape);

    dlattn_attention attention = {.struct_size = sizeof attention, .q = &tq, .k = &tk, .v = &tv,
                                  .flags = DLATTN_CAUSAL};
    dlattn_outputs outputs = {.struct_size = sizeof outputs, .out = &tout, .lse = &tlse};
    dlattn_gradients gradients = {.struct_size = sizeof gradients, .out = &tout, .lse = &tlse, .dout = &tdout,
                                  .dq = &tdq, .dk = &tdk, .dv = &tdv};
    check(dlattn_forward(&attention, &outputs, NULL));
    check(dlattn_backward(&attention, &gradients, NULL));

    /* The first query sees the first key alone, so its out is that key's value. */
    print("v[0,0,0,:]", v, D);
    print("out[0,0,0,:]", out, D);
    print("out[0,5,3,:]", out + (5 * H + 3) * D, D);
    print("lse[0,0,:]", lse, M);
    print("dq[0,5,3,:]", dq + (5 * H + 3) * D, D);
    print("dk[0,0,0,:]", dk, D);
    print("dv[0,0,0,:]", dv, D);
    for (int e = 0; e < D; e++) {
        if (out[e] - v[e] > 1e-6f || v[e] - out[e] > 1e-6f) return 1;
    }
    return 0;
}
