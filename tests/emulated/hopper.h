// hopper.h: what Hopper's kernels have beyond device.h: barriers that count bytes, tiles fetched through tensor maps, and
// products of a warpgroup. All is done at once, where the kernel asks for it: what a kernel must wait for it still waits for,
// but a wait that is missing is not found.
#pragma once
#include "device.h"

// ---- barriers in shared memory: 64 bits, of our own making ---------------------------------------------------------------

struct emulated_mbarrier {
    unsigned short count, pending;
    int bytes_and_parity; // announced and not yet come, twice; plus the parity of the phase
};

static inline emulated_mbarrier *mbarrier_at(unsigned at) { return (emulated_mbarrier *)shared_at(at, 8); }

static inline void settle(emulated_mbarrier *b) {
    if (b->pending || b->bytes_and_parity >> 1) return;
    b->pending = b->count;
    b->bytes_and_parity ^= 1;
    emulated->progress++;
}
static inline void arrive(emulated_mbarrier *b, unsigned at) {
    if (!b->pending) emulated->fail("one arrival too many", at, 8);
    b->pending--;
    settle(b);
}
static inline void ptx_mbarrier_init_shared__cta_b64(unsigned at, int count) {
    *mbarrier_at(at) = {(unsigned short)count, (unsigned short)count, 0};
}
static inline void ptx_mbarrier_arrive_shared__cta_b64(unsigned at) { arrive(mbarrier_at(at), at); }
static inline void ptx_mbarrier_arrive_expect_tx_shared__cta_b64(unsigned at, int bytes) {
    mbarrier_at(at)->bytes_and_parity += 2 * bytes;
    arrive(mbarrier_at(at), at);
}
static inline void ptx_mbarrier_wait(unsigned at, unsigned parity) {
    emulated->current->waits_for = "mbarrier";
    while ((mbarrier_at(at)->bytes_and_parity & 1) == (int)parity) emulated->yield();
    emulated->current->waits_for = nullptr;
}
static inline void ptx_bar_arrive(int id, int count) {
    emulated_barrier *b = &emulated->named[id];
    if (++b->arrived < count) return;
    b->arrived = 0;
    b->generation++;
    emulated->progress++;
}
#define ptx_fence_mbarrier_init_release_cluster() (void)0
#define ptx_fence_proxy_async_shared__cta() (void)0
#define ptx_fence_acq_rel_gpu() (void)0
#define ptx_prefetch_tensormap(map) (void)0
#define ptx_setmaxnreg_dec_sync_aligned_u32(count) __syncwarp()
#define ptx_setmaxnreg_inc_sync_aligned_u32(count) __syncwarp()

// ---- clusters: an address of another block's shared memory has that block's number behind bit 24 --------------------------

static inline emulated_block *block_of(unsigned at) { return at >> 24 ? &emulated->cluster[(at >> 24) - 1] : emulated; }
static inline emulated_mbarrier *mbarrier_of_cluster(unsigned at) {
    emulated_block *const b = block_of(at);
    at &= 0xffffffu;
    if (at % 8 || at + 8 > b->shared_bytes) emulated->fail("shared memory of the cluster", at, 8);
    return (emulated_mbarrier *)(b->shared + at);
}
static inline void ptx_mov_u32_cluster_ctarank(unsigned &x) { x = (unsigned)(emulated - emulated->cluster); }
static inline void ptx_mapa_shared__cluster_u32(unsigned &to, unsigned at, unsigned rank) { to = at | (rank + 1) << 24; }
static inline void ptx_mbarrier_arrive_shared__cluster_b64(unsigned at) { arrive(mbarrier_of_cluster(at), at); }
#define ptx_barrier_cluster_arrive() (void)0
static inline void ptx_barrier_cluster_wait() {
    meet(&emulated->cluster->of_cluster, emulated->cluster_size * (int)emulated->block_size.x, "barrier.cluster");
}
static inline void ptx_cp_async_bulk_shared__cluster_shared__cta_mbarrier__complete_tx__bytes(unsigned to, unsigned from, int bytes,
                                                                                             unsigned barrier) {
    emulated_block *const b = block_of(to);
    if (b != block_of(barrier)) emulated->fail("a copy and its barrier in two blocks", to, (unsigned)bytes);
    to &= 0xffffffu;
    if (to % 16 || bytes % 16 || to + (unsigned)bytes > b->shared_bytes) emulated->fail("a copy to the cluster", to, (unsigned)bytes);
    memcpy(b->shared + to, shared_at(from, (unsigned)bytes), (size_t)bytes);
    emulated_mbarrier *const m = mbarrier_of_cluster(barrier);
    m->bytes_and_parity -= 2 * bytes;
    settle(m);
}

// ---- the copy engine ------------------------------------------------------------------------------------------------------

// The 16-byte chunks of 128 bytes are permuted by the address of their row.
static inline unsigned swizzled(unsigned at) { return at ^ (at >> 7 & 7) << 4; }

static inline void fetch_box_to(emulated_block *block, unsigned to, unsigned long long map_at, int column, int row, int head, int batch,
                                unsigned barrier) {
    const emulated_map &map = *(const emulated_map *)(uintptr_t)map_at;
    const uint64_t first[4] = {(uint64_t)column, (uint64_t)row, (uint64_t)head, (uint64_t)batch};
    if (to % 1024) emulated->fail("a box that is not aligned", to, 1024);
    shared_at(to, map.box[1] * 128), mbarrier_at(barrier);
    const bool there = first[2] < map.extents[2] && first[3] < map.extents[3];
    const uint64_t base = map.address + first[2] * map.strides[2] + first[3] * map.strides[3];
    for (unsigned r = 0; r < map.box[1]; r++)
        for (unsigned c = 0; c < map.box[0]; c++) {
            const uint64_t i = first[1] + r, j = first[0] + c;
            unsigned short x = 0;
            if (there && i < map.extents[1] && j < map.extents[0]) memcpy(&x, (const void *)(base + i * map.strides[1] + j * 2), 2);
            memcpy(block->shared + swizzled(to + r * 128 + c * 2), &x, 2);
        }
    emulated_mbarrier *b = (emulated_mbarrier *)(block->shared + barrier);
    b->bytes_and_parity -= (int)(2 * map.box[0] * map.box[1] * 2);
    settle(b);
}
static inline void ptx_cp_async_bulk_tensor_4d_shared__cluster_global_mbarrier__complete_tx__bytes(
    unsigned to, unsigned long long map_at, int column, int row, int head, int batch, unsigned barrier) {
    fetch_box_to(emulated, to, map_at, column, row, head, batch, barrier);
}
static inline void ptx_cp_async_bulk_tensor_4d_shared__cluster_global_mbarrier__complete_tx__bytes_multicast__cluster(
    unsigned to, unsigned long long map_at, int column, int row, int head, int batch, unsigned barrier, unsigned blocks) {
    for (int n = 0; n < emulated->cluster_size; n++)
        if (blocks >> n & 1) fetch_box_to(&emulated->cluster[n], to, map_at, column, row, head, batch, barrier);
}

static inline void ptx_cp_async_bulk_shared__cluster_global_mbarrier__complete_tx__bytes(unsigned to, unsigned long long from, int bytes,
                                                                                        unsigned barrier) {
    if (to % 16 || from % 16 || bytes % 16) emulated->fail("a copy that is not aligned", to, 16);
    memcpy(shared_at(to, (unsigned)bytes), (const void *)(uintptr_t)from, (size_t)bytes);
    emulated_mbarrier *b = mbarrier_at(barrier);
    b->bytes_and_parity -= 2 * bytes;
    settle(b);
}

// ---- products of a warpgroup ------------------------------------------------------------------------------------------------

#define ptx_wgmma_fence_sync_aligned() __syncwarp()
#define ptx_wgmma_commit_group_sync_aligned() __syncwarp()
#define ptx_wgmma_wait_group_sync_aligned(pending) __syncwarp()

#if TYPE == 2
#define element_as_float brain_as_float
#else
#define element_as_float half_as_float
#endif

// An element of an operand: `group` bytes from eight rows to the next, `panel` from 64 columns to the next.
static inline float operand_at(unsigned long long descriptor, int row, int column) {
    const unsigned start = (unsigned)(descriptor & 0x3fff) << 4, panel = (unsigned)(descriptor >> 16 & 0x3fff) << 4;
    const unsigned group = (unsigned)(descriptor >> 32 & 0x3fff) << 4;
    if (descriptor >> 62 != 1) emulated->fail("another swizzle than of 128 bytes", start, 0);
    unsigned short x;
    memcpy(&x, shared_at(swizzled(start + row / 8 * group + row % 8 * 128 + column / 64 * panel + column % 64 * 2), 2), 2);
    return element_as_float(x);
}

// This thread's columns n of d, whose rows are g and g + 8 of its warp's 16. left: those rows.
template <int COUNT, class right>
static inline void add_columns(float (&d)[COUNT][4], const float (&left)[2][16], bool add, right element) {
    for (int n = 0; n < COUNT; n++)
        for (int odd = 0; odd < 2; odd++) {
            double sums[2] = {0, 0};
            for (int k = 0; k < 16; k++) {
                const double b = element(k, 8 * n + own_lane() % 4 * 2 + odd);
                for (int half = 0; half < 2; half++) sums[half] += left[half][k] * b;
            }
            for (int half = 0; half < 2; half++) {
                float &to = d[n][2 * half + odd];
                to = (float)((add ? to : 0.0) + sums[half]);
            }
        }
}

template <int COUNT, typename RIGHT>
static inline void add_shared(float (&d)[COUNT][4], unsigned long long a, int accumulate, const RIGHT &right) {
    const int row = threadIdx.x / 32 % 4 * 16 + own_lane() / 4;
    float left[2][16];
    for (int k = 0; k < 16; k++)
        for (int half = 0; half < 2; half++) left[half][k] = operand_at(a, row + 8 * half, k);
    add_columns(d, left, accumulate, right);
}

template <int COUNT>
static inline void ptx_wgmma_shared(float (&d)[COUNT][4], unsigned long long a, unsigned long long b, int accumulate) {
    add_shared(d, a, accumulate, [&](int k, int n) { return operand_at(b, n, k); });
}

template <int COUNT>
static inline void ptx_wgmma_columns(float (&d)[COUNT][4], unsigned long long a, unsigned long long b, int accumulate) {
    add_shared(d, a, accumulate, [&](int k, int n) { return operand_at(b, k, n); });
}

template <int COUNT>
static inline void ptx_wgmma_registers(float (&d)[COUNT][4], const unsigned (&a)[4], unsigned long long b) {
    const uint64_t words[4] = {a[0], a[1], a[2], a[3]};
    const uint64_t (*all)[8] = exchange(words, 4, "wgmma");
    float left[2][16];
    for (int k = 0; k < 16; k++)
        for (int half = 0; half < 2; half++) {
            const unsigned pair = (unsigned)all[own_lane() / 4 * 4 + k % 8 / 2][half + k / 8 * 2];
            left[half][k] = element_as_float((unsigned short)(pair >> k % 2 * 16));
        }
    add_columns(d, left, true, [&](int k, int n) { return operand_at(b, k, n); });
}
