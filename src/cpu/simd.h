/* simd.h: the vector vocabulary that every *_tmpl file is written in, for one instruction set and one number kind.
 *
 * Each template unit is compiled once per (DLATTN_ISA, DLATTN_REAL), e.g. -DDLATTN_ISA=avx512 -DDLATTN_REAL=f32.
 * simd_<isa>.h gives, for `real` (float, or double under f64):
 *
 *   L                      lanes of v (a macro)
 *   MR, NV                 rows and vectors of the matrix micro-kernel's register tile
 *   v, vm                  L reals; L truth values
 *   v_zero v_set1          0; one real everywhere
 *   v_load v_load_n        L reals; the first n, 0 beyond      v_store v_store_n   likewise (memory beyond untouched)
 *   v_add v_sub v_mul v_div v_max v_min     element-wise; max/min may drop a NaN of their first operand
 *   v_fma(a, b, c)         a*b + c, one rounding where the machine has it
 *   v_fnma(a, b, c)        c - a*b
 *   v_abs                  |x|
 *   v_round v_scale(p, n)  nearest integer (for |x| <= 2^20); p * 2^n, one rounding, for |p| < 2 and an integral n <= 103
                          (f64: 970; above, infinity is as good); below n = -151 (f64: -1076) it is 0
 *   SCALE_TAKES_ANY        defined where v_scale(p, -inf) is 0 even for a NaN p, and v_scale(1, n) for any lower n
 *   v_iota                 0, 1, ... L-1
 *   v_select(m, a, b)      m ? a : b                            vm_first(n)         lanes 0 .. n-1 (n clamped to L)
 *   vm_bytes(p)            lane is p[lane] != 0                 vm_lt(a, b)         a < b
 *   v_hsum v_hmax          over the lanes, in a fixed order
 *   v_sums(a)              lane l is the sum over the lanes of a[l], l < L, in a fixed order
 *   v_load_f16 v_load_bf16 v_store_f16 v_store_bf16             L 16-bit numbers at a uint16_t *; round to nearest even
 *   v_split_bf16(p, even, odd)    2L bfloat16 numbers: those of even index, those of odd index (not f64)
 *   transpose_block(dst, ldd, src, lds)    L x L words of `elem`: dst[c*ldd + r] = src[r*lds + c]
 *   v_keep(b)              keeps a loaded vector in a register (gcc would reload it in each fma)
 *   prefetch prefetch_far prefetch_write    into L1; into L2; into L1, to be written
 *
 * and under bf16 (32-bit `elem` = two bfloat16 along the contraction, products by dot instructions):
 *   v_pair_set1(p) v_pair_load(p) v_pair_fma(a, b, c)           broadcast, load, c + a.lo*b.lo + a.hi*b.hi
 *   v_pair_pack(lo, hi)    element l = (bf16 lo[l], bf16 hi[l])
 * Element types: `real` is what sums, scores and outputs are held in; `elem` is what the products read. */
#ifndef DLATTN_SIMD_H
#define DLATTN_SIMD_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define DLATTN_CAT_(a, b) a##b
#define DLATTN_CAT(a, b) DLATTN_CAT_(a, b)
#define DLATTN_CAT4_(a, b, c, d) a##b##c##d
#define DLATTN_CAT4(a, b, c, d) DLATTN_CAT4_(a, b, c, d)
#define DLATTN_STRING_(a) #a
#define DLATTN_STRING(a) DLATTN_STRING_(a)

/* NAME(forward) is dlattn__forward_avx512_f32 and so on. */
#define NAME_(x, isa, real) dlattn__##x##_##isa##_##real
#define NAME__(x, isa, real) NAME_(x, isa, real)
#define NAME(x) NAME__(x, DLATTN_ISA, DLATTN_REAL)

#define DLATTN_IS_f64_f32 0
#define DLATTN_IS_f64_f64 1
#define DLATTN_IS_f64_bf16 0
#define DLATTN_IS_bf16_f32 0
#define DLATTN_IS_bf16_f64 0
#define DLATTN_IS_bf16_bf16 1
#define REAL_IS_F64 DLATTN_CAT(DLATTN_IS_f64_, DLATTN_REAL)
#define REAL_IS_BF16 DLATTN_CAT(DLATTN_IS_bf16_, DLATTN_REAL)

#if REAL_IS_F64
typedef double real;
typedef double elem;
#define REAL_MAX DBL_MAX
#elif REAL_IS_BF16
typedef float real;
typedef uint32_t elem;
#define REAL_MAX FLT_MAX
#else
typedef float real;
typedef float elem;
#define REAL_MAX FLT_MAX
#endif

/* How many numbers along the contraction one elem holds. */
#if REAL_IS_BF16
#define PAIR 2
#else
#define PAIR 1
#endif

#define SIMD_INLINE static inline __attribute__((always_inline, unused))

#define SIMD_HEADER_(isa) DLATTN_STRING_(simd_##isa.h)
#define SIMD_HEADER(isa) SIMD_HEADER_(isa)
#include SIMD_HEADER(DLATTN_ISA)

#define NR (NV * L) /* columns of the register tile, and of a packed panel */

#ifndef v_keep
#define v_keep(x) (void)0
#endif
/* The empty asm: gcc takes a function that only prefetches for one without effect, and drops the call. */
#define PREFETCH(p, write, level)                \
    do {                                         \
        __builtin_prefetch((p), write, level);   \
        __asm__ volatile("");                    \
    } while (0)
#define prefetch(p) PREFETCH(p, 0, 3)
#define prefetch_far(p) PREFETCH(p, 0, 2)
#define prefetch_write(p) PREFETCH(p, 1, 3)

#if PAIR == 1
#define v_pair_set1(p) v_set1(*(p))
#define v_pair_load(p) v_load(p)
#define v_pair_fma(a, b, c) v_fma(a, b, c)
typedef v v_elem;
#endif

#endif
