/* draw.h: numbers drawn from a seed for the fields of a case, the same on every machine: splitmix64. */
#ifndef DLATTN_TESTS_DRAW_H
#define DLATTN_TESTS_DRAW_H

#include "case.h"

typedef struct draw {
    uint64_t state;
    test_case *c;
} draw;

/* The output function of splitmix64 (Steele, Lea, Flood 2014). */
static inline uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* In [0, limit). */
static inline int64_t below(draw *r, int64_t limit) {
    return (int64_t)(mix(r->state += UINT64_C(0x9e3779b97f4a7c15)) % (uint64_t)limit);
}

static inline int chance(draw *r, int percent) { return below(r, 100) < percent; }
static inline int64_t between(draw *r, int64_t low, int64_t high) { return low + below(r, high - low + 1); }

/* One of the numbers that follow. */
#define PICK(r, ...) ((const int64_t[]){__VA_ARGS__}[below(r, sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t))])

#endif
