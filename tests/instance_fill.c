/* instance_fill.c: the data of an instance: normal random numbers inside sequences, NaN outside, and the traps that
 * some cases set. */
#include <math.h>
#include <string.h>

#include "instance.h"
#include "oracle.h"

static int used(const instance *x, int id) { return x->tensors[id].used; }

/* Normal numbers into the tokens of sequences; all others keep their NaN. */
static void fill_tokens(instance *x, int id, int keys_side, int64_t width, double factor) {
    oracle_side queries, keys;
    for (int64_t b = 0; b < x->test->B; b++) {
        oracle_sides(&x->attention, b, &queries, &keys);
        const oracle_side *side = keys_side ? &keys : &queries;
        for (int64_t h = 0; h < side->heads; h++)
            for (int64_t i = 0; i < side->length; i++)
                for (int64_t w = 0; w < width; w++)
                    tensor_set(&x->tensors[id].dl, oracle_row(side, b, h, i) * width + w, (real)(factor * instance_normal(x)));
    }
}

static void fill_rows(instance *x, int id) {
    oracle_side queries, keys;
    for (int64_t b = 0; b < x->test->B; b++) {
        oracle_sides(&x->attention, b, &queries, &keys);
        for (int64_t h = 0; h < queries.heads; h++)
            for (int64_t i = 0; i < queries.length; i++)
                tensor_set(&x->tensors[id].dl, oracle_lse_row(&queries, b, h, i), (real)instance_normal(x));
    }
}

/* Is (b, h, i, j) an element of a broadcast tensor that names each element once? */
static int names_element(const DLTensor *t, const int64_t at[4]) {
    for (int32_t d = 0; d < 4; d++) {
        int32_t own = d - (4 - t->ndim);
        if ((own < 0 || t->shape[own] == 1) && at[d] != 0) return 0;
    }
    return 1;
}

typedef void visit(instance *x, int id, int64_t index, const int64_t at[4]);

/* Calls `with` for each (b, h, i, j) up to the longest sides. */
static void for_each_score(instance *x, int id, visit *with) {
    oracle_side queries, keys;
    int64_t at[4];
    oracle_sides(&x->attention, 0, &queries, &keys);
    for (at[0] = 0; at[0] < x->test->B; at[0]++)
        for (at[1] = 0; at[1] < x->test->H; at[1]++)
            for (at[2] = 0; at[2] < queries.longest; at[2]++)
                for (at[3] = 0; at[3] < keys.longest; at[3]++)
                    with(x, id, tensor_broadcast_index(&x->tensors[id].dl, at[0], at[1], at[2], at[3]), at);
}

static int inside(const instance *x, const int64_t at[4]) {
    oracle_side queries, keys;
    oracle_sides(&x->attention, at[0], &queries, &keys);
    return at[2] < queries.length && at[3] < keys.length;
}

static void fill_score(instance *x, int id, int64_t index, const int64_t at[4]) {
    const DLTensor *t = &x->tensors[id].dl;
    if (names_element(t, at)) {
        real value = (real)instance_normal(x);
        if (x->test->inputs == MINUS_INF_BIAS && (at[2] % 5 == 3 || (at[2] + at[3]) % 4 == 0)) value = -(real)INFINITY;
        tensor_set(t, index, value);
    }
}

/* Bias outside of every sequence that reads it: NaN again. First everything that is read is marked with a number. */
static void poison_score(instance *x, int id, int64_t index, const int64_t at[4]) {
    const DLTensor *t = &x->tensors[id].dl;
    if (names_element(t, at)) tensor_set(t, index, (real)NAN);
}

static void restore_score(instance *x, int id, int64_t index, const int64_t at[4]) {
    const DLTensor *t = &x->tensors[id].dl;
    if (inside(x, at) && tensor_get(t, index) != tensor_get(t, index)) tensor_set(t, index, (real)instance_normal(x));
}

static void trap_score(instance *x, int id, int64_t index, const int64_t at[4]) {
    static const double traps[4] = {NAN, INFINITY, 30000, -INFINITY};
    if (names_element(&x->tensors[id].dl, at)) tensor_set(&x->tensors[id].dl, index, (real)traps[(at[2] + at[3]) & 3]);
}

static void untrap_score(instance *x, int id, int64_t index, const int64_t at[4]) {
    const DLTensor *t = &x->tensors[id].dl;
    real now = tensor_get(t, index);
    int trapped = now != now || now > 20000 || now < -20000;
    if (trapped && oracle_visible(&x->attention, at[0], at[1], at[2], at[3])) tensor_set(t, index, (real)instance_normal(x));
}

static void fill_bias(instance *x) {
    if (x->test->inputs == BAD_BIAS) {
        for_each_score(x, T_BIAS, trap_score);
        for_each_score(x, T_BIAS, untrap_score);
    } else if (x->test->inputs == MINUS_INF_BIAS) {
        for_each_score(x, T_BIAS, fill_score);
    } else {
        for_each_score(x, T_BIAS, poison_score);
        for_each_score(x, T_BIAS, restore_score);
    }
}

static void mask_score(instance *x, int id, int64_t index, const int64_t at[4]) {
    const DLTensor *t = &x->tensors[id].dl;
    uint64_t random = instance_random(x);
    int keep = random % 8 < 5;
    if (!names_element(t, at)) return;
    if (x->test->mask_kind == MASK_HIDDEN_ROWS && at[2] % 3 == 1) keep = 0;
    if (x->test->mask_kind == MASK_PADDING) keep = at[3] < t->shape[t->ndim - 1] - 3 - 5 * at[0];
    if (x->test->mask_kind == MASK_NOTHING_VISIBLE) keep = 0;
    int nonzero = t->dtype.code == kDLUInt && random >> 20 & 1 ? 128 : 1; /* any nonzero byte keeps */
    tensor_set_int(t, index, keep ? nonzero : 0);
}

static void fill_segments(instance *x, int id, int64_t length) {
    const DLTensor *t = &x->tensors[id].dl;
    for (int64_t b = 0; b < x->test->B; b++)
        for (int64_t i = 0; i < length; i++) {
            int64_t segment = i * 4 / length - 1 + b;
            if (x->test->segments == SEGMENTS_SHUFFLED) segment = (int64_t)(instance_random(x) % 4);
            if (x->test->index64) segment += INT64_C(1) << 40;
            tensor_set_int(t, b * length + i, segment);
        }
}

/* NaN and inf in keys that no query of the kv head sees, and NaN in queries that see nothing. */
static void trap_keys(instance *x) {
    oracle_side queries, keys;
    int64_t D = x->test->D, group = x->test->H / x->test->G;
    for (int64_t b = 0; b < x->test->B; b++) {
        oracle_sides(&x->attention, b, &queries, &keys);
        for (int64_t g = 0; g < keys.heads; g++)
            for (int64_t j = 0; j < keys.length; j++) {
                int seen = 0;
                for (int64_t h = g * group; h < (g + 1) * group; h++)
                    for (int64_t i = 0; i < queries.length; i++) seen |= oracle_visible(&x->attention, b, h, i, j);
                for (int64_t d = 0; d < D && !seen; d++)
                    tensor_set(&x->tensors[T_K].dl, oracle_row(&keys, b, g, j) * D + d, j & 1 ? (real)INFINITY : (real)NAN);
            }
        for (int64_t h = 0; h < queries.heads; h++)
            for (int64_t i = 0; i < queries.length; i++) {
                int sees = 0;
                for (int64_t j = 0; j < keys.length; j++) sees |= oracle_visible(&x->attention, b, h, i, j);
                for (int64_t d = 0; d < D && !sees; d++)
                    tensor_set(&x->tensors[T_Q].dl, oracle_row(&queries, b, h, i) * D + d, (real)NAN);
            }
    }
}

static void trap_value(instance *x) {
    oracle_side queries, keys;
    int64_t last = x->test->B - 1;
    oracle_sides(&x->attention, last, &queries, &keys);
    x->tainted_b = last;
    x->tainted_g = keys.heads - 1;
    if (x->test->inputs == NAN_IN_Q) {
        int64_t h = queries.heads - 1, i = queries.length / 2;
        x->tainted_row = oracle_row(&queries, last, h, i);
        tensor_set(&x->tensors[T_Q].dl, x->tainted_row * x->test->D, (real)NAN);
    } else {
        int64_t row = oracle_row(&keys, last, keys.heads - 1, keys.length / 3);
        tensor_set(&x->tensors[T_V].dl, row * x->test->E + x->test->E / 2, (real)INFINITY);
    }
}

/* What is small whatever the problem. */
static void fill_small(instance *x) {
    const test_case *c = x->test;
    if (used(x, T_SINKS))
        for (int64_t h = 0; h < c->H; h++) tensor_set(&x->tensors[T_SINKS].dl, h, (real)(1 + instance_normal(x)));
    if (used(x, T_ALIBI))
        for (int64_t n = 0, count = tensor_count(&x->tensors[T_ALIBI].dl); n < count; n++)
            tensor_set(&x->tensors[T_ALIBI].dl, n, powl(2, -(real)(1 + n % 7)));
    if (used(x, T_Q_SEGMENTS)) {
        fill_segments(x, T_Q_SEGMENTS, c->M);
        fill_segments(x, T_KV_SEGMENTS, c->N);
    }
}

void instance_fill(instance *x) {
    const test_case *c = x->test;
    double size = c->inputs == LARGE ? 30 : c->inputs == ZERO_SCORES ? 0 : 1;
    fill_tokens(x, T_Q, 0, c->D, size);
    fill_tokens(x, T_K, 1, c->D, size);
    fill_tokens(x, T_V, 1, c->E, 1);
    if (used(x, T_DOUT)) fill_tokens(x, T_DOUT, 0, c->E, 1);
    if (used(x, T_DLSE)) fill_rows(x, T_DLSE);
    if (used(x, T_MASK)) for_each_score(x, T_MASK, mask_score);
    fill_small(x);
    if (used(x, T_BIAS)) fill_bias(x);
    if (c->inputs == BAD_KEYS) trap_keys(x);
    if (c->inputs == NAN_IN_Q || c->inputs == INF_IN_V) trap_value(x);
}

/* All of the tensor's memory: a prime number of elements, then copies of them. */
static void fill_repeating(instance *x, int id) {
    enum { PERIOD = 65537 };
    const DLTensor *t = &x->tensors[id].dl;
    const buffer *b = &x->buffers[x->tensors[id].buffer];
    size_t period = PERIOD * (size_t)tensor_item_bytes(t);
    int64_t count = (int64_t)(b->bytes < period ? b->bytes : period) / tensor_item_bytes(t);
    DLTensor flat = {.data = b->memory, .device = t->device, .ndim = 1, .dtype = t->dtype, .shape = &count};
    for (int64_t n = 0; n < count; n++) {
        if (id == T_MASK) tensor_set_int(&flat, n, instance_random(x) % 8 < 5);
        else tensor_set(&flat, n, (real)instance_normal(x));
    }
    for (size_t at = period; at < b->bytes; at += period)
        memcpy(b->memory + at, b->memory, b->bytes - at < period ? b->bytes - at : period);
}

void instance_fill_fast(instance *x) {
    static const int large[] = {T_Q, T_K, T_V, T_DOUT, T_DLSE, T_BIAS, T_MASK};
    for (size_t n = 0; n < sizeof large / sizeof *large; n++)
        if (used(x, large[n])) fill_repeating(x, large[n]);
    fill_small(x);
}

/* Element n of tensor t as 32 well-mixed bits (the constants are those of Chris Wellons' lowbias32). */
static uint32_t hashed(uint32_t t, int64_t n) {
    uint32_t x = (uint32_t)n + t * UINT32_C(0x9e3779b9);
    x = (x ^ x >> 16) * UINT32_C(0x7feb352d);
    x = (x ^ x >> 15) * UINT32_C(0x846ca68b);
    return x ^ x >> 16;
}

void instance_fill_hashed(instance *x) {
    static const int numbered[] = {T_Q, T_K, T_V, T_DOUT, T_BIAS, T_MASK, T_SINKS};
    fill_small(x);
    for (uint32_t t = 0; t < sizeof numbered / sizeof *numbered; t++) {
        const DLTensor *to = &x->tensors[numbered[t]].dl;
        if (!used(x, numbered[t])) continue;
        for (int64_t n = 0, count = tensor_count(to); n < count; n++) {
            const uint32_t bits = hashed(t + 1, n);
            if (numbered[t] == T_MASK) tensor_set_int(to, n, bits % 8 < 5);
            else tensor_set(to, n, (real)(bits >> 8) * 0x1p-23L - 1);
        }
    }
}
