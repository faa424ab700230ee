/* dbias.c: how many items the separate dbias phase has. */
#include "dbias.h"

#include "cpu.h"

int64_t dlattn__dbias_items(const problem *p) {
    if (!dlattn__dbias_separate(p)) return 0;
    const int64_t *extent = p->dbias.extent;
    return extent[0] * extent[1] * ((extent[2] + DBIAS_ROWS - 1) / DBIAS_ROWS) *
           ((extent[3] + DBIAS_KEYS - 1) / DBIAS_KEYS);
}
