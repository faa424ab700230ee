// forward_store_sm90.cuh: the way out of a consumer's rows in forward_sm90: from registers to memory, so that Q's place in shared
// memory is free for the next Q as soon as the last product with it is done.
//
// Part of forward_sm90.cu: uses its options.
#ifndef DLATTN_FORWARD_STORE_SM90_CUH
#define DLATTN_FORWARD_STORE_SM90_CUH

#include "forward_rows_sm80.cuh"

// Word n of thread t of a quad becomes word t of thread n.
DEVICE void transpose_quad(u32 (&x)[4], int t) {
    const bool odd = t & 1, upper = t & 2;
#pragma unroll
    for (int n = 0; n < 4; n += 2) {
        const u32 got = __shfl_xor_sync(0xffffffffu, odd ? x[n] : x[n + 1], 1);
        x[n] = odd ? got : x[n];
        x[n + 1] = odd ? x[n + 1] : got;
    }
#pragma unroll
    for (int n = 0; n < 2; n++) {
        const u32 got = __shfl_xor_sync(0xffffffffu, upper ? x[n] : x[n + 2], 2);
        x[n] = upper ? got : x[n];
        x[n + 2] = upper ? x[n + 2] : got;
    }
}

// out's rows, of the element type: each thread of a quad stores 16 bytes of a row, the quad 64.
DEVICE void store_rows_directly(const float (&o)[MT][ET][4], const dlattn_params &p, const loop_facts &facts) {
    const int thread = thread_anew(), lane = thread % 32, t = lane % 4, first = facts.row0 + 16 * (thread / 32) + lane / 4;
    const bool chunks = stores_chunks(p) && p.E % 8 == 0;
    u16 *const out = (u16 *)p.out.data + at(p.out, facts.s.b, facts.s.q_begin, facts.h);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + 8 * half;
        const bool there = row < facts.rows;
        u16 *const to = out + row * p.out.stride[1];
        if (chunks) {
#pragma unroll
            for (int e = 0; e < ET; e += 4) {
                u32 x[4];
#pragma unroll
                for (int n = 0; n < 4; n++) x[n] = pack(o[0][e + n][2 * half], o[0][e + n][2 * half + 1]);
                transpose_quad(x, t);
                if (there && 8 * (e + t) < p.E) *(uint4 *)(to + 8 * (e + t)) = make_uint4(x[0], x[1], x[2], x[3]);
            }
            continue;
        }
#pragma unroll
        for (int e = 0; e < ET; e++) {
            const int column = 8 * e + 2 * t;
            const u32 both = pack(o[0][e][2 * half], o[0][e][2 * half + 1]);
            if (there && column < p.E) to[column * p.out.stride[3]] = (u16)both;
            if (there && column + 1 < p.E) to[(column + 1) * p.out.stride[3]] = (u16)(both >> 16);
        }
    }
}

DEVICE void finish_directly(float (&o)[MT][ET][4], const float (&m)[MT][2], const float (&l)[MT][2], float factor,
                            const dlattn_params &p, const loop_facts &facts) {
    end_rows(o, m, l, factor, p, facts);
    if (p.out.dtype == TYPE) store_rows_directly(o, p, facts);
    else store_floats_of_rows(o, p, facts);
}

#endif
