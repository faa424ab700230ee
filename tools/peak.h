/* peak.h: what the machine itself can do: multiply-adds per second and bytes read per second. */
#ifndef DLATTN_TOOLS_PEAK_H
#define DLATTN_TOOLS_PEAK_H

#include <stdint.h>

enum { PEAK_F32, PEAK_BF16, PEAK_F64, PEAK_AMX };

double now_seconds(void);

/* GFLOP/s of independent fused multiply-adds in the widest vectors of this machine (bf16: pairs into float32 where the machine
 * has them, else as f32), or of bf16 products in AMX's tiles, which the library must have asked the kernel for; best of a
 * few short runs. *isa: which instructions they are; NULL and 0 where this build cannot measure them. */
double peak_gflops(int kind, int threads, const char **isa);

/* Bytes per second when `threads` threads together read two arrays and do nothing else; the best of some passes. */
double peak_read(const void *first, const void *second, int64_t bytes, int threads);

#endif
