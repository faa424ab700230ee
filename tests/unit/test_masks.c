/* test_masks.c: the interval masks of kernels/shared against the header's inequalities, element by element.
 *
 * The inequalities are written in 128-bit integers, which cannot overflow where the library has to saturate. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

#include "masks/masks.h"

__extension__ typedef __int128 wide;

enum { ROWS = 14 };

static wide floor_div(wide a, wide b) { return a / b - (a % b < 0); }

static int visible(const dlattn_mask *m, int64_t i, int64_t j) {
    wide q = (wide)i + m->q_position, k = (wide)j + m->k_position;
    if (j < 0 || j >= m->num_keys) return 0;
    if (m->kinds & DLATTN_MASK_CAUSAL && k > q) return 0;
    if (m->kinds & DLATTN_MASK_WINDOW) {
        if (m->window_left >= 0 && k < q - m->window_left) return 0;
        if (m->window_right >= 0 && k > q + m->window_right) return 0;
    }
    if (m->kinds & DLATTN_MASK_BLOCK_WINDOW) {
        wide qb = floor_div(q, m->block_size), kb = floor_div(k, m->block_size);
        if (!(qb - m->block_count < kb && kb <= qb)) return 0;
    }
    return !(m->kinds & DLATTN_MASK_POSITIVE && k < 0);
}

static const char *describe(const dlattn_mask *m) {
    static char text[256];
    snprintf(text, sizeof text,
             "kinds %u, N %" PRId64 ", positions %" PRId64 " %" PRId64 ", window %" PRId64 " %" PRId64
             ", blocks %" PRId64 " of %" PRId64, m->kinds, m->num_keys, m->q_position, m->k_position, m->window_left,
             m->window_right, m->block_count, m->block_size);
    return text;
}

/* limits and keep of every row. */
static void check_rows(const dlattn_mask *m) {
    for (int64_t i = 0; i < ROWS; i++) {
        dlattn_interval r = dlattn_mask_limits(m, i);
        cr_assert(0 <= r.lo && r.lo <= r.hi && r.hi <= m->num_keys, "%s: row %d", describe(m), (int)i);
        for (int64_t j = 0; j < m->num_keys; j++) {
            int wanted = visible(m, i, j);
            cr_assert_eq(r.lo <= j && j < r.hi, wanted, "%s: limits of (%d,%d)", describe(m), (int)i, (int)j);
            cr_assert_eq(dlattn_mask_keep(m, i, j), wanted, "%s: keep(%d,%d)", describe(m), (int)i, (int)j);
        }
    }
}

/* span misses no visible key and, where all rows see something, takes no key that none of them sees; full is never
 * wrong, and true when it could be. */
static void check_tiles(const dlattn_mask *m) {
    for (int64_t i0 = 0; i0 < ROWS; i0 += 3)
        for (int64_t i1 = i0 + 1; i1 <= ROWS; i1 += 4) {
            dlattn_interval span = dlattn_mask_span(m, i0, i1);
            for (int64_t i = i0; i < i1; i++)
                for (int64_t j = 0; j < m->num_keys; j++)
                    if (visible(m, i, j))
                        cr_assert(span.lo <= j && j < span.hi, "%s: span of rows %d to %d misses key %d", describe(m),
                                  (int)i0, (int)i1, (int)j);
            for (int64_t j0 = 0; j0 < m->num_keys; j0 += 2)
                for (int64_t j1 = j0 + 1; j1 <= m->num_keys; j1 += 3) {
                    int wanted = 1;
                    for (int64_t i = i0; i < i1; i++)
                        for (int64_t j = j0; j < j1; j++) wanted = wanted && visible(m, i, j);
                    cr_assert_eq(dlattn_mask_full(m, i0, i1, j0, j1), wanted, "%s: full(%d..%d, %d..%d)", describe(m),
                                 (int)i0, (int)i1, (int)j0, (int)j1);
                }
        }
}

/* rows misses no row that sees a key of [j0, j1), and both of its ends are rows that see one, unless it is empty or the
 * row sees nothing at all. */
static void check_rows_of_keys(const dlattn_mask *m) {
    for (int64_t j0 = 0; j0 < m->num_keys; j0 += 2)
        for (int64_t j1 = j0 + 1; j1 <= m->num_keys; j1 += 3) {
            dlattn_interval rows = dlattn_mask_rows(m, ROWS, j0, j1);
            for (int64_t i = 0; i < ROWS; i++) {
                int sees = 0, inside = rows.lo <= i && i < rows.hi, end = i == rows.lo || i == rows.hi - 1;
                dlattn_interval keys = dlattn_mask_limits(m, i);
                for (int64_t j = j0; j < j1; j++) sees = sees || visible(m, i, j);
                cr_assert(!sees || inside, "%s: rows of keys %d to %d misses %d", describe(m), (int)j0, (int)j1, (int)i);
                cr_assert(sees || !inside || !end || keys.lo == keys.hi, "%s: rows of keys %d to %d has %d", describe(m),
                          (int)j0, (int)j1, (int)i);
            }
        }
}

static void check(const dlattn_mask *m) {
    check_rows(m);
    if (m->num_keys > 0) check_tiles(m);
    if (m->num_keys > 0) check_rows_of_keys(m);
}

static const int64_t positions[][2] = {{0, 0}, {-3, 0}, {5, 0}, {0, -4}, {-7, 3}, {100, 95},
                                      {INT64_C(1) << 61, (INT64_C(1) << 61) - 2}};
enum { POSITIONS = (int)(sizeof positions / sizeof positions[0]) };

static dlattn_mask plain_mask(int position, int64_t num_keys) {
    return (dlattn_mask){.num_keys = num_keys, .q_position = positions[position][0],
                         .k_position = positions[position][1], .block_size = 1, .block_count = 1};
}

Test(masks, causal_and_positive) {
    for (int p = 0; p < POSITIONS; p++)
        for (int64_t N = 0; N <= 17; N++)
            for (unsigned kinds = 0; kinds < 16; kinds++) {
                dlattn_mask m = plain_mask(p, N);
                m.kinds = kinds & (DLATTN_MASK_CAUSAL | DLATTN_MASK_POSITIVE);
                if (m.kinds == kinds) check(&m);
            }
}

static const int64_t bounds[] = {INT64_MIN, -1, 0, 1, 2, 5, 40, INT64_MAX - 1, INT64_MAX};
enum { BOUNDS = (int)(sizeof bounds / sizeof bounds[0]) };

Test(masks, window_of_any_size) {
    for (int p = 0; p < POSITIONS; p++)
        for (int left = 0; left < BOUNDS; left++)
            for (int right = 0; right < BOUNDS; right++) {
                dlattn_mask m = plain_mask(p, 13);
                m.kinds = DLATTN_MASK_WINDOW;
                m.window_left = bounds[left];
                m.window_right = bounds[right];
                check(&m);
            }
}

static const int64_t sizes[] = {1, 2, 3, 5, 16, 1000, INT64_MAX - 1, INT64_MAX};
enum { SIZES = (int)(sizeof sizes / sizeof sizes[0]) };

Test(masks, block_window_of_any_size) {
    for (int p = 0; p < POSITIONS; p++)
        for (int size = 0; size < SIZES; size++)
            for (int count = 0; count < SIZES; count++) {
                dlattn_mask m = plain_mask(p, 16);
                m.kinds = DLATTN_MASK_BLOCK_WINDOW;
                m.block_size = sizes[size];
                m.block_count = sizes[count];
                check(&m);
            }
}

Test(masks, all_of_them_together) {
    uint64_t random = 1;
    for (int n = 0; n < 3000; n++) {
        int64_t draw[6];
        for (int d = 0; d < 6; d++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            draw[d] = (int64_t)(random >> 33);
        }
        dlattn_mask m = plain_mask((int)(draw[0] % POSITIONS), draw[1] % 20);
        m.kinds = (uint32_t)(draw[2] % 16);
        m.window_left = draw[3] % 9 - 1;
        m.window_right = draw[4] % 9 - 1;
        m.block_size = 1 + draw[5] % 6;
        m.block_count = 1 + draw[5] / 6 % 4;
        check(&m);
    }
}

/* Positions at the ends of the range saturate instead of wrapping: no key may turn visible or hidden by a wrap. */
Test(masks, positions_at_the_ends_do_not_wrap) {
    dlattn_mask m = {.kinds = DLATTN_MASK_CAUSAL, .num_keys = 9, .block_size = 1, .block_count = 1};
    m.q_position = INT64_MAX;
    for (int64_t i = 0; i < ROWS; i++) {
        dlattn_interval r = dlattn_mask_limits(&m, i);
        cr_expect(r.lo == 0 && r.hi == 9, "far after all keys, row %d sees %d to %d", (int)i, (int)r.lo, (int)r.hi);
    }
    m.q_position = INT64_MIN;
    for (int64_t i = 0; i < ROWS; i++) {
        dlattn_interval r = dlattn_mask_limits(&m, i);
        cr_expect(r.lo == 0 && r.hi == 0, "far before all keys, row %d sees %d to %d", (int)i, (int)r.lo, (int)r.hi);
    }
}

Test(masks, saturating_arithmetic) {
    const int64_t v[] = {INT64_MIN, INT64_MIN + 1, -2, -1, 0, 1, 2, INT64_MAX - 1, INT64_MAX};
    for (size_t x = 0; x < sizeof v / sizeof v[0]; x++)
        for (size_t y = 0; y < sizeof v / sizeof v[0]; y++) {
            wide a = v[x], b = v[y], low = INT64_MIN, high = INT64_MAX;
            wide sum = a + b < low ? low : a + b > high ? high : a + b;
            wide difference = a - b < low ? low : a - b > high ? high : a - b;
            wide product = a * b < low ? low : a * b > high ? high : a * b;
            cr_expect(dlattn_add_sat(v[x], v[y]) == sum);
            cr_expect(dlattn_sub_sat(v[x], v[y]) == difference);
            if (b < 1) continue;
            cr_expect(dlattn_mul_sat(v[x], v[y]) == product);
            cr_expect(dlattn_floor_div(v[x], v[y]) == floor_div(a, b));
        }
}
