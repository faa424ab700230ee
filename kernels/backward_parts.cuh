// backward_parts.cuh: what the tensor-core backward kernels share: the exponent of a score, dropout bits in fragment order,
// panels of swizzled tiles.
#ifndef DLATTN_BACKWARD_PARTS_CUH
#define DLATTN_BACKWARD_PARTS_CUH

#include "dq_sum.cuh"
#include "mma.cuh"
#include "scores.cuh"

#define DEVICE_MEMBER __device__ __forceinline__
#define MASKED_BY_ELEMENT (((FEATURES) & (DLATTN_FEATURE_MASK | DLATTN_FEATURE_SEGMENTS)) != 0)

// The same in all lanes, and so that the compiler knows: what follows from it needs no registers of the lanes.
DEVICE int warp_id() { return __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0); }

// Scores --------------------------------------------------------------------------------------------------------------

// Up to |x| = 1/4: tanh(x) / x and 1/cosh^2 x as polynomials of x^2 that begin with 1 (interpolating at Chebyshev nodes, relative
// errors 2e-8 and 1.2e-5: rounding p to 16 bits errs by 2e-4 and more).
#define LITTLE 0.25f
#define LITTLE_1 -0.3333331726f
#define LITTLE_2 0.1332869902f
#define LITTLE_3 -0.05197494311f
#define BENT_1 -0.9998213862f
#define BENT_2 0.643710892f

// The constants of one (sequence, query head, tile), in powers of two.
typedef struct exponent_context {
    float scale2;               // scale * log2(e)
    float cap_in, cap_out;      // softcap: scale / softcap, softcap * log2(e)
    float little[3], bent[2];   // where softcap bends little: of dot^2, see exponent_of
    float slope2;               // ALiBi slope * log2(e)
} exponent_context;

DEVICE exponent_context exponent_context_of(const dlattn_params &p, const score_context &c) {
    exponent_context e;
    e.scale2 = p.scale * LOG2_E;
    e.slope2 = c.slope * LOG2_E;
    if (!HAS(p, DLATTN_FEATURE_SOFTCAP)) return e;
    float scale = p.scale, softcap = p.softcap;
    asm volatile("" : "+f"(scale), "+f"(softcap));  // no constants kept through the loop
    e.cap_in = __fdividef(scale, softcap);
    e.cap_out = softcap * LOG2_E;
    const float square = e.cap_in * e.cap_in, unit = scale * LOG2_E;
    e.little[0] = LITTLE_1 * square * unit, e.bent[0] = BENT_1 * square;
    e.little[1] = LITTLE_2 * square * square * unit, e.bent[1] = BENT_2 * square * square;
    e.little[2] = LITTLE_3 * square * square * (square * unit);
    return e;
}

// tanh x up to 1/2: x + x^3 P(x^2), P interpolating at Chebyshev nodes (relative error 5e-8).
DEVICE float tanh_of_small(float x) {
    float square = x * x;
    float power = fmaf(fmaf(fmaf(0.01798874441f, square, -0.05338711064f), square, 0.1333047649f), square, -0.3333331108f);
    return fmaf(power * square, x, x);
}

// tanh x and its derivative 1/cosh^2 x, which 1 - tanh^2 x would give without digits where tanh x is near 1.
DEVICE float tanh_of(float x, float *derivative) {
    float u = exp2_approx(fabsf(x) * (-2.0f * LOG2_E)), y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.0f + u));
    *derivative = 4.0f * u * y * y;
    return fabsf(x) < 0.5f ? tanh_of_small(x) : copysignf((1.0f - u) * y, x);
}

// Does softcap bend no dot product up to `top` more than little? Nor may the powers in `little` overflow.
DEVICE bool bends_little(const exponent_context &e, float top) {
    return top * fabsf(e.cap_in) < LITTLE && fabsf(e.cap_in) < 1e4f && fabsf(e.scale2) < 1e10f;
}

// The capped score of dot = q.k in powers of two, plus x, and its derivative. BENT_LITTLE: bends_little said so.
template <bool BENT_LITTLE>
DEVICE float capped(const exponent_context &e, float dot, float x, float *derivative) {
    if (!BENT_LITTLE) return fmaf(tanh_of(dot * e.cap_in, derivative), e.cap_out, x);
    const float square = dot * dot;
    *derivative = fmaf(fmaf(e.bent[1], square, e.bent[0]), square, 1.0f);
    return fmaf(dot, fmaf(fmaf(fmaf(e.little[2], square, e.little[1]), square, e.little[0]), square, e.scale2), x);
}

// log2 of the probability of a score: dot = q.k, distance = i' - j', bias in natural units.
template <bool BENT_LITTLE>
DEVICE float exponent_of(const dlattn_params &p, const exponent_context &e, float dot, float distance, float bias,
                         float lse2, float *derivative) {
    float x = -lse2;
    if (HAS(p, DLATTN_FEATURE_ALIBI)) x = fmaf(-e.slope2, fabsf(distance), x);
    if (HAS(p, DLATTN_FEATURE_BIAS)) x = fmaf(bias, LOG2_E, x);
    return HAS(p, DLATTN_FEATURE_SOFTCAP) ? capped<BENT_LITTLE>(e, dot, x, derivative) : fmaf(dot, e.scale2, x);
}

// Dropout -------------------------------------------------------------------------------------------------------------

// Which of the 16 scores that this lane owns of a block of 16 rows by 32 keys (row octets o, key octets w) are kept, its
// origin a multiple of 16 and 32: bit 2w + o for the even key of the pair, 16 + 2w + o for the odd one. Lane: row
// lane / 4 of the octet, keys 2 (lane % 4) and the next.
DEVICE u32 kept_of_block(const dlattn_philox_key &key, u32 head, i64 i, i64 j, int threshold) {
    u32 c[4] = {(u32)(j >> 5) * 32u + (u32)lane_id(), (u32)(i >> 4), head, key.offset_low}, bits = 0;
    dlattn_philox(c, key.k0, key.k1);
    u32 add = (u32)(256 - threshold) * 0x00010001u;
#pragma unroll
    for (int w = 0; w < 4; w++) {
        u32 even = (c[w] & 0x00ff00ffu) + add, odd = (c[w] >> 8 & 0x00ff00ffu) + add;
        bits |= ((even >> 8 & 1u) | (even >> 23 & 2u)) << 2 * w;
        bits |= ((odd >> 8 & 1u) | (odd >> 23 & 2u)) << (2 * w + 16);
    }
    return bits;
}

// An 8 x 8 matrix of 16-bit elements, one pair of a row per lane, becomes its transpose.
DEVICE u32 transpose(u32 x) {
    u32 y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

// Panels --------------------------------------------------------------------------------------------------------------

// Columns [first, first + WIDTH) of a tile of COLS columns, first a multiple of WIDTH, for fragment loads. Where the
// permutation allows, `first` goes into the base, so that the addresses of the loop differ by constants.
template <int COLS, int WIDTH>
struct panel {
    u32 tile, lane;
    int first;
    DEVICE_MEMBER panel(u32 tile_, u32 lane_, int first_) : tile(tile_), lane(lane_), first(first_) {
        const int group = COLS % 64 == 0 ? 64 : COLS % 32 == 0 ? 32 : 16;
        if (WIDTH % group == 0) {
            tile += (u32)first * 2u;
            first = 0;
        } else if (group % WIDTH == 0) {
            int chunk = first >> 3, permuted = group / 8 - 1;
            lane ^= (u32)(chunk & permuted) << 4;
            tile += (u32)(chunk & ~permuted) << 4;
            first = 0;
        }
    }
    DEVICE_MEMBER u32 at(int row, int col) const { return fragment_address<COLS>(tile, lane, row, first + col); }
};

// c = a * b: the first step of a sum, which need not be cleared.
DEVICE void mma_first(float c[4], const u32 a[4], u32 b0, u32 b1) {
    float zero[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma(zero, a, b0, b1);
#pragma unroll
    for (int x = 0; x < 4; x++) c[x] = zero[x];
}

// A product of two 16-bit fragments over one step of 16: c[MT][2 NP] += a[MT] b[NP], b in pairs of 8 columns.
template <int MT, int NP>
DEVICE void multiply(float (*c)[2 * NP][4], const u32 (*a)[4], const u32 (*b)[4], bool first) {
#pragma unroll
    for (int n = 0; n < NP; n++)
#pragma unroll
        for (int m = 0; m < MT; m++) {
            if (first) mma_first(c[m][2 * n], a[m], b[n][0], b[n][1]), mma_first(c[m][2 * n + 1], a[m], b[n][2], b[n][3]);
            else mma(c[m][2 * n], a[m], b[n][0], b[n][1]), mma(c[m][2 * n + 1], a[m], b[n][2], b[n][3]);
        }
}

template <int MT, int NT>
DEVICE void clear(float (*c)[NT][4]) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int x = 0; x < 4; x++) c[m][n][x] = 0.0f;
}

// c = the product whose operands are both rows of k: left rows of A at `left`, right rows of B at `right`.
// The fragments of the next step are loaded before the products of this one.
template <int MT, int NP, int COLS>
DEVICE void multiply_rows(float (*c)[2 * NP][4], u32 left, u32 left_lane, u32 right, u32 right_lane) {
    u32 a[2][MT][4], b[2][NP][4];
#pragma unroll
    for (int k = -1; k < COLS / 16; k++) {
        int next = k + 1;
        if (next < COLS / 16) {
#pragma unroll
            for (int m = 0; m < MT; m++)
                load_fragment(a[next & 1][m], fragment_address<COLS>(left, left_lane, 16 * m, 16 * next));
#pragma unroll
            for (int n = 0; n < NP; n++)
                load_fragment(b[next & 1][n], fragment_address<COLS>(right, right_lane, 16 * n, 16 * next));
        }
        if (k >= 0) multiply<MT, NP>(c, a[k & 1], b[k & 1], k == 0);
    }
}

// c += x y over 16 rows of y: x left operands [MT], y's columns by `columns`.
template <int MT, int PAIRS, int COLS>
DEVICE void add_rows(float (*c)[2 * PAIRS][4], const u32 (*x)[4], const panel<COLS, 16 * PAIRS> &columns, int row) {
    u32 b[2][4];
    load_fragment_trans(b[0], columns.at(row, 0));
#pragma unroll
    for (int n = 0; n < PAIRS; n++) {
        if (n + 1 < PAIRS) load_fragment_trans(b[(n + 1) & 1], columns.at(row, 16 * (n + 1)));
#pragma unroll
        for (int m = 0; m < MT; m++) {
            mma(c[m][2 * n], x[m], b[n & 1][0], b[n & 1][1]);
            mma(c[m][2 * n + 1], x[m], b[n & 1][2], b[n & 1][3]);
        }
    }
}

// load_tile with few live addresses: a thread keeps its column, and its rows are a constant step apart.
template <int ROWS, int COLS, int BLOCK, bool WHOLE>
DEVICE void load_tile_in_steps(u32 tile, const tile_source &from, int row) {
    const int CHUNKS = COLS / 8, STEP = BLOCK / CHUNKS;
    if (!WHOLE || BLOCK % CHUNKS != 0 || STEP % 8 != 0 || ROWS % (STEP ? STEP : 1) != 0) {
        load_tile<ROWS, COLS, BLOCK, WHOLE>(tile, from, row);
        return;
    }
    const int thread = thread_anew();
    int c = thread % CHUNKS, r = thread / CHUNKS, left = from.rows - row - r;
    int count = from.cols - 8 * c;
    count = count < 0 ? 0 : count > 8 ? 8 : count;
    const u16 *first = from.data + ((i64)(row + r) * from.row_stride + 8 * c);
    u32 to = tile + chunk_offset<COLS>(r, c);
#pragma unroll
    for (int n = 0; n < ROWS / (STEP ? STEP : 1); n++) {
        copy_async(to + n * STEP * COLS * 2, first, left > n * STEP ? 2 * count : 0);
        first += STEP * from.row_stride;
    }
}

// A row of `view` for b, its token and head, as the source of tiles.
DEVICE tile_source tile_source_of(const dlattn_view &t, i64 b, i64 begin, int h, int rows, int cols) {
    tile_source from;
    from.data = (const u16 *)t.data + at(t, b, begin, h);
    from.row_stride = t.stride[1];
    from.col_stride = t.stride[3];
    from.rows = rows;
    from.cols = cols;
    return from;
}

// Two neighbours of a row, as far as they exist.
DEVICE void store_pair(const dlattn_view &t, i64 index, int cols, float x, float y) {
    if (cols > 1 && t.stride[3] == 1 && t.dtype != DLATTN_TYPE_F32 && (t.data + 2 * (u64)index) % 4 == 0) {
        *(u32 *)(t.data + 2 * (u64)index) = pack(x, y);
        return;
    }
    if (cols > 0) store_float(t, index, x);
    if (cols > 1) store_float(t, index + t.stride[3], y);
}

#endif
