/* threads.h: the process's one pool of worker threads. */
#ifndef DLATTN_THREADS_H
#define DLATTN_THREADS_H

#include <stdint.h>

/* How many threads a call may use: exec's num_threads if > 0, else option "num_threads", else min(affinity, cgroup
 * quota). At least 1. */
int32_t dlattn__thread_count(int32_t requested);

/* Runs work(context, item, slot) for every item in [0, items), each once, lowest items first, on at most num_threads
 * threads, the caller among them; slot in [0, num_threads) is never shared by two running calls. Returns when all are
 * done. Never waits for a worker that has not begun; a call that finds the pool busy runs on its own thread. */
void dlattn__parallel(int32_t num_threads, int64_t items, void (*work)(void *context, int64_t item, int32_t slot),
                      void *context);

/* Starts the workers, so that the first call need not. */
void dlattn__threads_prepare(int32_t num_threads);

#endif
