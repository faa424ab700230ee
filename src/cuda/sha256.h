/* sha256.h: SHA-256 (FIPS 180-4), to name and to verify the files of the disk cache. */
#ifndef DLATTN_CUDA_SHA256_H
#define DLATTN_CUDA_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32 };

typedef struct sha256 {
    uint32_t h[8];
    uint64_t total;    /* bytes so far */
    uint8_t block[64]; /* the last total % 64 of them */
} sha256;

void dlattn__sha256_begin(sha256 *state);
void dlattn__sha256_add(sha256 *state, const void *bytes, size_t count);
void dlattn__sha256_end(sha256 *state, uint8_t digest[SHA256_BYTES]);

/* All at once. */
void dlattn__sha256(uint8_t digest[SHA256_BYTES], const void *bytes, size_t count);

#endif
