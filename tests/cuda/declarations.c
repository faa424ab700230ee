/* declarations.c: our declarations of the driver and NVRTC calls are those of cuda.h and nvrtc.h. Compiles or fails.
 *
 * Both sides are read under names of their own: ours begin with ours_. */
#include <stddef.h>

#define DLATTN_DRIVER_CONSTANT(name, value) ours_##name = value,
#define CUdevice                            ours_CUdevice
#define CUdeviceptr                         ours_CUdeviceptr
#define CUresult                            ours_CUresult
#define CUdevice_attribute                  ours_CUdevice_attribute
#define CUfunction_attribute                ours_CUfunction_attribute
#define CUpointer_attribute                 ours_CUpointer_attribute
#define CUstreamCaptureMode                 ours_CUstreamCaptureMode
#define CUstreamCaptureStatus               ours_CUstreamCaptureStatus
#define CUlaunchAttributeID                 ours_CUlaunchAttributeID
#define CUlaunchAttributeValue              ours_CUlaunchAttributeValue
#define CUlaunchAttribute                   ours_CUlaunchAttribute
#define CUlaunchConfig                      ours_CUlaunchConfig
#define CUjit_option                        ours_CUjit_option
#define CUdriverProcAddressQueryResult      ours_CUdriverProcAddressQueryResult
#define CUcontext                           ours_CUcontext
#define CUmodule                            ours_CUmodule
#define CUfunction                          ours_CUfunction
#define CUtensorMapDataType                 ours_CUtensorMapDataType
#define CUtensorMapInterleave               ours_CUtensorMapInterleave
#define CUtensorMapSwizzle                  ours_CUtensorMapSwizzle
#define CUtensorMapL2promotion              ours_CUtensorMapL2promotion
#define CUtensorMapFloatOOBfill             ours_CUtensorMapFloatOOBfill
#define CUstream                            ours_CUstream
#define CUevent                             ours_CUevent
#include "driver.h"
#undef CUdevice
#undef CUdeviceptr
#undef CUresult
#undef CUdevice_attribute
#undef CUfunction_attribute
#undef CUpointer_attribute
#undef CUstreamCaptureMode
#undef CUstreamCaptureStatus
#undef CUlaunchAttributeID
#undef CUlaunchAttributeValue
#undef CUlaunchAttribute
#undef CUlaunchConfig
#undef CUjit_option
#undef CUdriverProcAddressQueryResult
#undef CUcontext
#undef CUmodule
#undef CUfunction
#undef CUtensorMapDataType
#undef CUtensorMapInterleave
#undef CUtensorMapSwizzle
#undef CUtensorMapL2promotion
#undef CUtensorMapFloatOOBfill
#undef CUstream
#undef CUevent

#define DLATTN_NVRTC_CONSTANT(name, value) ours_##name = value,
#define nvrtcProgram ours_nvrtcProgram
#define nvrtcResult  ours_nvrtcResult
#include "nvrtc_copies.h"
#undef nvrtcProgram
#undef nvrtcResult

#define OURS(name, parameters) static __typeof__(((dlattn__driver_table *)0)->name) ours_##name __attribute__((unused));
DLATTN_DRIVER_CALLS(OURS) DLATTN_DRIVER_OPTIONAL_CALLS(OURS) /* before cuda.h turns some of these names into others */

#include <cuda.h>
#include <nvrtc.h>

#define SAME_TYPE(type) _Static_assert(__builtin_types_compatible_p(type, ours_##type), #type " differs")
SAME_TYPE(CUdevice);
SAME_TYPE(CUdeviceptr);
SAME_TYPE(CUresult);
SAME_TYPE(CUdevice_attribute);
SAME_TYPE(CUfunction_attribute);
SAME_TYPE(CUpointer_attribute);
SAME_TYPE(CUstreamCaptureMode);
SAME_TYPE(CUstreamCaptureStatus);
SAME_TYPE(CUlaunchAttributeID);
SAME_TYPE(CUjit_option);
SAME_TYPE(CUdriverProcAddressQueryResult);
SAME_TYPE(CUcontext);
SAME_TYPE(CUmodule);
SAME_TYPE(CUfunction);
SAME_TYPE(CUtensorMapDataType);
SAME_TYPE(CUtensorMapInterleave);
SAME_TYPE(CUtensorMapSwizzle);
SAME_TYPE(CUtensorMapL2promotion);
SAME_TYPE(CUtensorMapFloatOOBfill);
SAME_TYPE(CUstream);
SAME_TYPE(CUevent);
SAME_TYPE(nvrtcProgram);
SAME_TYPE(nvrtcResult);

#define SAME_CONSTANT(name, value) _Static_assert((int)name == (int)ours_##name, #name " differs");
DLATTN_DRIVER_CONSTANTS(SAME_CONSTANT)
DLATTN_NVRTC_CONSTANTS(SAME_CONSTANT)

#define SAME_SIZE(type) \
    _Static_assert(sizeof(type) == sizeof(ours_##type) && _Alignof(type) == _Alignof(ours_##type), #type " differs")
#define SAME_PLACE(type, member) \
    _Static_assert(offsetof(type, member) == offsetof(ours_##type, member) &&              \
                       sizeof(((type *)0)->member) == sizeof(((ours_##type *)0)->member), \
                   #type "." #member " differs")
SAME_SIZE(CUlaunchAttributeValue);
SAME_SIZE(CUlaunchAttribute);
SAME_SIZE(CUlaunchConfig);
SAME_PLACE(CUlaunchAttributeValue, clusterDim.x);
SAME_PLACE(CUlaunchAttributeValue, clusterDim.y);
SAME_PLACE(CUlaunchAttributeValue, clusterDim.z);
SAME_PLACE(CUlaunchAttributeValue, programmaticStreamSerializationAllowed);
SAME_PLACE(CUlaunchAttribute, id);
SAME_PLACE(CUlaunchAttribute, value);
SAME_PLACE(CUlaunchConfig, gridDimX);
SAME_PLACE(CUlaunchConfig, gridDimY);
SAME_PLACE(CUlaunchConfig, gridDimZ);
SAME_PLACE(CUlaunchConfig, blockDimX);
SAME_PLACE(CUlaunchConfig, blockDimY);
SAME_PLACE(CUlaunchConfig, blockDimZ);
SAME_PLACE(CUlaunchConfig, sharedMemBytes);
SAME_PLACE(CUlaunchConfig, hStream);
SAME_PLACE(CUlaunchConfig, attrs);
SAME_PLACE(CUlaunchConfig, numAttrs);

/* The one call whose parameter is a struct of ours cannot be compared as a whole: by its parts then. */
typedef CUresult (*launch_ex)(const CUlaunchConfig *, CUfunction, void **, void **);
typedef CUresult (*ours_launch_ex)(const ours_CUlaunchConfig *, CUfunction, void **, void **);
_Static_assert(__builtin_types_compatible_p(__typeof__(&cuLaunchKernelEx), launch_ex), "cuLaunchKernelEx differs");
_Static_assert(__builtin_types_compatible_p(__typeof__(ours_cuLaunchKernelEx), ours_launch_ex),
               "cuLaunchKernelEx differs");
#define IS_LAUNCH_EX(function) _Generic(function, launch_ex : 1, default : 0)

#define SAME_CALL(name, parameters)                                                                                   \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&name), __typeof__(ours_##name)) || IS_LAUNCH_EX(&name), \
                   #name " differs");
DLATTN_DRIVER_CALLS(SAME_CALL)
DLATTN_DRIVER_OPTIONAL_CALLS(SAME_CALL)

#define SAME_NVRTC_CALL(result, name, parameters)                                                                \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&name), __typeof__(((nvrtc_table *)0)->name)), \
                   #name " differs");
DLATTN_NVRTC_CALLS(SAME_NVRTC_CALL)

int main(void) { return 0; }
