/* source_files.h: the files of kernels/ that the library carries, one line each: X(identifier, path in kernels/).
 *
 * A test fails when a file of kernels/ is missing here. Order does not matter; stems are unique in the tree. */
#ifndef DLATTN_CUDA_SOURCE_FILES_H
#define DLATTN_CUDA_SOURCE_FILES_H

#define DLATTN_SOURCE_FILES(X)                                         \
    X(backward_block_sm90_cuh, "backward_block_sm90.cuh")              \
    X(backward_dbias_sm80_cuh, "backward_dbias_sm80.cuh")              \
    X(backward_dq_sm80_cu, "backward_dq_sm80.cu")                      \
    X(backward_fetch_sm90_cuh, "backward_fetch_sm90.cuh")              \
    X(backward_parts_cuh, "backward_parts.cuh")                        \
    X(backward_prepare_cu, "backward_prepare.cu")                      \
    X(backward_rows_sm80_cuh, "backward_rows_sm80.cuh")                \
    X(backward_scores_sm80_cuh, "backward_scores_sm80.cuh")            \
    X(backward_scores_sm90_cuh, "backward_scores_sm90.cuh")            \
    X(backward_sm80_cu, "backward_sm80.cu")                            \
    X(backward_sm90_cu, "backward_sm90.cu")                            \
    X(backward_view_cuh, "backward_view.cuh")                          \
    X(backward_walk_cuh, "backward_walk.cuh")                          \
    X(backward_wide_sm90_cu, "backward_wide_sm90.cu")                  \
    X(backward_write_cuh, "backward_write.cuh")                        \
    X(blank_cu, "blank.cu")                                            \
    X(combine_cu, "combine.cu")                                        \
    X(convert_dq_cu, "convert_dq.cu")                                  \
    X(dbias_generic_cu, "dbias_generic.cu")                            \
    X(dbias_sm80_cu, "dbias_sm80.cu")                                  \
    X(dq_sum_cuh, "dq_sum.cuh")                                        \
    X(dropout_mask_cu, "dropout_mask.cu")                              \
    X(early_cuh, "early.cuh")                                          \
    X(element_cuh, "element.cuh")                                      \
    X(forward_fetch_sm90_cuh, "forward_fetch_sm90.cuh")                \
    X(forward_hide_sm90_cuh, "forward_hide_sm90.cuh")                  \
    X(forward_keys_cuh, "forward_keys.cuh")                            \
    X(forward_rows_cuh, "forward_rows.cuh")                            \
    X(forward_segments_sm80_cuh, "forward_segments_sm80.cuh")          \
    X(forward_segments_sm90_cuh, "forward_segments_sm90.cuh")          \
    X(forward_sm80_cu, "forward_sm80.cu")                              \
    X(forward_sm90_cu, "forward_sm90.cu")                              \
    X(forward_store_sm90_cuh, "forward_store_sm90.cuh")                \
    X(generic_copy_cuh, "generic_copy.cuh")                            \
    X(generic_dkdv_cu, "generic_dkdv.cu")                              \
    X(generic_dq_cu, "generic_dq.cu")                                  \
    X(generic_fma_cuh, "generic_fma.cuh")                              \
    X(generic_forward_cu, "generic_forward.cu")                        \
    X(generic_gradient_cuh, "generic_gradient.cuh")                    \
    X(generic_memory_cuh, "generic_memory.cuh")                        \
    X(generic_tf32_cuh, "generic_tf32.cuh")                            \
    X(generic_tile_cuh, "generic_tile.cuh")                            \
    X(gradient_sm80_cuh, "gradient_sm80.cuh")                          \
    X(kv_append_cu, "kv_append.cu")                                    \
    X(merge_cu, "merge.cu")                                            \
    X(mma_cuh, "mma.cuh")                                              \
    X(pages_sm80_cuh, "pages_sm80.cuh")                                \
    X(rotary_cu, "rotary.cu")                                          \
    X(score_tiles_cuh, "score_tiles.cuh")                              \
    X(scores_cuh, "scores.cuh")                                        \
    X(scores_sm90_cuh, "scores_sm90.cuh")                              \
    X(segment_ranges_cuh, "segment_ranges.cuh")                        \
    X(segment_spans_sm90_cuh, "segment_spans_sm90.cuh")                \
    X(segments_sm90_cu, "segments_sm90.cu")                            \
    X(sequence_cuh, "sequence.cuh")                                    \
    X(shared_cache_params, "shared/cache_params.h")                    \
    X(shared_block_window, "shared/masks/block_window.h")              \
    X(shared_causal, "shared/masks/causal.h")                          \
    X(shared_mask, "shared/masks/mask.h")                              \
    X(shared_masks, "shared/masks/masks.h")                            \
    X(shared_positive, "shared/masks/positive.h")                      \
    X(shared_window, "shared/masks/window.h")                          \
    X(shared_merge_params, "shared/merge_params.h")                    \
    X(shared_params, "shared/params.h")                                \
    X(shared_philox, "shared/philox.h")                                \
    X(shared_shared, "shared/shared.h")                                \
    X(shared_tensor_maps, "shared/tensor_maps.h")                      \
    X(softcap_cuh, "softcap.cuh")                                      \
    X(softmax_cuh, "softmax.cuh")                                      \
    X(softmax_sm90_cuh, "softmax_sm90.cuh")                            \
    X(tma_sm90_cuh, "tma_sm90.cuh")                                    \
    X(warp_cuh, "warp.cuh")                                            \
    X(wgmma_sm90_cuh, "wgmma_sm90.cuh")

#endif
