/* arguments.h: problem and buffers as the struct that kernels are passed. */
#ifndef DLATTN_CUDA_ARGUMENTS_H
#define DLATTN_CUDA_ARGUMENTS_H

#include "backend.h"
#include "params.h"

/* Refuses what does not fit the struct, with the reason in `note`. */
int32_t dlattn__arguments_fit(const problem *p, char *note, int64_t note_bytes);

/* Everything but the workspace and the tile counts. x may be NULL: then the addresses are 0. */
void dlattn__arguments_fill(dlattn_params *out, const problem *p, const buffers *x);

/* Fails unless every tensor's data is memory of q's device (or managed). */
int32_t dlattn__arguments_check(const problem *p, const buffers *x);

/* The same for one tensor; NULL data passes. */
int32_t dlattn__memory_check(int32_t device_type, int32_t device_id, const char *name, const void *data);

dlattn_view dlattn__view(const operand *o, const void *data);

/* DLATTN_FEATURE_X of a problem. */
uint32_t dlattn__features(const problem *p);

#endif
