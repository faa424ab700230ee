/* disk_cache.h: compiled kernels in a folder, shared by processes. It may always fail; then kernels are compiled.
 *
 * Where: option "cache_dir" or DLATTN_CACHE_DIR, else $XDG_CACHE_HOME/dlattn, else $HOME/.cache/dlattn. One file per
 * key, written under another name and renamed, so that a reader sees all of it or nothing. The file carries its key,
 * its length and a checksum; one that does not agree with them is as if missing, and is replaced. */
#ifndef DLATTN_CUDA_DISK_CACHE_H
#define DLATTN_CUDA_DISK_CACHE_H

#include <sys/types.h>

#include "compile.h"

/* The image of that key. false: there is none that can be used, for the reason `why`, a sentence without an end. */
bool dlattn__disk_get(kernel_image *out, char *why, int64_t why_bytes, const uint8_t key[SHA256_BYTES]);

/* Stores it if that is possible; else only the log tells. */
void dlattn__disk_put(const uint8_t key[SHA256_BYTES], const kernel_image *);

/* The folder, made or not; false: there is none to be had. For tests and the log. */
bool dlattn__disk_folder(char *out, int64_t out_bytes);

/* How many files lie there, and their bytes; zeros when there is no folder. */
void dlattn__disk_usage(int64_t *files, int64_t *bytes);

/* What is done to the disk, so that tests can make it fail. */
typedef struct dlattn__disk_table {
    int (*open)(const char *path, int flags, mode_t mode);
    ssize_t (*write)(int file, const void *bytes, size_t count);
    int (*rename)(const char *from, const char *to);
} dlattn__disk_table;
extern dlattn__disk_table dlattn__disk;

#endif
