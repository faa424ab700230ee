/* problem_rotation.c: a tensor and the angles of its positions, for dlattn_rotary. */
#include <inttypes.h>
#include <string.h>

#include "cache.h"
#include "error.h"
#include "reading.h"

typedef struct rotation_tensors {
    tensor x, cosines, sines, starts, out;
} rotation_tensors;

static int32_t read_x(rotary_problem *p, rotation_tensors *t, const dlattn_rotation *r) {
    static const int32_t from[2][4] = {{0, 1, 2, 3}, {0, 2, 1, 3}};
    const char *shape = r->layout == DLATTN_BSHD ? "[B,S,H,D]" : "[B,H,S,D]";
    const role x_role = {"x", shape, DLATTN_TYPES_FLOAT, 4, 4, false, true};
    DLATTN_TRY(dlattn__tensor_read(&t->x, &x_role, r->x));
    const role out_role = {"out", shape, 1u << t->x.dtype, 4, 4, true, true};
    DLATTN_TRY(dlattn__tensor_read_beside(&t->out, &out_role, r->out, &t->x));
    DLATTN_TRY(dlattn__tensor_expect(&t->out, t->x.extent, "the shape of x"));
    p->x = dlattn__tensor_operand(&t->x, from[r->layout]);
    p->out = dlattn__tensor_operand(&t->out, from[r->layout]);
    p->device_type = (int32_t)t->x.device.device_type;
    p->device_id = t->x.device.device_id;
    p->B = p->x.extent[0];
    p->S = p->x.extent[1];
    p->H = p->x.extent[2];
    p->D = p->x.extent[3];
    return p->D == 0 ? DLATTN_OK : dlattn__head_size_check("x", "D", p->D);
}

static int32_t read_angles(rotary_problem *p, rotation_tensors *t, const dlattn_rotation *r) {
    static const int32_t from[4] = {0, 1, -1, -1};
    const uint32_t types = 1u << t->x.dtype | 1u << DLATTN_T_F32;
    const role cosines = {"cosines", "[positions,R/2]", types, 2, 2, false, true};
    const role sines = {"sines", "[positions,R/2]", types, 2, 2, false, true};
    DLATTN_TRY(dlattn__tensor_read_beside(&t->cosines, &cosines, r->cosines, &t->x));
    DLATTN_TRY(dlattn__tensor_read_beside(&t->sines, &sines, r->sines, &t->x));
    DLATTN_TRY(dlattn__tensor_expect(&t->sines, t->cosines.extent, "the shape of cosines"));
    p->cosines = dlattn__tensor_operand(&t->cosines, from);
    p->sines = dlattn__tensor_operand(&t->sines, from);
    p->positions = p->cosines.extent[0];
    p->pairs = p->cosines.extent[1];
    if (p->pairs > p->D / 2)
        return dlattn__fail(DLATTN_ERR_SHAPE, "cosines has %" PRId64 " pairs, expected at most %" PRId64
                            ", half of x's head size", p->pairs, p->D / 2);
    if (p->positions == 0 && p->B * p->S * p->H > 0)
        return dlattn__fail(DLATTN_ERR_SHAPE, "cosines has 0 positions, expected one for each token of x");
    return DLATTN_OK;
}

static int32_t read_starts(rotary_problem *p, rotation_tensors *t, const dlattn_rotation *r) {
    static const int32_t from[4] = {0, -1, -1, -1};
    const role role = {"starts", "[B]", DLATTN_TYPES_INT, 1, 1, false, true};
    const int64_t expected[4] = {p->B, -1, -1, -1};
    if (!r->starts) return DLATTN_OK;
    DLATTN_TRY(dlattn__tensor_read_beside(&t->starts, &role, r->starts, &t->x));
    DLATTN_TRY(dlattn__tensor_expect(&t->starts, expected, "x's batch"));
    p->starts = dlattn__tensor_operand(&t->starts, from);
    return DLATTN_OK;
}

/* In place means the very same elements; any other overlap with x is refused. */
static int32_t check_aliasing(const rotary_problem *p, const rotation_tensors *t, const dlattn_rotation *r) {
    const bool in_place = t->out.data == t->x.data && memcmp(p->out.stride, p->x.stride, sizeof p->x.stride) == 0;
    DLATTN_TRY(dlattn__tensor_no_self_overlap(&t->out));
    if (!in_place) DLATTN_TRY(dlattn__tensor_no_alias(&t->out, &t->x));
    DLATTN_TRY(dlattn__tensor_no_alias(&t->out, &t->cosines));
    DLATTN_TRY(dlattn__tensor_no_alias(&t->out, &t->sines));
    return r->starts ? dlattn__tensor_no_alias(&t->out, &t->starts) : DLATTN_OK;
}

int32_t dlattn__problem_rotation(rotary_problem *p, rotary_buffers *x, const dlattn_rotation *rotation) {
    dlattn_rotation r;
    rotation_tensors t;
    memset(p, 0, sizeof *p);
    DLATTN_TRY(dlattn__take_rotation(&r, rotation));
    DLATTN_TRY(read_x(p, &t, &r));
    DLATTN_TRY(read_angles(p, &t, &r));
    DLATTN_TRY(read_starts(p, &t, &r));
    DLATTN_TRY(check_aliasing(p, &t, &r));
    p->interleaved = r.interleaved != 0;
    p->inverse = r.inverse != 0;
    *x = (rotary_buffers){t.x.data, t.cosines.data, t.sines.data, r.starts ? t.starts.data : NULL,
                          (void *)(uintptr_t)t.out.data};
    return DLATTN_OK;
}
