/* xla_abi.h: the part of the C ABI of XLA's foreign functions, version 0.1, that the handlers use.
 *
 * Declared here from its documentation (https://openxla.org/xla/custom_call, and xla/ffi/api/c_api.h, which jaxlib carries
 * in jax.ffi.include_dir()), with names of our own: XLA renames its types between versions, but promises to call handlers
 * of an older version, whose layout this is. Nothing past a field named here is read or written. 64-bit machines only. */
#ifndef DLATTN_XLA_ABI_H
#define DLATTN_XLA_ABI_H

#include <stddef.h>
#include <stdint.h>

enum { XLA_API_MAJOR = 0, XLA_API_MINOR = 1 }; /* what the handlers report; the oldest that XLA accepts */
enum { XLA_EXTENSION_METADATA = 1 };           /* xla_extension.type */
enum { XLA_COMMAND_BUFFER_COMPATIBLE = 1 };    /* a bit of xla_metadata.traits */
enum { XLA_ARRAY = 1, XLA_DICTIONARY = 2, XLA_SCALAR = 3, XLA_STRING = 4 }; /* xla_attributes.types */
enum { XLA_BUFFER = 1 };                                                    /* xla_buffers.types */

/* Codes of errors; those of absl::Status. */
enum {
    XLA_UNKNOWN = 2,
    XLA_INVALID_ARGUMENT = 3,
    XLA_RESOURCE_EXHAUSTED = 8,
    XLA_UNIMPLEMENTED = 12,
    XLA_INTERNAL = 13
};

/* Element types, the numbers of xla_data.proto. */
enum {
    XLA_PRED = 1,
    XLA_S8 = 2,
    XLA_S16 = 3,
    XLA_S32 = 4,
    XLA_S64 = 5,
    XLA_U8 = 6,
    XLA_U16 = 7,
    XLA_U32 = 8,
    XLA_U64 = 9,
    XLA_F16 = 10,
    XLA_F32 = 11,
    XLA_F64 = 12,
    XLA_BF16 = 16
};

typedef struct xla_error xla_error; /* opaque; NULL is success */

typedef struct xla_extension {
    size_t struct_size;
    int32_t type;
    struct xla_extension *next;
} xla_extension;

typedef struct xla_version {
    size_t struct_size;
    xla_extension *extensions;
    int32_t major, minor;
} xla_version;

/* The answer to "which version, which traits?", asked of a handler at its registration. Newer versions have more fields. */
typedef struct xla_metadata {
    size_t struct_size;
    xla_version version;
    uint32_t traits;
} xla_metadata;

typedef struct xla_metadata_extension {
    xla_extension base;
    xla_metadata *metadata;
} xla_metadata_extension;

typedef struct xla_bytes { /* not NUL-terminated */
    const char *data;
    size_t size;
} xla_bytes;

typedef struct xla_scalar {
    int32_t dtype;
    void *value;
} xla_scalar;

typedef struct xla_buffer { /* dense, row-major unless the program asked for another layout */
    size_t struct_size;
    xla_extension *extensions;
    int32_t dtype;
    void *data;
    int64_t rank;
    int64_t *dims;
} xla_buffer;

typedef struct xla_buffers {
    size_t struct_size;
    xla_extension *extensions;
    int64_t count;
    int32_t *types;
    void **items; /* xla_buffer * where the type says XLA_BUFFER */
} xla_buffers;

typedef struct xla_attributes {
    size_t struct_size;
    xla_extension *extensions;
    int64_t count;
    int32_t *types;
    xla_bytes **names;
    void **values;
} xla_attributes;

typedef struct xla_error_arguments {
    size_t struct_size;
    xla_extension *extensions;
    const char *message; /* copied */
    int32_t code;
} xla_error_arguments;

typedef struct xla_stream_arguments {
    size_t struct_size;
    xla_extension *extensions;
    void *context;
    void *stream; /* written: a CUstream */
} xla_stream_arguments;

/* The functions of the run-time; later entries moved between versions and are not declared. */
typedef struct xla_api {
    size_t struct_size;
    xla_extension *extensions;
    xla_version version;
    void *internal;
    xla_error *(*error_create)(xla_error_arguments *);
    void *error_message;
    void *error_destroy;
    void *handler_register;
    xla_error *(*stream_get)(xla_stream_arguments *);
} xla_api;

typedef struct xla_frame {
    size_t struct_size;
    xla_extension *extensions;
    const xla_api *api;
    void *context;
    int32_t stage;
    xla_buffers arguments, results;
    xla_attributes attributes;
} xla_frame;

_Static_assert(sizeof(void *) != 8 || (offsetof(xla_frame, arguments) == 40 && offsetof(xla_frame, results) == 80 &&
                                       offsetof(xla_frame, attributes) == 120 && sizeof(xla_frame) == 168),
               "a call frame of XLA has these offsets");
_Static_assert(sizeof(void *) != 8 || (offsetof(xla_metadata, traits) == 32 && offsetof(xla_api, error_create) == 48),
               "so do its answers and its functions");

#endif
