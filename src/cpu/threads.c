/* threads.c: the process's one pool of workers, and how a call and its workers meet without waiting for sleepers.
 *
 * One 32-bit word, the gate, holds everything they agree on: the job's number (high half), whether it is open, and how
 * many workers are inside. A worker enters an open gate by compare-and-swap and may then read the job; the caller
 * closes the gate when the items have run out and waits until nobody is inside, so a worker that comes late finds a
 * closed gate and is not waited for. The word is also what sleeping workers wait on. */
#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#ifdef __linux__
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum {
    GATE_OPEN = 0x8000,
    GATE_INSIDE = 0x7fff,
    GATE_NUMBER_SHIFT = 16,
    MOST_WORKERS = 1023,
    STACK_BYTES = 1 << 20,
    SPIN_NS = 100000 /* covers the gap between layers that follow each other; longer made the next wake-up dearer */
};

static struct pool {
    atomic_bool busy;       /* some call owns the pool: only it touches `workers` and `job` and opens the gate */
    atomic_uint gate;
    atomic_uint sleepers;   /* workers that sleep on the gate, or are about to */
    atomic_bool caller_sleeps;
    atomic_uint left;       /* what a sleeping caller waits on */
    int32_t workers;        /* how many were started */
    bool exhausted;         /* the system gave no more threads */
    /* The job. Written while the gate is closed and nobody is inside, read inside. */
    void (*work)(void *context, int64_t item, int32_t slot);
    void *context;
    int64_t items;
    int32_t num_threads;
    atomic_int entered;     /* slots handed out, the caller's 0 among them */
    _Alignas(64) _Atomic int64_t next; /* lowest item not taken */
} pool;

/* ---- sleeping ------------------------------------------------------------------------------------------------------ */

#ifdef __linux__
static void sleep_while(atomic_uint *word, unsigned value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
static void wake(atomic_uint *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}
#else
static pthread_mutex_t sleep_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t sleep_condition = PTHREAD_COND_INITIALIZER;
static void sleep_while(atomic_uint *word, unsigned value) {
    pthread_mutex_lock(&sleep_mutex);
    if (atomic_load(word) == value) pthread_cond_wait(&sleep_condition, &sleep_mutex);
    pthread_mutex_unlock(&sleep_mutex);
}
static void wake(atomic_uint *word, int count) {
    (void)word, (void)count;
    pthread_mutex_lock(&sleep_mutex);
    pthread_cond_broadcast(&sleep_condition);
    pthread_mutex_unlock(&sleep_mutex);
}
#endif

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Spins until (*word & mask) != value, or for SPIN_NS: pauses cost from 5 to 140 cycles, so the clock decides. */
static bool spin_while(atomic_uint *word, unsigned mask, unsigned value) {
    int64_t end = 0;
    for (;;) {
        for (int i = 0; i < 16; i++) {
            if ((atomic_load_explicit(word, memory_order_acquire) & mask) != value) return true;
            pause_briefly();
        }
        int64_t now = now_ns();
        if (end == 0) end = now + SPIN_NS;
        if (now >= end) return false;
    }
}

/* ---- workers ------------------------------------------------------------------------------------------------------- */

static void run_items(int32_t slot) {
    const int64_t items = pool.items;
    for (;;) {
        int64_t item = atomic_fetch_add_explicit(&pool.next, 1, memory_order_relaxed);
        if (item >= items) return;
        pool.work(pool.context, item, slot);
    }
}

static void leave(void) {
    atomic_fetch_sub(&pool.gate, 1);
    if (!atomic_load(&pool.caller_sleeps)) return;
    atomic_fetch_add(&pool.left, 1);
    wake(&pool.left, 1);
}

/* Waits until the gate's job number is not `seen`, and returns the gate. */
static unsigned next_gate(unsigned seen) {
    const unsigned number = ~0u << GATE_NUMBER_SHIFT;
    if (!spin_while(&pool.gate, number, seen << GATE_NUMBER_SHIFT)) {
        atomic_fetch_add(&pool.sleepers, 1);
        for (;;) {
            unsigned gate = atomic_load(&pool.gate);
            if (gate >> GATE_NUMBER_SHIFT != seen) break;
            sleep_while(&pool.gate, gate);
        }
        atomic_fetch_sub(&pool.sleepers, 1);
    }
    return atomic_load(&pool.gate);
}

static void *worker(void *argument) {
    unsigned seen = (unsigned)(uintptr_t)argument;
    for (;;) {
        unsigned gate = next_gate(seen);
        bool inside = false;
        while ((gate & GATE_OPEN) && !inside) inside = atomic_compare_exchange_weak(&pool.gate, &gate, gate + 1);
        seen = gate >> GATE_NUMBER_SHIFT;
        if (!inside) continue;
        int32_t slot = atomic_fetch_add_explicit(&pool.entered, 1, memory_order_relaxed);
        if (slot < pool.num_threads) run_items(slot);
        leave();
    }
    return NULL;
}

/* In a forked child no worker exists any more; what they held is forgotten. */
static void drop_pool(void) {
    atomic_store(&pool.busy, false);
    atomic_store(&pool.gate, 0);
    atomic_store(&pool.sleepers, 0);
    atomic_store(&pool.caller_sleeps, false);
    pool.workers = 0;
    pool.exhausted = false;
}

static void register_fork(void) { pthread_atfork(NULL, NULL, drop_pool); }

static bool start_worker(int32_t number) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* a thread starts with its creator's mask */
    unsigned seen = atomic_load(&pool.gate) >> GATE_NUMBER_SHIFT;
    bool started = pthread_create(&thread, &attributes, worker, (void *)(uintptr_t)seen) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
#ifdef __linux__
    if (started) {
        char name[24]; /* the system takes 15 characters: numbers stay far below that */
        snprintf(name, sizeof name, "dlattn-%d", (int)number);
        pthread_setname_np(thread, name); /* safe though detached: a worker never ends */
    }
#else
    (void)number;
#endif
    return started;
}

/* Called by the owner of the pool. Fewer workers than wanted is no error. */
static void start_workers(int32_t wanted) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork);
    if (wanted > MOST_WORKERS) wanted = MOST_WORKERS;
    while (pool.workers < wanted && !pool.exhausted) {
        if (start_worker(pool.workers + 1)) pool.workers++;
        else pool.exhausted = true;
    }
}

static bool take_pool(void) {
    bool free = false;
    return atomic_compare_exchange_strong(&pool.busy, &free, true);
}

/* ---- the caller ---------------------------------------------------------------------------------------------------- */

static void open_gate(void) {
    unsigned number = (atomic_load(&pool.gate) >> GATE_NUMBER_SHIFT) + 1;
    atomic_store(&pool.gate, number << GATE_NUMBER_SHIFT | GATE_OPEN);
    if (atomic_load(&pool.sleepers) > 0) wake(&pool.gate, pool.num_threads - 1);
}

/* After this nobody is inside and nobody can come in. */
static void close_gate(void) {
    atomic_fetch_and(&pool.gate, ~(unsigned)GATE_OPEN);
    for (;;) {
        unsigned inside = atomic_load(&pool.gate) & GATE_INSIDE;
        if (inside == 0) return;
        if (spin_while(&pool.gate, GATE_INSIDE, inside)) continue;
        atomic_store(&pool.caller_sleeps, true);
        unsigned left = atomic_load(&pool.left); /* before the gate: whoever leaves after that changes it */
        if (atomic_load(&pool.gate) & GATE_INSIDE) sleep_while(&pool.left, left);
        atomic_store(&pool.caller_sleeps, false);
    }
}

void dlattn__parallel(int32_t num_threads, int64_t items, void (*work)(void *context, int64_t item, int32_t slot),
                      void *context) {
    if (num_threads > items) num_threads = (int32_t)items;
    if (num_threads <= 1 || !take_pool()) {
        for (int64_t item = 0; item < items; item++) work(context, item, 0);
        return;
    }
    start_workers(num_threads - 1);
    pool.work = work;
    pool.context = context;
    pool.items = items;
    pool.num_threads = num_threads;
    atomic_store_explicit(&pool.entered, 1, memory_order_relaxed);
    atomic_store_explicit(&pool.next, 0, memory_order_relaxed);
    open_gate();
    run_items(0);
    close_gate();
    atomic_store(&pool.busy, false);
}

void dlattn__threads_prepare(int32_t num_threads) {
    if (num_threads <= 1 || !take_pool()) return;
    start_workers(num_threads - 1);
    atomic_store(&pool.busy, false);
}
