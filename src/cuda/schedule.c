/* schedule.c: what a call launches, in order, and where its workspace lies. */
#include "schedule.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "arguments.h"
#include "error.h"
#include "tiling.h"

enum { MAX_SPLITS = 64 }; /* of the pairs that add to a dbias */
static const int64_t most_blocks = INT32_MAX;

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* A problem on a device, while its schedule is made. */
typedef struct making {
    cuda_schedule *s;
    const problem *p;
    const cuda_device *device;
    uint64_t room;
    char *note;
    int64_t note_bytes;
    specialisation how;
} making;

static void add_step(making *m, kernel_request request, int32_t warps, int64_t blocks, int64_t row_tiles,
                     int64_t key_tiles) {
    cuda_step *step = &m->s->steps[m->s->step_count++];
    step->request = request;
    step->threads = 32 * warps;
    step->blocks = blocks;
    step->row_tiles = (int32_t)row_tiles;
    step->key_tiles = (int32_t)key_tiles;
    step->early = false;
}

static kernel_request request_of(const making *m, const variant *v) {
    return dlattn__variant_request(v, m->p->dtype, m->p->D, m->p->E, &m->how);
}

static uint64_t reserve(cuda_workspace *w, int64_t floats) {
    const uint64_t at = w->total;
    w->total += (uint64_t)round_up(floats * 4, 256);
    return at;
}

/* row_of in kernels/sequence.cuh numbers the rows so. */
static void count_rows(cuda_schedule *s, const problem *p) {
    s->head_rows = round_up(p->packed_q ? p->q.extent[1] : p->M, DLATTN_ROW_ALIGNMENT);
    if (p->packed_q) s->head_rows += p->B * DLATTN_ROW_ALIGNMENT;
    s->row_count = s->head_rows * p->H * (p->packed_q ? 1 : p->B);
}

/* Rows that begin at multiples of 16 bytes, which cp.async can copy. */
static bool rows_are_aligned(const operand *o, const void *data) {
    const int64_t part = o->dtype == DLATTN_T_F32 ? 4 - 1 : 8 - 1; /* of 16 bytes; as a mask, since a division takes long */
    if (!o->dtype) return true;
    return (o->stride[3] == 1 || o->extent[3] == 1) && ((o->stride[0] | o->stride[1] | o->stride[2]) & part) == 0 &&
           (uintptr_t)data % 16 == 0;
}

static int32_t choose_bias(const problem *p, const void *data) {
    if (!p->bias.dtype || p->bias.extent[3] == 1 || !rows_are_aligned(&p->bias, data)) return DLATTN_BIAS_BY_ELEMENTS;
    return p->bias.dtype == p->dtype      ? DLATTN_BIAS_BY_TILES
           : p->bias.dtype == DLATTN_T_F32 ? DLATTN_BIAS_BY_FLOAT_TILES
                                           : DLATTN_BIAS_BY_ELEMENTS;
}

static bool mask_is_in_pieces(const operand *o, const void *data) {
    const bool aligned = ((o->stride[0] | o->stride[1] | o->stride[2]) & 15) == 0 && (uintptr_t)data % 16 == 0;
    return o->dtype && o->extent[3] > 1 && o->stride[3] == 1 && aligned;
}

/* Can a row outside every sequence exist on this side? */
static bool has_rows_outside(const problem *p, bool query) {
    return query ? p->packed_q || p->seqlens_q.dtype || p->M < p->q.extent[1]
                 : p->packed_k || p->seqlens_k.dtype || p->N < p->k.extent[1];
}

enum { PLAIN_WARPS = 8 };

/* 64 tokens a block, those of q first. */
static void add_blank(making *m) {
    const problem *p = m->p;
    const bool forward = p->op == DLATTN_OP_FORWARD;
    const bool query = has_rows_outside(p, true) && (forward || p->dq.dtype);
    const bool key = !forward && has_rows_outside(p, false) && (p->dk.dtype || p->dv.dtype);
    const int64_t blocks = divide_up(p->q.extent[1], 64) * p->q.extent[0] + divide_up(p->k.extent[1], 64) * p->k.extent[0];
    if (query || key) add_step(m, dlattn__plain_request("blank.cu", "blank"), PLAIN_WARPS, blocks, 0, 0);
}

/* The pieces of keys that are worth it, or as many as the workspace has room for. */
static int64_t limit_splits(const making *m, int64_t splits) {
    const uint64_t each = (uint64_t)m->s->row_count * (uint64_t)(m->p->E + 1) * 4 + 512, most = m->room / each;
    if (most < (uint64_t)splits) splits = (int64_t)most;
    return splits < 2 ? 1 : splits;
}

/* A block for each multiprocessor, which fetches its next tile of rows while the last one is stored. Where tiles take equally
 * long, the blocks have them in turns; else whoever is done takes the next one, by a counter. Without room for that the device
 * hands out a block for each tile. */
static int64_t persistent_blocks(making *m, const variant *v, int64_t tiles) {
    if (!v->tensor_maps || tiles <= m->device->multiprocessors) return tiles;
    const bool unequal = (m->how.features & (DLATTN_FEATURE_INTERVAL | DLATTN_FEATURE_SEGMENTS)) != 0;
    if (unequal || has_rows_outside(m->p, true) || has_rows_outside(m->p, false)) {
        if (m->s->workspace.total + 256 > m->room) return tiles;
        m->s->workspace.next_tile = reserve(&m->s->workspace, 1);
        m->s->counts = true;
    }
    return m->device->multiprocessors;
}

/* May the newest step begin before the one in front of it has ended? Both kernels know how. */
static bool follows_closely(const making *m) {
    return m->device->arch >= 90 && m->s->step_count > 1 && m->s->steps[m->s->step_count - 2].blocks > 0;
}

/* A forward with tensor maps is told which tiles of keys its rows may see by segments: 16 bytes for 64 rows or a tile of keys.
 * False: there is no room for that. */
static bool add_segments(making *m, const variant *v) {
    const int64_t rows = divide_up(m->p->M, v->rows) * (v->rows / 64), keys = divide_up(m->p->N, v->keys), count = m->p->B * (rows + keys);
    cuda_workspace after = m->s->workspace;
    if (!v->tensor_maps || !(m->how.features & DLATTN_FEATURE_SEGMENTS) || count == 0) return true;
    after.row_segments = reserve(&after, m->p->B * rows * 4);
    after.key_segments = reserve(&after, m->p->B * keys * 4);
    if (after.total > m->room) return false;
    m->s->workspace = after;
    m->s->spans = true;
    add_step(m, dlattn__segments_request(v), PLAIN_WARPS, divide_up(count, PLAIN_WARPS), rows, keys);
    return true;
}

static int32_t schedule_forward(making *m) {
    const problem *p = m->p;
    cuda_schedule *s = m->s;
    const variant *v = s->main = dlattn__variant_for(DLATTN_KERNEL_FORWARD, p, &m->how, m->device, m->note, m->note_bytes);
    if (!v) return DLATTN_ERR_UNSUPPORTED;
    add_blank(m);
    if (!add_segments(m, v)) { /* without, it would look at all keys */
        m->how.cramped = true;
        v = s->main = dlattn__variant_for(DLATTN_KERNEL_FORWARD, p, &m->how, m->device, m->note, m->note_bytes);
        if (!v) return DLATTN_ERR_UNSUPPORTED;
    }
    const tiling cut = dlattn__tile(v, p, &m->how, m->device);
    m->how.packed = cut.packed;
    s->splits = (int32_t)limit_splits(m, cut.splits);
    m->how.split = s->splits > 1;
    if (m->how.split) {
        s->workspace.partial_out = reserve(&s->workspace, s->splits * s->row_count * p->E);
        s->workspace.partial_lse = reserve(&s->workspace, s->splits * s->row_count);
    }
    const int64_t blocks = persistent_blocks(m, v, cut.tiles * s->splits * cut.heads * p->B);
    add_step(m, request_of(m, v), v->warps, blocks, cut.tiles, divide_up(p->N, v->keys));
    s->steps[s->step_count - 1].early = s->spans && follows_closely(m);
    if (m->how.split)
        add_step(m, dlattn__plain_request("combine.cu", "combine"), PLAIN_WARPS,
                 divide_up(p->M, PLAIN_WARPS) * p->H * p->B, cut.tiles, 0);
    return DLATTN_OK;
}

/* dq is summed by reductions, unless that must not be or the workspace has no room for the sums. */
static bool should_reduce_dq(const making *m, const variant *v) {
    const problem *p = m->p;
    const uint64_t bytes = (uint64_t)round_up(m->s->row_count * dlattn__padded_head(v, p->D) * 4, 256) +
                           (uint64_t)round_up(p->B * p->G * 4, 256);
    return v->tuned && p->dq.dtype && !(p->flags & DLATTN_DETERMINISTIC) && m->s->workspace.total + bytes <= m->room;
}

/* Can the main pass write dbias? It has ds of every score once, in q's type. */
static bool should_write_dbias(const making *m, const variant *v, const buffers *x) {
    const problem *p = m->p;
    const operand *o = &p->dbias;
    return v->tuned && o->dtype == p->dtype && o->extent[0] == p->B && o->extent[1] == p->H && o->extent[2] == p->M &&
           o->extent[3] == p->N && !(m->how.features & (DLATTN_FEATURE_SOFTCAP | DLATTN_FEATURE_SEGMENTS)) &&
           rows_are_aligned(o, x ? x->dbias : NULL);
}

/* Where all blocks of the main pass fit on the device at once, there is no last wave to share, and early launches only cost
 * time: on an H100 a backward of 512 tokens, replayed from a graph, took 25 us with them and 21 without. */
static bool begins_early(const making *m, int64_t main_blocks) {
    return follows_closely(m) && main_blocks > 2 * m->device->multiprocessors;
}

static int32_t add_main(making *m, const buffers *x) {
    const problem *p = m->p;
    cuda_schedule *s = m->s;
    const variant *v = s->main = dlattn__variant_for(DLATTN_KERNEL_BACKWARD, p, &m->how, m->device, m->note, m->note_bytes);
    if (!v) return DLATTN_ERR_UNSUPPORTED;
    m->how.reduce_dq = should_reduce_dq(m, v);
    if (m->how.reduce_dq) {
        s->dq_columns = (int32_t)dlattn__padded_head(v, p->D);
        s->workspace.dq_sum = reserve(&s->workspace, s->row_count * s->dq_columns);
        s->workspace.finished = reserve(&s->workspace, p->B * p->G);
    }
    const int64_t key_tiles = round_up(divide_up(p->N, v->keys), dlattn__variant_cluster(v)), blocks = key_tiles * p->G * p->B;
    if (p->dk.dtype || p->dv.dtype || m->how.reduce_dq) {
        m->how.dbias = should_write_dbias(m, v, x);
        add_step(m, request_of(m, v), v->warps, blocks, divide_up(p->M, v->rows), key_tiles);
        s->steps[s->step_count - 1].early = v->tuned && begins_early(m, blocks);
    }
    if (m->how.reduce_dq) {
        const int64_t row_tiles = divide_up(p->M, 64);
        add_step(m, dlattn__convert_request(s->dq_columns), PLAIN_WARPS, row_tiles * p->H * p->B, row_tiles, key_tiles);
        s->steps[s->step_count - 1].early = begins_early(m, blocks);
    } else if (p->dq.dtype) {
        v = s->dq = dlattn__variant_for(DLATTN_KERNEL_DQ, p, &m->how, m->device, m->note, m->note_bytes);
        if (!v) return DLATTN_ERR_UNSUPPORTED;
        const int64_t row_tiles = divide_up(p->M, v->rows);
        add_step(m, request_of(m, v), v->warps, row_tiles * p->H * p->B, row_tiles, divide_up(p->N, v->keys));
    }
    return DLATTN_OK;
}

/* Few tiles that many pairs of (sequence, head) or rows add to, as of a key padding bias: the pairs are cut. */
static int64_t choose_dbias_splits(const making *m, const variant *v, int64_t blocks) {
    const problem *p = m->p;
    const operand *o = &p->dbias;
    const int64_t elements = o->extent[0] * o->extent[1] * o->extent[2] * o->extent[3];
    if (v->tuned || blocks == 0 || (o->extent[2] > 1 && o->extent[3] > 1)) return 1;
    int64_t sharing = (o->extent[0] == 1 ? p->B : 1) * (o->extent[1] == 1 ? p->H : 1);
    if (o->extent[2] == 1) sharing *= divide_up(p->M, v->rows);
    const int64_t splits = smaller(smaller(2 * m->device->multiprocessors / blocks, MAX_SPLITS), sharing);
    const uint64_t bytes = (uint64_t)round_up(splits * elements * 4, 256);
    return splits < 2 || m->s->workspace.total + bytes > m->room ? 1 : splits;
}

static int32_t add_dbias(making *m) {
    const operand *o = &m->p->dbias;
    cuda_schedule *s = m->s;
    const variant *v = dlattn__variant_for(DLATTN_KERNEL_DBIAS, m->p, &m->how, m->device, m->note,
                                           m->note_bytes);
    if (!v) return DLATTN_ERR_UNSUPPORTED;
    if (m->device->arch >= 80 && m->p->dtype != DLATTN_T_F32)
        m->how.tf32 = true; /* products of 16-bit elements are exact; p and ds, which are not, enter no product here */
    const int64_t row_tiles = divide_up(o->extent[2], v->rows), key_tiles = divide_up(o->extent[3], v->keys);
    const int64_t blocks = o->extent[0] * o->extent[1] * row_tiles * key_tiles;
    s->splits = (int32_t)choose_dbias_splits(m, v, blocks);
    add_step(m, request_of(m, v), v->warps, blocks * s->splits, row_tiles, key_tiles);
    if (s->splits == 1) return DLATTN_OK;
    const int64_t elements = o->extent[0] * o->extent[1] * o->extent[2] * o->extent[3];
    s->workspace.partial_out = reserve(&s->workspace, s->splits * elements);
    kernel_request sum = request_of(m, v);
    sum.entry = "dbias_sum";
    add_step(m, sum, PLAIN_WARPS, divide_up(elements, 32 * PLAIN_WARPS), 0, 0);
    return DLATTN_OK;
}

static int32_t schedule_backward(making *m, const buffers *x) {
    const problem *p = m->p;
    cuda_workspace *w = &m->s->workspace;
    w->delta = reserve(w, m->s->row_count);
    w->lse2 = reserve(w, m->s->row_count);
    if (p->q_segments.dtype) { /* two int64 for 32 rows */
        w->row_segments = reserve(w, p->B * m->s->head_rows / 8);
        w->key_segments = reserve(w, p->B * round_up(p->N, DLATTN_ROW_ALIGNMENT) / 8);
        m->s->spans = true;
    }
    w->least = w->total;
    add_blank(m);
    const int64_t row_tiles = divide_up(p->M, DLATTN_ROW_ALIGNMENT);
    add_step(m, dlattn__plain_request("backward_prepare.cu", "backward_prepare"), PLAIN_WARPS,
             2 * row_tiles * p->H * p->B, row_tiles, 0); /* 64 rows a block */
    if (p->dq.dtype || p->dk.dtype || p->dv.dtype) {
        int32_t status = add_main(m, x);
        if (status != DLATTN_OK) return status;
    }
    if (p->dbias.dtype && !m->how.dbias) {
        int32_t status = add_dbias(m);
        if (status != DLATTN_OK) return status;
    }
    if (p->dsinks.dtype)
        add_step(m, dlattn__plain_request("backward_prepare.cu", "dsinks"), 16, p->H, 0, 0);
    return DLATTN_OK;
}

static int32_t check_grids(const making *m) {
    for (int32_t n = 0; n < m->s->step_count; n++) {
        if (m->s->steps[n].blocks <= most_blocks) continue;
        snprintf(m->note, (size_t)m->note_bytes, "%s needs %" PRId64 " blocks, expected at most %" PRId64,
                 m->s->steps[n].request.entry, m->s->steps[n].blocks, most_blocks);
        return DLATTN_ERR_UNSUPPORTED;
    }
    return DLATTN_OK;
}

static specialisation read_problem(const problem *p, const buffers *x, const cuda_device *device) {
    specialisation how = {.features = dlattn__features(p), .paged = p->page > 0, .bias = choose_bias(p, x ? x->bias : NULL)};
    how.aligned = p->D % 8 == 0 && p->E % 8 == 0 && rows_are_aligned(&p->q, x ? x->q : NULL) &&
                  rows_are_aligned(&p->k, x ? x->k : NULL) && rows_are_aligned(&p->v, x ? x->v : NULL) &&
                  rows_are_aligned(&p->dout, x ? x->dout : NULL);
    how.mask_pieces = mask_is_in_pieces(&p->mask, x ? x->mask : NULL);
    how.tf32 = device->arch >= 80 && p->dtype == DLATTN_T_F32 && p->flags & DLATTN_ALLOW_TF32;
    return how;
}

int32_t dlattn__schedule(cuda_schedule *out, const problem *p, const buffers *x, const cuda_device *device, uint64_t room,
                         char *note, int64_t note_bytes) {
    making m = {.s = out, .p = p, .device = device, .room = room, .note = note, .note_bytes = note_bytes};
    memset(out, 0, offsetof(cuda_schedule, steps)); /* steps are written whole */
    out->splits = 1;
    count_rows(out, p);
    m.how = read_problem(p, x, device);
    int32_t status = p->op == DLATTN_OP_BACKWARD ? schedule_backward(&m, x) : schedule_forward(&m);
    return status == DLATTN_OK ? check_grids(&m) : status;
}

int32_t dlattn__schedule_bound(cuda_workspace *out, const problem *p, int32_t arch, char *note, int64_t note_bytes) {
    const cuda_device device = dlattn__cuda_device_like(arch);
    cuda_schedule s;
    DLATTN_TRY(dlattn__schedule(&s, p, NULL, &device, UINT64_MAX, note, note_bytes));
    *out = s.workspace;
    if (p->op == DLATTN_OP_BACKWARD) return DLATTN_OK;
    const specialisation how = read_problem(p, NULL, &device);
    const int64_t splits = dlattn__variants_most_splits(p, &how, &device);
    cuda_workspace w = {.total = 0};
    reserve(&w, 1); /* the counter of tiles */
    if (splits > 1) {
        reserve(&w, splits * s.row_count * p->E);
        reserve(&w, splits * s.row_count);
    }
    if (p->q_segments.dtype) { /* as add_segments, by the fewest keys that a tile has */
        reserve(&w, p->B * (divide_up(p->M, 64) + 2) * 4); /* tiles of 192 rows round up */
        reserve(&w, p->B * divide_up(p->N, 64) * 4);
    }
    if (w.total > out->total) out->total = w.total;
    return DLATTN_OK;
}
