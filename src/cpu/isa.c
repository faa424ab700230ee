/* isa.c: which instruction sets this machine and this build have, and the kernels to use. */
#include <stdio.h>
#include <string.h>

#include "cpu.h"
#include "options.h"

#if defined(__x86_64__) && defined(__linux__) && !defined(DLATTN_EMULATE_BF16)
#include <cpuid.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

typedef bool has_fn(void);

static bool has_always(void) { return true; }

#if defined(__x86_64__)
/* Every processor with AVX2 and FMA has F16C, which not all compilers can ask for. */
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
static bool has_avx512bf16(void) {
#ifdef DLATTN_EMULATE_BF16
    return has_avx512();
#else
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
#endif
}

/* The processor has tiles, and the kernel lets this process use them: they are 8 KiB of state for each thread, which Linux
 * gives on request (arch_prctl, since 5.16). Asked once. */
static bool has_amx(void) {
#if defined(DLATTN_EMULATE_BF16)
    return has_avx512();
#elif defined(__linux__)
    enum { UNKNOWN, YES, NO, ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    static _Atomic int known;
    int state = atomic_load_explicit(&known, memory_order_relaxed);
    if (state == UNKNOWN) {
        unsigned int a = 0, b = 0, c = 0, d = 0;
        const bool there = has_avx512bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & AMX_BF16 && d & AMX_TILE;
        state = there && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 ? YES : NO;
        atomic_store_explicit(&known, state, memory_order_relaxed);
    }
    return state == YES;
#else
    return false;
#endif
}
/* Intel's cores issue one bfloat16 dot product where they issue two fused multiply-adds, so that float32 arithmetic is
 * no slower there and more exact; AMD's issue both at the same rate. */
static bool pays_avx512bf16(void) { return __builtin_cpu_is("amd"); }
#endif

#define DECLARE(isa, real) extern const cpu_kernels dlattn__kernels_##isa##_##real
DECLARE(scalar, f32);
DECLARE(scalar, f64);
DECLARE(avx2, f32);
DECLARE(avx2, f64);
DECLARE(avx512, f32);
DECLARE(avx512, f64);
DECLARE(avx512bf16, bf16);
DECLARE(amx, bf16);
DECLARE(neon, f32);
DECLARE(neon, f64);

/* Best first. `has`: this machine can run it. `pays`: it is worth choosing unasked. `pairs`: bfloat16 by dot products of
 * pairs, where the ISA has it. */
static const struct isa {
    const char *name;
    has_fn *has, *pays;
    const cpu_kernels *f32, *f64, *pairs;
} isas[] = {
#ifdef DLATTN_HAVE_AMX
    {"amx", has_amx, has_always, &dlattn__kernels_avx512_f32, &dlattn__kernels_avx512_f64, &dlattn__kernels_amx_bf16},
#endif
#ifdef DLATTN_HAVE_AVX512BF16
    {"avx512bf16", has_avx512bf16, pays_avx512bf16, &dlattn__kernels_avx512_f32, &dlattn__kernels_avx512_f64,
     &dlattn__kernels_avx512bf16_bf16},
#endif
#ifdef DLATTN_HAVE_AVX512
    {"avx512", has_avx512, has_always, &dlattn__kernels_avx512_f32, &dlattn__kernels_avx512_f64, NULL},
#endif
#ifdef DLATTN_HAVE_AVX2
    {"avx2", has_avx2, has_always, &dlattn__kernels_avx2_f32, &dlattn__kernels_avx2_f64, NULL},
#endif
#ifdef DLATTN_HAVE_NEON
    {"neon", has_always, has_always, &dlattn__kernels_neon_f32, &dlattn__kernels_neon_f64, NULL},
#endif
    {"scalar", has_always, has_always, &dlattn__kernels_scalar_f32, &dlattn__kernels_scalar_f64, NULL},
};
#define ISA_COUNT ((int)(sizeof isas / sizeof isas[0]))

bool dlattn__cpu_isa_available(const char *name) {
    for (int n = 0; n < ISA_COUNT; n++)
        if (strcmp(isas[n].name, name) == 0) return isas[n].has();
    return false;
}

void dlattn__cpu_isa_list(char *text, int64_t text_bytes) {
    int64_t used = 0;
    text[0] = 0;
    for (int n = 0; n < ISA_COUNT; n++)
        if (isas[n].has() && used < text_bytes)
            used += snprintf(text + used, (size_t)(text_bytes - used), "%s%s", used ? " " : "", isas[n].name);
}

/* A forced ISA that the machine lacks (through the environment; dlattn_set_option refuses it) is ignored. */
static const struct isa *chosen(void) {
    const char *forced = dlattn__option("cpu_isa");
    for (int n = 0; forced && n < ISA_COUNT; n++)
        if (strcmp(isas[n].name, forced) == 0 && isas[n].has()) return &isas[n];
    for (int n = 0; n < ISA_COUNT; n++)
        if (isas[n].has() && isas[n].pays()) return &isas[n];
    return &isas[ISA_COUNT - 1];
}

const cpu_kernels *dlattn__cpu_kernels_for(int32_t dtype, bool pairs) {
    const struct isa *isa = chosen();
    if (dtype == DLATTN_T_F64) return isa->f64;
    if (dtype == DLATTN_T_BF16 && pairs && isa->pairs) return isa->pairs;
    return isa->f32;
}
