/* problem_struct.c: the growth rules: a caller's struct of any version becomes a zeroed local of this version. */
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "error.h"
#include "reading.h"

/* The sizes of the first release: what the smallest caller may hand over. They never change again. */
enum {
    ATTENTION_SIZE_1_0 = 256,
    OUTPUTS_SIZE_1_0 = 24,
    GRADIENTS_SIZE_1_0 = 80,
    EXEC_SIZE_1_0 = 56,
    PARTS_SIZE_1_0 = 40,
    CACHE_SIZE_1_0 = 72,
    ROTATION_SIZE_1_0 = 64
};

/* A struct_size above this is an uninitialised field, and reading so far could fault. */
enum { MAX_STRUCT_SIZE = 65536 };

/* One struct ends where its last field does and holds nothing but its fields: no implicit padding. */
#define LAST(type, field, bytes, sum)                                                            \
    _Static_assert(sizeof(void *) != 8 || sizeof(type) == (bytes), #type " changed its size");   \
    _Static_assert(offsetof(type, field) + sizeof(((type *)0)->field) == sizeof(type), #type " ends in padding"); \
    _Static_assert((sum) == sizeof(type), #type " has implicit padding")

enum { P = sizeof(void *) };
LAST(dlattn_attention, layout, ATTENTION_SIZE_1_0, 8 + 17 * P + 2 * 8 + 6 * 8 + 3 * 8 + 2 * 8 + 4 + 4);
LAST(dlattn_outputs, lse, OUTPUTS_SIZE_1_0, 8 + 2 * P);
LAST(dlattn_gradients, dsinks, GRADIENTS_SIZE_1_0, 8 + 9 * P);
LAST(dlattn_exec, reserved0, EXEC_SIZE_1_0, 8 + 2 * P + 8 + P + 8 + 4 + 4);
LAST(dlattn_parts, reserved0, PARTS_SIZE_1_0, 8 + 2 * P + 8 + 4 + 4);
LAST(dlattn_cache, reserved0, CACHE_SIZE_1_0, 8 + 7 * P + 4 + 4);
LAST(dlattn_rotation, reserved0, ROTATION_SIZE_1_0, 8 + 5 * P + 4 * 4);

/* Copies the caller's struct. The copy is complete even when a later byte is refused, so that exec's message can
 * still be used. */
static int32_t take(void *out, int64_t known_bytes, const void *in, int64_t oldest_bytes, const char *name) {
    int64_t given = 0;
    memset(out, 0, (size_t)known_bytes);
    if (!in) return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s is NULL, expected a struct", name);
    memcpy(&given, in, sizeof given);
    if (given < oldest_bytes || given > MAX_STRUCT_SIZE)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s has struct_size %" PRId64 ", expected sizeof, which is %" PRId64
                            " here", name, given, known_bytes);
    memcpy(out, in, (size_t)(given < known_bytes ? given : known_bytes));
    for (int64_t i = known_bytes; i < given; i++)
        if (((const unsigned char *)in)[i])
            return dlattn__fail(DLATTN_ERR_UNSUPPORTED,
                                "%s sets byte %" PRId64 ", expected zeros past the %" PRId64
                                " bytes this version knows", name, i, known_bytes);
    return DLATTN_OK;
}

static int32_t take_reserved(const char *name, int32_t reserved) {
    if (reserved == 0) return DLATTN_OK;
    return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "%s has reserved0 %d, expected 0", name, (int)reserved);
}

static int32_t take_layout(const char *name, int32_t layout) {
    if (layout == DLATTN_BSHD || layout == DLATTN_BHSD) return DLATTN_OK;
    return dlattn__fail(DLATTN_ERR_UNSUPPORTED, "%s has layout %d, expected DLATTN_BSHD (0) or DLATTN_BHSD (1)", name,
                        (int)layout);
}

int32_t dlattn__take_attention(dlattn_attention *out, const dlattn_attention *in) {
    const uint32_t known = DLATTN_CAUSAL | DLATTN_TOP_LEFT | DLATTN_WINDOW | DLATTN_BLOCK_WINDOW | DLATTN_POSITIONS |
                           DLATTN_SCALE | DLATTN_DETERMINISTIC | DLATTN_ALLOW_TF32;
    DLATTN_TRY(take(out, sizeof *out, in, ATTENTION_SIZE_1_0, "attention"));
    if (out->flags & ~known)
        return dlattn__fail(DLATTN_ERR_UNSUPPORTED,
                            "attention has flags 0x%" PRIx32 ", expected none beyond 0x%" PRIx32, out->flags, known);
    return take_layout("attention", out->layout);
}

int32_t dlattn__take_outputs(dlattn_outputs *out, const dlattn_outputs *in, const char *name) {
    return take(out, sizeof *out, in, OUTPUTS_SIZE_1_0, name);
}

int32_t dlattn__take_gradients(dlattn_gradients *out, const dlattn_gradients *in) {
    return take(out, sizeof *out, in, GRADIENTS_SIZE_1_0, "gradients");
}

int32_t dlattn__problem_exec(dlattn_exec *out, const dlattn_exec *exec) {
    static const dlattn_exec defaults = {.struct_size = sizeof defaults};
    DLATTN_TRY(take(out, sizeof *out, exec ? exec : &defaults, EXEC_SIZE_1_0, "exec"));
    DLATTN_TRY(take_reserved("exec", out->reserved0));
    if (out->num_threads < 0)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "exec has num_threads %d, expected 0 (automatic) or more",
                            (int)out->num_threads);
    if (out->message_bytes < 0)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "exec has message_bytes %" PRId64 ", expected 0 or more",
                            out->message_bytes);
    return DLATTN_OK;
}

int32_t dlattn__problem_parts(dlattn_parts *out, const dlattn_parts *d) {
    DLATTN_TRY(take(out, sizeof *out, d, PARTS_SIZE_1_0, "parts"));
    DLATTN_TRY(take_reserved("parts", out->reserved0));
    DLATTN_TRY(take_layout("parts", out->layout));
    if (out->count < 1 || out->count > INT32_MAX)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "parts has count %" PRId64 ", expected 1 to 2147483647", out->count);
    if (!out->out || !out->lse)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "parts has %s NULL, expected count pointers",
                            out->out ? "lse" : "out");
    return DLATTN_OK;
}

int32_t dlattn__take_cache(dlattn_cache *out, const dlattn_cache *in) {
    DLATTN_TRY(take(out, sizeof *out, in, CACHE_SIZE_1_0, "cache"));
    DLATTN_TRY(take_reserved("cache", out->reserved0));
    return take_layout("cache", out->layout);
}

int32_t dlattn__take_rotation(dlattn_rotation *out, const dlattn_rotation *in) {
    DLATTN_TRY(take(out, sizeof *out, in, ROTATION_SIZE_1_0, "rotation"));
    DLATTN_TRY(take_reserved("rotation", out->reserved0));
    return take_layout("rotation", out->layout);
}

/* dlattn_X_init: exactly struct_size bytes, even when that is more than this version knows. */
static int32_t init(void *out, int64_t struct_size, int64_t oldest_bytes, const char *name) {
    if (!out) return dlattn__fail(DLATTN_ERR_ARGUMENT, "%s is NULL, expected a struct to initialise", name);
    if (struct_size < oldest_bytes || struct_size > MAX_STRUCT_SIZE)
        return dlattn__fail(DLATTN_ERR_ARGUMENT,
                            "%s gets struct_size %" PRId64 ", expected its sizeof, at least %" PRId64, name,
                            struct_size, oldest_bytes);
    memset(out, 0, (size_t)struct_size);
    memcpy(out, &struct_size, sizeof struct_size);
    return DLATTN_OK;
}

#define DEFINE_INIT(name, oldest)                                            \
    int32_t dlattn__init_##name(dlattn_##name *out, int64_t struct_size) {   \
        return init(out, struct_size, oldest, #name);                        \
    }
DEFINE_INIT(attention, ATTENTION_SIZE_1_0)
DEFINE_INIT(outputs, OUTPUTS_SIZE_1_0)
DEFINE_INIT(gradients, GRADIENTS_SIZE_1_0)
DEFINE_INIT(exec, EXEC_SIZE_1_0)
DEFINE_INIT(parts, PARTS_SIZE_1_0)
DEFINE_INIT(cache, CACHE_SIZE_1_0)
DEFINE_INIT(rotation, ROTATION_SIZE_1_0)
