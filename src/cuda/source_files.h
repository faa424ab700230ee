/* source_files.h: the files of kernels/ that the library carries, one line each: X(identifier, path in kernels/).
 *
 * A test fails when a file of kernels/ is missing here. Order does not matter; stems are unique in the tree. */
#ifndef DLATTN_CUDA_SOURCE_FILES_H
#define DLATTN_CUDA_SOURCE_FILES_H

#define DLATTN_SOURCE_FILES(X)                                         \
    X(element_cuh, "element.cuh")                                      \
    X(mma_sm80_cuh, "mma_sm80.cuh")                                    \
    X(scores_cuh, "scores.cuh")                                        \
    X(sequence_cuh, "sequence.cuh")                                    \
    X(shared_block_window, "shared/masks/block_window.h")              \
    X(shared_causal, "shared/masks/causal.h")                          \
    X(shared_mask, "shared/masks/mask.h")                              \
    X(shared_masks, "shared/masks/masks.h")                            \
    X(shared_positive, "shared/masks/positive.h")                      \
    X(shared_window, "shared/masks/window.h")                          \
    X(shared_params, "shared/params.h")                                \
    X(shared_philox, "shared/philox.h")                                \
    X(shared_shared, "shared/shared.h")

#endif
