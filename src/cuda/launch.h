/* launch.h: puts the steps of a schedule on a stream. */
#ifndef DLATTN_CUDA_LAUNCH_H
#define DLATTN_CUDA_LAUNCH_H

#include "params.h"
#include "schedule.h"

/* Compiles and loads what the schedule launches, into functions[DLATTN_MAX_STEPS]. */
int32_t dlattn__load_steps(CUfunction *functions, const cuda_schedule *s, const cuda_scope *scope);

/* Launches them with `params`, whose workspace addresses and tile counts are set here. */
int32_t dlattn__launch_steps(const CUfunction *functions, const cuda_schedule *s, dlattn_params *params,
                             void *workspace, CUstream stream);

/* One launch of a kernel that takes `arguments`, a struct passed by value. */
int32_t dlattn__launch(CUfunction function, const cuda_step *step, void *arguments, CUstream stream);

#endif
