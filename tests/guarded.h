/* guarded.h: memory filled with 0xFF (NaN in every floating dtype) between fences, and where its copy on a device is. */
#ifndef DLATTN_TESTS_GUARDED_H
#define DLATTN_TESTS_GUARDED_H

#include <stddef.h>
#include <stdint.h>

enum { GUARDED_FENCE = 128, GUARDED_POISON = 0xFF };

/* One allocation. `mirror`: address of memory[0]'s copy on the device, 0 where there is none; only device_memory.c sets it. */
typedef struct guarded_block {
    struct guarded_block *next;
    unsigned char *memory; /* `bytes` long, GUARDED_FENCE bytes before and after are ours */
    size_t bytes;
    uint64_t mirror;
} guarded_block;

/* Memory of exactly `bytes` filled with 0xFF, with fences; 64-byte aligned. */
void *guarded_alloc(size_t bytes);
int guarded_intact(const void *memory, size_t bytes);
void guarded_free(void *memory);

/* The allocation in which the address lies, fences included; NULL if in none. */
guarded_block *guarded_find(const void *address);

/* Called with every block that has a mirror before it is freed. */
extern void (*guarded_release_mirror)(guarded_block *block);

#endif
