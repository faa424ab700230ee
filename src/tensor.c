/* tensor.c: one DLTensor, checked by itself and turned into an operand. */
#include "tensor.h"

#include <inttypes.h>
#include <stdio.h>

#include "error.h"

static const struct {
    uint8_t code, bits;
    int32_t dtype;
    const char *name;
} types[] = {
    {kDLFloat, 16, DLATTN_T_F16, "float16"}, {kDLBfloat, 16, DLATTN_T_BF16, "bfloat16"},
    {kDLFloat, 32, DLATTN_T_F32, "float32"}, {kDLFloat, 64, DLATTN_T_F64, "float64"},
    {kDLInt, 32, DLATTN_T_I32, "int32"},     {kDLInt, 64, DLATTN_T_I64, "int64"},
    {kDLBool, 8, DLATTN_T_U8, "bool"},       {kDLUInt, 8, DLATTN_T_U8, "uint8"},
    {kDLUInt, 32, DLATTN_T_U32, "uint32"},   {kDLUInt, 64, DLATTN_T_U64, "uint64"},
};
enum { NUM_TYPES = (int)(sizeof types / sizeof types[0]) };

/* Far above any memory, and far enough below INT64_MAX that sums of two spans cannot overflow. */
static const int64_t max_span_bytes = INT64_C(1) << 61;

static int64_t size_of(int32_t dtype) {
    static const uint8_t bytes[] = {[DLATTN_T_F16] = 2, [DLATTN_T_BF16] = 2, [DLATTN_T_F32] = 4, [DLATTN_T_F64] = 8,
                                    [DLATTN_T_I32] = 4, [DLATTN_T_I64] = 8, [DLATTN_T_U8] = 1, [DLATTN_T_U32] = 4,
                                    [DLATTN_T_U64] = 8};
    return bytes[dtype];
}

const char *dlattn__dtype_name(int32_t dtype) {
    for (int i = 0; i < NUM_TYPES; i++)
        if (types[i].dtype == dtype) return types[i].name;
    return "none";
}

const char *dlattn__shape_text(char text[DLATTN_SHAPE_TEXT], const int64_t *extent, int32_t rank) {
    int at = snprintf(text, DLATTN_SHAPE_TEXT, "[");
    for (int32_t d = 0; d < rank; d++) {
        const char *comma = d ? "," : "";
        int left = DLATTN_SHAPE_TEXT - at;
        at += extent[d] == -1 ? snprintf(text + at, (size_t)left, "%s*", comma)
                              : snprintf(text + at, (size_t)left, "%s%" PRId64, comma, extent[d]);
    }
    snprintf(text + at, (size_t)(DLATTN_SHAPE_TEXT - at), "]");
    return text;
}

bool dlattn__device_is_host(int32_t device_type) { return device_type == kDLCPU || device_type == kDLCUDAHost; }

bool dlattn__device_is_cuda(int32_t device_type) {
    return device_type == kDLCUDA || device_type == kDLCUDAManaged;
}

/* "float16, bfloat16 or float32" */
static void types_text(char *text, size_t bytes, uint32_t set) {
    const char *names[NUM_TYPES];
    int count = 0;
    for (int i = 0; i < NUM_TYPES; i++)
        if (set & 1u << types[i].dtype) names[count++] = types[i].name;
    size_t at = 0;
    for (int i = 0; i < count && at < bytes; i++) {
        const char *joint = i == 0 ? "" : i == count - 1 ? " or " : ", ";
        at += (size_t)snprintf(text + at, bytes - at, "%s%s", joint, names[i]);
    }
}

/* The sentence of a dtype that the role may not have. Away from the path of every call. */
static __attribute__((noinline, cold)) int32_t fail_dtype(const tensor *t, const role *role, DLDataType type,
                                                          const char *found) {
    char expected[128] = "", code[48];
    types_text(expected, sizeof expected, role->types);
    if (!found) {
        snprintf(code, sizeof code, "code %d with %d bits", (int)type.code, (int)type.bits);
        found = code;
    }
    return dlattn__fail(DLATTN_ERR_DTYPE, "%s has dtype %s, expected %s", t->name, found, expected);
}

static int32_t read_dtype(tensor *t, const role *role, DLDataType type) {
    if (type.lanes != 1)
        return dlattn__fail(DLATTN_ERR_DTYPE, "%s has %d lanes, expected 1", t->name, (int)type.lanes);
    t->dtype = DLATTN_T_NONE;
    for (int i = 0; i < NUM_TYPES; i++) {
        if (types[i].code != type.code || types[i].bits != type.bits) continue;
        t->dtype = types[i].dtype;
        return role->types & 1u << t->dtype ? DLATTN_OK : fail_dtype(t, role, type, types[i].name);
    }
    return fail_dtype(t, role, type, NULL);
}

static int32_t read_rank(tensor *t, const role *role, const DLTensor *dl) {
    t->rank = dl->ndim;
    if (t->rank < role->min_rank || t->rank > role->max_rank) {
        if (role->min_rank == role->max_rank)
            return dlattn__fail(DLATTN_ERR_SHAPE, "%s has rank %d, expected %d: %s", t->name, (int)t->rank,
                                (int)role->min_rank, role->shape);
        return dlattn__fail(DLATTN_ERR_SHAPE, "%s has rank %d, expected %d to %d: %s", t->name, (int)t->rank,
                            (int)role->min_rank, (int)role->max_rank, role->shape);
    }
    if (!dl->shape && t->rank > 0)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s has shape NULL, expected %d extents", t->name, (int)t->rank);
    return DLATTN_OK;
}

static __attribute__((noinline, cold)) int32_t fail_extent(const tensor *t, const DLTensor *dl, int32_t d) {
    char shape[DLATTN_SHAPE_TEXT];
    if (dl->shape[d] < 0)
        return dlattn__fail(DLATTN_ERR_SHAPE, "%s has extent %" PRId64 " in dimension %d, expected 0 or more", t->name,
                            dl->shape[d], (int)d);
    return dlattn__fail(DLATTN_ERR_SHAPE, "%s has shape %s, expected one whose size in bytes fits 61 bits", t->name,
                        dlattn__shape_text(shape, dl->shape, t->rank));
}

/* Extents and strides. The product of the extents (0 counted as 1, so that no later product can overflow either) must
 * fit, in bytes. Most tensors are compact in the order of their dimensions: then what they cover is known, too. */
static int32_t read_extents(tensor *t, const DLTensor *dl, bool *compact) {
    int64_t bytes = size_of(t->dtype), count = 1;
    bool in_order = true, empty = false;
    for (int32_t d = t->rank - 1; d >= 0; d--) {
        const int64_t extent = t->extent[d] = dl->shape[d], step = t->stride[d] = dl->strides ? dl->strides[d] : count;
        in_order = in_order && (step == count || extent == 1);
        empty = empty || extent == 0;
        if (extent < 0 || __builtin_mul_overflow(bytes, extent ? extent : 1, &bytes) || bytes > max_span_bytes)
            return fail_extent(t, dl, d);
        count *= extent ? extent : 1;
    }
    t->low = t->high = 0;
    t->empty = empty;
    t->overlaps_itself = false;
    t->dense = *compact = in_order && !empty;
    if (*compact) t->high = bytes;
    return DLATTN_OK;
}

/* The bytes it covers, from its strides. */
static int32_t read_span(tensor *t) {
    char strides[DLATTN_SHAPE_TEXT];
    int64_t low = 0, high = 0, size = size_of(t->dtype);
    for (int32_t d = 0; d < t->rank; d++) {
        int64_t reach = 0;
        bool overflow = __builtin_mul_overflow(t->extent[d] - 1, t->extent[d] > 1 ? t->stride[d] : 0, &reach) ||
                        __builtin_mul_overflow(reach, size, &reach) || reach > max_span_bytes ||
                        reach < -max_span_bytes;
        if (!overflow) *(reach < 0 ? &low : &high) += reach;
        if (overflow || low < -max_span_bytes || high > max_span_bytes)
            return dlattn__fail(DLATTN_ERR_SHAPE, "%s has strides %s, expected a reach in bytes that fits 61 bits",
                                t->name, dlattn__shape_text(strides, t->stride, t->rank));
    }
    t->low = low;
    t->high = high + size;
    return DLATTN_OK;
}

typedef struct axis {
    int64_t extent, step; /* step: |stride| */
} axis;

/* The dimensions above extent 1, by rising step. */
static int32_t sorted_axes(const tensor *t, axis axes[4]) {
    int32_t count = 0;
    for (int32_t d = 0; d < t->rank; d++) {
        if (t->extent[d] <= 1) continue;
        axis a = {t->extent[d], t->stride[d] < 0 ? -t->stride[d] : t->stride[d]};
        int32_t at = count++;
        for (; at > 0 && axes[at - 1].step > a.step; at--) axes[at] = axes[at - 1];
        axes[at] = a;
    }
    return count;
}

static int64_t greatest_common_divisor(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Do two of its elements share an address? An outer axis whose step passes the reach of all inner ones cannot make
 * them. Exact for what no more than two axes are left of; three axes that interleave are taken to overlap. */
static bool overlaps_itself(const axis axes[4], int32_t count) {
    if (count > 0 && axes[0].step == 0) return true;
    while (count > 0) {
        int64_t reach = 0;
        for (int32_t d = 0; d < count - 1; d++) reach += axes[d].step * (axes[d].extent - 1);
        if (axes[count - 1].step <= reach) break;
        count--;
    }
    if (count == 2) {
        int64_t g = greatest_common_divisor(axes[0].step, axes[1].step);
        return axes[1].step / g < axes[0].extent && axes[0].step / g < axes[1].extent;
    }
    return count > 2;
}

static bool is_dense(const axis axes[4], int32_t count) {
    int64_t step = 1;
    for (int32_t d = 0; d < count; d++) {
        if (axes[d].step != step) return false;
        step *= axes[d].extent;
    }
    return true;
}

static void read_overlap(tensor *t) {
    axis axes[4];
    int32_t count = sorted_axes(t, axes);
    t->dense = is_dense(axes, count);
    t->overlaps_itself = t->output && overlaps_itself(axes, count);
}

static int32_t read_data(tensor *t, const role *role, const DLTensor *dl) {
    t->data = NULL;
    if (!dl->data) {
        if (role->needs_data && !t->empty)
            return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s has data NULL, expected an address (no extent is 0)", t->name);
        return DLATTN_OK;
    }
    uintptr_t start = (uintptr_t)dl->data, first = start + (uintptr_t)dl->byte_offset;
    bool wraps = first < start || dl->byte_offset > UINTPTR_MAX;
    wraps = wraps || first < (uintptr_t)-t->low || first > UINTPTR_MAX - (uintptr_t)t->high;
    if (role->needs_data && !t->empty) {
        if (wraps)
            return dlattn__fail(DLATTN_ERR_ARGUMENT,
                                "%s has byte_offset %" PRIu64 " and strides that leave the address space, expected "
                                "elements inside it", t->name, dl->byte_offset);
        if (first & (uintptr_t)(size_of(t->dtype) - 1))
            return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s starts at an address that is no multiple of %d, the size of "
                                "its dtype %s", t->name, (int)size_of(t->dtype), dlattn__dtype_name(t->dtype));
    }
    t->data = (const unsigned char *)first;
    return DLATTN_OK;
}

static int32_t read_device(tensor *t, const DLTensor *dl) {
    int32_t type = (int32_t)dl->device.device_type;
    t->device = dl->device;
    if (dlattn__device_is_host(type) || dlattn__device_is_cuda(type)) return DLATTN_OK;
    return dlattn__fail(DLATTN_ERR_DEVICE,
                        "%s is on a device of type %d, expected kDLCPU (1), kDLCUDAHost (3), kDLCUDA (2) or "
                        "kDLCUDAManaged (13)", t->name, (int)type);
}

int32_t dlattn__tensor_read(tensor *t, const role *role, const DLTensor *dl) {
    if (!dl) return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s is NULL, expected a tensor %s", role->name, role->shape);
    bool compact = false;
    t->name = role->name;
    t->output = role->output;
    DLATTN_TRY(read_device(t, dl));
    DLATTN_TRY(read_dtype(t, role, dl->dtype));
    DLATTN_TRY(read_rank(t, role, dl));
    DLATTN_TRY(read_extents(t, dl, &compact));
    if (!compact && !t->empty) {
        DLATTN_TRY(read_span(t));
        read_overlap(t);
    }
    return read_data(t, role, dl);
}

static const char *device_name(int32_t type) {
    return type == kDLCPU        ? "kDLCPU"
           : type == kDLCUDAHost ? "kDLCUDAHost"
           : type == kDLCUDA     ? "kDLCUDA"
                                 : "kDLCUDAManaged";
}

int32_t dlattn__tensor_same_device(const tensor *t, const tensor *first) {
    int32_t type = (int32_t)t->device.device_type, expected = (int32_t)first->device.device_type;
    bool host = dlattn__device_is_host(type);
    if (host == dlattn__device_is_host(expected) && (host || t->device.device_id == first->device.device_id))
        return DLATTN_OK;
    return dlattn__fail(DLATTN_ERR_DEVICE, "%s is on %s:%d, expected %s's device %s:%d", t->name, device_name(type),
                        (int)t->device.device_id, first->name, device_name(expected), (int)first->device.device_id);
}

int32_t dlattn__tensor_read_beside(tensor *t, const role *role, const DLTensor *dl, const tensor *first) {
    DLATTN_TRY(dlattn__tensor_read(t, role, dl));
    return dlattn__tensor_same_device(t, first);
}

int32_t dlattn__head_size_check(const char *name, const char *letter, int64_t size) {
    enum { LARGEST = 256 };
    if (size >= 1 && size <= LARGEST) return DLATTN_OK;
    return dlattn__fail(size < 1 ? DLATTN_ERR_SHAPE : DLATTN_ERR_UNSUPPORTED,
                        "%s has head size %s = %" PRId64 ", expected 1 to %d", name, letter, size, LARGEST);
}

int32_t dlattn__tensor_expect(const tensor *t, const int64_t expected[4], const char *reason) {
    char found[DLATTN_SHAPE_TEXT], wanted[DLATTN_SHAPE_TEXT];
    for (int32_t d = 0; d < t->rank; d++)
        if (expected[d] != -1 && expected[d] != t->extent[d])
            return dlattn__fail(DLATTN_ERR_SHAPE, "%s has shape %s, expected %s (%s)", t->name,
                                dlattn__shape_text(found, t->extent, t->rank),
                                dlattn__shape_text(wanted, expected, t->rank), reason);
    return DLATTN_OK;
}

int32_t dlattn__tensor_no_self_overlap(const tensor *output) {
    char strides[DLATTN_SHAPE_TEXT], shape[DLATTN_SHAPE_TEXT];
    if (!output->overlaps_itself) return DLATTN_OK;
    return dlattn__fail(DLATTN_ERR_SHAPE,
                        "%s has strides %s for shape %s, expected an output that does not overlap itself", output->name,
                        dlattn__shape_text(strides, output->stride, output->rank),
                        dlattn__shape_text(shape, output->extent, output->rank));
}

int32_t dlattn__tensor_no_alias(const tensor *output, const tensor *other) {
    if (output->empty || other->empty || !output->data || !other->data) return DLATTN_OK;
    if (output->data == other->data)
        return dlattn__fail(DLATTN_ERR_SHAPE, "%s starts at the address of %s, expected memory of its own",
                            output->name, other->name);
    if (output->dense && other->dense) {
        uintptr_t a = (uintptr_t)output->data, b = (uintptr_t)other->data;
        if (a + (uintptr_t)output->low < b + (uintptr_t)other->high &&
            b + (uintptr_t)other->low < a + (uintptr_t)output->high)
            return dlattn__fail(DLATTN_ERR_SHAPE, "%s overlaps %s, expected memory of its own", output->name,
                                other->name);
    }
    return DLATTN_OK;
}
