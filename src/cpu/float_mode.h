/* float_mode.h: subnormal numbers count as 0 while a work item runs.
 *
 * Under ALiBi and steep biases many weights p fall below 2^-126, and each such number costs Intel cores over a hundred
 * cycles in every product it enters: attention was 6 times slower. The caller's mode is restored after each item. */
#ifndef DLATTN_FLOAT_MODE_H
#define DLATTN_FLOAT_MODE_H

#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>

static inline uint64_t dlattn__float_mode_begin(void) {
    uint32_t before = _mm_getcsr();
    _mm_setcsr(before | 0x8040u); /* flush to zero, denormals are zeros */
    return before;
}
static inline void dlattn__float_mode_end(uint64_t before) { _mm_setcsr((uint32_t)before); }

#elif defined(__aarch64__)

static inline uint64_t dlattn__float_mode_begin(void) {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | (1u << 24))); /* FZ */
    return before;
}
static inline void dlattn__float_mode_end(uint64_t before) { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }

#else

static inline uint64_t dlattn__float_mode_begin(void) { return 0; }
static inline void dlattn__float_mode_end(uint64_t before) { (void)before; }

#endif

#endif
