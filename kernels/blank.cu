// blank.cu: what no row and no key computes: zeros (and lse -inf) past sequences' ends and in tokens of no sequence.
//
// Entry blank: 256 threads, grid ceil(tokens_q / 64) * (packed_q ? 1 : B) + ceil(tokens_k / 64) * (packed_k ? 1 : B),
// no options. Absent outputs are skipped; out and lse are outputs only where dout is absent. Needed only where there
// can be such tokens: packed layouts, seqlens, or a bound on the length below the tensor's extent.
#include "sequence.cuh"

#define TOKENS 64
#define LANES 32
#define WARPS 8

// Does a token of batch entry b (packed: of all) belong to no sequence?
DEVICE bool is_outside(const dlattn_params &p, int b, int token, bool query) {
    const dlattn_view &starts = query ? p.cu_seqlens_q : p.cu_seqlens_k;
    if (starts.data) { // the last sequence that starts at the token or before
        int below = 0, above = p.B;
        const i64 tokens = query ? p.tokens_q : p.tokens_k;
        while (below < above) {
            const int middle = below + (above - below) / 2;
            if (clamp_to(load_int(starts, at(starts, middle)), 0, tokens) <= token) below = middle + 1;
            else above = middle;
        }
        if (below == 0) return true;
        b = below - 1;
    }
    const sequence s = read_sequence(p, b);
    const i64 begin = query ? s.q_begin : s.k_begin;
    return token < begin || token - begin >= (query ? s.M : s.N);
}

// Zeros in all heads of a token, by one warp.
DEVICE void zero_token(const dlattn_view &t, int b, int token, int lane) {
    if (!t.data || token >= t.extent[1]) return;
    for (int h = 0; h < t.extent[2]; h++)
        for (int e = lane; e < t.extent[3]; e += LANES) store_float(t, at(t, b, token, h, e), 0.0f);
}

extern "C" __global__ void __launch_bounds__(LANES *WARPS) blank(const __grid_constant__ dlattn_params p) {
    const u32 q_tiles = (u32)((p.tokens_q + TOKENS - 1) / TOKENS), q_blocks = q_tiles * (p.packed_q ? 1 : p.B);
    const bool query = blockIdx.x < q_blocks;
    const u32 x = query ? blockIdx.x : blockIdx.x - q_blocks;
    const int tokens = query ? p.tokens_q : p.tokens_k;
    const u32 tiles = query ? q_tiles : (u32)((tokens + TOKENS - 1) / TOKENS);
    const int b = (int)(x / tiles), first = (int)(x % tiles) * TOKENS, lane = (int)threadIdx.x % LANES;
    for (int n = (int)threadIdx.x / LANES; n < TOKENS && first + n < tokens; n += WARPS) {
        const int token = first + n;
        if (!is_outside(p, b, token, query)) continue;
        if (!query) {
            zero_token(p.dk, b, token, lane);
            zero_token(p.dv, b, token, lane);
            continue;
        }
        zero_token(p.dq, b, token, lane);
        if (p.dout.data) continue; // the backward only reads out and lse
        zero_token(p.out, b, token, lane);
        for (int h = lane; p.lse.data && h < p.lse.extent[1]; h += LANES)
            store_float(p.lse, at(p.lse, b, h, token), -INFINITE);
    }
}
