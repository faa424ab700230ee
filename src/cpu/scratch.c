/* scratch.c: host memory for one call. Fresh pages cost more than a small problem, so the last block given back is kept. */
#include <stdatomic.h>

#include "cpu.h"
#include "options.h"

/* In front of each block; 64 bytes keep what follows aligned. */
typedef union header {
    uint64_t bytes;
    char pad[64];
} header;

enum { SPARE_BYTES = 64 << 20 }; /* the most that is kept, as dlattn.h promises */

static _Atomic(header *) spare;

void *dlattn__scratch_take(uint64_t bytes) {
    header *block = atomic_exchange(&spare, NULL);
    if (block && block->bytes < bytes) {
        dlattn__memory.release(block);
        block = NULL;
    }
    if (!block) {
        if (bytes > (uint64_t)INT64_MAX - sizeof *block) return NULL;
        block = dlattn__memory.allocate((int64_t)(bytes + sizeof *block));
        if (!block) return NULL;
        block->bytes = bytes;
    }
    return block + 1;
}

void dlattn__scratch_give_back(void *memory) {
    header *block = (header *)memory - 1;
    if (block->bytes <= SPARE_BYTES) block = atomic_exchange(&spare, block); /* the older one goes */
    if (block) dlattn__memory.release(block);
}
