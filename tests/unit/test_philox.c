/* test_philox.c: the random bits of dropout: published vectors, and the byte of a score as the header specifies it. */
#include <criterion/criterion.h>
#include <stdint.h>

#include "philox.h"

typedef struct known_answer {
    uint32_t counter[4], key[2], expected[4];
} known_answer;

/* Random123's kat_vectors for philox4x32 with 10 rounds. */
static const known_answer known_answers[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

Test(philox, published_vectors) {
    for (size_t n = 0; n < sizeof known_answers / sizeof known_answers[0]; n++) {
        const known_answer *k = &known_answers[n];
        uint32_t c[4] = {k->counter[0], k->counter[1], k->counter[2], k->counter[3]};
        dlattn_philox(c, k->key[0], k->key[1]);
        for (int w = 0; w < 4; w++) cr_expect_eq(c[w], k->expected[w], "vector %d, word %d: %08x", (int)n, w, c[w]);
    }
}

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }
static int64_t floor_mod(int64_t a, int64_t b) { return a - floor_div(a, b) * b; }

/* The header's sentence, term by term. */
static uint32_t specified_byte(uint64_t seed, uint64_t offset, uint32_t head, int64_t i, int64_t j) {
    uint32_t c[4] = {(uint32_t)(floor_div(j, 32) * 32 + floor_mod(i, 8) * 4 + floor_mod(j, 8) / 2),
                     (uint32_t)floor_div(i, 16), head, (uint32_t)(offset & 0xffffffff)};
    uint32_t key0 = (uint32_t)(seed & 0xffffffff), key1 = (uint32_t)((seed >> 32) + (offset >> 32));
    dlattn_philox(c, key0, key1);
    uint32_t word = c[floor_mod(floor_div(j, 8), 4)];
    int64_t byte = floor_mod(floor_div(i, 8), 2) * 2 + floor_mod(j, 2);
    return word >> (8 * byte) & 255;
}

static void compare_around(uint64_t seed, uint64_t offset, uint32_t head, int64_t i0, int64_t j0) {
    dlattn_philox_key key = dlattn_philox_make_key(seed, offset);
    for (int64_t i = i0 - 40; i < i0 + 40; i++)
        for (int64_t j = j0 - 80; j < j0 + 80; j++) {
            uint32_t found = dlattn_dropout_byte(&key, head, i, j), wanted = specified_byte(seed, offset, head, i, j);
            cr_assert_eq(found, wanted, "head %u, i %lld, j %lld", head, (long long)i, (long long)j);
        }
}

Test(philox, byte_of_a_score_as_specified) {
    compare_around(0, 0, 0, 0, 0); /* negative i and j included */
    compare_around(0x123456789abcdef0u, 0xfedcba9876543210u, 5, 1000, 4096);
    compare_around(UINT64_MAX, UINT64_MAX, 0xffffffffu, INT64_C(1) << 40, INT64_C(1) << 36);
    compare_around(1, UINT64_C(1) << 32, 3, -(INT64_C(1) << 40), -(INT64_C(1) << 50));
}

/* A tile of 16 by 32 scores uses every byte of its 32 counters once. */
Test(philox, a_tile_uses_each_byte_once) {
    int found[256] = {0}, wanted[256] = {0};
    dlattn_philox_key key = dlattn_philox_make_key(3, 9);
    for (int64_t i = 16; i < 32; i++)
        for (int64_t j = 64; j < 96; j++) found[dlattn_dropout_byte(&key, 2, i, j)]++;
    for (uint32_t n = 64; n < 96; n++) {
        uint32_t c[4] = {n, 1, 2, 9};
        dlattn_philox(c, 3, 0);
        for (int byte = 0; byte < 16; byte++) wanted[c[byte / 4] >> (8 * (byte % 4)) & 255]++;
    }
    for (int v = 0; v < 256; v++) cr_expect_eq(found[v], wanted[v], "byte value %d", v);
}

/* 2^18 bytes: each of 256 values is expected 1024 times, with a deviation of about 32. */
Test(philox, bytes_are_uniform) {
    static int count[256];
    dlattn_philox_key key = dlattn_philox_make_key(42, 7);
    for (int64_t i = 0; i < 512; i++)
        for (int64_t j = 0; j < 512; j++) count[dlattn_dropout_byte(&key, 1, i, j)]++;
    double chi_squared = 0;
    for (int v = 0; v < 256; v++) chi_squared += (count[v] - 1024.0) * (count[v] - 1024.0) / 1024.0;
    /* 255 degrees of freedom: mean 255, deviation 22.6; the bounds lie 5 deviations away */
    cr_expect(chi_squared > 142 && chi_squared < 368, "chi squared %g", chi_squared);
}

Test(philox, seed_offset_and_head_all_matter) {
    dlattn_philox_key keys[] = {dlattn_philox_make_key(1, 1), dlattn_philox_make_key(2, 1),
                                dlattn_philox_make_key(1, 2), dlattn_philox_make_key(UINT64_C(1) << 32 | 1, 1)};
    for (int a = 0; a < 5; a++)
        for (int b = 0; b < a; b++) {
            int equal = 0;
            for (int64_t n = 0; n < 1024; n++)
                equal += dlattn_dropout_byte(&keys[a % 4], a == 4, n / 32, n % 32) ==
                         dlattn_dropout_byte(&keys[b % 4], 0, n / 32, n % 32);
            cr_expect_lt(equal, 32, "streams %d and %d agree in %d of 1024 bytes", a, b, equal); /* 4 expected */
        }
}
