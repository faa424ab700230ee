/* thread_count.c: how many threads a call may use: what was asked for, else what affinity and the cgroup quota allow. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <sched.h>
#endif

#include "options.h"
#include "threads.h"

enum { MOST_THREADS = 1024 };

static int32_t affinity_count(void) {
#ifdef __linux__
    cpu_set_t *set = CPU_ALLOC(1 << 13);
    const size_t bytes = CPU_ALLOC_SIZE(1 << 13);
    int32_t count = 0;
    if (set && sched_getaffinity(0, bytes, set) == 0) count = CPU_COUNT_S(bytes, set);
    if (set) CPU_FREE(set);
    if (count > 0) return count;
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int32_t)online : 1;
}

#ifdef __linux__
/* The first line of a file without its newline; false when there is none. */
static bool first_line(char *line, int bytes, const char *path) {
    FILE *file = fopen(path, "re");
    bool got = file && fgets(line, bytes, file);
    if (file) fclose(file);
    if (got) line[strcspn(line, "\n")] = 0;
    return got;
}

/* Whole processors in quota / period, at least 1; 0 where there is no limit. */
static int32_t processors(long long quota, long long period) {
    if (quota <= 0 || period <= 0) return 0;
    long long whole = (quota + period - 1) / period;
    return whole < MOST_THREADS ? (int32_t)whole : MOST_THREADS;
}

/* The quota of one group's folder. cgroup v2 has "quota period" or "max period" in one file, v1 has two files. */
static int32_t folder_quota(const char *folder) {
    char path[1100], line[128];
    long long quota = 0, period = 0;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (first_line(line, sizeof line, path))
        return sscanf(line, "%lld %lld", &quota, &period) == 2 ? processors(quota, period) : 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (!first_line(line, sizeof line, path)) return 0;
    quota = atoll(line);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    return first_line(line, sizeof line, path) ? processors(quota, atoll(line)) : 0;
}

/* The smallest quota of `group` and the groups above it, all below `mount`. In a container the named group is often
 * not visible, but its root, which is looked at last, is. */
static int32_t group_quota(const char *mount, const char *group) {
    char folder[1024];
    int32_t least = 0;
    int length = snprintf(folder, sizeof folder, "%s%s", mount, group), root = (int)strlen(mount);
    if (length < 0 || length >= (int)sizeof folder) return 0;
    for (;;) {
        int32_t quota = folder_quota(folder);
        if (quota > 0 && (least == 0 || quota < least)) least = quota;
        if (length <= root) return least;
        while (length > root && folder[length - 1] != '/') length--;
        folder[length > root ? --length : length] = 0;
    }
}

static int32_t cgroup_quota(void) {
    FILE *file = fopen("/proc/self/cgroup", "re");
    char line[800];
    int32_t least = 0;
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *controllers++ = *group++ = 0;
        int32_t quota = 0;
        if (!*controllers) quota = group_quota("/sys/fs/cgroup", group);
        else if (!strcmp(controllers, "cpu") || !strcmp(controllers, "cpu,cpuacct") ||
                 !strcmp(controllers, "cpuacct,cpu"))
            quota = group_quota("/sys/fs/cgroup/cpu", group);
        if (quota > 0 && (least == 0 || quota < least)) least = quota;
    }
    if (file) fclose(file);
    return least;
}
#else
static int32_t cgroup_quota(void) { return 0; }
#endif

static int32_t machine_count = 1;

static void count_machine(void) {
    const int32_t quota = cgroup_quota();
    machine_count = affinity_count();
    if (quota > 0 && quota < machine_count) machine_count = quota;
}

int32_t dlattn__thread_count(int32_t requested) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (requested <= 0) {
        const char *option = dlattn__option("num_threads");
        long number = option ? strtol(option, NULL, 10) : 0;
        requested = number > 0 ? (int32_t)(number < MOST_THREADS ? number : MOST_THREADS) : 0;
    }
    if (requested <= 0) {
        pthread_once(&once, count_machine);
        requested = machine_count;
    }
    return requested < MOST_THREADS ? requested : MOST_THREADS;
}
