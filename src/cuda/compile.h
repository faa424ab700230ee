/* compile.h: one request through NVRTC: options, machine code, and what the assembler says about it. */
#ifndef DLATTN_CUDA_COMPILE_H
#define DLATTN_CUDA_COMPILE_H

#include "function.h"
#include "nvrtc_copies.h"
#include "sha256.h"

/* What the driver loads: a cubin, or PTX ended by a 0. */
typedef struct kernel_image {
    char *bytes; /* of dlattn__memory */
    int64_t size;
} kernel_image;

void dlattn__image_release(kernel_image *);

/* Compiles request->file, specialised by its defines. `log`: NVRTC's, at most log_bytes of it, ended by a 0; may be
 * NULL. Safe from any thread. Errors: DLATTN_ERR_COMPILE, with the first error line of the log;
 * DLATTN_ERR_OUT_OF_MEMORY; DLATTN_ERR_INTERNAL (no such file). */
int32_t dlattn__compile(kernel_image *out, const nvrtc_choice *, const kernel_request *, char *log, int64_t log_bytes);

/* SHA-256 of all that the image depends on: the file and what it includes, the options, NVRTC's version;
 * without the version when the choice has no copy. */
void dlattn__compile_key(uint8_t key[SHA256_BYTES], const nvrtc_choice *, const kernel_request *);

/* "forward_sm80.cu -DHEAD=128 -DCAUSAL=1", for the log and for sentences; cut at text_bytes. */
void dlattn__request_text(char *text, int64_t text_bytes, const kernel_request *);

/* What ptxas reports about one kernel. */
typedef struct kernel_usage {
    int32_t registers, stack_bytes, spill_store_bytes, spill_load_bytes;
} kernel_usage;

/* Finds it in a log. false: the log does not say (the image is PTX). */
bool dlattn__log_usage(kernel_usage *out, const char *log, const char *entry);

#endif
