/* cases.h: the table of named problems that every backend, binding and bench is judged by.
 *
 * An X-macro: define CASE(name, ...) and include. The arguments are designated fields of test_case (case.h). A name
 * says what the case stresses. Sizes are small, so that the oracle in double affords all of them. */

/* ---- sizes and head sizes ---------------------------------------------------------------------------------------- */
CASE(plain, .B = 2)
CASE(plain_f16, .dtype = F16, .B = 2)
CASE(plain_bf16, .dtype = BF16, .B = 2)
CASE(plain_f64, .dtype = F64, .B = 2)
CASE(one_element, .H = 1, .M = 1, .N = 1, .D = 1, .E = 1)
CASE(one_key, .N = 1)
CASE(one_query, .M = 1)
CASE(no_batch, .B = 0)
CASE(no_heads, .H = 0, .G = 0)
CASE(no_heads_with_bias_f16, .dtype = F16, .H = 0, .G = 0, .bias = "b1mn")
CASE(no_queries, .M = 0)
CASE(no_keys, .N = 0)
CASE(no_keys_with_sinks, .N = 0, .sinks = 1)
CASE(prime_sizes, .B = 3, .H = 5, .G = 5, .M = 53, .N = 101, .D = 37, .E = 41)
CASE(d_larger_than_e, .D = 96, .E = 17)
CASE(e_larger_than_d, .D = 5, .E = 130)
CASE(d_prime_e_prime_f16, .dtype = F16, .D = 31, .E = 43)
CASE(d_prime_e_prime_bf16, .dtype = BF16, .D = 43, .E = 31)
CASE(d_prime_e_prime_f64, .dtype = F64, .D = 13, .E = 11)
#define HEAD_SIZE(d, e) CASE(head_sizes_##d##_##e, .H = 1, .M = 21, .N = 35, .D = d, .E = e)
HEAD_SIZE(1, 2)
HEAD_SIZE(2, 1)
HEAD_SIZE(3, 3)
HEAD_SIZE(4, 5)
HEAD_SIZE(5, 4)
HEAD_SIZE(6, 7)
HEAD_SIZE(7, 6)
HEAD_SIZE(8, 8)
HEAD_SIZE(9, 10)
HEAD_SIZE(10, 9)
HEAD_SIZE(11, 12)
HEAD_SIZE(12, 11)
HEAD_SIZE(13, 14)
HEAD_SIZE(14, 13)
HEAD_SIZE(15, 16)
HEAD_SIZE(16, 15)
HEAD_SIZE(17, 17)
HEAD_SIZE(31, 33)
HEAD_SIZE(32, 32)
HEAD_SIZE(33, 31)
HEAD_SIZE(47, 48)
HEAD_SIZE(63, 65)
HEAD_SIZE(64, 64)
HEAD_SIZE(65, 63)
HEAD_SIZE(80, 80)
HEAD_SIZE(96, 112)
HEAD_SIZE(112, 96)
HEAD_SIZE(127, 129)
HEAD_SIZE(128, 128)
HEAD_SIZE(129, 127)
HEAD_SIZE(160, 192)
HEAD_SIZE(192, 160)
HEAD_SIZE(255, 256)
HEAD_SIZE(256, 255)
#undef HEAD_SIZE
#define HEAD_SIZE_16(d, e)                                                                  \
    CASE(head_sizes_f16_##d##_##e, .dtype = F16, .H = 1, .M = 18, .N = 33, .D = d, .E = e)  \
    CASE(head_sizes_bf16_##d##_##e, .dtype = BF16, .H = 1, .M = 18, .N = 33, .D = d, .E = e)
HEAD_SIZE_16(1, 1)
HEAD_SIZE_16(2, 3)
HEAD_SIZE_16(7, 8)
HEAD_SIZE_16(15, 17)
HEAD_SIZE_16(16, 16)
HEAD_SIZE_16(33, 31)
HEAD_SIZE_16(64, 64)
HEAD_SIZE_16(80, 80)
HEAD_SIZE_16(96, 112)
HEAD_SIZE_16(127, 129)
HEAD_SIZE_16(128, 128)
HEAD_SIZE_16(192, 160)
HEAD_SIZE_16(255, 256)
HEAD_SIZE_16(256, 256)
#undef HEAD_SIZE_16

/* ---- borders of tiles -------------------------------------------------------------------------------------------- */
CASE(tiles_of_queries_and_keys, .H = 1, .M = 613, .N = 641, .D = 8, .E = 8)
CASE(tiles_causal, .H = 1, .M = 600, .N = 700, .D = 8, .E = 9, .flags = DLATTN_CAUSAL)
CASE(tiles_causal_bf16, .dtype = BF16, .H = 1, .M = 601, .N = 601, .D = 32, .E = 32, .flags = DLATTN_CAUSAL)
CASE(tiles_causal_f16, .dtype = F16, .H = 1, .M = 640, .N = 512, .D = 16, .E = 16, .flags = DLATTN_CAUSAL)
CASE(tiles_exact_multiples, .H = 1, .M = 512, .N = 512, .D = 16, .E = 16)
CASE(tiles_one_past_multiples, .H = 1, .M = 257, .N = 513, .D = 16, .E = 16)
CASE(tiles_one_short_of_multiples, .H = 1, .M = 255, .N = 511, .D = 16, .E = 16, .flags = DLATTN_CAUSAL)
CASE(tiles_window, .H = 1, .M = 650, .N = 650, .D = 8, .E = 8, .flags = DLATTN_WINDOW, .window_left = 100, .window_right = 30)
CASE(tiles_many_keys, .H = 1, .M = 33, .N = 2100, .D = 16, .E = 16)
CASE(tiles_many_queries, .H = 1, .M = 1500, .N = 70, .D = 16, .E = 16)
CASE(tiles_gqa_dbias, .H = 4, .G = 2, .M = 300, .N = 290, .D = 8, .E = 8, .bias = "11mn")
CASE(tiles_f64, .dtype = F64, .H = 1, .M = 270, .N = 300, .D = 8, .E = 8, .flags = DLATTN_CAUSAL)

#include "cases_cuda.h"

/* ---- heads ------------------------------------------------------------------------------------------------------- */
CASE(gqa_group_of_four, .B = 2, .H = 8, .G = 2)
CASE(gqa_group_of_three_bf16, .dtype = BF16, .H = 6, .G = 2, .D = 64, .E = 64)
CASE(mqa, .B = 2, .H = 7, .G = 1)
CASE(mqa_causal_f16, .dtype = F16, .H = 8, .G = 1, .D = 40, .E = 24, .flags = DLATTN_CAUSAL)
CASE(heads_first_layout, .B = 2, .H = 4, .G = 2, .layout = DLATTN_BHSD)
CASE(heads_first_layout_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .layout = DLATTN_BHSD)

/* ---- few rows on many keys --------------------------------------------------------------------------------------- */
CASE(decode_one_row, .H = 1, .M = 1, .N = 3001, .D = 64, .E = 64)
CASE(decode_gqa_long_keys, .B = 2, .H = 8, .G = 2, .M = 1, .N = 2500, .D = 32, .E = 32)
CASE(decode_gqa_long_keys_bf16, .dtype = BF16, .B = 2, .H = 8, .G = 2, .M = 1, .N = 1500, .D = 64, .E = 64)
CASE(decode_gqa_long_keys_f16, .dtype = F16, .H = 8, .G = 2, .M = 1, .N = 1500, .D = 40, .E = 48)
CASE(decode_two_rows_causal, .H = 2, .G = 1, .M = 2, .N = 900, .D = 24, .E = 24, .flags = DLATTN_CAUSAL)
CASE(decode_three_rows, .H = 3, .G = 1, .M = 1, .N = 777, .D = 17, .E = 19)
CASE(decode_eight_rows_causal, .H = 4, .G = 1, .M = 2, .N = 5000, .D = 16, .E = 16, .flags = DLATTN_CAUSAL)
CASE(decode_sixteen_rows, .H = 4, .G = 1, .M = 4, .N = 1029, .D = 64, .E = 64)
CASE(decode_seventeen_rows, .H = 1, .G = 1, .M = 17, .N = 600, .D = 16, .E = 16)
CASE(decode_window, .H = 4, .G = 2, .M = 1, .N = 2000, .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 300)
CASE(decode_ragged_keys, .B = 4, .H = 4, .G = 2, .M = 1, .N = 600, .use_k = 1, .k_used = {600, 0, 1, 257}, .flags = DLATTN_CAUSAL)
CASE(decode_softcap_sinks_alibi, .H = 4, .G = 2, .M = 1, .N = 700, .softcap = 5, .sinks = 1, .alibi = "h")
CASE(decode_bias_mask, .B = 2, .H = 4, .G = 2, .M = 2, .N = 555, .bias = "1hmn", .mask = "b11n")
CASE(decode_dropout, .H = 4, .G = 2, .M = 1, .N = 700, .dropout = 0.3, .seed = 5)
CASE(decode_f64, .dtype = F64, .H = 2, .M = 1, .N = 600)
CASE(decode_large_scores, .H = 2, .M = 1, .N = 800, .inputs = LARGE)

/* ---- causal ------------------------------------------------------------------------------------------------------ */
CASE(causal_square, .M = 40, .N = 40, .flags = DLATTN_CAUSAL)
CASE(causal_bottom_right_m_lt_n, .M = 20, .N = 77, .flags = DLATTN_CAUSAL)
CASE(causal_bottom_right_m_gt_n, .M = 77, .N = 20, .flags = DLATTN_CAUSAL)
CASE(causal_rows_without_keys_bf16, .dtype = BF16, .M = 77, .N = 20, .D = 32, .E = 32, .flags = DLATTN_CAUSAL)
CASE(causal_top_left_m_lt_n, .M = 20, .N = 77, .flags = DLATTN_CAUSAL | DLATTN_TOP_LEFT)
CASE(causal_top_left_m_gt_n, .M = 77, .N = 20, .flags = DLATTN_CAUSAL | DLATTN_TOP_LEFT)
CASE(causal_f16, .dtype = F16, .M = 45, .N = 61, .D = 32, .E = 32, .flags = DLATTN_CAUSAL)
CASE(causal_bf16, .dtype = BF16, .M = 61, .N = 61, .D = 32, .E = 32, .flags = DLATTN_CAUSAL)
CASE(causal_f64, .dtype = F64, .M = 31, .N = 37, .flags = DLATTN_CAUSAL)

/* ---- windows ----------------------------------------------------------------------------------------------------- */
CASE(window_both_sides, .M = 60, .N = 60, .flags = DLATTN_WINDOW, .window_left = 7, .window_right = 3)
CASE(window_zero, .M = 50, .N = 50, .flags = DLATTN_WINDOW, .window_left = 0, .window_right = 0)
CASE(window_one_causal, .M = 50, .N = 70, .flags = DLATTN_WINDOW | DLATTN_CAUSAL, .window_left = 1)
CASE(window_left_only, .M = 50, .N = 70, .flags = DLATTN_WINDOW, .window_left = 7, .window_right = -1)
CASE(window_right_only, .M = 70, .N = 50, .flags = DLATTN_WINDOW, .window_left = -1, .window_right = 7)
CASE(window_unlimited, .flags = DLATTN_WINDOW, .window_left = -1, .window_right = -1)
CASE(window_larger_than_sequence, .flags = DLATTN_WINDOW, .window_left = 1000, .window_right = 1000)
CASE(window_saturates, .flags = DLATTN_WINDOW, .window_left = INT64_MAX, .window_right = INT64_MAX)
CASE(window_saturates_with_causal, .flags = DLATTN_WINDOW | DLATTN_CAUSAL, .window_left = INT64_MAX, .window_right = INT64_MIN)
CASE(window_top_left_m_gt_n, .M = 80, .N = 30, .flags = DLATTN_WINDOW | DLATTN_TOP_LEFT, .window_left = 10, .window_right = 2)
CASE(window_bottom_right_m_gt_n, .M = 80, .N = 30, .flags = DLATTN_WINDOW, .window_left = 10, .window_right = 2)
CASE(window_bf16, .dtype = BF16, .M = 90, .N = 90, .D = 64, .E = 64, .flags = DLATTN_WINDOW | DLATTN_CAUSAL, .window_left = 20)
CASE(window_f16_gqa, .dtype = F16, .H = 4, .G = 2, .M = 90, .N = 70, .flags = DLATTN_WINDOW, .window_left = 20, .window_right = 5)
CASE(block_window_even, .M = 64, .N = 64, .flags = DLATTN_BLOCK_WINDOW, .block_size = 16, .block_count = 2)
CASE(block_window_divides_nothing, .M = 61, .N = 67, .flags = DLATTN_BLOCK_WINDOW, .block_size = 7, .block_count = 3)
CASE(block_window_of_one, .M = 40, .N = 40, .flags = DLATTN_BLOCK_WINDOW, .block_size = 1, .block_count = 1)
CASE(block_window_rows_before_keys, .M = 70, .N = 20, .flags = DLATTN_BLOCK_WINDOW, .block_size = 6, .block_count = 2)
CASE(block_window_larger_than_all, .flags = DLATTN_BLOCK_WINDOW, .block_size = 1000, .block_count = 5)
CASE(block_window_count_saturates, .M = 50, .N = 50, .flags = DLATTN_BLOCK_WINDOW, .block_size = 9, .block_count = INT64_MAX)
CASE(block_window_size_saturates, .flags = DLATTN_BLOCK_WINDOW, .block_size = INT64_MAX, .block_count = INT64_MAX)
CASE(block_window_causal_bf16, .dtype = BF16, .M = 80, .N = 80, .D = 32, .E = 32, .flags = DLATTN_BLOCK_WINDOW | DLATTN_CAUSAL,
     .block_size = 12, .block_count = 2)
CASE(block_window_tiles, .H = 1, .M = 620, .N = 620, .D = 8, .E = 8, .flags = DLATTN_BLOCK_WINDOW, .block_size = 100, .block_count = 2)

/* ---- positions --------------------------------------------------------------------------------------------------- */
CASE(positions_ring_step, .M = 40, .N = 40, .flags = DLATTN_CAUSAL | DLATTN_POSITIONS, .q_start = 80, .k_start = 60)
CASE(positions_all_keys_in_future, .flags = DLATTN_CAUSAL | DLATTN_POSITIONS, .q_start = 0, .k_start = 500)
CASE(positions_left_padding, .N = 40, .flags = DLATTN_POSITIONS, .q_start = 10, .k_start = -11)
CASE(positions_left_padding_causal, .M = 40, .N = 40, .flags = DLATTN_POSITIONS | DLATTN_CAUSAL, .q_start = -11, .k_start = -11)
CASE(positions_per_sequence, .B = 3, .M = 30, .N = 50, .flags = DLATTN_CAUSAL | DLATTN_POSITIONS, .start_tensors = 1,
     .q_starts = {20, 0, 100}, .k_starts = {0, -20, 60})
CASE(positions_per_sequence_int64, .B = 2, .M = 30, .N = 50, .flags = DLATTN_WINDOW | DLATTN_POSITIONS, .start_tensors = 1,
     .index64 = 1, .q_starts = {1000000007, 4}, .k_starts = {999999990, 0}, .window_left = 9, .window_right = 9)
CASE(positions_far_from_zero, .M = 30, .N = 50, .flags = DLATTN_CAUSAL | DLATTN_POSITIONS | DLATTN_WINDOW, .q_start = INT64_C(1) << 40,
     .k_start = (INT64_C(1) << 40) - 30, .window_left = 12)
CASE(positions_negative_blocks, .M = 60, .N = 60, .flags = DLATTN_POSITIONS | DLATTN_BLOCK_WINDOW, .q_start = -13, .k_start = -5,
     .block_size = 7, .block_count = 2)
CASE(positions_alibi, .flags = DLATTN_POSITIONS, .q_start = 3, .k_start = 40, .alibi = "h")
CASE(positions_at_the_end_of_int64_alibi, .flags = DLATTN_POSITIONS | DLATTN_CAUSAL, .q_start = INT64_MAX - 20, .k_start = INT64_MAX - 25,
     .alibi = "h")
CASE(positions_chunk_of_prefill_bf16, .dtype = BF16, .H = 4, .G = 2, .M = 33, .N = 99, .D = 32, .E = 32,
     .flags = DLATTN_CAUSAL | DLATTN_POSITIONS, .q_start = 66, .k_start = 0)

/* ---- bias and mask ----------------------------------------------------------------------------------------------- */
CASE(bias_full, .B = 2, .H = 4, .G = 2, .bias = "bhmn")
CASE(bias_broadcast_batch_dbias, .B = 3, .H = 4, .G = 2, .bias = "1hmn")
CASE(bias_by_sequence, .B = 3, .H = 16, .G = 8, .M = 40, .N = 70, .bias = "1hmn")
CASE(bias_by_sequence_lengths, .B = 3, .H = 8, .G = 8, .M = 40, .N = 300, .flags = DLATTN_CAUSAL, .use_q = 1, .use_k = 1,
     .q_used = {0, 33, 40}, .k_used = {300, 150, 17}, .bias = "1hmn", .softcap = 3)
CASE(bias_by_sequence_packed, .B = 3, .H = 8, .G = 8, .packed_q = 1, .packed_k = 1, .q_lengths = {11, 23, 5}, .k_lengths = {17, 9, 30},
     .bias = "1hmn", .mask = "b11n", .dropout = 0.3, .seed = 4)
CASE(bias_by_sequence_bf16, .dtype = BF16, .B = 2, .H = 8, .G = 8, .M = 33, .N = 61, .D = 32, .E = 32, .bias = "1hmn", .bias_f32 = 1,
     .strides = NEGATIVE)
CASE(bias_by_sequence_f64, .dtype = F64, .B = 2, .H = 8, .G = 8, .bias = "1hmn", .strides = GAPS)
CASE(bias_broadcast_head_dbias, .B = 2, .H = 6, .G = 2, .bias = "b1mn")
CASE(bias_broadcast_batch_head_dbias, .B = 3, .H = 4, .G = 2, .bias = "11mn")
CASE(bias_rank_two_dbias, .B = 2, .H = 4, .bias = "mn")
CASE(bias_rank_one_dbias, .B = 2, .H = 4, .bias = "n")
CASE(bias_rank_three_dbias, .B = 2, .H = 4, .bias = "hmn")
CASE(bias_broadcast_rows_dbias, .B = 2, .H = 4, .bias = "bh1n")
CASE(bias_broadcast_keys_dbias, .B = 2, .H = 4, .bias = "bhm1")
CASE(bias_per_head_dbias, .B = 2, .H = 4, .bias = "1h11")
CASE(bias_single_dbias, .B = 2, .H = 4, .bias = "1")
CASE(bias_stride_zero_is_no_broadcast, .B = 2, .H = 4, .bias = "BHmn")
CASE(bias_bf16, .dtype = BF16, .B = 2, .H = 2, .D = 32, .E = 32, .bias = "bhmn")
CASE(bias_f32_for_bf16, .dtype = BF16, .B = 2, .H = 2, .D = 32, .E = 32, .bias = "1hmn", .bias_f32 = 1)
CASE(bias_f32_for_f16, .dtype = F16, .B = 2, .H = 2, .bias = "b1mn", .bias_f32 = 1)
CASE(bias_f16_row, .dtype = F16, .B = 2, .H = 2, .bias = "b11n")
CASE(bias_f64, .dtype = F64, .H = 2, .bias = "1hmn")
CASE(bias_causal, .M = 50, .N = 60, .H = 4, .bias = "hmn", .flags = DLATTN_CAUSAL)
CASE(bias_minus_inf_rows, .bias = "bhmn", .inputs = MINUS_INF_BIAS)
CASE(bias_minus_inf_rows_with_sinks, .bias = "bhmn", .inputs = MINUS_INF_BIAS, .sinks = 1)
CASE(bias_bad_where_hidden, .B = 2, .M = 40, .N = 40, .bias = "bhmn", .inputs = BAD_BIAS, .flags = DLATTN_CAUSAL)
CASE(bias_bad_where_masked, .B = 2, .M = 40, .N = 40, .bias = "1hmn", .mask = "11mn", .inputs = BAD_BIAS)
CASE(bias_bad_where_masked_bf16, .dtype = BF16, .M = 40, .N = 40, .bias = "bhmn", .mask = "bhmn", .inputs = BAD_BIAS)
CASE(bias_permuted, .B = 2, .H = 3, .G = 3, .bias = "bhmn", .strides = PERMUTED)
CASE(mask_random, .B = 2, .mask = "bhmn")
CASE(mask_random_bool, .B = 2, .mask = "bhmn", .mask_bool = 1)
CASE(mask_shared_by_heads, .B = 2, .H = 4, .G = 2, .mask = "b1mn")
CASE(mask_rank_two, .B = 2, .mask = "mn")
CASE(mask_key_padding, .B = 3, .mask = "b11n", .mask_kind = MASK_PADDING)
CASE(mask_column, .B = 2, .mask = "bhm1")
CASE(mask_rows_without_keys, .B = 2, .mask = "bhmn", .mask_kind = MASK_HIDDEN_ROWS)
CASE(mask_rows_without_keys_sinks, .B = 2, .mask = "bhmn", .mask_kind = MASK_HIDDEN_ROWS, .sinks = 1)
CASE(mask_nothing_visible, .mask = "1111", .mask_kind = MASK_NOTHING_VISIBLE)
CASE(mask_stride_zero, .B = 2, .mask = "BHmn")
CASE(mask_bf16, .dtype = BF16, .H = 4, .D = 32, .E = 32, .mask = "1hmn")
CASE(mask_f16_causal, .dtype = F16, .M = 50, .N = 50, .mask = "11mn", .flags = DLATTN_CAUSAL)
CASE(mask_tiles, .H = 1, .M = 300, .N = 600, .D = 8, .E = 8, .mask = "mn")
CASE(mask_negative_strides, .B = 2, .mask = "bhmn", .strides = NEGATIVE)

/* ---- other terms ------------------------------------------------------------------------------------------------- */
CASE(alibi_per_head, .H = 4, .G = 2, .alibi = "h")
CASE(alibi_per_batch_and_head, .B = 2, .H = 4, .G = 2, .alibi = "bh", .flags = DLATTN_CAUSAL)
CASE(alibi_m_gt_n, .M = 50, .N = 20, .alibi = "h")
CASE(alibi_top_left, .M = 20, .N = 50, .alibi = "h", .flags = DLATTN_TOP_LEFT)
CASE(alibi_bf16, .dtype = BF16, .H = 4, .D = 32, .E = 32, .alibi = "h", .flags = DLATTN_CAUSAL)
CASE(alibi_far_keys, .dtype = F64, .B = 2, .M = 1, .N = 512, .D = 8, .E = 8, .alibi = "h", .sinks = 1)
CASE(alibi_f32_for_f16, .dtype = F16, .H = 4, .alibi = "h", .alibi_f32 = 1)
CASE(softcap, .softcap = 2)
CASE(softcap_large_scores, .softcap = 50, .inputs = LARGE)
CASE(softcap_saturated, .M = 1, .N = 51, .D = 50, .E = 50, .softcap = 0.5)
CASE(softcap_saturated_rows, .M = 60, .N = 3, .D = 33, .E = 33, .softcap = 0.5)
CASE(softcap_bf16, .dtype = BF16, .D = 32, .E = 32, .softcap = 20, .flags = DLATTN_CAUSAL)
CASE(softcap_f16, .dtype = F16, .softcap = 3)
CASE(softcap_f64, .dtype = F64, .softcap = 3)
CASE(softcap_bias, .softcap = 2, .bias = "bhmn")
CASE(sinks, .B = 2, .H = 4, .G = 2, .sinks = 1)
CASE(sinks_causal_bf16, .dtype = BF16, .H = 4, .D = 32, .E = 32, .sinks = 1, .flags = DLATTN_CAUSAL)
CASE(sinks_f32_for_f16, .dtype = F16, .H = 4, .sinks = 1, .sinks_f32 = 1)
CASE(sinks_f64, .dtype = F64, .sinks = 1)
CASE(sinks_rows_without_keys, .M = 50, .N = 20, .sinks = 1, .flags = DLATTN_CAUSAL)
CASE(sinks_window, .M = 50, .N = 50, .H = 4, .sinks = 1, .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 5)
CASE(scale_zero, .flags = DLATTN_SCALE, .scale = 0)
CASE(scale_negative, .flags = DLATTN_SCALE | DLATTN_CAUSAL, .scale = -0.5, .M = 30, .N = 30)
CASE(scale_negative_bf16, .dtype = BF16, .flags = DLATTN_SCALE, .scale = -0.3)
CASE(scale_large, .flags = DLATTN_SCALE, .scale = 4)
CASE(large_scores, .inputs = LARGE)
CASE(large_scores_causal, .inputs = LARGE, .M = 60, .N = 60, .flags = DLATTN_CAUSAL)
CASE(large_scores_f16, .dtype = F16, .inputs = LARGE)
CASE(large_scores_bf16, .dtype = BF16, .inputs = LARGE)
CASE(large_scores_f64, .dtype = F64, .inputs = LARGE)
CASE(zero_scores, .inputs = ZERO_SCORES)

/* ---- segments ---------------------------------------------------------------------------------------------------- */
CASE(segments_sorted, .B = 2, .M = 50, .N = 50, .segments = SEGMENTS_SORTED)
CASE(segments_sorted_causal, .B = 2, .M = 60, .N = 60, .segments = SEGMENTS_SORTED, .flags = DLATTN_CAUSAL)
CASE(segments_shuffled, .B = 2, .M = 50, .N = 40, .segments = SEGMENTS_SHUFFLED)
CASE(segments_int64, .B = 2, .M = 50, .N = 40, .segments = SEGMENTS_SHUFFLED, .index64 = 1)
CASE(segments_bf16, .dtype = BF16, .B = 2, .M = 50, .N = 50, .D = 32, .E = 32, .segments = SEGMENTS_SORTED)
CASE(segments_tiles, .H = 1, .M = 600, .N = 600, .D = 8, .E = 8, .segments = SEGMENTS_SORTED)
CASE(segments_gqa_f16, .dtype = F16, .H = 4, .G = 2, .M = 50, .N = 50, .segments = SEGMENTS_SORTED)

/* ---- lengths ----------------------------------------------------------------------------------------------------- */
CASE(padded_lengths, .B = 4, .M = 30, .N = 40, .use_q = 1, .use_k = 1, .q_used = {30, 0, 7, 19}, .k_used = {40, 11, 0, 23})
CASE(padded_lengths_causal, .B = 4, .M = 30, .N = 40, .use_q = 1, .use_k = 1, .q_used = {30, 0, 7, 19}, .k_used = {12, 11, 0, 23},
     .flags = DLATTN_CAUSAL)
CASE(padded_lengths_int64, .B = 3, .M = 30, .N = 40, .use_k = 1, .k_used = {1, 40, 17}, .index64 = 1)
CASE(padded_lengths_sinks, .B = 3, .M = 30, .N = 40, .use_q = 1, .use_k = 1, .q_used = {4, 30, 0}, .k_used = {40, 0, 17}, .sinks = 1)
CASE(padded_lengths_bias_mask, .B = 3, .M = 30, .N = 40, .use_q = 1, .use_k = 1, .q_used = {4, 30, 11}, .k_used = {40, 13, 17},
     .bias = "bhmn", .mask = "b1mn")
CASE(padded_lengths_clamped, .B = 2, .M = 30, .N = 40, .use_q = 1, .use_k = 1, .q_used = {30, 20}, .k_used = {40, 35}, .max_q = 30,
     .max_k = 40, .flags = DLATTN_CAUSAL)
CASE(padded_lengths_bf16, .dtype = BF16, .B = 3, .M = 40, .N = 70, .D = 32, .E = 32, .use_k = 1, .k_used = {33, 70, 0})
CASE(padded_lengths_tiles, .B = 2, .H = 1, .M = 300, .N = 600, .D = 8, .E = 8, .use_q = 1, .use_k = 1, .q_used = {290, 3},
     .k_used = {270, 599}, .flags = DLATTN_CAUSAL)
CASE(packed_both, .B = 3, .packed_q = 1, .packed_k = 1, .q_lengths = {11, 23, 5}, .k_lengths = {17, 9, 30})
CASE(packed_empty_sequences, .B = 5, .packed_q = 1, .packed_k = 1, .q_lengths = {0, 12, 0, 7, 0}, .k_lengths = {5, 0, 0, 9, 0})
CASE(packed_causal, .B = 3, .packed_q = 1, .packed_k = 1, .q_lengths = {31, 23, 5}, .k_lengths = {17, 29, 30}, .flags = DLATTN_CAUSAL)
CASE(packed_rows_of_no_sequence, .B = 3, .packed_q = 1, .packed_k = 1, .q_lengths = {31, 23, 5}, .k_lengths = {17, 29, 30},
     .tokens_before = 3, .tokens_after = 6, .sinks = 1)
CASE(packed_gaps_between_sequences, .B = 3, .packed_q = 1, .packed_k = 1, .q_lengths = {31, 23, 8}, .k_lengths = {17, 29, 30},
     .use_q = 1, .use_k = 1, .q_used = {20, 23, 0}, .k_used = {17, 11, 25}, .flags = DLATTN_CAUSAL)
CASE(packed_q_padded_k, .B = 3, .packed_q = 1, .q_lengths = {11, 23, 5}, .N = 30, .use_k = 1, .k_used = {30, 8, 19})
CASE(padded_q_packed_k, .B = 3, .packed_k = 1, .M = 20, .k_lengths = {11, 23, 5}, .flags = DLATTN_CAUSAL)
CASE(packed_clamped_by_max, .B = 3, .packed_q = 1, .packed_k = 1, .q_lengths = {31, 23, 5}, .k_lengths = {17, 29, 30}, .max_q = 24,
     .max_k = 20, .flags = DLATTN_CAUSAL)
CASE(packed_bias_mask, .B = 2, .packed_q = 1, .packed_k = 1, .q_lengths = {11, 15}, .k_lengths = {17, 9}, .max_q = 15, .max_k = 17,
     .bias = "bhmn", .mask = "bhmn")
CASE(packed_bias_broadcast_batch, .B = 2, .packed_q = 1, .packed_k = 1, .q_lengths = {11, 15}, .k_lengths = {17, 9}, .max_q = 15,
     .max_k = 17, .bias = "1hmn")
CASE(packed_gqa_bf16, .dtype = BF16, .B = 3, .H = 4, .G = 2, .D = 32, .E = 32, .packed_q = 1, .packed_k = 1, .q_lengths = {31, 64, 5},
     .k_lengths = {31, 64, 5}, .flags = DLATTN_CAUSAL)
CASE(packed_f16_window, .dtype = F16, .B = 3, .packed_q = 1, .packed_k = 1, .q_lengths = {31, 64, 5}, .k_lengths = {31, 64, 5},
     .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 10)
CASE(packed_f64, .dtype = F64, .B = 2, .packed_q = 1, .packed_k = 1, .q_lengths = {11, 15}, .k_lengths = {17, 9})
CASE(packed_heads_first, .B = 3, .H = 4, .G = 2, .layout = DLATTN_BHSD, .packed_q = 1, .packed_k = 1, .q_lengths = {11, 23, 5},
     .k_lengths = {17, 9, 30})
CASE(packed_int64_alibi, .B = 3, .H = 4, .G = 2, .index64 = 1, .packed_q = 1, .packed_k = 1, .q_lengths = {11, 23, 5},
     .k_lengths = {17, 9, 30}, .alibi = "bh")
CASE(packed_positions, .B = 2, .packed_q = 1, .packed_k = 1, .q_lengths = {20, 30}, .k_lengths = {40, 50}, .start_tensors = 1,
     .q_starts = {20, 7}, .k_starts = {0, -3}, .flags = DLATTN_POSITIONS | DLATTN_CAUSAL)
CASE(packed_decode, .B = 4, .H = 4, .G = 2, .packed_q = 1, .packed_k = 1, .q_lengths = {1, 1, 0, 1}, .k_lengths = {500, 3, 7, 290},
     .flags = DLATTN_CAUSAL)
CASE(packed_many_tiles, .B = 3, .H = 1, .D = 8, .E = 8, .packed_q = 1, .packed_k = 1, .q_lengths = {300, 1, 280},
     .k_lengths = {270, 5, 530}, .flags = DLATTN_CAUSAL)

/* ---- dropout ----------------------------------------------------------------------------------------------------- */
CASE(dropout, .B = 2, .H = 2, .dropout = 0.1, .seed = 42)
CASE(dropout_half_causal, .M = 60, .N = 60, .dropout = 0.5, .seed = 1, .offset = 7, .flags = DLATTN_CAUSAL)
CASE(dropout_rate_one, .dropout = 1, .seed = 3)
CASE(dropout_tiny_rate, .dropout = 1e-9, .seed = 3)
CASE(dropout_nearly_one, .dropout = 0.9999, .seed = 3, .N = 200)
CASE(dropout_wide_seed, .dropout = 0.25, .seed = UINT64_C(0xfedcba9876543210), .offset = UINT64_C(0xffffffff00000005))
CASE(dropout_rng_state_two, .dropout = 0.25, .seed = UINT64_C(0x123456789), .offset = UINT64_C(0x100000002), .rng_state = 2)
CASE(dropout_rng_state_four, .dropout = 0.25, .seed = UINT64_C(0xf23456789), .offset = UINT64_C(0x100000002), .rng_state = 4)
CASE(dropout_positions, .M = 40, .N = 70, .dropout = 0.4, .seed = 9, .flags = DLATTN_POSITIONS | DLATTN_CAUSAL, .q_start = 37, .k_start = 5)
CASE(dropout_negative_positions, .M = 40, .N = 40, .dropout = 0.4, .seed = 9, .flags = DLATTN_POSITIONS, .q_start = -37, .k_start = -5)
CASE(dropout_positions_at_the_end_of_int64, .M = 40, .N = 40, .dropout = 0.4, .seed = 9, .flags = DLATTN_POSITIONS,
     .q_start = INT64_MAX - 41, .k_start = INT64_MAX - 41)
CASE(dropout_positions_at_the_start_of_int64, .M = 40, .N = 40, .dropout = 0.4, .seed = 9, .flags = DLATTN_POSITIONS,
     .q_start = INT64_MIN, .k_start = 3)
CASE(dropout_bf16, .dtype = BF16, .H = 4, .G = 2, .M = 40, .N = 70, .D = 32, .E = 32, .dropout = 0.2, .seed = 11)
CASE(dropout_f16, .dtype = F16, .M = 40, .N = 70, .dropout = 0.2, .seed = 11)
CASE(dropout_f64, .dtype = F64, .dropout = 0.2, .seed = 11)
CASE(dropout_sinks_bias, .H = 4, .dropout = 0.3, .seed = 8, .sinks = 1, .bias = "1hmn")
CASE(dropout_packed, .B = 3, .packed_q = 1, .packed_k = 1, .q_lengths = {11, 23, 5}, .k_lengths = {17, 9, 30}, .dropout = 0.3, .seed = 2)
CASE(dropout_tiles, .H = 1, .M = 270, .N = 530, .D = 8, .E = 8, .dropout = 0.3, .seed = 2)

/* ---- memory ------------------------------------------------------------------------------------------------------ */
CASE(gaps_in_strides, .B = 2, .H = 4, .G = 2, .bias = "bhmn", .mask = "b1mn", .sinks = 1, .strides = GAPS)
CASE(gaps_in_strides_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .D = 32, .E = 32, .strides = GAPS)
CASE(negative_strides, .B = 2, .H = 4, .G = 2, .bias = "bhmn", .strides = NEGATIVE)
CASE(negative_strides_f16, .dtype = F16, .B = 2, .H = 4, .G = 2, .strides = NEGATIVE)
CASE(negative_strides_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .strides = NEGATIVE)
CASE(permuted_strides, .B = 2, .H = 4, .G = 2, .strides = PERMUTED)
CASE(permuted_strides_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .D = 64, .E = 64, .strides = PERMUTED)
CASE(permuted_strides_decode, .H = 4, .G = 2, .M = 1, .N = 600, .strides = PERMUTED)
CASE(broadcast_keys, .B = 2, .H = 4, .G = 2, .strides = BROADCAST)
CASE(broadcast_keys_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 4, .strides = BROADCAST)
CASE(interleaved_dqkv_views, .B = 2, .H = 4, .G = 4, .M = 30, .N = 30, .strides = INTERLEAVED)
CASE(interleaved_dqkv_views_gqa_bf16, .dtype = BF16, .B = 2, .H = 6, .G = 2, .M = 30, .N = 30, .D = 32, .E = 32, .strides = INTERLEAVED)
CASE(interleaved_dqkv_heads_first, .B = 2, .H = 4, .G = 4, .M = 30, .N = 30, .layout = DLATTN_BHSD, .strides = INTERLEAVED)
CASE(interleaved_dqkv_packed, .B = 2, .packed_q = 1, .packed_k = 1, .q_lengths = {11, 23}, .k_lengths = {11, 23}, .strides = INTERLEAVED,
     .flags = DLATTN_CAUSAL)
CASE(byte_offset, .B = 2, .bias = "1hmn", .mask = "b11n", .sinks = 1, .strides = BYTE_OFFSET)
CASE(misaligned, .B = 2, .H = 4, .G = 2, .D = 33, .E = 35, .strides = MISALIGNED)
CASE(misaligned_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .D = 33, .E = 35, .strides = MISALIGNED)
CASE(misaligned_f16_decode, .dtype = F16, .H = 4, .G = 2, .M = 1, .N = 513, .D = 35, .E = 33, .strides = MISALIGNED)
CASE(misaligned_f64, .dtype = F64, .D = 7, .E = 5, .strides = MISALIGNED)
CASE(gaps_packed, .B = 2, .packed_q = 1, .packed_k = 1, .q_lengths = {11, 23}, .k_lengths = {21, 13}, .strides = GAPS, .tokens_before = 2,
     .tokens_after = 3)
CASE(f32_outputs_of_bf16, .dtype = BF16, .B = 2, .D = 32, .E = 32, .f32_out = 1, .f32_gradients = 1)
CASE(f32_outputs_of_f16, .dtype = F16, .B = 2, .f32_out = 1, .f32_gradients = 1, .bias = "1hmn", .sinks = 1)
CASE(f32_outputs_of_f64, .dtype = F64, .f32_out = 1, .f32_gradients = 1)
CASE(f32_outputs_of_f64_subnormal, .dtype = F64, .H = 2, .G = 2, .M = 35, .N = 248, .D = 13, .E = 16, .flags = DLATTN_CAUSAL,
     .inputs = LARGE, .f32_gradients = 1)
CASE(f32_out_of_bf16_decode, .dtype = BF16, .H = 4, .M = 1, .N = 400, .D = 32, .E = 32, .f32_out = 1)
#define FEW_KEYS(name, ...)                                                                                                 \
    CASE(few_keys_f32_outputs_##name, .H = 4, .M = 60, .N = 60, .D = 32, .E = 32, .f32_out = 1, .f32_gradients = 1, __VA_ARGS__)
FEW_KEYS(f16, .dtype = F16, .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 1)
FEW_KEYS(bf16, .dtype = BF16, .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 1)
FEW_KEYS(sinks_f16, .dtype = F16, .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 0, .sinks = 1)
FEW_KEYS(dropout_bf16, .dtype = BF16, .N = 5, .dropout = 0.5, .seed = 3)
FEW_KEYS(few_rows_f16, .dtype = F16, .G = 4, .M = 3, .N = 21, .dropout = 0.544, .seed = 8)
#undef FEW_KEYS
CASE(no_dlse, .B = 2, .dlse = 0)
CASE(no_dlse_sinks, .B = 2, .sinks = 1, .dlse = 0)

/* ---- what must not spread ---------------------------------------------------------------------------------------- */
CASE(nan_in_q_stays_in_its_row, .B = 2, .H = 4, .G = 2, .inputs = NAN_IN_Q)
CASE(nan_in_q_stays_in_its_row_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .D = 32, .E = 32, .inputs = NAN_IN_Q)
CASE(nan_in_q_dropout, .B = 2, .H = 4, .G = 2, .dropout = 0.6, .seed = 3, .inputs = NAN_IN_Q)
CASE(nan_in_q_all_dropped, .B = 2, .H = 4, .G = 2, .dropout = 1, .inputs = NAN_IN_Q)
CASE(nan_in_q_decode, .B = 2, .H = 4, .G = 2, .M = 1, .N = 300, .inputs = NAN_IN_Q)
CASE(inf_in_v_stays_in_its_head, .B = 2, .H = 4, .G = 2, .inputs = INF_IN_V)
CASE(inf_in_v_stays_in_its_head_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .inputs = INF_IN_V)
CASE(bad_keys_nobody_sees, .B = 2, .M = 20, .N = 50, .flags = DLATTN_CAUSAL | DLATTN_TOP_LEFT, .inputs = BAD_KEYS,
     .gradients = NO_GRADIENTS)
CASE(bad_keys_nobody_sees_mask, .B = 2, .H = 4, .G = 2, .M = 20, .N = 50, .mask = "b11n", .mask_kind = MASK_PADDING, .inputs = BAD_KEYS,
     .gradients = NO_GRADIENTS)
CASE(bad_keys_nobody_sees_bf16, .dtype = BF16, .B = 2, .M = 60, .N = 50, .D = 32, .E = 32, .flags = DLATTN_WINDOW, .window_left = 3,
     .window_right = -1, .mask = "b11n", .mask_kind = MASK_PADDING, .inputs = BAD_KEYS, .gradients = NO_GRADIENTS)
CASE(bad_queries_that_see_nothing, .M = 50, .N = 20, .flags = DLATTN_CAUSAL, .inputs = BAD_KEYS, .gradients = NO_GRADIENTS)

/* ---- everything together ----------------------------------------------------------------------------------------- */
#define EVERYTHING(name, type)                                                                                              \
    CASE(name, .dtype = type, .B = 2, .H = 4, .G = 2, .M = 60, .N = 70, .D = 24, .E = 40,                                   \
         .flags = DLATTN_CAUSAL | DLATTN_WINDOW | DLATTN_BLOCK_WINDOW | DLATTN_POSITIONS | DLATTN_SCALE, .scale = 0.3,      \
         .window_left = 40, .window_right = -1, .block_size = 11, .block_count = 4, .start_tensors = 1, .q_starts = {10, 33}, \
         .k_starts = {0, -4}, .softcap = 4, .bias = "1hmn", .mask = "b1mn", .alibi = "bh", .sinks = 1,                      \
         .segments = SEGMENTS_SORTED, .use_q = 1, .use_k = 1, .q_used = {60, 41}, .k_used = {65, 70}, .dropout = 0.15,      \
         .seed = 77, .offset = 3, .strides = GAPS)
EVERYTHING(everything_together, F32)
EVERYTHING(everything_together_f16, F16)
EVERYTHING(everything_together_bf16, BF16)
EVERYTHING(everything_together_f64, F64)
#undef EVERYTHING
CASE(everything_packed, .B = 3, .H = 4, .G = 2, .D = 24, .E = 40, .packed_q = 1, .packed_k = 1, .q_lengths = {40, 25, 9},
     .k_lengths = {50, 20, 13}, .use_q = 1, .q_used = {33, 25, 9}, .tokens_before = 2, .tokens_after = 1, .max_q = 40, .max_k = 50,
     .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 20, .softcap = 4, .bias = "11mn", .mask = "b11n", .alibi = "h", .sinks = 1,
     .dropout = 0.2, .seed = 5)

/* ---- keys in pages ------------------------------------------------------------------------------------------------- */
#include "cases_paged.h"
