/* cases_paged.h: the part of the case table whose keys lie in pages; included by cases.h, where CASE is explained. */

#define PAGED(name, ...) CASE(paged_##name, .use_k = 1, .gradients = NO_GRADIENTS, __VA_ARGS__)

/* ---- page sizes beside tiles of 64, 80 and 128 keys ---------------------------------------------------------------- */
PAGED(plain, .B = 3, .N = 64, .page = 16, .k_used = {64, 0, 37})
PAGED(f64, .dtype = F64, .B = 2, .N = 36, .page = 6, .k_used = {36, 23})
PAGED(f32_page_256, .B = 2, .H = 4, .G = 2, .M = 70, .N = 512, .page = 256, .k_used = {300, 512}, .flags = DLATTN_CAUSAL)
PAGED(f32_tf32, .B = 2, .M = 40, .N = 96, .page = 16, .k_used = {90, 41}, .flags = DLATTN_ALLOW_TF32)
#define PAGE_SIZE(size, n, ...)                                                                                               \
    PAGED(size_##size##_bf16, .dtype = BF16, .B = 3, .H = 4, .G = 2, .M = 70, .N = n, .D = 64, .E = 64, .page = size,         \
          .k_used = {n, 0, __VA_ARGS__}, .flags = DLATTN_CAUSAL)                                                              \
    PAGED(size_##size##_f16, .dtype = F16, .B = 2, .H = 2, .M = 9, .N = n, .D = 128, .E = 128, .page = size, .k_used = {__VA_ARGS__, n})
PAGE_SIZE(1, 70, 69)
PAGE_SIZE(7, 140, 131)
PAGE_SIZE(16, 160, 145)
PAGE_SIZE(48, 192, 143)
PAGE_SIZE(64, 256, 129)
PAGE_SIZE(100, 300, 201)
PAGE_SIZE(256, 512, 257)
#undef PAGE_SIZE
#define PAGED_HEAD(d, e)                                                                                                      \
    PAGED(heads_##d##_##e##_bf16, .dtype = BF16, .B = 2, .H = 2, .M = 66, .N = 176, .D = d, .E = e, .page = 16, .k_used = {161, 176}, \
          .flags = DLATTN_CAUSAL)
PAGED_HEAD(24, 40)
PAGED_HEAD(31, 43)
PAGED_HEAD(96, 80)
PAGED_HEAD(160, 192)
PAGED_HEAD(256, 256)
#undef PAGED_HEAD

/* ---- few queries: packed rows, split keys --------------------------------------------------------------------------- */
#define DECODE(size, id, type)                                                                                                \
    PAGED(decode_##size##_##id, .dtype = type, .B = 4, .H = 8, .G = 2, .M = 1, .N = 2048, .D = 64, .E = 64, .page = size,     \
          .k_used = {2048, 0, 1, 1337}, .flags = DLATTN_CAUSAL)
DECODE(16, bf16, BF16)
DECODE(64, f16, F16)
DECODE(256, bf16, BF16)
DECODE(16, f32, F32)
#undef DECODE
PAGED(decode_128_bf16, .dtype = BF16, .H = 4, .M = 1, .N = 1536, .D = 128, .E = 128, .page = 512, .k_used = {1500})
PAGED(decode_window_f16, .dtype = F16, .B = 2, .H = 8, .G = 2, .M = 1, .N = 1280, .D = 64, .E = 64, .page = 64,
      .k_used = {1279, 640}, .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 200)
PAGED(decode_sinks_softcap_bf16, .dtype = BF16, .B = 2, .H = 4, .M = 1, .N = 1040, .D = 64, .E = 64, .page = 16,
      .k_used = {1040, 1025}, .flags = DLATTN_CAUSAL, .sinks = 1, .softcap = 4)
PAGED(decode_misaligned_f16, .dtype = F16, .H = 4, .G = 2, .M = 1, .N = 1100, .D = 35, .E = 33, .page = 50, .k_used = {1051},
      .strides = MISALIGNED)
PAGED(few_queries_bf16, .dtype = BF16, .B = 2, .H = 8, .G = 2, .M = 5, .N = 320, .D = 64, .E = 64, .page = 16, .k_used = {300, 3},
      .flags = DLATTN_CAUSAL)
PAGED(chunk_of_prefill_f16, .dtype = F16, .B = 2, .H = 4, .G = 2, .M = 150, .N = 320, .D = 64, .E = 64, .page = 64,
      .k_used = {320, 211}, .flags = DLATTN_CAUSAL)
PAGED(packed_queries_bf16, .dtype = BF16, .B = 3, .H = 4, .G = 2, .packed_q = 1, .q_lengths = {31, 1, 64}, .N = 128, .D = 32, .E = 32,
      .page = 16, .k_used = {31, 128, 100}, .flags = DLATTN_CAUSAL)

/* ---- tables and memory ---------------------------------------------------------------------------------------------- */
PAGED(table_int64_bf16, .dtype = BF16, .B = 2, .M = 33, .N = 96, .page = 16, .k_used = {96, 50}, .index64 = 1)
PAGED(table_shared_bf16, .dtype = BF16, .B = 3, .H = 4, .G = 2, .M = 20, .N = 192, .D = 64, .E = 64, .page = 16,
      .table = TABLE_SHARED, .k_used = {192, 130, 111}, .flags = DLATTN_CAUSAL)
PAGED(table_shared_f32, .B = 3, .N = 60, .page = 10, .table = TABLE_SHARED, .k_used = {31, 60, 45})
#define WILD(id, type)                                                                                                        \
    PAGED(table_wild_##id, .dtype = type, .B = 5, .H = 4, .G = 2, .M = 3, .N = 192, .D = 64, .E = 64, .page = 16,             \
          .table = TABLE_WILD, .k_used = {192, 100, 33, 17, 160}, .flags = DLATTN_CAUSAL, .cuda_only = 1)                     \
    PAGED(table_wild_int64_##id, .dtype = type, .B = 4, .M = 20, .N = 80, .page = 20, .table = TABLE_WILD, .index64 = 1,      \
          .k_used = {80, 60, 21, 40}, .cuda_only = 1)
WILD(f32, F32)
WILD(f16, F16)
WILD(bf16, BF16)
#undef WILD
PAGED(no_pages_f32, .B = 2, .N = 64, .page = 16, .table = TABLE_NO_PAGES, .k_used = {64, 1}, .sinks = 1, .cuda_only = 1)
PAGED(no_pages_bf16, .dtype = BF16, .B = 2, .N = 64, .page = 16, .table = TABLE_NO_PAGES, .k_used = {64, 1}, .cuda_only = 1)
PAGED(no_keys_bf16, .dtype = BF16, .B = 2, .N = 0, .page = 16, .k_used = {0, 0})
PAGED(no_used_keys_f16, .dtype = F16, .B = 2, .N = 64, .page = 16, .k_used = {0, 0}, .sinks = 1)
PAGED(heads_first_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .M = 40, .N = 128, .D = 64, .E = 64, .page = 32, .k_used = {128, 99},
      .layout = DLATTN_BHSD, .flags = DLATTN_CAUSAL)
PAGED(gaps_f16, .dtype = F16, .B = 2, .H = 4, .G = 2, .N = 96, .D = 32, .E = 32, .page = 24, .k_used = {96, 70}, .strides = GAPS)
PAGED(negative_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .N = 96, .D = 32, .E = 32, .page = 24, .k_used = {96, 70},
      .strides = NEGATIVE)
PAGED(permuted_f32, .B = 2, .H = 4, .G = 2, .N = 96, .page = 24, .k_used = {96, 70}, .strides = PERMUTED)
PAGED(one_head_for_all_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .N = 96, .page = 24, .k_used = {96, 70}, .strides = BROADCAST)

/* ---- with all the rest ---------------------------------------------------------------------------------------------- */
PAGED(clamped_by_max_bf16, .dtype = BF16, .B = 2, .N = 128, .page = 16, .k_used = {128, 60}, .max_k = 75, .flags = DLATTN_CAUSAL)
PAGED(positions_bf16, .dtype = BF16, .B = 2, .M = 30, .N = 128, .page = 16, .k_used = {128, 90}, .start_tensors = 1,
      .q_starts = {60, 7}, .k_starts = {0, -30}, .flags = DLATTN_POSITIONS | DLATTN_CAUSAL)
PAGED(segments_f16, .dtype = F16, .B = 2, .M = 60, .N = 192, .D = 64, .E = 64, .page = 16, .k_used = {192, 150},
      .segments = SEGMENTS_SORTED)
PAGED(bad_keys_nobody_sees_bf16, .dtype = BF16, .B = 2, .M = 10, .N = 256, .D = 64, .E = 64, .page = 16, .k_used = {256, 200},
      .flags = DLATTN_WINDOW | DLATTN_CAUSAL, .window_left = 30, .inputs = BAD_KEYS)
PAGED(nan_in_q_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .M = 2, .N = 96, .page = 16, .k_used = {96, 70}, .inputs = NAN_IN_Q)
#define PAGED_EVERYTHING(id, type)                                                                                            \
    PAGED(everything_##id, .dtype = type, .B = 2, .H = 4, .G = 2, .M = 60, .N = 168, .D = 24, .E = 40, .page = 28,            \
          .flags = DLATTN_CAUSAL | DLATTN_WINDOW | DLATTN_POSITIONS, .window_left = 90, .window_right = -1, .start_tensors = 1, \
          .q_starts = {100, 83}, .k_starts = {0, -4}, .softcap = 4, .bias = "1hmn", .mask = "b1mn", .alibi = "bh", .sinks = 1, \
          .segments = SEGMENTS_SORTED, .use_q = 1, .q_used = {60, 41}, .k_used = {165, 150}, .dropout = 0.15, .seed = 77)
PAGED_EVERYTHING(f32, F32)
PAGED_EVERYTHING(f16, F16)
PAGED_EVERYTHING(bf16, BF16)
#undef PAGED_EVERYTHING
#undef PAGED
