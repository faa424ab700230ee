// device.h: CUDA C++ as plain C++: what a kernel of kernels/ sees when it is compiled for the CPU by this folder's NVRTC.
//
// Each thread of a block is a fiber (see cuda.cpp). Threads meet in barriers; what a warp exchanges goes through the slots
// of its warp, of which there are two sets, so that one barrier is enough for each exchange. translate.py has made every
// PTX statement a call ptx_<mnemonic>(outputs, inputs).
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include "block.h"

static emulated_block *emulated;
extern "C" void emulated_set_block(emulated_block *block) { emulated = block; }

#define __device__
#define __global__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __CUDACC__ 1
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define threadIdx (emulated->current->index)
#define blockIdx (emulated->block_index)
#define blockDim (emulated->block_size)
#define gridDim (emulated->grid_size)

struct float2 { float x, y; };
struct __align__(8) uint2 { unsigned x, y; };
struct __align__(16) float4 { float x, y, z, w; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
struct __align__(8) ushort4 { unsigned short x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using std::isnan;

// ---- bits and numbers ---------------------------------------------------------------------------------------------------

template <class to, class from> static inline to bits_as(from x) {
    static_assert(sizeof(to) == sizeof(from), "bits");
    to y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
static inline float __int_as_float(int x) { return bits_as<float>(x); }
static inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned which) {
    const uint64_t both = (uint64_t)y << 32 | x;
    unsigned r = 0;
    for (int n = 0; n < 4; n++) r |= (unsigned)(both >> (which >> 4 * n & 7) * 8 & 255) << 8 * n;
    return r;
}
// prmt.b32: a number from 8 on repeats the sign of its byte.
static inline void ptx_prmt_b32(unsigned &to, unsigned x, unsigned which) {
    to = 0;
    for (int n = 0; n < 4; n++) {
        const unsigned number = which >> 4 * n & 15, byte = number & 4 ? 0 : x >> (number & 3) * 8 & 255;
        to |= (number & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * n;
    }
}

static inline float half_as_float(unsigned short h) {
    const unsigned sign = (h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    if (magnitude >= 0x7c00u) return bits_as<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude >= 0x0400u) return bits_as<float>(sign | ((magnitude << 13) + 0x38000000u));
    const float x = (float)magnitude * 0x1p-24f;
    return sign ? -x : x;
}
static inline unsigned short float_as_half(float x) {
    const unsigned bits = bits_as<unsigned>(x), sign = bits >> 16 & 0x8000u;
    unsigned magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (unsigned short)0x7fff;
    if (magnitude >= 0x47800000u) return (unsigned short)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) return (unsigned short)(sign | (bits_as<unsigned>(bits_as<float>(magnitude) + 0.5f) - 0x3f000000u));
    magnitude += 0xfffu + (magnitude >> 13 & 1u);
    return (unsigned short)(sign | (magnitude - 0x38000000u) >> 13);
}
static inline float brain_as_float(unsigned short h) { return bits_as<float>((unsigned)h << 16); }
static inline unsigned short float_as_brain(float x) {
    const unsigned bits = bits_as<unsigned>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
static inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

template <class T> static inline T atomicMin(T *at, T x) { T old = *at; if (x < old) *at = x; return old; }
template <class T> static inline T atomicMax(T *at, T x) { T old = *at; if (x > old) *at = x; return old; }
static inline void __threadfence() {}
static inline void __nanosleep(unsigned) {}
static inline void ptx_griddepcontrol_wait() {} // launches are done when they return
static inline void ptx_griddepcontrol_launch_dependents() {}
template <class T> static inline T atomicAdd(T *at, T x) { T old = *at; *at += x; return old; }

// ---- meeting ------------------------------------------------------------------------------------------------------------

static inline void meet(emulated_barrier *b, int count, const char *what) {
    const unsigned generation = b->generation;
    if (++b->arrived >= count) {
        b->arrived = 0;
        b->generation++;
        emulated->progress++;
        return;
    }
    emulated->current->waits_for = what;
    while (b->generation == generation) {
        emulated->yield();
        if (b->arrived >= b->count_of_alive()) { // the last one missing has left
            if (b->generation == generation && b->arrived > 0) b->arrived = 0, b->generation++, emulated->progress++;
        }
    }
    emulated->current->waits_for = nullptr;
}

static inline emulated_warp *own_warp() { return &emulated->warps[emulated->current->index.x / 32]; }
static inline int own_lane() { return (int)(emulated->current->index.x % 32); }

static inline void __syncthreads() { meet(&emulated->barrier, emulated->alive, "__syncthreads"); }
static inline void __syncwarp() { meet(&own_warp()->barrier, own_warp()->alive, "__syncwarp"); }

// Lanes hand out `count` words each; returns all lanes' words of this exchange.
static inline const uint64_t (*exchange(const uint64_t *words, int count, const char *what))[8] {
    emulated_warp *w = own_warp();
    const unsigned set = w->barrier.generation % 2;
    memcpy(w->slots[set][own_lane()], words, (size_t)count * 8);
    meet(&w->barrier, w->alive, what);
    return w->slots[set];
}

template <class T> static inline T __shfl_sync(unsigned, T x, int lane) {
    uint64_t word = 0;
    memcpy(&word, &x, sizeof x);
    word = exchange(&word, 1, "__shfl_sync")[lane & 31][0];
    memcpy(&x, &word, sizeof x);
    return x;
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T x, int other) {
    return __shfl_sync(mask, x, own_lane() ^ other);
}
static inline unsigned __ballot_sync(unsigned, bool x) {
    uint64_t word = x;
    const uint64_t (*all)[8] = exchange(&word, 1, "__ballot_sync");
    unsigned bits = 0;
    for (int lane = 0; lane < 32; lane++) bits |= (unsigned)(all[lane][0] & 1) << lane;
    return bits;
}
static inline bool __all_sync(unsigned mask, bool x) { return __ballot_sync(mask, x) == 0xffffffffu; }
static inline bool __any_sync(unsigned mask, bool x) { return __ballot_sync(mask, x) != 0; }

// ---- memory -------------------------------------------------------------------------------------------------------------

static inline size_t __cvta_generic_to_shared(const void *p) { return (size_t)((const char *)p - emulated->shared); }
static inline unsigned long long __cvta_generic_to_global(const void *p) { return (unsigned long long)(uintptr_t)p; }
static inline char *shared_at(unsigned address, unsigned bytes) {
    if (address % (bytes < 16 ? bytes : 16) || address + bytes > emulated->shared_bytes) emulated->fail("shared memory", address, bytes);
    return emulated->shared + address;
}

static inline void ptx_mov_u32_tid(unsigned &x) { x = threadIdx.x; }
static inline void ptx_shr_u32(unsigned &x, unsigned y, int n) { x = y >> n; }
static inline void ptx_st_shared_v4_b32(unsigned at, unsigned x, unsigned y, unsigned z, unsigned w) {
    const unsigned words[4] = {x, y, z, w};
    memcpy(shared_at(at, 16), words, 16);
}
static inline void ptx_st_shared_b32(unsigned at, unsigned x) { memcpy(shared_at(at, 4), &x, 4); }
static inline void ptx_ld_shared_v4_b32(unsigned &x, unsigned &y, unsigned &z, unsigned &w, unsigned at) {
    unsigned words[4];
    memcpy(words, shared_at(at, 16), 16);
    x = words[0], y = words[1], z = words[2], w = words[3];
}
static inline void ptx_ld_shared_v2_f32(float &x, float &y, unsigned at) {
    memcpy(&x, shared_at(at, 8), 4), memcpy(&y, shared_at(at, 8) + 4, 4);
}
template <class T> static inline void ptx_ld_shared_b32(T &x, unsigned at) { memcpy(&x, shared_at(at, 4), 4); }
template <class T> static inline void ptx_ld_shared_b64(T &x, unsigned at) { memcpy(&x, shared_at(at, 8), 8); }
static inline void ptx_cp_async_cg_shared_global_L2__128B(unsigned to, unsigned long long from, int bytes) {
    char *at = shared_at(to, 16);
    if (from % 16) emulated->fail("cp.async from", (unsigned)from, 16);
    memcpy(at, (const void *)(uintptr_t)from, (size_t)bytes);
    memset(at + bytes, 0, (size_t)(16 - bytes));
}
static inline void ptx_cp_async_ca_shared_global_8(unsigned to, unsigned long long from) {
    memcpy(shared_at(to, 8), (const void *)(uintptr_t)from, 8);
}
static inline void ptx_cp_async_ca_shared_global_4(unsigned to, unsigned long long from) {
    memcpy(shared_at(to, 4), (const void *)(uintptr_t)from, 4);
}
#define ptx_cp_async_commit_group() (void)0
#define ptx_cp_async_wait_group(n) (void)0
static inline void ptx_red_global_add_v4_f32(unsigned long long at, float x, float y, float z, float w) {
    float *to = (float *)(uintptr_t)at;
    to[0] += x, to[1] += y, to[2] += z, to[3] += w;
}
static inline void ptx_red_global_add_f32(unsigned long long at, float x) { *(float *)(uintptr_t)at += x; }
static inline void ptx_bar_sync(int id, int count) { meet(&emulated->named[id], count, "bar.sync"); }
static inline void ptx_bar_red_or(unsigned &any, unsigned says, int id, int count) {
    emulated_barrier *const b = &emulated->named[id];
    const unsigned generation = b->generation;
    b->said[(generation + 2) % 4] = 0; // whose last readers have all come back
    b->said[generation % 4] |= says;
    meet(b, count, "bar.red");
    any = b->said[generation % 4];
}

// ---- arithmetic ---------------------------------------------------------------------------------------------------------

static inline void ptx_ex2_approx_ftz_f32(float &y, float x) { y = flushed(std::exp2(flushed(x))); }
static inline void ptx_rcp_approx_ftz_f32(float &y, float x) { y = flushed(1.0f / flushed(x)); }
static inline void ptx_tanh_tail(float &y, float x) { y = 1.0f - 2.0f / (1.0f + std::exp2(x)); }
static inline void ptx_cvt_f32_f16(float &x, unsigned short bits) { x = half_as_float(bits); }
static inline void ptx_cvt_rn_f16_f32(unsigned short &bits, float x) { bits = float_as_half(x); }
static inline void ptx_cvt_rn_bf16x2_f32(unsigned &r, float hi, float lo) { r = (unsigned)float_as_brain(hi) << 16 | float_as_brain(lo); }
static inline void ptx_cvt_rn_f16x2_f32(unsigned &r, float hi, float lo) { r = (unsigned)float_as_half(hi) << 16 | float_as_half(lo); }
static inline void ptx_cvt_rna_tf32_f32(unsigned &bits, float x) {
    bits = bits_as<unsigned>(x);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & 0xffffe000u;
}

// ---- products of a warp -------------------------------------------------------------------------------------------------
// g = lane / 4, t = lane % 4. c: rows g and g + 8, columns 2t and 2t + 1.

template <class number> static inline void add_products(float *c[4], const uint64_t (*all)[8], int pairs, number read) {
    const int g = own_lane() / 4, t = own_lane() % 4;
    for (int n = 0; n < 4; n++) {
        const int row = g + n / 2 * 8, column = 2 * t + n % 2;
        double sum = 0;
        for (int k = 0; k < 2 * pairs; k++) { // register of a: row half + 2 * (k >= 8); of b: k >= 8, behind a's
            const unsigned a = (unsigned)all[row % 8 * 4 + k % 8 / 2][row / 8 + 2 * (k / 8)];
            const unsigned b = (unsigned)all[column * 4 + k % 8 / 2][(pairs == 8 ? 4 : 2) + k / 8];
            sum += (double)read((unsigned short)(a >> k % 2 * 16)) * read((unsigned short)(b >> k % 2 * 16));
        }
        *c[n] = (float)(*c[n] + sum);
    }
}
#define MMA_K16(name, read)                                                                                                 \
    static inline void name(float &c0, float &c1, float &c2, float &c3, unsigned a0, unsigned a1, unsigned a2, unsigned a3, \
                            unsigned b0, unsigned b1) {                                                                     \
        const uint64_t words[6] = {a0, a1, a2, a3, b0, b1};                                                                 \
        float *c[4] = {&c0, &c1, &c2, &c3};                                                                                 \
        add_products(c, exchange(words, 6, "mma"), 8, read);                                                                \
    }
MMA_K16(ptx_mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32, brain_as_float)
MMA_K16(ptx_mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32, half_as_float)
static inline void ptx_mma_sync_aligned_m16n8k8_row_col_f32_f16_f16_f32(float &c0, float &c1, float &c2, float &c3,
                                                                         unsigned a0, unsigned a1, unsigned b0) {
    const uint64_t words[3] = {a0, a1, b0};
    float *c[4] = {&c0, &c1, &c2, &c3};
    add_products(c, exchange(words, 3, "mma"), 4, half_as_float);
}
static inline void ptx_mma_sync_aligned_m16n8k8_row_col_f32_tf32_tf32_f32(float &c0, float &c1, float &c2, float &c3, unsigned a0,
                                                                           unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                                                           unsigned b1) {
    const uint64_t words[6] = {a0, a1, a2, a3, b0, b1};
    const uint64_t (*all)[8] = exchange(words, 6, "mma");
    float *c[4] = {&c0, &c1, &c2, &c3};
    for (int n = 0; n < 4; n++) {
        const int row = own_lane() / 4, column = own_lane() % 4 * 2 + n % 2;
        double sum = 0;
        for (int k = 0; k < 8; k++)
            sum += (double)bits_as<float>((unsigned)all[row * 4 + k % 4][n / 2 + 2 * (k / 4)]) *
                   bits_as<float>((unsigned)all[column * 4 + k % 4][4 + k / 4]);
        *c[n] = (float)(*c[n] + sum);
    }
}

// Lane i tells where row i % 8 of matrix i / 8 lies; each lane gets two neighbours of each matrix.
static inline void load_matrices(unsigned *r[4], unsigned address, bool transposed) {
    const uint64_t word = address;
    const uint64_t (*all)[8] = exchange(&word, 1, "ldmatrix");
    const int g = own_lane() / 4, t = own_lane() % 4;
    for (int m = 0; m < 4; m++) {
        unsigned short pair[2];
        for (int n = 0; n < 2; n++) {
            const int row = transposed ? 2 * t + n : g, column = transposed ? g : 2 * t + n;
            memcpy(&pair[n], shared_at((unsigned)all[8 * m + row][0], 16) + 2 * column, 2);
        }
        *r[m] = (unsigned)pair[1] << 16 | pair[0];
    }
    __syncwarp(); // others may write there as soon as all have read
}
static inline void ptx_ldmatrix_sync_aligned_m8n8_x4_shared_b16(unsigned &a, unsigned &b, unsigned &c, unsigned &d, unsigned at) {
    unsigned *r[4] = {&a, &b, &c, &d};
    load_matrices(r, at, false);
}
static inline void ptx_ldmatrix_sync_aligned_m8n8_x4_trans_shared_b16(unsigned &a, unsigned &b, unsigned &c, unsigned &d, unsigned at) {
    unsigned *r[4] = {&a, &b, &c, &d};
    load_matrices(r, at, true);
}
static inline void ptx_stmatrix_sync_aligned_m8n8_x4_shared_b16(unsigned at, unsigned a, unsigned b, unsigned c, unsigned d) {
    const uint64_t word = at;
    const uint64_t (*all)[8] = exchange(&word, 1, "stmatrix");
    const unsigned r[4] = {a, b, c, d};
    for (int m = 0; m < 4; m++) memcpy(shared_at((unsigned)all[8 * m + own_lane() / 4][0], 16) + own_lane() % 4 * 4, &r[m], 4);
}
static inline void ptx_stmatrix_sync_aligned_m8n8_x4_trans_shared_b16(unsigned at, unsigned a, unsigned b, unsigned c, unsigned d) {
    const uint64_t word = at;
    const uint64_t (*all)[8] = exchange(&word, 1, "stmatrix");
    const unsigned r[4] = {a, b, c, d};
    for (int m = 0; m < 4; m++)
        for (int n = 0; n < 2; n++) {
            const unsigned short x = (unsigned short)(r[m] >> n * 16);
            memcpy(shared_at((unsigned)all[8 * m + own_lane() % 4 * 2 + n][0], 16) + own_lane() / 4 * 2, &x, 2);
        }
}
static inline void ptx_movmatrix_sync_aligned_m8n8_trans_b16(unsigned &y, unsigned x) {
    const uint64_t word = x;
    const uint64_t (*all)[8] = exchange(&word, 1, "movmatrix");
    const int g = own_lane() / 4, t = own_lane() % 4;
    unsigned short pair[2];
    for (int n = 0; n < 2; n++) pair[n] = (unsigned short)(all[(2 * t + n) * 4 + g / 2][0] >> g % 2 * 16);
    y = (unsigned)pair[1] << 16 | pair[0];
}
