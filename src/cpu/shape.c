/* shape.c: how a problem is cut into work items. Depends on the problem and the kernels' constants alone, so that results
 * do not depend on the number of threads. */
#include "cpu.h"
#include "dbias.h"

static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t at_least(int64_t a, int64_t low) { return a > low ? a : low; }
static int64_t at_most(int64_t a, int64_t high) { return a < high ? a : high; }

/* Enough items for a machine of some sixteen cores, as long as a piece stays worth its overhead: in the forward a second
 * accumulator, in the backward a copy of dQ for every query head, which is what the workspace consists of. */
enum {
    ITEMS_WANTED = 16,
    DECODE_ITEMS_WANTED = 64,
    FORWARD_PIECE_KEYS = 1024, /* the shortest piece */
    BACKWARD_PIECE_KEYS = 1024,
    DECODE_PIECE_KEYS = 256,
    ITEMS_OF_A_SEQUENCE = 8, /* so few at a time still pay: a pass of its own for dbias costs two thirds of the main one */
};

static void cut_keys(cpu_shape *s, int64_t N, int64_t items, int64_t wanted, int64_t shortest, int64_t grid) {
    int64_t pieces = at_least(at_most(divide_up(wanted, at_least(items, 1)), N / shortest), 1);
    s->piece_keys = at_least(divide_up(divide_up(N, pieces), grid) * grid, grid);
    s->pieces = at_least(divide_up(N, s->piece_keys), 1);
}

cpu_shape dlattn__cpu_shape(const problem *p, const cpu_kernels *k, bool decode) {
    cpu_shape s = {0};
    const int64_t groups = p->B * p->G;
    s.decode = decode;
    s.group_rows = p->G > 0 ? p->M * (p->H / p->G) : 0;
    s.row_blocks = divide_up(s.group_rows, k->item_rows(p));
    if (p->op == DLATTN_OP_BACKWARD) {
        cut_keys(&s, p->N, groups, ITEMS_WANTED, BACKWARD_PIECE_KEYS, k->tile_keys);
        s.by_sequence = dlattn__dbias_over_sequences(p) && p->G * s.pieces >= ITEMS_OF_A_SEQUENCE;
    } else if (decode) cut_keys(&s, p->N, groups, DECODE_ITEMS_WANTED, DECODE_PIECE_KEYS, k->tile_keys);
    else cut_keys(&s, p->N, groups * s.row_blocks, ITEMS_WANTED, FORWARD_PIECE_KEYS, k->tile_keys);
    return s;
}
