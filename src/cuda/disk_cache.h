/* disk_cache.h: compiled kernels in a folder, shared by processes. It may always fail; then kernels are compiled.
 *
 * Where: option "cache_dir" or DLATTN_CACHE_DIR, else $XDG_CACHE_HOME/dlattn, else $HOME/.cache/dlattn. One file per key,
 * written under another name and renamed, so that a reader sees all of it or nothing; a checksum finds the rest. */
#ifndef DLATTN_CUDA_DISK_CACHE_H
#define DLATTN_CUDA_DISK_CACHE_H

#include "compile.h"

/* The image of that key. false: there is none, or a damaged one, and `why` says so, to follow "since". */
bool dlattn__disk_get(kernel_image *out, char *why, int64_t why_bytes, const uint8_t key[SHA256_BYTES]);

/* Stores it if that is possible; else only the log tells. */
void dlattn__disk_put(const uint8_t key[SHA256_BYTES], const kernel_image *);

#endif
