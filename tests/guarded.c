/* guarded.c: memory between fences, kept in a list, so that a device copy of it can be found by any address inside. */
#include "guarded.h"

#include <stdlib.h>
#include <string.h>

void (*guarded_release_mirror)(guarded_block *block);
static guarded_block *blocks; /* the harness has one thread */

void *guarded_alloc(size_t bytes) {
    unsigned char *memory = aligned_alloc(64, (bytes + 2 * GUARDED_FENCE + 63) / 64 * 64);
    guarded_block *block = malloc(sizeof *block);
    if (!memory || !block) abort();
    memset(memory, GUARDED_POISON, bytes + 2 * GUARDED_FENCE);
    *block = (guarded_block){blocks, memory + GUARDED_FENCE, bytes, 0};
    blocks = block;
    return block->memory;
}

int guarded_intact(const void *memory, size_t bytes) {
    const unsigned char *at = memory;
    for (int n = 1; n <= GUARDED_FENCE; n++)
        if (at[-n] != GUARDED_POISON || at[bytes + (size_t)n - 1] != GUARDED_POISON) return 0;
    return 1;
}

void guarded_free(void *memory) {
    if (!memory) return;
    for (guarded_block **link = &blocks; *link; link = &(*link)->next) {
        guarded_block *block = *link;
        if (block->memory != memory) continue;
        if (block->mirror && guarded_release_mirror) guarded_release_mirror(block);
        *link = block->next;
        free(block->memory - GUARDED_FENCE);
        free(block);
        return;
    }
    abort(); /* not ours, or freed twice */
}

guarded_block *guarded_find(const void *address) {
    uintptr_t at = (uintptr_t)address;
    for (guarded_block *block = blocks; block; block = block->next)
        if (at + GUARDED_FENCE >= (uintptr_t)block->memory && at <= (uintptr_t)block->memory + block->bytes + GUARDED_FENCE) return block;
    return NULL;
}
