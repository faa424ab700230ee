// forward_store_sm90.cuh: the way out of a consumer's rows in forward_sm90: from registers to memory, so that Q's place in shared
// memory is free for the next Q as soon as the last product with it is done.
//
// Part of forward_sm90.cu: uses its options.
#ifndef DLATTN_FORWARD_STORE_SM90_CUH
#define DLATTN_FORWARD_STORE_SM90_CUH

#include "forward_rows.cuh"

// 1 / x for sums of weights, which are never below 1: refined as a division would be, without its branches.
DEVICE float inverse_of_sum(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    const float error = fmaf(x, y, -1.0f);
    return x < 1e38f ? fmaf(y, -error, y) : y;
}

// The ends of a thread's two rows, by what their sums are multiplied, while the last product adds to these; and lse.
DEVICE void end_sums(float (&by)[2], const float (&m)[MT][2], const float (&l)[MT][2], float factor, const dlattn_params &p, const job *j) {
    const int thread = thread_anew(), t = thread % 4, row = thread / 32 * 16 + thread % 32 / 4 + t * 8;
    const bool second = t & 1;
    const float sums[2] = {sum_of_quad(l[0][0]), sum_of_quad(l[0][1])};
    const float sum = second ? sums[1] : sums[0], reference = second ? m[0][1] : m[0][0];
    float lse;
    if (p.sinks.data) {
        const row_end end = end_of_row(reference, sum, factor, true, j->sink);
        lse = end.lse;
        by[0] = __shfl_sync(0xffffffffu, end.factor, thread & 28);
        by[1] = __shfl_sync(0xffffffffu, end.factor, thread & 28 | 1);
    } else {
#pragma unroll
        for (int half = 0; half < 2; half++) by[half] = sums[half] == 0.0f ? 0.0f : inverse_of_sum(sums[half]);
        const float log = TERMS ? reference + logf(sum) : fmaf(reference * factor, LN_2, logf(sum)); // TERMS: natural
        lse = sum == 0.0f ? -INFINITE : reference == -INFINITE ? sum : log;
    }
    if (DROPPED) by[0] *= p.dropout_scale, by[1] *= p.dropout_scale;
    if (t < 2 && row < j->left && p.lse.data) ((float *)p.lse.data)[j->lse + row * p.lse.stride[2]] = lse;
}

DEVICE void scale_sums(float (&o)[MT][ET][4], const float (&by)[2]) {
#pragma unroll
    for (int e = 0; e < ET; e++)
#pragma unroll
        for (int c = 0; c < 4; c++) o[0][e][c] *= by[c / 2];
    if (by[0] == 0.0f || by[1] == 0.0f) { // nothing visible gives 0, even where 0 was multiplied by infinity
#pragma unroll
        for (int e = 0; e < ET; e++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                if (by[c / 2] == 0.0f) o[0][e][c] = 0.0f;
    }
}

// Where a tile's rows go, from its job, so that this one can be left before.
typedef struct rows_place {
    i64 out;
    int left;
    bool in_pieces;
} rows_place;

DEVICE rows_place place_of_rows(const job *j) {
    const rows_place place = {j->out, j->left, (bool)uniform(j->in_pieces)};
    return place;
}

// Pairs of threads exchange, so that each has 8 bytes of one of two neighbouring blocks of 8 columns, and a quad stores 32: half the
// exchanges of 16 bytes a thread (d128 1k causal 446, with 16 bytes 435).
DEVICE void store_pieces(const float (&o)[MT][ET][4], const dlattn_params &p, const rows_place &place) {
    const int thread = thread_anew(), t = thread % 4, row = thread / 32 * 16 + thread % 32 / 4;
    const bool odd = t & 1;
    const int column = 8 * (t & 1) + 4 * (t >> 1);
    u16 *const to = (u16 *)p.out.data + place.out + row * p.out.stride[1] + column;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const bool there = row + 8 * half < place.left;
        u16 *const line = to + half * 8 * p.out.stride[1];
#pragma unroll
        for (int e = 0; e < ET; e += 2) {
            const u32 one = pack(o[0][e][2 * half], o[0][e][2 * half + 1]), two = pack(o[0][e + 1][2 * half], o[0][e + 1][2 * half + 1]);
            const u32 got = __shfl_xor_sync(0xffffffffu, odd ? one : two, 1);
            if (there && 8 * e + column < p.E) *(uint2 *)(line + 8 * e) = make_uint2(odd ? got : one, odd ? two : got);
        }
    }
}

// Rows of any stride, type and size: a loop that takes the first columns and moves the others up, since written out for each it was
// a sixth of all that the compiler was given.
DEVICE void store_rows_of(const float (&o)[MT][ET][4], const dlattn_params &p, const loop_facts &facts) {
    const int thread = thread_anew(), lane = thread % 32, first = facts.row0 + 16 * (thread / 32) + lane / 4;
    float x[ET][4];
#pragma unroll
    for (int n = 0; n < 4 * ET; n++) x[n / 4][n % 4] = o[0][n / 4][n % 4];
#pragma unroll 1
    for (int column = lane % 4 * 2; column < p.E; column += 8) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = first + 8 * half;
            const i64 place = at(p.out, facts.s.b, facts.s.q_begin + row, facts.h, column);
            if (row >= facts.rows) continue;
            if (p.out.dtype == TYPE) {
                const u32 both = pack(x[0][2 * half], x[0][2 * half + 1]);
                u16 *const to = (u16 *)p.out.data + place;
                to[0] = (u16)both;
                if (column + 1 < p.E) to[p.out.stride[3]] = (u16)(both >> 16);
            } else {
                store_floats((float *)p.out.data + place, p.out.stride[3], x[0][2 * half], x[0][2 * half + 1], p.E - column);
            }
        }
#pragma unroll
        for (int n = 0; n + 4 < 4 * ET; n++) x[n / 4][n % 4] = x[n / 4 + 1][n % 4];
    }
}

#endif
