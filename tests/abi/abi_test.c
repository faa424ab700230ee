/* abi_test.c: calls every exported function through libffi, by the manifest alone, and compares with the direct call;
 * compares the manifest's structs with the compiler's and with what libffi makes of them. Proof that any language with
 * a dynamic foreign-function interface can call the library. */
#include <ffi.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "manifest.h"
#include "world.h"

#define CONSTANT(name, value) _Static_assert((name) == (value), #name " differs from the manifest");
ABI_CONSTANTS(CONSTANT)
#undef CONSTANT

typedef struct field {
    const char *owner, *name, *type;
    size_t offset, size;               /* as the manifest says */
    size_t real_offset, real_size;     /* as the compiler says */
} field;

static const field fields[] = {
#define FIELD(owner, name, type, offset, size) \
    {#owner, #name, #type, offset, size, offsetof(owner, name), sizeof(((owner *)0)->name)},
    ABI_FIELDS(FIELD)
#undef FIELD
};

typedef struct layout {
    const char *name;
    size_t size, real_size;
    int32_t field_count;
} layout;

static const layout layouts[] = {
#define STRUCT(name, size, count) {#name, size, sizeof(name), count},
    ABI_STRUCTS(STRUCT)
#undef STRUCT
};

typedef struct function {
    const char *name;
    void (*address)(void);
    const char *result;
    int32_t count;
    const char *types; /* "pointer, sint64" */
    void (*direct)(void *result, void **arguments);
} function;

static const function functions[] = {
#define FUNCTION(name, result, count, ...) \
    {#name, (void (*)(void))name, #result, count, #__VA_ARGS__, direct_##name},
    ABI_FUNCTIONS(FUNCTION)
#undef FUNCTION
};

enum { FUNCTIONS = sizeof functions / sizeof functions[0], MOST_FIELDS = 64 };

static int32_t failures;
static world the_world, snapshot;
static bool covered[FUNCTIONS];

#define CHECK(condition, ...)             \
    do {                                  \
        if (!(condition)) {               \
            failures++;                   \
            fprintf(stderr, __VA_ARGS__); \
            fputc('\n', stderr);          \
        }                                 \
    } while (0)

static ffi_type *type_named(const char *name) {
    static const struct {
        const char *name;
        ffi_type *type;
    } types[] = {{"pointer", &ffi_type_pointer}, {"sint32", &ffi_type_sint32}, {"uint32", &ffi_type_uint32},
                 {"sint64", &ffi_type_sint64},   {"uint64", &ffi_type_uint64}, {"double", &ffi_type_double}};
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
        if (strcmp(types[t].name, name) == 0) return types[t].type;
    fprintf(stderr, "the manifest has a type %s that this test does not know\n", name);
    exit(1);
}

/* ---- structs ---------------------------------------------------------------------------------------------------- */

static void check_struct(const layout *s, const field *first) {
    ffi_type *elements[MOST_FIELDS + 1] = {NULL};
    size_t offsets[MOST_FIELDS];
    for (int32_t f = 0; f < s->field_count; f++) elements[f] = type_named(first[f].type);
    ffi_type type = {.type = FFI_TYPE_STRUCT, .elements = elements};
    CHECK(ffi_get_struct_offsets(FFI_DEFAULT_ABI, &type, offsets) == FFI_OK, "%s: libffi refuses it", s->name);
    CHECK(type.size == s->size && s->size == s->real_size, "%s: size %zu by libffi, %zu by the manifest, %zu by C",
          s->name, type.size, s->size, s->real_size);
    for (int32_t f = 0; f < s->field_count; f++) {
        CHECK(strcmp(first[f].owner, s->name) == 0, "%s: field %s belongs to %s", s->name, first[f].name,
              first[f].owner);
        CHECK(offsets[f] == first[f].offset && first[f].offset == first[f].real_offset,
              "%s.%s: offset %zu by libffi, %zu by the manifest, %zu by C", s->name, first[f].name, offsets[f],
              first[f].offset, first[f].real_offset);
        CHECK(elements[f]->size == first[f].size && first[f].size == first[f].real_size,
              "%s.%s: size %zu by libffi, %zu by the manifest, %zu by C", s->name, first[f].name, elements[f]->size,
              first[f].size, first[f].real_size);
    }
}

static void check_structs(void) {
    size_t first = 0;
    for (size_t s = 0; s < sizeof layouts / sizeof layouts[0]; s++) {
        check_struct(&layouts[s], &fields[first]);
        first += (size_t)layouts[s].field_count;
    }
    CHECK(first == sizeof fields / sizeof fields[0], "the manifest's structs have %zu fields, its table %zu", first,
          sizeof fields / sizeof fields[0]);
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

/* Argument types of a function, parsed from "pointer, sint64". */
static void argument_types(const function *f, ffi_type *types[MOST_ARGUMENTS]) {
    char text[128];
    snprintf(text, sizeof text, "%s", f->types);
    char *rest = text;
    for (int32_t a = 0; a < f->count; a++) types[a] = type_named(strtok_r(rest, ", ", &rest));
}

/* ffi_call widens results narrower than a register; both calls deliver the value of the declared width. */
typedef union result {
    ffi_arg widened;
    int32_t status;
    const char *text;
} result;

static result call_through_libffi(const function *f, value *values) {
    ffi_type *types[MOST_ARGUMENTS];
    void *pointers[MOST_ARGUMENTS];
    ffi_cif cif;
    result r = {0};
    argument_types(f, types);
    for (int32_t a = 0; a < f->count; a++) pointers[a] = &values[a];
    CHECK(ffi_prep_cif(&cif, FFI_DEFAULT_ABI, (unsigned)f->count, type_named(f->result), types) == FFI_OK,
          "%s: libffi refuses the signature", f->name);
    ffi_call(&cif, f->address, &r, pointers);
    if (strcmp(f->result, "sint32") == 0) r = (result){.status = (int32_t)r.widened};
    return r;
}

static result call_directly(const function *f, value *values) {
    void *pointers[MOST_ARGUMENTS];
    result r = {0};
    for (int32_t a = 0; a < f->count; a++) pointers[a] = &values[a];
    f->direct(&r, pointers);
    return r;
}

/* Both calls from the same state of the world; afterwards result, sentence and every byte must agree. */
static result call_both(const function *f, const char *what, value *values) {
    char sentence[1024], text[1024] = "";
    world_reset(&the_world);
    result one = call_through_libffi(f, values);
    bool is_text = strcmp(f->result, "pointer") == 0;
    if (is_text) snprintf(text, sizeof text, "%s", one.text);
    snprintf(sentence, sizeof sentence, "%s", dlattn_last_error());
    memcpy(&snapshot, &the_world, sizeof snapshot);

    world_reset(&the_world);
    result two = call_directly(f, values);
    if (is_text)
        CHECK(strcmp(text, two.text) == 0, "%s, %s: \"%s\" through libffi, \"%s\" directly", f->name, what, text,
              two.text);
    else
        CHECK(one.status == two.status, "%s, %s: %d through libffi, %d directly", f->name, what, (int)one.status,
              (int)two.status);
    CHECK(strcmp(sentence, dlattn_last_error()) == 0, "%s, %s: the sentence differs: \"%s\"", f->name, what, sentence);
    CHECK(memcmp(&snapshot, &the_world, sizeof snapshot) == 0, "%s, %s: different bytes were written", f->name, what);
    return two;
}

/* Every function with NULL and zero everywhere, then with extreme integers beside the NULLs. */
static void call_with_edge_values(const function *f) {
    static const int64_t extremes[] = {0, -1, 1, INT64_MIN, INT64_MAX};
    for (size_t e = 0; e < sizeof extremes / sizeof extremes[0]; e++) {
        ffi_type *types[MOST_ARGUMENTS];
        value values[MOST_ARGUMENTS] = {{0}};
        char what[48];
        argument_types(f, types);
        for (int32_t a = 0; a < f->count; a++) {
            if (types[a] == &ffi_type_sint64) values[a].sint64 = extremes[e];
            if (types[a] == &ffi_type_sint32) values[a].sint32 = (int32_t)extremes[e];
        }
        snprintf(what, sizeof what, "NULL and %lld", (long long)extremes[e]);
        call_both(f, what, values);
    }
}

static void call_scenario(const scenario *s) {
    for (int32_t f = 0; f < FUNCTIONS; f++) {
        if (strcmp(functions[f].name, s->function) != 0) continue;
        value values[MOST_ARGUMENTS] = {{0}};
        s->arguments(&the_world, values);
        result r = call_both(&functions[f], s->what, values);
        if (s->text)
            CHECK(strcmp(r.text, s->text) == 0, "%s, %s: \"%s\", expected \"%s\"", s->function, s->what, r.text,
                  s->text);
        else
            CHECK(r.status == s->status, "%s, %s: status %d, expected %d; %s", s->function, s->what, (int)r.status,
                  (int)s->status, dlattn_last_error());
        covered[f] = true;
        return;
    }
    CHECK(false, "a scenario calls %s, which the manifest does not have", s->function);
}

int main(void) {
    check_structs();
    for (int32_t f = 0; f < FUNCTIONS; f++) call_with_edge_values(&functions[f]);
    for (int32_t s = 0; s < scenario_count; s++) call_scenario(&scenarios[s]);
    for (int32_t f = 0; f < FUNCTIONS; f++)
        CHECK(covered[f], "%s has no scenario in tests/abi/world.c", functions[f].name);
    printf("%d functions, %d scenarios, %zu structs: %d failures\n", (int)FUNCTIONS, (int)scenario_count,
           sizeof layouts / sizeof layouts[0], (int)failures);
    return failures != 0;
}
