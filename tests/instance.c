/* instance.c: makes a case real: memory, strides, data, poison. */
#include "instance.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "oracle.h"

enum { FENCE = GUARDED_FENCE, POISON = GUARDED_POISON };

const char *const tensor_names[T_COUNT] = {
    "q", "k", "v", "bias", "mask", "alibi_slopes", "sinks", "q_segments", "kv_segments", "cu_seqlens_q", "cu_seqlens_k", "seqlens_q",
    "seqlens_k", "block_table", "q_starts", "k_starts", "rng_state", "dout", "dlse", "out", "lse", "dq", "dk", "dv", "dbias", "dsinks"};

/* ---- random numbers and memory ------------------------------------------------------------------------------------ */

uint64_t instance_random(instance *x) { /* splitmix64 */
    uint64_t z = x->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

double instance_normal(instance *x) { /* Box and Muller */
    double u = ((double)(instance_random(x) >> 11) + 1) * 0x1p-53, v = (double)(instance_random(x) >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static int32_t add_buffer(instance *x, int64_t bytes, int32_t is_output) {
    buffer *b = &x->buffers[x->buffer_count];
    b->bytes = (size_t)(bytes > 0 ? bytes : 1);
    b->memory = guarded_alloc(b->bytes);
    b->is_output = is_output;
    return x->buffer_count++;
}

static uint64_t checksum(const buffer *b) { /* FNV-1a by words of eight bytes, over the fences too */
    const unsigned char *at = b->memory - FENCE, *end = b->memory + b->bytes + FENCE;
    uint64_t hash = UINT64_C(0xcbf29ce484222325), word;
    for (; end - at >= 8; at += 8) {
        memcpy(&word, at, 8);
        hash = (hash ^ word) * UINT64_C(0x100000001b3);
    }
    for (; at < end; at++) hash = (hash ^ *at) * UINT64_C(0x100000001b3);
    return hash;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

static DLDataType make_dtype(int code, int bits) { return (DLDataType){(uint8_t)code, (uint8_t)bits, 1}; }

static DLDataType case_dtype(int32_t dtype) {
    return dtype == F32   ? make_dtype(kDLFloat, 32)
           : dtype == F16 ? make_dtype(kDLFloat, 16)
           : dtype == F64 ? make_dtype(kDLFloat, 64)
                          : make_dtype(kDLBfloat, 16);
}

/* Strides of `kind` for the tensor's shape; returns how many elements from the lowest to past the highest, and sets
 * *first to where the first element lies. free_dims: bit d set makes stride 0 on dimension d. */
static int64_t place(held_tensor *t, int32_t kind, unsigned zero_dims, int64_t *first) {
    int32_t n = t->dl.ndim, gaps = kind == GAPS || kind == BROADCAST;
    int64_t step = gaps ? 2 : 1, extent = 1;
    *first = 0;
    for (int32_t x = 0; x < n; x++) {
        int32_t d = kind == PERMUTED ? x : n - 1 - x;
        int64_t size = t->shape[d] > 0 ? t->shape[d] : 1;
        if (gaps && x == 0 && t->dl.dtype.bits == 16) step = 1; /* 16-bit rows stay dense: both kinds of last stride */
        t->strides[d] = zero_dims >> d & 1u ? 0 : kind == NEGATIVE ? -step : step;
        if (zero_dims >> d & 1u) continue;
        if (kind == NEGATIVE) *first += (size - 1) * step;
        extent += (size - 1) * step;
        step = step * size + (gaps ? 3 + x : 0);
    }
    return extent;
}

static held_tensor *add_tensor(instance *x, int id, DLDataType dtype, int32_t ndim, const int64_t *shape, int32_t kind,
                               unsigned zero_dims) {
    held_tensor *t = &x->tensors[id];
    int64_t first, item = dtype.bits / 8, shift = 0;
    t->used = 1;
    t->dl = (DLTensor){.device = {kDLCPU, 0}, .ndim = ndim, .dtype = dtype, .shape = t->shape, .strides = t->strides};
    memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
    if (kind == INTERLEAVED) kind = COMPACT;
    int64_t extent = place(t, kind, zero_dims, &first);
    if (kind == MISALIGNED) shift = item;
    if (kind == BYTE_OFFSET) shift = 3 * item;
    t->buffer = add_buffer(x, shift + extent * item, id >= T_OUT);
    t->dl.data = x->buffers[t->buffer].memory + (kind == BYTE_OFFSET ? 0 : shift + first * item);
    t->dl.byte_offset = kind == BYTE_OFFSET ? (uint64_t)shift : 0;
    if (kind == COMPACT && !zero_dims && id < T_OUT) t->dl.strides = NULL;
    return t;
}

/* q, k, v (or dq, dk, dv) as views of one array whose head dimension holds them one after the other. */
static void add_interleaved(instance *x, int id, DLDataType dtype, int32_t ndim, const int64_t *shape, int32_t head_dim,
                            int64_t H, int64_t G) {
    int64_t heads[3] = {H, G, G}, at[3] = {0, H, H + G}, whole[4], strides[4], count = 1;
    for (int32_t d = ndim - 1; d >= 0; d--) {
        whole[d] = d == head_dim ? H + 2 * G : shape[d];
        strides[d] = count;
        count *= whole[d];
    }
    int32_t number = add_buffer(x, count * dtype.bits / 8, id >= T_OUT);
    for (int n = 0; n < 3; n++) {
        held_tensor *t = &x->tensors[id + n];
        t->used = 1;
        t->buffer = number;
        t->dl = (DLTensor){.device = {kDLCPU, 0}, .ndim = ndim, .dtype = dtype, .shape = t->shape, .strides = t->strides};
        memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
        memcpy(t->strides, strides, (size_t)ndim * sizeof *strides);
        t->shape[head_dim] = heads[n];
        t->dl.data = x->buffers[number].memory + (count ? at[n] * strides[head_dim] * dtype.bits / 8 : 0);
    }
}

static int64_t sum(const int64_t *list, int64_t count) {
    int64_t total = 0;
    for (int64_t n = 0; n < count; n++) total += list[n];
    return total;
}

static int64_t pages_of_sequence(const test_case *c) { return c->N / c->page; }

/* Page 0, those of all sequences, and two of nobody. */
static int64_t page_count(const test_case *c) { return c->table == TABLE_NO_PAGES ? 0 : 3 + c->B * pages_of_sequence(c); }

/* Shape of q, k, v or a tensor like them; returns the rank. */
static int32_t token_shape(int64_t *shape, const test_case *c, int keys, int64_t width) {
    int64_t heads = keys ? c->G : c->H, tokens = keys ? c->N : c->M;
    int32_t n = 0, packed = keys ? c->packed_k : c->packed_q;
    if (packed) tokens = c->tokens_before + sum(keys ? c->k_lengths : c->q_lengths, c->B) + c->tokens_after;
    else shape[n++] = keys && c->page ? page_count(c) : c->B;
    if (keys && c->page) tokens = c->page;
    shape[n++] = c->layout ? heads : tokens;
    shape[n++] = c->layout ? tokens : heads;
    shape[n++] = width;
    return n;
}

static void add_like_q_k_v(instance *x, int q, int k, int v, DLDataType dtype) {
    const test_case *c = x->test;
    int64_t shape[4];
    int32_t ndim = token_shape(shape, c, 0, c->D), head_dim = ndim - (c->layout ? 3 : 2);
    if (c->strides == INTERLEAVED && k >= 0) {
        add_interleaved(x, q, dtype, ndim, shape, head_dim, c->H, c->G);
        return;
    }
    add_tensor(x, q, dtype, ndim, shape, c->strides, 0);
    if (k < 0) return;
    int32_t first_heads = c->packed_k ? (c->layout ? 0 : 1) : (c->layout ? 1 : 2);
    unsigned zero = c->strides == BROADCAST && k < T_OUT ? 1u << first_heads | (c->packed_k || c->page ? 0u : 1u) : 0;
    ndim = token_shape(shape, c, 1, c->D);
    add_tensor(x, k, dtype, ndim, shape, c->strides, zero);
    ndim = token_shape(shape, c, 1, c->E);
    add_tensor(x, v, dtype, ndim, shape, c->strides, zero);
}

/* A tensor named by letters, right-aligned to [B,H,max M,max N]. Capitals have stride 0, unless it is a gradient. */
static void add_by_letters(instance *x, int id, DLDataType dtype, const char *letters, int32_t kind) {
    oracle_side queries, keys;
    int64_t shape[4];
    unsigned zero = 0;
    int32_t n = 0;
    oracle_sides(&x->attention, 0, &queries, &keys);
    for (; letters[n]; n++) {
        int letter = tolower(letters[n]);
        shape[n] = letter == 'b'   ? x->test->B
                   : letter == 'h' ? x->test->H
                   : letter == 'm' ? queries.longest
                   : letter == 'n' ? keys.longest
                                   : 1;
        if (isupper(letters[n]) && id < T_OUT) zero |= 1u << n;
    }
    add_tensor(x, id, dtype, n, shape, kind, zero);
}

static void add_list(instance *x, int id, const int64_t *values, int64_t count) {
    held_tensor *t = add_tensor(x, id, make_dtype(kDLInt, x->test->index64 ? 64 : 32), 1, &count, x->test->strides, 0);
    for (int64_t n = 0; n < count; n++) tensor_set_int(&t->dl, n, values[n]);
}

static void add_offsets(instance *x, int id, const int64_t *lengths) {
    int64_t cu[CASE_MAX_SEQUENCES + 1] = {x->test->tokens_before}, B = x->test->B;
    for (int64_t b = 0; b < B; b++) cu[b + 1] = cu[b] + lengths[b];
    add_list(x, id, cu, B + 1);
}

/* A number that is the id of no page; some hold one in their low half. */
static int64_t wild_page(const test_case *c, int64_t n) {
    const int64_t small[] = {-1, page_count(c), INT32_MAX, INT32_MIN};
    const int64_t large[] = {-1, page_count(c), (INT64_C(1) << 32) + 1, INT64_MIN + 1};
    return (c->index64 ? large : small)[n % 4];
}

static void add_table(instance *x) {
    const test_case *c = x->test;
    int64_t pages = pages_of_sequence(c), count = c->B * pages, shape[2] = {c->B, pages}, *ids = malloc((size_t)(count + 1) * sizeof *ids);
    held_tensor *t = add_tensor(x, T_BLOCK_TABLE, make_dtype(kDLInt, c->index64 ? 64 : 32), 2, shape, c->strides, 0);
    if (!ids) abort();
    for (int64_t n = 0; n < count; n++) { /* a shuffle of 1 .. count */
        int64_t at = (int64_t)(instance_random(x) % (uint64_t)(n + 1));
        ids[n] = ids[at];
        ids[at] = n + 1;
    }
    for (int64_t b = 0; b < c->B; b++)
        for (int64_t n = 0; n < pages; n++) {
            int64_t shared = c->table == TABLE_SHARED && n < pages / 2, id = ids[(shared ? 0 : b * pages) + n];
            int hole = (c->table == TABLE_WILD && n == 1) || c->table == TABLE_NO_PAGES;
            if (hole || n * c->page >= c->k_used[b]) id = wild_page(c, b + n);
            tensor_set_int(&t->dl, b * pages + n, id);
        }
    free(ids);
}

static const DLTensor *given(instance *x, int id) { return x->tensors[id].used ? &x->tensors[id].dl : NULL; }
static DLTensor *wanted(instance *x, int id) { return x->tensors[id].used ? &x->tensors[id].dl : NULL; }

static void add_lengths(instance *x) {
    const test_case *c = x->test;
    if (c->packed_q) add_offsets(x, T_CU_Q, c->q_lengths);
    if (c->packed_k) add_offsets(x, T_CU_K, c->k_lengths);
    if (c->use_q) add_list(x, T_SEQLENS_Q, c->q_used, c->B);
    if (c->use_k) add_list(x, T_SEQLENS_K, c->k_used, c->B);
    if (c->page) add_table(x);
    if (c->start_tensors) {
        add_list(x, T_Q_STARTS, c->q_starts, c->B);
        add_list(x, T_K_STARTS, c->k_starts, c->B);
    }
    if (c->rng_state == 2) {
        int64_t two = 2;
        held_tensor *t = add_tensor(x, T_RNG, make_dtype(kDLUInt, 64), 1, &two, COMPACT, 0);
        tensor_set_int(&t->dl, 0, (int64_t)c->seed);
        tensor_set_int(&t->dl, 1, (int64_t)c->offset);
    } else if (c->rng_state == 4) {
        int64_t four = 4;
        held_tensor *t = add_tensor(x, T_RNG, make_dtype(kDLUInt, 32), 1, &four, COMPACT, 0);
        for (int n = 0; n < 4; n++) tensor_set_int(&t->dl, n, (int64_t)((n < 2 ? c->seed : c->offset) >> 32 * (n & 1)));
    }
}

/* ---- the call's structs ------------------------------------------------------------------------------------------- */

static void link_attention(instance *x) {
    const test_case *c = x->test;
    x->attention = (dlattn_attention){
        .struct_size = sizeof x->attention, .q = given(x, T_Q), .k = given(x, T_K), .v = given(x, T_V),
        .bias = given(x, T_BIAS), .mask = given(x, T_MASK), .alibi_slopes = given(x, T_ALIBI), .sinks = given(x, T_SINKS),
        .q_segments = given(x, T_Q_SEGMENTS), .kv_segments = given(x, T_KV_SEGMENTS), .cu_seqlens_q = given(x, T_CU_Q),
        .cu_seqlens_k = given(x, T_CU_K), .seqlens_q = given(x, T_SEQLENS_Q), .seqlens_k = given(x, T_SEQLENS_K),
        .block_table = given(x, T_BLOCK_TABLE), .q_starts = given(x, T_Q_STARTS), .k_starts = given(x, T_K_STARTS),
        .rng_state = given(x, T_RNG), .max_seqlen_q = c->max_q, .max_seqlen_k = c->max_k, .window_left = c->window_left,
        .window_right = c->window_right, .block_size = c->block_size, .block_count = c->block_count,
        .q_start = c->q_start, .k_start = c->k_start, .scale = c->scale, .softcap = c->softcap, .dropout = c->dropout,
        .flags = c->flags, .layout = c->layout};
    if (!c->rng_state) x->attention.seed = c->seed, x->attention.offset = c->offset;
}

static void link_results(instance *x) {
    x->outputs = (dlattn_outputs){sizeof x->outputs, wanted(x, T_OUT), wanted(x, T_LSE)};
    x->gradients = (dlattn_gradients){sizeof x->gradients, given(x, T_OUT),   given(x, T_LSE), given(x, T_DOUT),  given(x, T_DLSE),
                                      wanted(x, T_DQ),     wanted(x, T_DK),   wanted(x, T_DV), wanted(x, T_DBIAS), wanted(x, T_DSINKS)};
}

static void add_terms(instance *x, DLDataType dtype, DLDataType single) {
    const test_case *c = x->test;
    oracle_side queries, keys;
    oracle_sides(&x->attention, 0, &queries, &keys);
    if (c->bias) add_by_letters(x, T_BIAS, c->bias_f32 ? single : dtype, c->bias, c->strides);
    if (c->mask) add_by_letters(x, T_MASK, make_dtype(c->mask_bool ? kDLBool : kDLUInt, 8), c->mask, c->strides);
    if (c->alibi) add_by_letters(x, T_ALIBI, c->alibi_f32 ? single : dtype, c->alibi, c->strides);
    if (c->sinks) add_tensor(x, T_SINKS, c->sinks_f32 ? single : dtype, 1, &c->H, c->strides, 0);
    if (c->segments) {
        int64_t shapes[2][2] = {{c->B, c->M}, {c->B, c->N}};
        DLDataType integer = make_dtype(kDLInt, c->index64 ? 64 : 32);
        add_tensor(x, T_Q_SEGMENTS, integer, 2, shapes[0], c->strides, 0);
        add_tensor(x, T_KV_SEGMENTS, integer, 2, shapes[1], c->strides, 0);
    }
}

static void add_results(instance *x, DLDataType dtype, DLDataType single) {
    const test_case *c = x->test;
    DLDataType out = c->f32_out ? single : dtype, gradient = c->f32_gradients ? single : dtype;
    DLDataType lse = c->dtype == F64 ? dtype : single;
    int64_t shape[4], rows[3];
    int32_t ndim = token_shape(shape, c, 0, c->E), n = 0;
    if (!c->packed_q) rows[n++] = c->B;
    rows[n++] = c->H;
    rows[n++] = shape[ndim - (c->layout ? 2 : 3)];
    add_tensor(x, T_OUT, out, ndim, shape, c->strides, 0);
    add_tensor(x, T_LSE, lse, n, rows, c->strides, 0);
    if (c->gradients == NO_GRADIENTS) return;
    add_tensor(x, T_DOUT, dtype, ndim, shape, c->strides, 0);
    if (c->dlse) add_tensor(x, T_DLSE, lse, n, rows, c->strides, 0);
    add_like_q_k_v(x, T_DQ, T_DK, T_DV, gradient);
    if (c->bias) add_by_letters(x, T_DBIAS, c->f32_gradients || c->bias_f32 ? single : dtype, c->bias, c->strides);
    if (c->sinks) add_tensor(x, T_DSINKS, c->f32_gradients || c->sinks_f32 ? single : dtype, 1, &c->H, c->strides, 0);
}

void instance_make_empty(instance *x, const test_case *c, uint64_t seed) {
    DLDataType dtype = case_dtype(c->dtype), single = case_dtype(F32);
    *x = (instance){.test = c, .random = seed, .tainted_b = -1, .tainted_g = -1, .tainted_row = -1};
    for (const char *at = c->name; *at; at++) x->random = x->random * 31 + (unsigned char)*at;
    add_like_q_k_v(x, T_Q, T_K, T_V, dtype);
    add_lengths(x);
    link_attention(x);
    add_terms(x, dtype, single);
    link_attention(x);
    add_results(x, dtype, single);
    link_results(x);
}

void instance_make(instance *x, const test_case *c, uint64_t seed) {
    instance_make_empty(x, c, seed);
    instance_fill(x);
    instance_seal(x);
}

void instance_free(instance *x) {
    for (int32_t n = 0; n < x->buffer_count; n++) guarded_free(x->buffers[n].memory);
    x->buffer_count = 0;
}

/* ---- what a call may not do ---------------------------------------------------------------------------------------- */

void instance_seal(instance *x) {
    for (int32_t n = 0; n < x->buffer_count; n++) x->buffers[n].checksum = checksum(&x->buffers[n]);
}

void instance_poison(instance *x, int first, int last) {
    for (int id = first; id <= last; id++) {
        buffer *b = &x->buffers[x->tensors[id].buffer];
        if (x->tensors[id].used && b->is_output) memset(b->memory, POISON, b->bytes);
    }
}

static int output_untouched(const instance *x, int32_t number) {
    const buffer *b = &x->buffers[number];
    unsigned char *owned = calloc(b->bytes, 1);
    int intact = guarded_intact(b->memory, b->bytes);
    if (!owned) abort();
    for (int id = T_OUT; id < T_COUNT; id++) {
        const held_tensor *t = &x->tensors[id];
        if (!t->used || t->buffer != number) continue;
        const int64_t count = tensor_count(&t->dl), width = t->dl.shape[t->dl.ndim - 1], item = tensor_item_bytes(&t->dl);
        const int64_t step = tensor_stride(&t->dl, t->dl.ndim - 1) * item;
        for (int64_t n = 0; n < count; n += width) {
            unsigned char *row = owned + (tensor_address(&t->dl, n) - b->memory);
            if (step == item) memset(row, 1, (size_t)(width * item));
            else
                for (int64_t x = 0; x < width; x++) memset(row + x * step, 1, (size_t)item);
        }
    }
    unsigned char stray = 0; /* no early exit: the loop runs a vector at a time */
    for (size_t n = 0; n < b->bytes; n++) stray |= (unsigned char)(owned[n] ? 0 : b->memory[n] ^ POISON);
    free(owned);
    return intact && !stray;
}

int instance_untouched(const instance *x, char *message, size_t bytes) {
    for (int id = 0; id < T_COUNT; id++) {
        const held_tensor *t = &x->tensors[id];
        if (!t->used) continue;
        const buffer *b = &x->buffers[t->buffer];
        if (b->is_output ? output_untouched(x, t->buffer) : checksum(b) == b->checksum) continue;
        snprintf(message, bytes, b->is_output ? "memory around %s was written" : "input %s was changed", tensor_names[id]);
        return 1;
    }
    return 0;
}
