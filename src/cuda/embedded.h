/* embedded.h: kernels compiled when the library was built, carried in it as an archive; usually there are none.
 *
 * An archive begins with the number of its kernels and one record for each, in the order of the keys; the images follow.
 * src/cuda/embed/make_cubins.c writes it. */
#ifndef DLATTN_CUDA_EMBEDDED_H
#define DLATTN_CUDA_EMBEDDED_H

#include "compile.h"

typedef struct archive_record {
    uint8_t key[SHA256_BYTES]; /* dlattn__compile_key without a copy of NVRTC */
    uint64_t at, size;         /* of the image: bytes from the archive's begin, at a multiple of ARCHIVE_ALIGN */
} archive_record;

enum { ARCHIVE_HEAD = 16, ARCHIVE_ALIGN = 64 }; /* head: the count as a uint64, then zeros */

typedef struct kernel_archive {
    const char *begin, *end; /* the same when there is none */
} kernel_archive;

/* The one in this library; tests put in their own. */
extern kernel_archive dlattn__embedded;

/* How many kernels it holds. */
uint64_t dlattn__archive_count(const kernel_archive *);

/* The image of that key, inside the archive: not to be released. false: it has none. */
bool dlattn__archive_find(kernel_image *out, const kernel_archive *, const uint8_t key[SHA256_BYTES]);

/* The image for a device of that capability, or for an older one of the same generation, whose code it runs too; arch
 * gets its name. Not to be released. false: the library does not carry it. */
bool dlattn__embedded_get(kernel_image *out, char arch[24], int32_t capability, const kernel_request *);

#endif
