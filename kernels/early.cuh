// early.cuh: launches that begin while the last blocks of the kernel before them run, from sm_90 on (cuda_step.early); they then
// wait themselves for what they need. Before, kernels run one after the other, and nothing here does anything.
#ifndef DLATTN_EARLY_CUH
#define DLATTN_EARLY_CUH

#include "element.cuh"

// The next kernel may begin once all blocks have come here, or ended.
DEVICE void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// All that the kernel before has written is there.
DEVICE void wait_for_kernel_before() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Both, in this order: so the next kernel finds what the one before this has written.
DEVICE void wait_and_let_begin() {
    wait_for_kernel_before();
    let_next_begin();
}

#endif
