/* launch.h: puts the steps of a schedule on a stream. */
#ifndef DLATTN_CUDA_LAUNCH_H
#define DLATTN_CUDA_LAUNCH_H

#include "params.h"
#include "schedule.h"
#include "tensor_maps.h"

/* Launches the steps with `params`, whose workspace addresses and tile counts are set here. maps: for the kernel that takes them. */
int32_t dlattn__launch_steps(const CUfunction *functions, const cuda_schedule *s, dlattn_params *params,
                             dlattn_maps *maps, void *workspace, CUstream stream);

/* One launch of a kernel that takes `arguments`, a struct passed by value, and perhaps `maps`, another (else NULL). */
int32_t dlattn__launch(CUfunction function, const cuda_step *step, void *arguments, dlattn_maps *maps, CUstream stream);

#endif
