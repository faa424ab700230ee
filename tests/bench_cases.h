/* bench_cases.h: the table of problems that are timed, with BENCH(name, ...) as CASE in cases.h.
 *
 * A name is dtype, head size, length and what differs from plain attention of eight heads. `overhead` is a single score:
 * its time is what a call costs. The small ones say every term at once: a bench of another language that mistakes one shows
 * it in its results. */

BENCH(overhead, .H = 1, .G = 1, .M = 1, .N = 1, .D = 8, .E = 8)
BENCH(small_plain, .B = 2, .H = 4, .G = 2, .M = 40, .N = 56, .D = 16, .E = 24, .flags = DLATTN_CAUSAL)
BENCH(small_everything, .B = 2, .H = 4, .G = 2, .M = 40, .N = 56, .D = 16, .E = 24, .flags = DLATTN_CAUSAL | DLATTN_WINDOW | DLATTN_SCALE,
      .window_left = 30, .scale = 0.5, .softcap = 3, .bias = "1hmn", .mask = "b1mn", .alibi = "bh", .sinks = 1,
      .segments = SEGMENTS_SORTED, .dropout = 0.25, .seed = 7, .offset = 3)
BENCH(small_f16_blocks, .dtype = F16, .B = 2, .H = 4, .G = 2, .M = 40, .N = 56, .D = 16, .E = 24, .layout = DLATTN_BHSD,
      .flags = DLATTN_BLOCK_WINDOW | DLATTN_TOP_LEFT, .block_size = 12, .block_count = 2, .bias = "h1n", .sinks = 1)
BENCH(small_bf16, .dtype = BF16, .B = 2, .H = 4, .G = 2, .M = 40, .N = 56, .D = 16, .E = 24, .flags = DLATTN_CAUSAL)
BENCH(small_f64, .dtype = F64, .B = 2, .H = 4, .G = 2, .M = 40, .N = 56, .D = 16, .E = 24, .flags = DLATTN_CAUSAL)

#define SIZES(type, name, d)                                                                                  \
    BENCH(name##_d##d##_s1024, .dtype = type, .H = 8, .G = 8, .M = 1024, .N = 1024, .D = d, .E = d)           \
    BENCH(name##_d##d##_s1024_causal, .dtype = type, .H = 8, .G = 8, .M = 1024, .N = 1024, .D = d, .E = d,    \
          .flags = DLATTN_CAUSAL)                                                                             \
    BENCH(name##_d##d##_s4096, .dtype = type, .H = 2, .G = 2, .M = 4096, .N = 4096, .D = d, .E = d)           \
    BENCH(name##_d##d##_s4096_causal, .dtype = type, .H = 2, .G = 2, .M = 4096, .N = 4096, .D = d, .E = d,    \
          .flags = DLATTN_CAUSAL)
SIZES(F32, f32, 64)
SIZES(F32, f32, 128)
SIZES(BF16, bf16, 64)
SIZES(BF16, bf16, 128)
#undef SIZES
BENCH(f16_d64_s1024, .dtype = F16, .H = 8, .G = 8, .M = 1024, .N = 1024, .D = 64, .E = 64)
BENCH(f16_d128_s1024, .dtype = F16, .H = 8, .G = 8, .M = 1024, .N = 1024, .D = 128, .E = 128)
BENCH(f64_d64_s1024, .dtype = F64, .H = 4, .G = 4, .M = 1024, .N = 1024, .D = 64, .E = 64)
BENCH(f32_d256_s1024, .H = 4, .G = 4, .M = 1024, .N = 1024, .D = 256, .E = 256)
BENCH(bf16_d256_s1024, .dtype = BF16, .H = 4, .G = 4, .M = 1024, .N = 1024, .D = 256, .E = 256)
BENCH(f32_d64_s256, .H = 8, .G = 8, .M = 256, .N = 256, .D = 64, .E = 64)
BENCH(bf16_d64_s256, .dtype = BF16, .H = 8, .G = 8, .M = 256, .N = 256, .D = 64, .E = 64)

#define TERM(name, ...) BENCH(f32_d64_s1024_##name, .H = 8, .G = 8, .M = 1024, .N = 1024, .D = 64, .E = 64, __VA_ARGS__)
TERM(bias, .bias = "bhmn")
TERM(bias_two_batches_dbias_summed, .B = 2, .H = 4, .G = 4, .bias = "1hmn")
TERM(mask, .mask = "11mn")
TERM(gqa, .G = 2)
TERM(softcap, .softcap = 50)
TERM(alibi, .alibi = "h")
TERM(sinks, .sinks = 1)
TERM(dropout, .dropout = 0.1, .seed = 1)
TERM(segments, .segments = SEGMENTS_SORTED)
TERM(heads_first, .layout = DLATTN_BHSD)
#undef TERM
BENCH(f32_d64_s8192_window256, .H = 2, .G = 2, .M = 8192, .N = 8192, .D = 64, .E = 64, .flags = DLATTN_CAUSAL | DLATTN_WINDOW,
      .window_left = 255)
BENCH(bf16_d64_s8192_window256, .dtype = BF16, .H = 2, .G = 2, .M = 8192, .N = 8192, .D = 64, .E = 64,
      .flags = DLATTN_CAUSAL | DLATTN_WINDOW, .window_left = 255)
BENCH(f32_d64_s2048_blocks_of_300, .H = 4, .G = 4, .M = 2048, .N = 2048, .D = 64, .E = 64, .flags = DLATTN_BLOCK_WINDOW,
      .block_size = 300, .block_count = 2)

#define DECODE(type, name, rows, h)                                                                          \
    BENCH(name##_d128_decode_##rows##_rows_s16384, .dtype = type, .H = h, .G = 2, .M = 1, .N = 16384, .D = 128, .E = 128, \
          .gradients = NO_GRADIENTS)
DECODE(F32, f32, 1, 2)
DECODE(F32, f32, 4, 8)
DECODE(F32, f32, 8, 16)
DECODE(BF16, bf16, 1, 2)
DECODE(BF16, bf16, 4, 8)
DECODE(BF16, bf16, 8, 16)
#undef DECODE
