/* peak.c: what the machine itself can do, measured by loops that do nothing else. */
#include "peak.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- multiply-adds: sixteen independent chains hide the latency of every machine we know ------------------------------ */

static volatile float used; /* the compiler must think that results matter */

/* The body: CHAINS accumulators in registers, the operands opaque. V vector type, FMA(c, a, b), SET(x), one number out. */
#define CHAINS 16
#define PEAK_LOOP(name, attribute, V, keep, SET, FMA, FIRST)                 \
    attribute static void name(int64_t rounds) {                             \
        V chain[CHAINS], a = SET(0.5f), b = SET(0.25f);                      \
        for (int n = 0; n < CHAINS; n++) chain[n] = SET((float)n);           \
        for (int64_t r = 0; r < rounds; r++) {                               \
            __asm__ volatile("" : "+" keep(a), "+" keep(b));                 \
            _Pragma("GCC unroll 16") for (int n = 0; n < CHAINS; n++)        \
                chain[n] = FMA(chain[n], a, b);                              \
        }                                                                    \
        for (int n = 1; n < CHAINS; n++) chain[0] = FMA(chain[0], chain[n], b); \
        used = FIRST(chain[0]);                                              \
    }

#if defined(__x86_64__)
#define FMA_512(c, a, b) _mm512_fmadd_ps(c, a, b)
#define FMA_512D(c, a, b) _mm512_fmadd_pd(c, a, b)
#define FMA_256(c, a, b) _mm256_fmadd_ps(c, a, b)
#define FMA_256D(c, a, b) _mm256_fmadd_pd(c, a, b)
#define FIRST_512(v) _mm512_cvtss_f32(v)
#define FIRST_512D(v) (float)_mm512_cvtsd_f64(v)
#define FIRST_256(v) _mm256_cvtss_f32(v)
#define FIRST_256D(v) (float)_mm256_cvtsd_f64(v)
PEAK_LOOP(loop_avx512, __attribute__((target("avx512f"))), __m512, "v", _mm512_set1_ps, FMA_512, FIRST_512)
PEAK_LOOP(loop_avx512_f64, __attribute__((target("avx512f"))), __m512d, "v", _mm512_set1_pd, FMA_512D, FIRST_512D)
PEAK_LOOP(loop_avx2, __attribute__((target("avx2,fma"))), __m256, "x", _mm256_set1_ps, FMA_256, FIRST_256)
PEAK_LOOP(loop_avx2_f64, __attribute__((target("avx2,fma"))), __m256d, "x", _mm256_set1_pd, FMA_256D, FIRST_256D)

__attribute__((target("avx512f,avx512bf16"))) static void loop_avx512bf16(int64_t rounds) {
    __m512 chain[CHAINS];
    __m512i a = _mm512_set1_epi32(0x3f003f00), b = _mm512_set1_epi32(0x3e803e80); /* pairs of 0.5, pairs of 0.25 */
    for (int n = 0; n < CHAINS; n++) chain[n] = _mm512_set1_ps((float)n);
    for (int64_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+v"(a), "+v"(b));
        _Pragma("GCC unroll 16") for (int n = 0; n < CHAINS; n++)
            chain[n] = _mm512_dpbf16_ps(chain[n], (__m512bh)a, (__m512bh)b);
    }
    for (int n = 1; n < CHAINS; n++) chain[0] = _mm512_add_ps(chain[0], chain[n]);
    used = _mm512_cvtss_f32(chain[0]);
}

#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11)
#define HAVE_TILES 1
/* Four tiles of sums, each of 16 x 16 float32, from two of 16 x 32 numbers and two of 32 x 16. */
__attribute__((target("amx-tile,amx-bf16"))) static void loop_amx(int64_t rounds) {
    static const unsigned char zeros[1024];
    _Alignas(64) unsigned char shape[64] = {1};          /* palette 1 */
    for (int n = 0; n < 8; n++) {
        shape[16 + 2 * n] = 64;                          /* bytes of a row */
        shape[48 + n] = 16;                              /* rows */
    }
    _tile_loadconfig(shape);
    _tile_loadd(4, zeros, 64);
    _tile_loadd(5, zeros, 64);
    _tile_loadd(6, zeros, 64);
    _tile_loadd(7, zeros, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t r = 0; r < rounds; r += 4) {            /* a product keeps the unit busy as long as 16 rounds of FMA do theirs */
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
}
#endif
#elif defined(__aarch64__)
#define FMA_NEON(c, a, b) vfmaq_f32(c, a, b)
#define FMA_NEOND(c, a, b) vfmaq_f64(c, a, b)
#define FIRST_NEON(v) vgetq_lane_f32(v, 0)
#define FIRST_NEOND(v) (float)vgetq_lane_f64(v, 0)
PEAK_LOOP(loop_neon, , float32x4_t, "w", vdupq_n_f32, FMA_NEON, FIRST_NEON)
PEAK_LOOP(loop_neon_f64, , float64x2_t, "w", vdupq_n_f64, FMA_NEOND, FIRST_NEOND)
#endif

static float scalar_fma(float c, float a, float b) { return c * a + b; }
#define SET_SCALAR(x) (x)
#define FIRST_SCALAR(x) (x)
#if defined(__x86_64__)
#define KEEP_SCALAR "x"
#elif defined(__aarch64__)
#define KEEP_SCALAR "w"
#else
#define KEEP_SCALAR "g"
#endif
PEAK_LOOP(loop_scalar, , float, KEEP_SCALAR, SET_SCALAR, scalar_fma, FIRST_SCALAR)

typedef struct choice {
    void (*loop)(int64_t rounds);
    double flops; /* of one round */
    const char *isa;
} choice;

static choice choose(int kind) {
#if defined(__x86_64__)
    int wide = __builtin_cpu_supports("avx512f"), narrow = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#ifdef HAVE_TILES
    if (kind == PEAK_AMX) return (choice){loop_amx, 2.0 * 16 * 16 * 32, "amx"};
#endif
    if (kind == PEAK_BF16 && __builtin_cpu_supports("avx512bf16")) return (choice){loop_avx512bf16, CHAINS * 64.0, "avx512bf16"};
    if (kind == PEAK_F64 && wide) return (choice){loop_avx512_f64, CHAINS * 16.0, "avx512"};
    if (kind == PEAK_F64 && narrow) return (choice){loop_avx2_f64, CHAINS * 8.0, "avx2"};
    if (wide && kind != PEAK_AMX) return (choice){loop_avx512, CHAINS * 32.0, "avx512"};
    if (narrow && kind != PEAK_AMX) return (choice){loop_avx2, CHAINS * 16.0, "avx2"};
#elif defined(__aarch64__)
    if (kind == PEAK_F64) return (choice){loop_neon_f64, CHAINS * 4.0, "neon"};
    if (kind != PEAK_AMX) return (choice){loop_neon, CHAINS * 8.0, "neon"};
#endif
    if (kind == PEAK_AMX) return (choice){0};
    return (choice){loop_scalar, CHAINS * 2.0, "scalar"};
}

/* ---- threads that start together ----------------------------------------------------------------------------------- */

typedef struct worker {
    pthread_t thread;
    pthread_barrier_t *barrier;
    void (*work)(struct worker *w);
    choice choice;
    int64_t rounds;
    const unsigned char *data[2]; /* its share of each array */
    int64_t bytes;
} worker;

static void *run_worker(void *argument) {
    worker *w = argument;
    pthread_barrier_wait(w->barrier);
    w->work(w);
    pthread_barrier_wait(w->barrier);
    return NULL;
}

/* Seconds from the common start to the end of the last; this thread only waits. */
static double run_together(worker *workers, int count) {
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, (unsigned)count + 1);
    for (int n = 0; n < count; n++) {
        workers[n].barrier = &barrier;
        if (pthread_create(&workers[n].thread, NULL, run_worker, &workers[n])) abort();
    }
    double start = now_seconds();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    double seconds = now_seconds() - start;
    for (int n = 0; n < count; n++) pthread_join(workers[n].thread, NULL);
    pthread_barrier_destroy(&barrier);
    return seconds;
}

static void work_fma(worker *w) { w->choice.loop(w->rounds); }

double peak_gflops(int kind, int threads, const char **isa) {
    worker *workers = calloc((size_t)threads, sizeof *workers);
    choice chosen = choose(kind);
    double best = 0;
    *isa = chosen.isa;
    int64_t rounds = 1 << 21; /* about 10 ms */
    if (!workers) abort();
    for (int trial = 0; chosen.loop && trial < 5; trial++) {
        for (int n = 0; n < threads; n++) workers[n] = (worker){.work = work_fma, .choice = chosen, .rounds = rounds};
        double rate = chosen.flops * (double)rounds * threads / run_together(workers, threads) * 1e-9;
        if (rate > best) best = rate;
    }
    free(workers);
    return best;
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

typedef uint64_t words __attribute__((vector_size(64), aligned(8)));

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_THREAD__) /* its resolver runs too early */
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static uint64_t read_all(const unsigned char *data, int64_t bytes) {
    words sum[4] = {{0}};
    for (int64_t at = 0; at + 256 <= bytes; at += 256)
        for (int n = 0; n < 4; n++) sum[n] ^= *(const words *)(const void *)(data + at + 64 * n);
    sum[0] ^= sum[1] ^ sum[2] ^ sum[3];
    return sum[0][0] ^ sum[0][1] ^ sum[0][2] ^ sum[0][3] ^ sum[0][4] ^ sum[0][5] ^ sum[0][6] ^ sum[0][7];
}

static void work_read(worker *w) {
    uint64_t all = 0;
    for (int64_t r = 0; r < w->rounds; r++) {
        all ^= read_all(w->data[0], w->bytes) ^ read_all(w->data[1], w->bytes);
        __asm__ volatile("" : : "r"(all) : "memory");
    }
    used = (float)all;
}

double peak_read(const void *first, const void *second, int64_t bytes, int threads) {
    worker *workers = calloc((size_t)threads, sizeof *workers);
    double best = 0;
    int64_t share = bytes / threads / 64 * 64, rounds = 1 + (INT64_C(1) << 27) / (bytes + 1);
    if (!workers) abort();
    for (int trial = 0; trial < 5; trial++) {
        for (int n = 0; n < threads; n++)
            workers[n] = (worker){.work = work_read, .rounds = rounds, .bytes = share,
                                  .data = {(const unsigned char *)first + n * share, (const unsigned char *)second + n * share}};
        double rate = 2.0 * (double)(share * threads * rounds) / run_together(workers, threads);
        if (rate > best) best = rate;
    }
    free(workers);
    return best;
}
