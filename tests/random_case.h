/* random_case.h: a valid problem drawn from a seed, in the words of the case table. */
#ifndef DLATTN_TESTS_RANDOM_CASE_H
#define DLATTN_TESTS_RANDOM_CASE_H

#include "case.h"

typedef struct random_case {
    test_case test; /* its strings point into this struct: it must stay where it was made */
    char name[32], bias[8], mask[8];
} random_case;

/* The same seed gives the same problem on every machine. Sizes are drawn so that the oracle affords thousands of them;
 * one in a hundred is large enough for several tiles on both sides. */
void random_case_make(random_case *to, uint64_t seed);

/* The seed of case `n` of a run that began with `seed`. */
uint64_t random_case_seed(uint64_t seed, int64_t n);

#endif
