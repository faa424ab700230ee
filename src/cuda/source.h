/* source.h: the kernels' source text, carried by the library, and the names under which NVRTC may include it. */
#ifndef DLATTN_CUDA_SOURCE_H
#define DLATTN_CUDA_SOURCE_H

#include <stdint.h>

#include "sha256.h"

typedef struct source_file {
    const char *path; /* in kernels/, like "shared/masks/mask.h" */
    const char *text; /* ends with a 0 */
    int64_t bytes;    /* without that 0 */
} source_file;

/* All files of kernels/. */
int32_t dlattn__source_count(void);
const source_file *dlattn__source_file(int32_t index);

/* The file of that path, or NULL. */
const source_file *dlattn__source_find(const char *path);

/* Every header under every name an #include may give it: NVRTC knows headers by exactly the text between the quotes,
 * whatever file includes them. "shared/masks/mask.h" is also "masks/mask.h", "mask.h", and each of these behind "../".
 * names[i] is the name of texts[i]; both live as long as the process. */
typedef struct source_headers {
    int32_t count;
    const char *const *names, *const *texts;
} source_headers;
const source_headers *dlattn__source_headers(void);

/* SHA-256 over a file and all that it includes, whatever conditions those includes stand under. */
void dlattn__source_digest(uint8_t digest[SHA256_BYTES], const char *path);

#endif
