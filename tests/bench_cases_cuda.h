/* bench_cases_cuda.h: the table of problems that are timed on a GPU, with BENCH(name, ...) as in bench_cases.h.
 *
 * bfloat16, 16384 tokens in all and a hidden size of 2048: H = 2048 / D. A name is head size, length and what differs. */

#define GPU_BENCH(name, d, s, ...) \
    BENCH(name, .dtype = BF16, .B = 16384 / s, .H = 2048 / d, .G = 2048 / d, .M = s, .N = s, .D = d, .E = d, __VA_ARGS__)
#define LENGTH(d, s)                                                 \
    GPU_BENCH(bf16_d##d##_s##s##_full, d, s, .flags = 0)             \
    GPU_BENCH(bf16_d##d##_s##s##_causal, d, s, .flags = DLATTN_CAUSAL)
#define LENGTHS(d) LENGTH(d, 1024) LENGTH(d, 4096) LENGTH(d, 16384)
LENGTHS(64)
LENGTHS(128)
LENGTHS(256)
#undef LENGTHS
#undef LENGTH

#define TERMS(d)                                                                                                           \
    GPU_BENCH(bf16_d##d##_s16384_window1024, d, 16384, .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 1023)        \
    GPU_BENCH(bf16_d##d##_s16384_blocks256x16, d, 16384, .flags = DLATTN_BLOCK_WINDOW, .block_size = 256, .block_count = 16) \
    GPU_BENCH(bf16_d##d##_s4096_bias_per_head, d, 4096, .bias = "1hmn")                                                    \
    GPU_BENCH(bf16_d##d##_s4096_alibi, d, 4096, .alibi = "h", .alibi_f32 = 1)                                              \
    GPU_BENCH(bf16_d##d##_s4096_softcap, d, 4096, .softcap = 30)                                                           \
    GPU_BENCH(bf16_d##d##_s4096_sinks, d, 4096, .sinks = 1)                                                                \
    GPU_BENCH(bf16_d##d##_s4096_segments, d, 4096, .segments = SEGMENTS_SORTED)                                            \
    GPU_BENCH(bf16_d##d##_s4096_dropout, d, 4096, .dropout = 0.1, .seed = 1)                                               \
    GPU_BENCH(bf16_d##d##_s4096_gqa, d, 4096, .G = 512 / d)
TERMS(64)
TERMS(128)
#undef TERMS
#undef GPU_BENCH

BENCH(bf16_d64_b1_h8_s512, .dtype = BF16, .H = 8, .G = 8, .M = 512, .N = 512, .D = 64, .E = 64)
BENCH(bf16_d128_b1_h8_s512, .dtype = BF16, .H = 8, .G = 8, .M = 512, .N = 512, .D = 128, .E = 128)
BENCH(bf16_d128_split_64_rows_s16384, .dtype = BF16, .H = 16, .G = 4, .M = 64, .N = 16384, .D = 128, .E = 128, .gradients = NO_GRADIENTS)
#define SERVE(name, b, m, ...)                                                                                              \
    BENCH(name, .dtype = BF16, .B = b, .H = 32, .G = 8, .M = m, .N = 16384, .D = 128, .E = 128, .gradients = NO_GRADIENTS, __VA_ARGS__)
#define IN_PAGES(size) .page = size, .use_k = 1, .k_used = {16384, 16384, 16384, 16384, 16384, 16384, 16384, 16384}
SERVE(bf16_d128_decode_s16384, 8, 1, .flags = 0)
SERVE(bf16_d128_decode_page16_s16384, 8, 1, IN_PAGES(16))
SERVE(bf16_d128_decode_page64_s16384, 8, 1, IN_PAGES(64))
SERVE(bf16_d128_decode_page256_s16384, 8, 1, IN_PAGES(256))
SERVE(bf16_d128_chunk2048_s16384, 1, 2048, .flags = DLATTN_CAUSAL)
SERVE(bf16_d128_chunk2048_page16_s16384, 1, 2048, .flags = DLATTN_CAUSAL, IN_PAGES(16))
SERVE(bf16_d128_chunk2048_page256_s16384, 1, 2048, .flags = DLATTN_CAUSAL, IN_PAGES(256))
#undef IN_PAGES
#undef SERVE
BENCH(f16_d128_s4096_causal, .dtype = F16, .B = 4, .H = 16, .G = 16, .M = 4096, .N = 4096, .D = 128, .E = 128, .flags = DLATTN_CAUSAL)
BENCH(f32_d64_s1024_full, .B = 4, .H = 8, .G = 8, .M = 1024, .N = 1024, .D = 64, .E = 64)
BENCH(f32_d64_s1024_full_tf32, .B = 4, .H = 8, .G = 8, .M = 1024, .N = 1024, .D = 64, .E = 64, .flags = DLATTN_ALLOW_TF32)
