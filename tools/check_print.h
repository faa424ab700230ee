/* check_print.h: what `dlattn check` says: a line per failure, the worst errors, JSON. */
#ifndef DLATTN_TOOLS_CHECK_PRINT_H
#define DLATTN_TOOLS_CHECK_PRINT_H

#include "check.h"

typedef struct check_printer {
    const check_options *options;
    int verbose, json, random, progress, cuda;
    int strict;                   /* a variant that accepts no case is a failure */
    int64_t total, skipped;       /* cases to come; float64 cases that this device does not take */
    int64_t shown, failed;        /* so far */
    double begun;                 /* seconds of the clock */
} check_printer;

void check_print_begin(check_printer *p, uint64_t seed);
void check_print_case(check_printer *p, const check_report *report);
/* All of it: the table of worst errors, or JSON. Fails (failed counts up) when a variant asked for ran nothing. */
void check_print_end(check_printer *p, const check_report *reports, int64_t count);

#endif
