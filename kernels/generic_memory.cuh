// generic_memory.cuh: the sizes of the generic kernels' tiles, and what a block of them keeps in shared memory.
#ifndef DLATTN_GENERIC_MEMORY_CUH
#define DLATTN_GENERIC_MEMORY_CUH

#include "element.cuh"

#ifndef HEAD
#define HEAD 256
#endif
static_assert(HEAD % 64 == 0, "HEAD is a number of whole slices");

#define THREADS 256
#define TILE 64                   // rows, and keys
#define SLICE 32                  // columns of a dot product taken at a time
#define WIDE 64                   // columns of an output computed at a time
#define WIDE_SLICES (HEAD / WIDE)

// Strides that keep the reads of shared memory aligned to 16 bytes and free of bank conflicts.
#define SLICE_STRIDE (SLICE + 4)
#define WIDE_STRIDE (WIDE + 8)
#define SCORE_STRIDE (TILE + 4)

// 36.5 KB, so that it fits every device without a special launch.
typedef struct tile_memory {
    union {
        struct {
            float a[TILE * SLICE_STRIDE], b[TILE * SLICE_STRIDE];  // operands of dot_tiles
        };
        float wide[TILE * WIDE_STRIDE];                            // right operand of the other products
        float gradients[TILE * SCORE_STRIDE];                      // of the scores, between the products
    };
    float scores[TILE * SCORE_STRIDE];
    float halves[2][TILE]; // of reductions over rows that two warps share
    int lo[TILE], hi[TILE]; // keys that the rows see
    int first, last;        // union of those
} tile_memory;

// A thread's part of a 64 x 64 tile of scores, or of a 64 x 64 slice of an output.
typedef float fragment[16];

#endif
