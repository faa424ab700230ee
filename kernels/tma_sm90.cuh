// tma_sm90.cuh: what Hopper's kernels do beside arithmetic: barriers in shared memory that count bytes, tiles fetched by the
// copy engine through tensor maps, named barriers, registers moved from one role to another.
#ifndef DLATTN_TMA_SM90_CUH
#define DLATTN_TMA_SM90_CUH

#include "shared/tensor_maps.h"
#include "wgmma_sm90.cuh"

// Barriers of 8 bytes in shared memory. A phase ends when all `count` arrivals and all announced bytes have come. Its parity is
// that of the number of phases before it.
DEVICE void barrier_init(u32 barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(barrier), "r"(count) : "memory");
}

DEVICE void barriers_are_ready() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

DEVICE void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(barrier) : "memory");
}

// By a warp, once: it has done with what the barrier guards.
DEVICE void release(u32 barrier) {
    if (lane_id() == 0) barrier_arrive(barrier);
}

// Arrives, and announces bytes.
DEVICE void barrier_expect(u32 barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(barrier), "r"(bytes) : "memory");
}

// Waits for the end of the phase of this parity; one that has not begun seems to have ended, if it is the next but one.
DEVICE void barrier_wait(u32 barrier, u32 parity) {
    asm volatile("{\n\t.reg .pred done;\n"
                 "again:\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
                 "@!done bra again;\n\t}" :: "r"(barrier), "r"(parity) : "memory");
}

// Where a ring of COUNT stages is. The side that fills waits for `empty` with the parity of the lap before.
template <int COUNT>
struct ring {
    int stage;
    u32 lap; // its parity
    __device__ __forceinline__ void next() {
        if (++stage == COUNT) {
            stage = 0;
            lap ^= 1u;
        }
    }
};

// The value of a warp's first lane, which the compiler then knows to be the same in all: what is derived from it stays in
// uniform registers, where wgmma wants its descriptors.
DEVICE int uniform(int x) { return __shfl_sync(0xffffffffu, x, 0); }

// A box of the tensor to shared memory; its bytes count for the barrier.
DEVICE void fetch_box(u32 to, const tensor_map *map, int column, int row, int head, int batch, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];"
                 :: "r"(to), "l"((u64)map), "r"(column), "r"(row), "r"(head), "r"(batch), "r"(barrier) : "memory");
}

// Rows of a tensor, from column `first` on, to panels of shared memory; the barrier awaits their bytes.
template <int ROWS, int COLS>
DEVICE void fetch_panels(u32 to, const tensor_map *map, const dlattn_view &view, i64 row, int head, int b, u32 barrier, int first = 0) {
    const int batch = view.stride[0] ? b : 0; // a repeated dimension has one place
    if (view.stride[2] == 0) head = 0;
#pragma unroll
    for (int column = 0; column < COLS; column += PANEL)
        fetch_box(to + column / PANEL * (ROWS * PANEL_ROW), map, first + column, (int)row, head, batch, barrier);
}

// And nothing else.
template <int ROWS, int COLS>
DEVICE void fetch_rows(u32 to, const tensor_map *map, const dlattn_view &view, i64 row, int head, int b, u32 barrier) {
    barrier_expect(barrier, ROWS * COLS * 2);
    fetch_panels<ROWS, COLS>(to, map, view, row, head, b, barrier);
}

// Neighbouring bytes to shared memory; address and count are multiples of 16.
DEVICE void fetch_bytes(u32 to, const void *from, int bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 :: "r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier) : "memory");
}

// Clusters ---------------------------------------------------------------------------------------------------------------

// Which block of its cluster this is.
DEVICE int rank_in_cluster() {
    u32 x;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(x));
    return (int)x;
}

// The same place in the shared memory of another block of the cluster.
DEVICE u32 address_in_block(u32 address, int rank) {
    u32 x;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(x) : "r"(address), "r"(rank));
    return x;
}

// All threads of the cluster that are left.
DEVICE void meet_cluster() {
    asm volatile("barrier.cluster.arrive;" ::: "memory");
    asm volatile("barrier.cluster.wait;" ::: "memory");
}

DEVICE void barrier_arrive_in_cluster(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" :: "r"(barrier) : "memory");
}

// Bytes of this block's shared memory to another's, for a barrier there.
DEVICE void send_bytes(u32 to, u32 from, int bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 :: "r"(to), "r"(from), "r"(bytes), "r"(barrier) : "memory");
}

// Half of fetch_panels to all blocks of a cluster of two, to the same place in each and for the same barrier in each. The other block
// does the other half.
template <int ROWS, int COLS>
DEVICE void fetch_panels_for_both(u32 to, const tensor_map *map, const dlattn_view &view, i64 row, int head, int b, u32 barrier, int rank,
                                  int first = 0) {
    const int batch = view.stride[0] ? b : 0, PANELS = COLS / PANEL, HALF_OF_THEM = (PANELS + 1) / 2;
    if (view.stride[2] == 0) head = 0;
#pragma unroll
    for (int n = 0; n < HALF_OF_THEM; n++) {
        const int panel = rank * HALF_OF_THEM + n;
        if (PANELS % 2 != 0 && panel >= PANELS) break;
        asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                     "[%0], [%1, {%2, %3, %4, %5}], [%6], %7;"
                     :: "r"(to + panel * (ROWS * PANEL_ROW)), "l"((u64)map), "r"(first + panel * PANEL), "r"((int)row), "r"(head),
                     "r"(batch), "r"(barrier), "h"((u16)3) : "memory");
    }
}

// Writes of this thread to shared memory come before what the copy engine and the tensor cores do there after the next
// barrier.
DEVICE void fence_for_engines() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Named barriers 1 to 15 for THREADS threads, of which some only arrive.
template <int THREADS>
DEVICE void meet(int id) {
    asm volatile("bar.sync %0, %1;" :: "r"(id), "n"(THREADS) : "memory");
}

// And: does any of them say so?
template <int THREADS>
DEVICE bool meet_and_ask(int id, bool says) {
    u32 any;
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %1, 0;\n\tbar.red.or.pred p, %2, %3, p;\n\tselp.u32 %0, 1, 0, p;\n\t}"
                 : "=r"(any) : "r"((u32)says), "r"(id), "n"(THREADS) : "memory");
    return any != 0;
}

template <int THREADS>
DEVICE void arrive_at(int id) {
    asm volatile("bar.arrive %0, %1;" :: "r"(id), "n"(THREADS) : "memory");
}

// All four warps of a warpgroup: registers per thread from here on.
template <int COUNT>
DEVICE void keep_few_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(COUNT));
}

template <int COUNT>
DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(COUNT));
}

#endif
