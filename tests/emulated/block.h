// block.h: the state of the block that runs, shared by the driver (cuda.cpp) and the kernels (device.h).
#pragma once
#include <cstdint>

struct emulated_size { unsigned x, y, z; };

struct emulated_thread {
    void *stack_pointer;
    emulated_size index;
    const char *waits_for;
    bool done;
};

struct emulated_barrier {
    int arrived;
    unsigned generation;
    const int *alive; // threads that can still come
    unsigned said[4]; // in each of the last generations, by whoever met
    int count_of_alive() const { return alive ? *alive : 1 << 30; }
};

struct emulated_warp {
    emulated_barrier barrier;
    int alive;
    uint64_t slots[2][32][8];
};

// What cuTensorMapEncodeTiled makes: 16-bit elements, a box of 64 columns, a swizzle of 128 bytes.
struct emulated_map {
    uint64_t address, extents[4], strides[4]; // bytes; strides[0] is that of an element
    unsigned box[4];
};

struct emulated_block {
    emulated_thread *current;
    emulated_size block_index, block_size, grid_size;
    emulated_warp warps[32];
    emulated_barrier barrier, named[16];
    int alive;
    uint64_t progress; // barriers passed: when it stands still, all wait for ever
    char *shared;
    unsigned shared_bytes;
    emulated_block *cluster; // the blocks of its cluster
    int cluster_size;
    emulated_barrier of_cluster; // the first block's serves all
    void (*yield)(void);
    void (*fail)(const char *what, unsigned at, unsigned bytes);
};
