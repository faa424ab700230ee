/* check_jobs.c: runs cases in several processes, since the oracle has one thread and options of the library are
 * process-wide. This process itself never touches CUDA, whose state does not survive a fork. */
#include "check_jobs.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_JOBS = 256, CASE_SECONDS = 300 };
enum { EXIT_DONE, EXIT_LOST, EXIT_NO_DEVICE }; /* of a worker */

/* Shared by all processes. */
typedef struct board {
    _Atomic int64_t next;          /* the first case that nobody has taken */
    int64_t current[MAX_JOBS];     /* the case of each worker, -1: none */
    char why[CHECK_MESSAGE_BYTES]; /* why a worker could not begin */
    _Atomic char done[];           /* of each case */
} board;

static void *shared(size_t bytes) {
    void *memory = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    return memory;
}

check_report *check_jobs_reports(int64_t count) { return shared((size_t)count * sizeof(check_report)); }

/* ---- a worker ------------------------------------------------------------------------------------------------------ */

static void work(const check_list *list, board *b, int32_t job) {
    if (device_select(&list->device, b->why, sizeof b->why)) _exit(EXIT_NO_DEVICE);
    for (;;) {
        int64_t n = atomic_fetch_add(&b->next, 1);
        b->current[job] = n < list->count ? n : -1;
        if (n >= list->count) _exit(EXIT_DONE);
        alarm(CASE_SECONDS);
        check_case(&list->reports[n], list->cases[n], &list->options);
        alarm(0);
        atomic_store(&b->done[n], 1);
        b->current[job] = -1;
        if (device_lost()) _exit(EXIT_LOST);
    }
}

static pid_t start(const check_list *list, board *b, int32_t job) {
    pid_t worker = fork();
    if (worker == 0) work(list, b, job);
    if (worker < 0) abort();
    return worker;
}

/* ---- their master -------------------------------------------------------------------------------------------------- */

typedef struct viewer {
    void (*show)(const check_report *report, void *context);
    void *context;
    int64_t shown;
} viewer;

static void show_done(viewer *v, const check_list *list, const board *b) {
    for (; v->shown < list->count && atomic_load(&b->done[v->shown]); v->shown++) v->show(&list->reports[v->shown], v->context);
}

/* A worker has ended. 1 if another must take its place. */
static int bury(const check_list *list, board *b, int32_t job, int status) {
    int64_t n = b->current[job];
    if (n >= 0) {
        check_report *report = &list->reports[n];
        report->test = list->cases[n];
        if (WIFSIGNALED(status)) check_fail(report, "the process ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
        else check_fail(report, "the process ended with code %d", WEXITSTATUS(status));
        atomic_store(&b->done[n], 1);
        b->current[job] = -1;
    }
    return atomic_load(&b->next) < list->count;
}

static int run_processes(check_list *list, viewer *v, char *why, size_t bytes) {
    board *b = shared(sizeof *b + (size_t)list->count);
    pid_t workers[MAX_JOBS];
    int32_t jobs = list->jobs > MAX_JOBS ? MAX_JOBS : list->jobs, running = 0, hopeless = 0;
    if (jobs > list->count) jobs = (int32_t)list->count;
    fflush(NULL);
    for (; running < jobs; running++) {
        b->current[running] = -1;
        workers[running] = start(list, b, running);
    }
    while (running > 0) {
        const struct timespec pause = {0, 10000000};
        for (int32_t job = 0; job < jobs; job++) {
            int status;
            if (workers[job] == 0 || waitpid(workers[job], &status, WNOHANG) != workers[job]) continue;
            workers[job] = 0;
            if (WIFSIGNALED(status) && b->current[job] < 0)
                snprintf(b->why, sizeof b->why, "a process ended by signal %d before any case", WTERMSIG(status));
            hopeless |= b->why[0] != 0;
            if (bury(list, b, job, status) && !hopeless) workers[job] = start(list, b, job);
            else running--;
        }
        show_done(v, list, b);
        nanosleep(&pause, NULL);
    }
    if (hopeless) snprintf(why, bytes, "%s", b->why);
    munmap(b, sizeof *b + (size_t)list->count);
    return hopeless;
}

int check_jobs_run(check_list *list, void (*show)(const check_report *report, void *context), void *context, char *why,
                   size_t bytes) {
    viewer v = {show, context, 0};
    if (list->jobs > 0) return run_processes(list, &v, why, bytes);
    if (device_select(&list->device, why, bytes)) return 1;
    for (int64_t n = 0; n < list->count; n++) {
        check_case(&list->reports[n], list->cases[n], &list->options);
        show(&list->reports[n], context);
    }
    return 0;
}
