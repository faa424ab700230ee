/* common_calls.c: the kernels that common calls launch, as the library itself chooses them: what a build carries compiled.
 *
 * Calls are scheduled as for a device of the architecture, so nothing here knows a kernel. */
#include "common_calls.h"

#include <string.h>

#include "schedule.h"

/* ---- the calls -------------------------------------------------------------------------------------------------------- */

static const int32_t types[] = {DLATTN_T_F16, DLATTN_T_BF16};
static const int32_t heads[] = {64, 128, 256};
static const int32_t multiprocessors[] = {84, 132}; /* few and many blocks are served by different kernels */

/* A call's sizes: sequences, heads alone and in groups, queries of decoding, chunks and training, keys as many or more. */
typedef struct call_size {
    int32_t B, H, G, M, N;
} call_size;

static const int32_t batches[] = {1, 8, 64};
static const int32_t groups[][2] = {{8, 8}, {40, 8}, {32, 1}}; /* H, G */
static const int32_t queries[] = {1, 16, 80, 256, 1024, 4096, 16384};
static const int32_t keys[] = {0, 1024, 4096, 16384, 65536}; /* 0: as many as queries */

/* How the tokens lie. */
enum { PADDED, LENGTHS, PACKED, PAGED, LAYOUTS };

/* What the scores go through. */
enum { PLAIN, CAUSAL, WINDOW, MASKS };
enum { NOTHING, SOFTCAP, ALIBI, BIAS, SEGMENTS, DROPOUT, TERMS };

static operand dense(int32_t dtype, int64_t e0, int64_t e1, int64_t e2, int64_t e3) {
    operand o = {.dtype = dtype, .extent = {e0, e1, e2, e3}, .stride = {e1 * e2 * e3, e2 * e3, e3, 1}};
    for (int32_t d = 0; d < 4; d++)
        if (o.extent[d] == 1) o.stride[d] = 0;
    return o;
}

static problem make_problem(int32_t op, int32_t type, int32_t head, const call_size *size) {
    problem p;
    memset(&p, 0, sizeof p);
    p.op = op;
    p.dtype = type;
    p.device_type = kDLCUDA;
    p.B = size->B, p.H = size->H, p.G = size->G, p.M = size->M, p.N = p.tokens_k = size->N, p.D = p.E = head;
    p.scale = 0.125;
    p.window_left = p.window_right = -1;
    p.q = p.out = dense(type, p.B, p.M, p.H, p.D);
    p.k = p.v = dense(type, p.B, p.N, p.G, p.D);
    p.lse = dense(DLATTN_T_F32, p.B, p.H, p.M, 1);
    if (op == DLATTN_OP_BACKWARD) {
        p.dout = p.dq = p.q;
        p.dk = p.dv = p.k;
    }
    return p;
}

static operand one_batch(operand o) {
    o.extent[1] *= o.extent[0];
    o.extent[0] = 1;
    o.stride[0] = 0;
    return o;
}

static void lay_out(problem *p, int32_t layout) {
    const int64_t B = p->B, page = 256, pages = (p->N + page - 1) / page;
    operand *const tensors[] = {&p->q, &p->out, &p->dout, &p->dq, &p->k, &p->v, &p->dk, &p->dv};
    switch (layout) {
    case LENGTHS: p->seqlens_q = p->seqlens_k = dense(DLATTN_T_I32, B, 1, 1, 1); break;
    case PACKED:
        p->cu_seqlens_q = p->cu_seqlens_k = dense(DLATTN_T_I32, B + 1, 1, 1, 1);
        for (size_t n = 0; n < sizeof tensors / sizeof tensors[0]; n++)
            if (tensors[n]->dtype) *tensors[n] = one_batch(*tensors[n]);
        p->lse = dense(DLATTN_T_F32, 1, p->H, B * p->M, 1);
        p->packed_q = p->packed_k = 1;
        p->tokens_k = B * p->N;
        break;
    case PAGED:
        p->page = page;
        p->k = p->v = dense(p->dtype, B * pages, page, p->G, p->D);
        p->block_table = dense(DLATTN_T_I32, B, pages, 1, 1);
        p->seqlens_k = dense(DLATTN_T_I32, B, 1, 1, 1);
        break;
    default: break;
    }
}

static void set_mask(problem *p, int32_t mask) {
    if (mask == CAUSAL) p->flags |= DLATTN_CAUSAL;
    if (mask != WINDOW) return;
    p->flags |= DLATTN_WINDOW;
    p->window_left = p->N / 8;
    p->window_right = 0;
}

static void set_term(problem *p, int32_t term) {
    switch (term) {
    case SOFTCAP: p->softcap = 30; break;
    case ALIBI: p->alibi_slopes = dense(DLATTN_T_F32, 1, p->H, 1, 1); break;
    case BIAS: p->bias = dense(p->dtype, 1, p->H, p->M, p->N); break;
    case SEGMENTS:
        p->q_segments = dense(DLATTN_T_I32, p->B, p->M, 1, 1);
        p->kv_segments = dense(DLATTN_T_I32, p->B, p->N, 1, 1);
        break;
    case DROPOUT: p->dropout_threshold = 26; break;
    default: break;
    }
}

/* Is it a call that people make? Decoding has no gradients and keys in pages are few rows'; terms are for training. */
static bool is_common(int32_t op, int32_t head, const call_size *size, int32_t layout, int32_t mask, int32_t term) {
    const bool decodes = size->M <= 16, trains = size->M >= 1024 && size->M == size->N && (int64_t)size->B * size->M * size->H >= 1 << 18;
    if (decodes && op == DLATTN_OP_BACKWARD) return false;
    if (layout == PAGED && (op == DLATTN_OP_BACKWARD || size->M > 256)) return false;
    return term == NOTHING || (trains && head <= 128 && layout == PADDED && mask != WINDOW);
}

/* ---- their kernels ---------------------------------------------------------------------------------------------------- */

typedef struct request_list {
    kernel_request *out;
    int32_t count, capacity, arch;
} request_list;

static void add(request_list *list, const kernel_request *r) {
    for (int32_t n = 0; n < list->count && n < list->capacity; n++)
        if (memcmp(&list->out[n], r, sizeof *r) == 0) return;
    if (list->count < list->capacity) list->out[list->count] = *r;
    list->count++;
}

static void add_call(request_list *list, const problem *p) {
    for (size_t n = 0; n < sizeof multiprocessors / sizeof multiprocessors[0]; n++) {
        cuda_device device = dlattn__cuda_device_like(list->arch);
        cuda_schedule s;
        char note[256];
        device.multiprocessors = multiprocessors[n];
        if (dlattn__schedule(&s, p, NULL, &device, UINT64_MAX, note, sizeof note) != DLATTN_OK) continue;
        for (int32_t step = 0; step < s.step_count; step++) add(list, &s.steps[step].request);
    }
}

static void add_calls(request_list *list, int32_t op, int32_t type, int32_t head, const call_size *size) {
    for (int32_t layout = 0; layout < LAYOUTS; layout++)
        for (int32_t mask = 0; mask < MASKS; mask++)
            for (int32_t term = 0; term < TERMS; term++) {
                if (!is_common(op, head, size, layout, mask, term)) continue;
                problem p = make_problem(op, type, head, size);
                lay_out(&p, layout);
                set_mask(&p, mask);
                set_term(&p, term);
                add_call(list, &p);
                if (op != DLATTN_OP_BACKWARD || term != NOTHING) continue;
                p.flags |= DLATTN_DETERMINISTIC;
                add_call(list, &p);
            }
}

static void add_sizes(request_list *list, int32_t op, int32_t type, int32_t head) {
    for (size_t b = 0; b < sizeof batches / sizeof batches[0]; b++)
        for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++)
            for (size_t m = 0; m < sizeof queries / sizeof queries[0]; m++)
                for (size_t n = 0; n < sizeof keys / sizeof keys[0]; n++) {
                    const call_size size = {batches[b], groups[g][0], groups[g][1], queries[m], keys[n] ? keys[n] : queries[m]};
                    if (keys[n] && keys[n] <= queries[m]) continue;
                    add_calls(list, op, type, head, &size);
                }
}

int32_t dlattn__common_requests(kernel_request *out, int32_t capacity, int32_t arch) {
    static const struct {
        const char *file, *entry;
    } calls_of_their_own[] = {{"kv_append.cu", "kv_append"}, {"merge.cu", "merge"}, {"rotary.cu", "rotary"}};
    request_list list = {.out = out, .capacity = capacity, .arch = arch};
    for (size_t n = 0; n < sizeof calls_of_their_own / sizeof calls_of_their_own[0]; n++) {
        const kernel_request r = dlattn__plain_request(calls_of_their_own[n].file, calls_of_their_own[n].entry);
        add(&list, &r);
    }
    for (int32_t op = DLATTN_OP_FORWARD; op <= DLATTN_OP_BACKWARD; op++)
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
            for (size_t h = 0; h < sizeof heads / sizeof heads[0]; h++) add_sizes(&list, op, types[t], heads[h]);
    return list.count;
}
