/* cases_cuda.h: the named problems that lie at borders of GPU kernels: tiles, splits of the keys, forms of a bias, TF32. Every
 * backend is judged by them, but for those that say cuda_only.
 *
 * Part of cases.h, written as there. */

/* ---- borders of GPU tiles: 64, 128 and 192 rows or keys, head sizes that are padded inside --------------------------- */
#define GPU_TILE(m, n, ...)                                                                                                   \
    CASE(gpu_tiles_##m##_##n##_bf16, .dtype = BF16, .H = 1, .M = m, .N = n, .D = 64, .E = 64, __VA_ARGS__)                     \
    CASE(gpu_tiles_##m##_##n##_f16, .dtype = F16, .H = 1, .M = m, .N = n, .D = 32, .E = 32, __VA_ARGS__)
GPU_TILE(63, 65, .flags = DLATTN_CAUSAL)
GPU_TILE(64, 64, .flags = DLATTN_CAUSAL)
GPU_TILE(65, 127, .flags = DLATTN_CAUSAL)
GPU_TILE(127, 63, .flags = 0)
GPU_TILE(128, 129, .flags = DLATTN_CAUSAL)
GPU_TILE(129, 191, .flags = 0)
GPU_TILE(191, 128, .flags = DLATTN_CAUSAL)
GPU_TILE(193, 192, .flags = DLATTN_CAUSAL)
GPU_TILE(192, 193, .flags = 0)
GPU_TILE(255, 257, .flags = DLATTN_CAUSAL)
GPU_TILE(256, 255, .flags = 0)
GPU_TILE(257, 256, .flags = DLATTN_CAUSAL | DLATTN_TOP_LEFT)
#undef GPU_TILE
#define GPU_HEAD(d, e)                                                                                                          \
    CASE(gpu_heads_##d##_##e##_bf16, .dtype = BF16, .H = 1, .M = 66, .N = 129, .D = d, .E = e, .flags = DLATTN_CAUSAL)
GPU_HEAD(64, 64)
GPU_HEAD(72, 72)
GPU_HEAD(80, 80)
GPU_HEAD(96, 96)
GPU_HEAD(112, 112)
GPU_HEAD(128, 128)
GPU_HEAD(160, 160)
GPU_HEAD(192, 128)
GPU_HEAD(192, 192)
GPU_HEAD(224, 224)
GPU_HEAD(256, 256)
GPU_HEAD(64, 256)
GPU_HEAD(256, 32)
#undef GPU_HEAD
#define GPU_WIDE(name, d, ...) CASE(gpu_wide_##name, .dtype = BF16, .H = 1, .M = 68, .N = 168, .D = d, .E = d, __VA_ARGS__)
GPU_WIDE(bias, 256, .bias = "11mn")
GPU_WIDE(bias_d200, 200, .B = 2, .bias = "1hmn", .flags = DLATTN_CAUSAL)
GPU_WIDE(bias_f32, 160, .bias = "hmn", .bias_f32 = 1)
GPU_WIDE(dropout, 256, .dropout = 0.3, .seed = 4)
GPU_WIDE(mask_softcap, 256, .mask = "mn", .softcap = 4)
GPU_WIDE(segments, 256, .M = 168, .segments = SEGMENTS_SORTED, .flags = DLATTN_CAUSAL)
GPU_WIDE(alibi_sinks_window, 192, .H = 2, .alibi = "h", .sinks = 1, .flags = DLATTN_WINDOW, .window_left = 50, .window_right = 20)
GPU_WIDE(full_d256, 256, .H = 2, .M = 201, .N = 331)
GPU_WIDE(causal_d192, 192, .H = 2, .M = 190, .N = 333, .flags = DLATTN_CAUSAL)
GPU_WIDE(causal_f16, 256, .dtype = F16, .H = 2, .M = 333, .N = 190, .E = 192, .sinks = 1, .flags = DLATTN_CAUSAL)
GPU_WIDE(heads_of_a_group, 256, .B = 2, .H = 4, .G = 2, .M = 130, .N = 129, .flags = DLATTN_CAUSAL | DLATTN_SCALE, .scale = -0.07)
GPU_WIDE(window, 256, .H = 2, .G = 1, .M = 300, .N = 260, .flags = DLATTN_WINDOW, .window_left = 100, .window_right = 41)
GPU_WIDE(blocks_and_positions, 192, .M = 260, .N = 200, .flags = DLATTN_BLOCK_WINDOW | DLATTN_POSITIONS, .q_start = 70, .k_start = 90,
         .block_size = 50, .block_count = 2)
GPU_WIDE(lengths, 256, .B = 3, .H = 2, .M = 140, .N = 200, .use_q = 1, .use_k = 1, .q_used = {140, 65, 0}, .k_used = {77, 200, 60})
GPU_WIDE(packed, 256, .B = 6, .H = 2, .G = 1, .packed_q = 1, .packed_k = 1, .q_lengths = {1, 64, 0, 129, 65, 17},
         .k_lengths = {70, 64, 5, 128, 200, 0}, .flags = DLATTN_CAUSAL, .tokens_before = 3, .tokens_after = 2)
GPU_WIDE(packed_d192, 192, .B = 3, .H = 2, .packed_q = 1, .packed_k = 1, .q_lengths = {100, 5, 130}, .k_lengths = {33, 150, 70})
GPU_WIDE(keys_of_no_row, 256, .B = 2, .M = 70, .N = 330, .flags = DLATTN_CAUSAL | DLATTN_TOP_LEFT)
GPU_WIDE(deterministic, 192, .H = 2, .G = 1, .M = 130, .N = 150, .flags = DLATTN_CAUSAL | DLATTN_DETERMINISTIC)
GPU_WIDE(softcap_segments, 256, .H = 2, .M = 200, .N = 260, .softcap = 5, .segments = SEGMENTS_SHUFFLED)
GPU_WIDE(dropout_d192, 192, .H = 2, .G = 1, .M = 130, .N = 200, .dropout = 0.2, .seed = 7, .softcap = 6, .flags = DLATTN_CAUSAL)
GPU_WIDE(decode, 256, .H = 4, .M = 1, .N = 1000, .flags = DLATTN_CAUSAL)
#undef GPU_WIDE
/* More tiles of 128 rows than half of the multiprocessors of today's GPUs: the kernels for large problems. */
#define GPU_LARGE(name, d, ...)                                                                                              \
    CASE(gpu_large_##name, .dtype = BF16, .H = 35, .G = 35, .M = 129, .N = 130, .D = d, .E = d, .cuda_only = 1, __VA_ARGS__)
GPU_LARGE(causal_d64, 64, .flags = DLATTN_CAUSAL)
GPU_LARGE(full_d32_f16, 32, .dtype = F16, .M = 191, .N = 127)
GPU_LARGE(gqa_d128, 128, .H = 36, .G = 9, .N = 257, .flags = DLATTN_CAUSAL)
GPU_LARGE(window_d80, 80, .M = 140, .N = 200, .flags = DLATTN_WINDOW, .window_left = 70, .window_right = 9)
GPU_LARGE(bias_d64, 64, .B = 2, .H = 18, .G = 18, .M = 130, .N = 136, .bias = "1hmn")
GPU_LARGE(bias_f32_blocks_d128, 128, .N = 136, .bias = "bhmn", .bias_f32 = 1, .flags = DLATTN_BLOCK_WINDOW, .block_size = 30,
          .block_count = 3)
GPU_LARGE(dropout_softcap_d64, 64, .dropout = 0.2, .seed = 5, .softcap = 5)
GPU_LARGE(segments_mask_d64, 64, .M = 200, .N = 208, .segments = SEGMENTS_SORTED, .mask = "b1mn", .flags = DLATTN_CAUSAL)
/* Many tiles of rows and of keys, some of which all see, some nobody. */
GPU_LARGE(segments_d64, 64, .B = 2, .H = 18, .G = 9, .M = 180, .N = 400, .segments = SEGMENTS_SORTED)
GPU_LARGE(segments_lengths_d128, 128, .B = 2, .H = 18, .G = 6, .M = 200, .N = 310, .segments = SEGMENTS_SORTED, .use_q = 1, .use_k = 1,
          .q_used = {200, 129}, .k_used = {300, 310}, .flags = DLATTN_CAUSAL)
GPU_LARGE(mask_d128, 128, .B = 2, .H = 18, .G = 18, .M = 140, .N = 208, .mask = "b1mn", .use_k = 1, .k_used = {208, 77})
GPU_LARGE(mask_causal_d64, 64, .M = 140, .N = 272, .mask = "b11n", .flags = DLATTN_CAUSAL)
GPU_LARGE(alibi_sinks_lengths_d64, 64, .B = 2, .H = 18, .G = 6, .alibi = "h", .sinks = 1, .use_q = 1, .use_k = 1, .q_used = {129, 64},
          .k_used = {65, 130}, .flags = DLATTN_CAUSAL)
/* Tiles of keys that begin at the diagonal and go round, ends of sequences with others' keys behind. */
GPU_LARGE(alibi_round_packed_d64, 64, .B = 4, .H = 12, .G = 4, .packed_q = 1, .packed_k = 1, .q_lengths = {129, 1, 200, 70},
          .k_lengths = {257, 70, 310, 400}, .alibi = "h", .tokens_after = 3, .flags = DLATTN_TOP_LEFT)
GPU_LARGE(alibi_round_lengths_d128, 128, .B = 2, .H = 18, .G = 6, .M = 200, .N = 400, .alibi = "h", .use_k = 1, .k_used = {300, 390},
          .flags = DLATTN_TOP_LEFT)
GPU_LARGE(packed_d64, 64, .B = 4, .H = 10, .G = 5, .packed_q = 1, .packed_k = 1, .q_lengths = {129, 1, 0, 200},
          .k_lengths = {257, 70, 5, 190}, .flags = DLATTN_CAUSAL, .tokens_after = 3)
GPU_LARGE(split_d32, 32, .H = 67, .G = 67, .M = 65, .N = 1100, .flags = DLATTN_CAUSAL)
GPU_LARGE(misaligned_d64, 64, .strides = MISALIGNED)
/* Tiles that see no key between such that do, on every multiprocessor. */
GPU_LARGE(rows_of_no_key_d64, 64, .B = 2, .M = 600, .N = 127, .flags = DLATTN_CAUSAL)
GPU_LARGE(rows_of_no_key_d128, 128, .B = 2, .M = 500, .N = 150, .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 90)
/* And tiles of keys that no row sees. */
GPU_LARGE(keys_of_no_row_d64, 64, .B = 2, .M = 140, .N = 600, .flags = DLATTN_CAUSAL | DLATTN_TOP_LEFT)
GPU_LARGE(keys_of_no_row_d128, 128, .B = 2, .M = 70, .N = 520, .flags = DLATTN_CAUSAL | DLATTN_TOP_LEFT)
#undef GPU_LARGE
/* Rows' references rise behind their first tile of keys: by more than an exponent holds, and in some rows a little. */
#define GPU_RAISED(name, type, d, ...) CASE(gpu_raised_##name, .dtype = type, .M = 200, .N = 700, .D = d, .E = d, __VA_ARGS__)
GPU_RAISED(causal_d64_bf16, BF16, 64, .inputs = LARGE, .flags = DLATTN_CAUSAL)
GPU_RAISED(d128_f16, F16, 128, .inputs = LARGE)
GPU_RAISED(some_d64_bf16, BF16, 64, .scale = 2.5, .flags = DLATTN_SCALE)
GPU_RAISED(some_d64_f16, F16, 64, .scale = 1.2, .flags = DLATTN_SCALE | DLATTN_CAUSAL)
GPU_RAISED(some_window_d128_bf16, BF16, 128, .scale = 2, .flags = DLATTN_SCALE | DLATTN_WINDOW, .window_left = 300, .window_right = 100)
GPU_RAISED(segments_d64_bf16, BF16, 64, .scale = 2.5, .segments = SEGMENTS_SORTED, .flags = DLATTN_SCALE)
GPU_RAISED(alibi_d64_bf16, BF16, 64, .scale = 2.5, .alibi = "h", .flags = DLATTN_SCALE)
GPU_RAISED(bias_d64_f16, F16, 64, .N = 704, .scale = 1.2, .bias = "bhmn", .flags = DLATTN_SCALE)
GPU_RAISED(dropout_d128_bf16, BF16, 128, .scale = 2, .dropout = 0.2, .seed = 3, .flags = DLATTN_SCALE)
#undef GPU_RAISED
CASE(gpu_many_tiles_bf16, .dtype = BF16, .H = 1, .M = 400, .N = 400, .D = 32, .E = 32, .flags = DLATTN_CAUSAL)
CASE(gpu_many_tiles_gqa_bf16, .dtype = BF16, .H = 4, .G = 2, .M = 130, .N = 135, .D = 32, .E = 32)
CASE(gpu_many_tiles_f32, .H = 2, .G = 1, .M = 140, .N = 200, .D = 32, .E = 32, .flags = DLATTN_CAUSAL)
CASE(gpu_window_across_tiles_bf16, .dtype = BF16, .H = 1, .M = 260, .N = 300, .D = 32, .E = 32, .flags = DLATTN_WINDOW,
     .window_left = 100, .window_right = 41)
CASE(gpu_window_inside_a_tile_f16, .dtype = F16, .H = 1, .M = 260, .N = 260, .D = 32, .E = 32, .flags = DLATTN_WINDOW | DLATTN_CAUSAL,
     .window_left = 20)
CASE(gpu_blocks_across_tiles_bf16, .dtype = BF16, .H = 1, .M = 260, .N = 260, .D = 32, .E = 32, .flags = DLATTN_BLOCK_WINDOW,
     .block_size = 100, .block_count = 2)
CASE(gpu_heads_of_a_group_d128_bf16, .dtype = BF16, .H = 4, .G = 2, .M = 200, .N = 140, .D = 128, .E = 128)
CASE(gpu_heads_of_a_group_d64_f16, .dtype = F16, .H = 4, .G = 2, .M = 100, .N = 140, .D = 64, .E = 56)
CASE(gpu_window_d128_bf16, .dtype = BF16, .H = 2, .G = 1, .M = 300, .N = 260, .D = 128, .E = 128, .flags = DLATTN_WINDOW,
     .window_left = 100, .window_right = 41)
CASE(gpu_softcap_d64_bf16, .dtype = BF16, .H = 1, .M = 140, .N = 300, .D = 64, .E = 64, .softcap = 5)
CASE(gpu_split_few_rows_bf16, .dtype = BF16, .H = 2, .G = 1, .M = 5, .N = 2000, .D = 32, .E = 32, .flags = DLATTN_CAUSAL)
CASE(gpu_split_one_tile_of_rows_f16, .dtype = F16, .H = 1, .M = 64, .N = 600, .D = 32, .E = 32, .flags = DLATTN_CAUSAL)
CASE(gpu_split_many_rows_one_tile_of_keys_bf16, .dtype = BF16, .H = 1, .M = 600, .N = 60, .D = 32, .E = 32)
CASE(gpu_split_sinks_window_bf16, .dtype = BF16, .H = 2, .M = 3, .N = 1200, .D = 32, .E = 32, .sinks = 1,
     .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 900)
CASE(gpu_split_long_row_bf16, .dtype = BF16, .H = 4, .G = 1, .M = 1, .N = 4500, .D = 64, .E = 64, .flags = DLATTN_CAUSAL,
     .cuda_only = 1)
CASE(gpu_split_long_rows_f16, .dtype = F16, .H = 1, .M = 20, .N = 4113, .D = 64, .E = 64, .flags = DLATTN_CAUSAL | DLATTN_WINDOW,
     .window_left = 4000, .cuda_only = 1)
CASE(gpu_split_long_tile_bf16, .dtype = BF16, .H = 2, .G = 1, .M = 130, .N = 4100, .D = 64, .E = 64, .cuda_only = 1)
CASE(gpu_split_bias_mask_bf16, .dtype = BF16, .H = 2, .M = 9, .N = 1208, .D = 32, .E = 32, .bias = "1hmn", .mask = "b11n")
CASE(gpu_split_dropout_lengths_f16, .dtype = F16, .B = 2, .H = 2, .G = 1, .M = 7, .N = 1100, .D = 32, .E = 32, .dropout = 0.3, .seed = 2,
     .use_k = 1, .k_used = {1100, 65})
CASE(gpu_bias_dbias_bf16, .dtype = BF16, .B = 2, .H = 1, .M = 70, .N = 140, .D = 32, .E = 32, .bias = "1hmn")
CASE(gpu_bias_dbias_all_heads_f16, .dtype = F16, .H = 4, .G = 2, .M = 70, .N = 135, .D = 16, .E = 16, .bias = "11mn",
     .flags = DLATTN_CAUSAL)
CASE(gpu_bias_row_bf16, .dtype = BF16, .B = 2, .H = 1, .M = 70, .N = 140, .D = 16, .E = 16, .bias = "b11n")
CASE(gpu_bias_f32_tiles_bf16, .dtype = BF16, .H = 2, .M = 130, .N = 136, .D = 32, .E = 32, .bias = "bhmn", .bias_f32 = 1)
CASE(gpu_bias_of_keys_per_head_f16, .dtype = F16, .B = 2, .H = 2, .M = 70, .N = 136, .D = 32, .E = 32, .bias = "1h1n")
CASE(gpu_bias_column_bf16, .dtype = BF16, .H = 2, .M = 70, .N = 136, .D = 32, .E = 32, .bias = "bhm1")
CASE(gpu_mask_bf16, .dtype = BF16, .B = 2, .H = 1, .M = 140, .N = 200, .D = 16, .E = 16, .mask = "b1mn")
CASE(gpu_segments_bf16, .dtype = BF16, .H = 1, .M = 260, .N = 260, .D = 16, .E = 16, .segments = SEGMENTS_SORTED)
CASE(gpu_segments_shuffled_bf16, .dtype = BF16, .B = 2, .H = 2, .G = 1, .M = 130, .N = 140, .D = 32, .E = 32, .index64 = 1,
     .segments = SEGMENTS_SHUFFLED)
CASE(gpu_segments_dbias_bf16, .dtype = BF16, .B = 2, .H = 2, .G = 1, .M = 200, .N = 400, .D = 32, .E = 32, .bias = "1hmn",
     .segments = SEGMENTS_SORTED)
CASE(gpu_segments_long_bf16, .dtype = BF16, .H = 1, .M = 600, .N = 1000, .D = 72, .E = 72, .segments = SEGMENTS_SORTED)
CASE(gpu_segments_causal_f16, .dtype = F16, .H = 1, .M = 400, .N = 400, .D = 32, .E = 32, .segments = SEGMENTS_SORTED,
     .flags = DLATTN_CAUSAL)
CASE(gpu_positions_bf16, .dtype = BF16, .B = 2, .H = 1, .M = 130, .N = 200, .D = 32, .E = 32, .flags = DLATTN_CAUSAL | DLATTN_POSITIONS,
     .start_tensors = 1, .q_starts = {90, 20}, .k_starts = {-33, 7})
CASE(gpu_blocks_negative_positions_f16, .dtype = F16, .H = 1, .M = 130, .N = 150, .D = 32, .E = 32,
     .flags = DLATTN_BLOCK_WINDOW | DLATTN_POSITIONS, .q_start = -70, .k_start = -40, .block_size = 33, .block_count = 2)
CASE(gpu_alibi_far_positions_bf16, .dtype = BF16, .H = 2, .M = 66, .N = 130, .D = 32, .E = 32, .alibi = "h",
     .flags = DLATTN_CAUSAL | DLATTN_POSITIONS, .q_start = 100, .k_start = 30)
CASE(gpu_alibi_softcap_sinks_bf16, .dtype = BF16, .H = 2, .M = 130, .N = 140, .D = 32, .E = 32, .alibi = "h", .softcap = 10,
     .sinks = 1, .flags = DLATTN_CAUSAL)
CASE(gpu_bias_maps_causal_d128_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .M = 200, .N = 328, .D = 128, .E = 128, .bias = "1hmn",
     .flags = DLATTN_CAUSAL)
CASE(gpu_bias_maps_alibi_dropout_window_d64_f16, .dtype = F16, .B = 2, .H = 2, .M = 260, .N = 400, .D = 64, .E = 64, .bias = "bhmn",
     .alibi = "h", .dropout = 0.2, .seed = 9, .flags = DLATTN_WINDOW, .window_left = 70, .window_right = 20)
CASE(gpu_bias_maps_lengths_d256_bf16, .dtype = BF16, .B = 3, .H = 2, .G = 1, .M = 150, .N = 264, .D = 256, .E = 192, .bias = "b1mn",
     .use_q = 1, .use_k = 1, .q_used = {150, 64, 3}, .k_used = {264, 65, 0})
CASE(gpu_bias_maps_softcap_dropout_d128_bf16, .dtype = BF16, .H = 2, .M = 130, .N = 200, .D = 128, .E = 64, .bias = "11mn", .softcap = 5,
     .dropout = 0.1, .seed = 3, .sinks = 1)
CASE(gpu_alibi_both_sides_d64_bf16, .dtype = BF16, .H = 3, .M = 300, .N = 420, .D = 64, .E = 64, .alibi = "h",
     .flags = DLATTN_TOP_LEFT)
CASE(gpu_alibi_both_sides_d128_bf16, .dtype = BF16, .H = 2, .G = 1, .M = 300, .N = 420, .D = 128, .E = 128, .alibi = "h",
     .flags = DLATTN_TOP_LEFT)
CASE(gpu_alibi_window_d128_f16, .dtype = F16, .B = 2, .H = 2, .M = 200, .N = 290, .D = 128, .E = 128, .alibi = "bh",
     .flags = DLATTN_WINDOW, .window_left = 120, .window_right = 41)
CASE(gpu_softcap_causal_d128_f16, .dtype = F16, .H = 2, .G = 1, .M = 200, .N = 300, .D = 128, .E = 128, .softcap = 3,
     .flags = DLATTN_CAUSAL)
CASE(gpu_softcap_little_d128_bf16, .dtype = BF16, .H = 2, .M = 140, .N = 270, .D = 128, .E = 96, .softcap = 30)
CASE(gpu_softcap_alibi_lengths_d64_bf16, .dtype = BF16, .B = 2, .H = 2, .G = 1, .M = 300, .N = 400, .D = 64, .E = 64, .softcap = 30,
     .alibi = "h", .use_q = 1, .use_k = 1, .q_used = {300, 129}, .k_used = {400, 210})
CASE(gpu_softcap_packed_d64_f16, .dtype = F16, .B = 3, .H = 2, .D = 64, .E = 64, .packed_q = 1, .packed_k = 1, .q_lengths = {140, 5, 260},
     .k_lengths = {270, 3, 130}, .softcap = 4, .flags = DLATTN_CAUSAL)
CASE(gpu_alibi_distant_d64_bf16, .dtype = BF16, .H = 2, .M = 140, .N = 270, .D = 64, .E = 64, .alibi = "h", .flags = DLATTN_POSITIONS,
     .q_start = 4000, .k_start = 3)
CASE(gpu_alibi_negative_scale_d64_f16, .dtype = F16, .H = 2, .M = 130, .N = 140, .D = 64, .E = 64, .alibi = "h", .flags = DLATTN_SCALE,
     .scale = -0.1)
CASE(gpu_segments_mixed_d64_f16, .dtype = F16, .B = 2, .H = 2, .G = 1, .M = 400, .N = 400, .D = 64, .E = 64, .index64 = 1,
     .segments = SEGMENTS_SHUFFLED)
CASE(gpu_segments_causal_d128_bf16, .dtype = BF16, .B = 2, .H = 2, .G = 1, .M = 300, .N = 400, .D = 128, .E = 128,
     .segments = SEGMENTS_SORTED, .flags = DLATTN_CAUSAL, .use_q = 1, .use_k = 1, .q_used = {300, 190}, .k_used = {400, 330})
CASE(gpu_segments_alibi_softcap_d128_f16, .dtype = F16, .H = 2, .M = 260, .N = 270, .D = 128, .E = 64, .segments = SEGMENTS_SORTED,
     .alibi = "h", .softcap = 10, .sinks = 1)
CASE(gpu_dropout_bf16, .dtype = BF16, .H = 1, .M = 140, .N = 200, .D = 32, .E = 32, .dropout = 0.2, .seed = 6)
CASE(gpu_dropout_causal_d128_bf16, .dtype = BF16, .H = 2, .G = 1, .M = 200, .N = 300, .D = 128, .E = 128, .dropout = 0.2, .seed = 7,
     .flags = DLATTN_CAUSAL)
CASE(gpu_dropout_softcap_window_d64_f16, .dtype = F16, .B = 2, .H = 2, .M = 300, .N = 330, .D = 64, .E = 64, .dropout = 0.1, .seed = 8,
     .softcap = 6, .flags = DLATTN_WINDOW, .window_left = 90, .window_right = 33)
CASE(gpu_everything_but_bias_d64_bf16, .dtype = BF16, .B = 2, .H = 2, .G = 1, .M = 260, .N = 300, .D = 64, .E = 64, .alibi = "h",
     .softcap = 8, .sinks = 1, .segments = SEGMENTS_SORTED, .dropout = 0.15, .seed = 5, .use_q = 1, .use_k = 1, .q_used = {260, 131},
     .k_used = {299, 140}, .flags = DLATTN_CAUSAL)
CASE(gpu_dropout_across_blocks_f16, .dtype = F16, .H = 2, .G = 1, .M = 70, .N = 140, .D = 64, .E = 64, .dropout = 0.5, .seed = 6,
     .offset = 9, .flags = DLATTN_CAUSAL | DLATTN_POSITIONS, .q_start = 75, .k_start = 3)
CASE(gpu_deterministic_gqa_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .M = 70, .N = 200, .D = 64, .E = 64, .dropout = 0.1, .seed = 3,
     .bias = "1hmn", .flags = DLATTN_CAUSAL | DLATTN_DETERMINISTIC)
CASE(gpu_packed_bf16, .dtype = BF16, .B = 6, .H = 2, .G = 1, .D = 32, .E = 32, .packed_q = 1, .packed_k = 1,
     .q_lengths = {1, 64, 0, 129, 65, 17}, .k_lengths = {70, 64, 5, 128, 200, 0}, .flags = DLATTN_CAUSAL, .tokens_before = 3,
     .tokens_after = 2)
CASE(gpu_lengths_bf16, .dtype = BF16, .B = 4, .H = 1, .M = 140, .N = 200, .D = 32, .E = 32, .use_q = 1, .use_k = 1,
     .q_used = {140, 64, 0, 65}, .k_used = {200, 128, 60, 0})
CASE(gpu_gaps_bf16, .dtype = BF16, .H = 2, .M = 70, .N = 135, .D = 64, .E = 64, .strides = GAPS)
CASE(gpu_misaligned_bf16, .dtype = BF16, .M = 70, .N = 135, .D = 64, .E = 64, .strides = MISALIGNED)
CASE(gpu_negative_strides_bf16, .dtype = BF16, .H = 2, .M = 70, .N = 135, .D = 64, .E = 64, .bias = "hmn", .strides = NEGATIVE)
CASE(gpu_broadcast_f16, .dtype = F16, .B = 2, .H = 2, .G = 2, .M = 70, .N = 135, .D = 64, .E = 64, .strides = BROADCAST)
CASE(gpu_permuted_f16, .dtype = F16, .H = 2, .G = 1, .M = 70, .N = 135, .D = 64, .E = 64, .strides = PERMUTED, .layout = DLATTN_BHSD)
CASE(gpu_everything_bf16, .dtype = BF16, .B = 2, .H = 2, .G = 1, .M = 130, .N = 200, .D = 64, .E = 64,
     .flags = DLATTN_CAUSAL | DLATTN_WINDOW | DLATTN_BLOCK_WINDOW | DLATTN_POSITIONS | DLATTN_SCALE, .scale = 0.2, .window_left = 150,
     .window_right = -1, .block_size = 45, .block_count = 4, .start_tensors = 1, .q_starts = {80, 33}, .k_starts = {0, -4}, .softcap = 4,
     .bias = "1hmn", .mask = "b1mn", .alibi = "bh", .sinks = 1, .segments = SEGMENTS_SORTED, .use_q = 1, .use_k = 1,
     .q_used = {130, 90}, .k_used = {199, 140}, .dropout = 0.15, .seed = 77, .offset = 3)
CASE(gpu_interleaved_bf16, .dtype = BF16, .H = 2, .M = 130, .N = 130, .D = 32, .E = 32, .strides = INTERLEAVED,
     .flags = DLATTN_CAUSAL)

/* ---- TF32 (flags come last): on the CPU and for 16-bit inputs the flag changes nothing ------------------------------- */
#define TF32(name, ...) CASE(tf32_##name, __VA_ARGS__ | DLATTN_ALLOW_TF32)
TF32(plain, .B = 2, .M = 70, .N = 100, .D = 64, .E = 64, .flags = 0)
TF32(causal, .M = 130, .N = 130, .D = 32, .E = 32, .flags = DLATTN_CAUSAL)
TF32(gqa, .B = 2, .H = 8, .G = 2, .M = 40, .N = 50, .D = 80, .E = 80, .flags = DLATTN_CAUSAL)
TF32(odd_sizes, .B = 2, .H = 3, .G = 3, .M = 53, .N = 101, .D = 37, .E = 41, .flags = 0)
TF32(few_keys, .M = 60, .N = 60, .window_left = 1, .flags = DLATTN_CAUSAL | DLATTN_WINDOW)
TF32(decode, .H = 4, .M = 1, .N = 1500, .D = 64, .E = 64, .flags = DLATTN_CAUSAL)
TF32(bias_dropout, .B = 2, .H = 4, .G = 2, .M = 40, .N = 70, .bias = "1hmn", .dropout = 0.2, .seed = 3, .sinks = 1, .flags = 0)
TF32(softcap_large_heads, .H = 1, .M = 66, .N = 70, .D = 256, .E = 200, .softcap = 3, .flags = DLATTN_CAUSAL)
TF32(packed, .B = 3, .packed_q = 1, .packed_k = 1, .q_lengths = {11, 70, 0}, .k_lengths = {17, 65, 5}, .D = 33, .flags = DLATTN_CAUSAL)
TF32(bf16, .dtype = BF16, .M = 40, .N = 70, .D = 32, .E = 32, .bias = "11mn", .flags = 0)
#undef TF32
