/* pairs.h: how many scores of a problem are not masked: what a rate of operations is counted from. */
#ifndef DLATTN_TESTS_PAIRS_H
#define DLATTN_TESTS_PAIRS_H

#include <dlattn/dlattn.h>

/* Pairs (b, h, i, j) that no mask hides. Fast unless a mask tensor or segments are given: those are visited one by one. */
double count_pairs(const dlattn_attention *attention);

#endif
