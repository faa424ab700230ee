/* check_jobs.h: runs a list of cases, in this process or in several at a time. */
#ifndef DLATTN_TOOLS_CHECK_JOBS_H
#define DLATTN_TOOLS_CHECK_JOBS_H

#include "check.h"

typedef struct check_list {
    const test_case **cases;
    check_report *reports; /* as many; filled in any order */
    int64_t count;
    check_options options;
    device_options device;
    int32_t jobs; /* processes; 0: this one, one case after the other */
} check_list;

/* Room for the reports, visible to the processes that check_jobs_run starts. */
check_report *check_jobs_reports(int64_t count);

/* Fills the reports; `show` sees each in the order of the list as soon as it and all before it are there. A case that
 * kills its process, or takes more than five minutes, or leaves the device useless, fails, and another process goes on.
 * 0, or 1 with a sentence in why when nothing could be run. */
int check_jobs_run(check_list *list, void (*show)(const check_report *report, void *context), void *context, char *why,
                   size_t bytes);

#endif
