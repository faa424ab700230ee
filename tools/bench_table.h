/* bench_table.h: the tables of problems that are timed. */
#ifndef DLATTN_TOOLS_BENCH_TABLE_H
#define DLATTN_TOOLS_BENCH_TABLE_H

#include "case.h"

typedef struct bench_table {
    const test_case *cases;
    int count;
} bench_table;

bench_table bench_table_cpu(void);
bench_table bench_table_cuda(void);

#endif
