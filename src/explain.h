/* explain.h: a problem and its plan in words, for dlattn_explain. */
#ifndef DLATTN_EXPLAIN_H
#define DLATTN_EXPLAIN_H

#include "backend.h"

/* Text that stops growing when it is full; always NUL-terminated. */
typedef struct text {
    char *at;
    int64_t bytes; /* left, the NUL included */
} text;

__attribute__((format(printf, 2, 3))) void dlattn__text_add(text *t, const char *format, ...);

void dlattn__explain_problem(text *t, const problem *p);
void dlattn__explain_plan(text *t, const plan *plan);
/* The library, its backends and the machine. */
void dlattn__explain_library(text *t);

#endif
