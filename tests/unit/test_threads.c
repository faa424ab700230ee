/* test_threads.c: the thread pool: every item once, for any number of threads, from any number of callers, across fork. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "options.h"
#include "threads.h"

enum { MOST_ITEMS = 1000, MOST_SLOTS = 16 };

/* What a call did. */
typedef struct record {
    atomic_int done[MOST_ITEMS]; /* how often each item ran */
    atomic_bool busy[MOST_SLOTS]; /* the slot is running an item now */
    atomic_int collisions, bad_slots;
    int32_t num_threads;
    int spins;                    /* work of an item */
    void (*inner)(struct record *);
} record;

static void work(void *context, int64_t item, int32_t slot) {
    record *r = context;
    if (slot < 0 || slot >= r->num_threads) {
        atomic_fetch_add(&r->bad_slots, 1);
        return;
    }
    if (atomic_exchange(&r->busy[slot], true)) atomic_fetch_add(&r->collisions, 1);
    for (volatile int i = 0; i < r->spins; i++) {}
    if (r->inner) r->inner(r);
    atomic_fetch_add(&r->done[item], 1);
    atomic_store(&r->busy[slot], false);
}

static record *record_new(int32_t num_threads, int spins) {
    record *r = calloc(1, sizeof *r);
    cr_assert(r != NULL);
    r->num_threads = num_threads;
    r->spins = spins;
    return r;
}

/* Every item ran once, and no slot was used by two threads at a time. */
static bool complete(const record *r, int64_t items) {
    for (int64_t i = 0; i < MOST_ITEMS; i++)
        if (atomic_load(&r->done[i]) != (i < items ? 1 : 0)) return false;
    return atomic_load(&r->collisions) == 0 && atomic_load(&r->bad_slots) == 0;
}

static bool run_once(int32_t num_threads, int64_t items, int spins) {
    record *r = record_new(num_threads, spins);
    dlattn__parallel(num_threads, items, work, r);
    bool good = complete(r, items);
    free(r);
    return good;
}

Test(threads, every_item_once) {
    static const int64_t items[] = {0, 1, 2, 3, 7, 64, 1000};
    for (int32_t num_threads = 1; num_threads <= 7; num_threads++)
        for (size_t n = 0; n < sizeof items / sizeof *items; n++)
            for (int repeat = 0; repeat < 20; repeat++)
                cr_assert(run_once(num_threads, items[n], 50), "%d threads, %d items", (int)num_threads, (int)items[n]);
}

static void nap(long ns) { nanosleep(&(struct timespec){0, ns}, NULL); }

Test(threads, workers_wake_after_sleeping) {
    for (int repeat = 0; repeat < 30; repeat++) {
        cr_assert(run_once(3, 100, 200));
        nap(repeat % 3 * 1000000);
    }
}

static void meet(void *context, int64_t item, int32_t slot) {
    (void)item, (void)slot;
    atomic_int *arrived = context;
    atomic_fetch_add(arrived, 1);
    for (int i = 0; i < 5000 && atomic_load(arrived) < 3; i++) nap(1000000);
}

Test(threads, items_run_at_the_same_time) {
    atomic_int arrived = 0;
    time_t begin = time(NULL);
    dlattn__threads_prepare(3);
    dlattn__parallel(3, 3, meet, &arrived); /* each item waits until all three have begun */
    cr_assert_eq(atomic_load(&arrived), 3);
    cr_assert_lt(time(NULL) - begin, 5);
}

static void order(void *context, int64_t item, int32_t slot) {
    (void)slot;
    int64_t *last = context;
    if (*last == item - 1) *last = item;
}

Test(threads, lowest_items_first) {
    int64_t last = -1;
    dlattn__parallel(1, 100, order, &last);
    cr_assert_eq(last, 99);
}

static void call_again(record *outer) {
    (void)outer;
    if (!run_once(3, 20, 10)) atomic_fetch_add(&outer->collisions, 1);
}

Test(threads, nested_calls) {
    record *r = record_new(4, 0);
    r->inner = call_again;
    dlattn__parallel(4, 50, work, r);
    cr_assert(complete(r, 50));
    free(r);
}

static void *call_often(void *failures) {
    for (int repeat = 0; repeat < 200; repeat++)
        if (!run_once(1 + repeat % 5, 1 + repeat % 40, 100)) atomic_fetch_add((atomic_int *)failures, 1);
    return NULL;
}

Test(threads, concurrent_callers) {
    pthread_t callers[4];
    atomic_int failures = 0;
    for (int i = 0; i < 4; i++) cr_assert_eq(pthread_create(&callers[i], NULL, call_often, &failures), 0);
    for (int i = 0; i < 4; i++) pthread_join(callers[i], NULL);
    cr_assert_eq(atomic_load(&failures), 0);
}

/* ThreadSanitizer cannot start threads in a forked child, so there the child stays alone. */
#ifdef __SANITIZE_THREAD__
enum { CHILD_THREADS = 1 };
#else
enum { CHILD_THREADS = 4 };
#endif

/* Forks; the child makes calls of its own and must end well, within ten seconds. */
static bool child_computes(void) {
    pid_t child = fork();
    if (child == 0) {
        alarm(10);
        bool good = true;
        for (int repeat = 0; repeat < 10; repeat++) good = good && run_once(CHILD_THREADS, 100, 100);
        _exit(good ? 0 : 1);
    }
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

Test(threads, fork_after_a_call) {
    cr_assert(run_once(4, 100, 100));
    cr_assert(child_computes());
    cr_assert(run_once(4, 100, 100), "the parent's pool still works");
}

static void *call_until_told(void *stop) {
    while (!atomic_load((atomic_bool *)stop)) run_once(4, 200, 2000);
    return NULL;
}

Test(threads, fork_during_a_call) {
    pthread_t caller;
    atomic_bool stop = false;
    cr_assert_eq(pthread_create(&caller, NULL, call_until_told, &stop), 0);
    for (int repeat = 0; repeat < 10; repeat++) {
        nap(2000000);
        cr_assert(child_computes());
    }
    atomic_store(&stop, true);
    pthread_join(caller, NULL);
}

static atomic_int handled_elsewhere;
static pthread_t main_thread;
static void on_signal(int number) {
    (void)number;
    if (!pthread_equal(pthread_self(), main_thread)) atomic_fetch_add(&handled_elsewhere, 1);
}

Test(threads, workers_take_no_signals) {
    main_thread = pthread_self();
    cr_assert(run_once(4, 100, 100));
    signal(SIGUSR1, on_signal);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* were a worker to take signals, it would get this one */
    kill(getpid(), SIGUSR1);
    nap(20000000);
    cr_assert_eq(atomic_load(&handled_elsewhere), 0);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    signal(SIGUSR1, SIG_DFL);
}

Test(threads, count) {
    cr_assert_eq(dlattn__thread_count(3), 3);
    cr_assert_eq(dlattn__option_set("num_threads", "5"), 0);
    cr_assert_eq(dlattn__thread_count(0), 5);
    cr_assert_eq(dlattn__thread_count(2), 2, "the call's own number comes first");
    cr_assert_eq(dlattn__option_set("num_threads", "0"), 0);
    int32_t count = dlattn__thread_count(0);
    cr_assert_geq(count, 1);
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cr_assert_leq(count, CPU_COUNT(&set));
#endif
    cr_assert_eq(dlattn__option_set("num_threads", NULL), 0);
}
