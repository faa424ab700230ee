/* load.h: the functions of a call's steps; those that are not in memory yet are made side by side. */
#ifndef DLATTN_CUDA_LOAD_H
#define DLATTN_CUDA_LOAD_H

#include "schedule.h"

/* Compiles and loads what the schedule launches, into functions[DLATTN_MAX_STEPS]. Threads that help have ended when it
 * returns. Errors: those of dlattn__function_get; of several the first step's. */
int32_t dlattn__load_steps(CUfunction *functions, const cuda_schedule *s, const cuda_scope *scope);

#endif
