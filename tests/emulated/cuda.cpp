// cuda.cpp: a libcuda that runs kernels on the CPU: one device whose memory is the host's, blocks one after the other (those of a
// cluster together), their threads as fibers.
//
// Launches are done when they return, so streams and events have nothing to do. $EMULATED_ARCH: 90 (default), 80, 75 ...
// $EMULATED_MULTIPROCESSORS: 132 (default); with few, persistent blocks have more than one tile.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "block.h"

typedef unsigned long long u64;
enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700 };
enum { STACK_BYTES = 1 << 18, MOST_THREADS = 1024, MOST_BLOCKS = 2 }; // MOST_BLOCKS: of a cluster

// ---- fibers -------------------------------------------------------------------------------------------------------------

extern "C" void emulated_switch(void **save, void *load);
__asm__(".text\n.globl emulated_switch\nemulated_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

static emulated_block cluster[MOST_BLOCKS];
static emulated_block *running;
static emulated_thread threads[MOST_BLOCKS * MOST_THREADS];
static int cluster_size;
static void (*set_block)(emulated_block *);
static char *stacks;
static void *scheduler;
static void (*entry)(void **);
static void **arguments;
static std::string failure;
static int thread_count;

static void back() { emulated_switch(&running->current->stack_pointer, scheduler); }

static void fail(const char *what, unsigned at, unsigned bytes) {
    char text[200];
    snprintf(text, sizeof text, "%s: address %u, %u bytes, block %u, thread %u", what, at, bytes, running->block_index.x,
             running->current->index.x);
    if (failure.empty()) failure = text;
    while (true) back();
}

static void thread_main() {
    entry(arguments);
    emulated_thread *t = running->current;
    t->done = true;
    running->alive--;
    running->warps[t->index.x / 32].alive--;
    running->progress++;
    back();
    abort();
}

static void prepare_thread(int n) {
    void **top = (void **)(stacks + (size_t)(n + 1) * STACK_BYTES - 64);
    *--top = nullptr;             // keeps the stack aligned as after a call
    *--top = (void *)thread_main; // where emulated_switch returns to
    for (int r = 0; r < 6; r++) *--top = nullptr;
    threads[n] = {top, {(unsigned)(n % thread_count), 0, 0}, nullptr, false};
}

static void prepare_block(emulated_block &block, unsigned index) {
    memset(block.warps, 0, sizeof block.warps);
    memset(block.named, 0, sizeof block.named);
    block.barrier = {0, 0, &block.alive, {0}};
    block.alive = thread_count;
    block.block_index = {index, 0, 0};
    block.of_cluster = {0, 0, nullptr, {0}};
    for (int w = 0; w < (thread_count + 31) / 32; w++)
        block.warps[w].alive = 32, block.warps[w].barrier.alive = &block.warps[w].alive;
    memset(block.shared, 0xff, block.shared_bytes);
}

static void run_cluster(unsigned index) {
    const int count = cluster_size * thread_count;
    for (int n = 0; n < cluster_size; n++) prepare_block(cluster[n], index + (unsigned)n);
    for (int n = 0; n < count; n++) prepare_thread(n);
    for (u64 seen = 0, idle = 0; failure.empty();) {
        u64 progress = 0;
        int alive = 0;
        for (int n = 0; n < count && failure.empty(); n++) {
            if (threads[n].done) continue;
            running = &cluster[n / thread_count];
            if (cluster_size > 1) set_block(running);
            running->current = &threads[n];
            emulated_switch(&scheduler, threads[n].stack_pointer);
        }
        for (int n = 0; n < cluster_size; n++) progress += cluster[n].progress, alive += cluster[n].alive;
        if (alive == 0) break;
        idle = progress == seen ? idle + 1 : 0;
        seen = progress;
        for (int n = 0; idle > 4 && n < count && failure.empty(); n++)
            if (!threads[n].done)
                failure = std::string("threads wait for ever in ") + (threads[n].waits_for ? threads[n].waits_for : "nothing") +
                          ", thread " + std::to_string(n) + " of block " + std::to_string(index);
    }
}

// ---- modules ------------------------------------------------------------------------------------------------------------

struct module { void *library; };
struct function { void (*entry)(void **); void (*set_block)(emulated_block *); const size_t *sizes; int cluster; std::string name; };
static std::map<std::string, function *> functions;
static std::recursive_mutex lock;

static int launch(function *f, unsigned grid, unsigned size, unsigned shared_bytes, void **parameters) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    static std::vector<char> memory[MOST_BLOCKS];
    if (!failure.empty()) return ILLEGAL_ADDRESS;
    if (!stacks)
        stacks = (char *)mmap(nullptr, (size_t)MOST_BLOCKS * MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cluster_size = f->cluster;
    if (grid % (unsigned)cluster_size) return INVALID_VALUE;
    for (int n = 0; n < cluster_size; n++) {
        emulated_block &block = cluster[n];
        memory[n].resize(shared_bytes + 256);
        block.shared = (char *)(((uintptr_t)memory[n].data() + 127) / 128 * 128);
        block.shared_bytes = shared_bytes;
        block.block_size = {size, 1, 1};
        block.grid_size = {grid, 1, 1};
        block.yield = back;
        block.fail = fail;
        block.cluster = cluster;
        block.cluster_size = cluster_size;
    }
    entry = f->entry, arguments = parameters, thread_count = (int)size, set_block = f->set_block;
    set_block(&cluster[0]);
    for (unsigned n = 0; n < grid && failure.empty(); n += (unsigned)cluster_size) run_cluster(n);
    if (failure.empty()) return SUCCESS;
    fprintf(stderr, "emulated %s: %s\n", f->name.c_str(), failure.c_str());
    failure.clear();
    return ILLEGAL_ADDRESS;
}

// ---- graphs: what a capture has seen, done again at each launch ----------------------------------------------------------

typedef std::vector<std::function<int()>> graph;
static graph *captured;

static int record(std::function<int()> work) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!captured) return work();
    return captured->push_back(std::move(work)), SUCCESS;
}

// ---- the calls ----------------------------------------------------------------------------------------------------------

static int number_of(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }
static int arch() { return number_of("EMULATED_ARCH", 90); }

extern "C" {
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuGetErrorName(int, const char **text) { return *text = "EMULATED_ERROR", 0; }
int cuGetErrorString(int error, const char **text) {
    return *text = error == ILLEGAL_ADDRESS ? "the emulated kernel failed" : "an error", 0;
}
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal ? 101 : 0; }
int cuDeviceGetName(char *name, int bytes, int) { return snprintf(name, (size_t)bytes, "emulated sm_%d", arch()), 0; }
int cuDeviceTotalMem(size_t *bytes, int) { return *bytes = (size_t)8 << 30, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    const int shared = arch() == 75 ? 65536 : arch() == 86 || arch() == 89 ? 101376 : arch() == 80 ? 166912 : 232448;
    *value = attribute == 16   ? number_of("EMULATED_MULTIPROCESSORS", 132)
             : attribute == 75 ? arch() / 10
             : attribute == 76 ? arch() % 10
             : attribute == 97 ? shared
                               : 0;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = (void *)0x10, 0; }
int cuCtxGetCurrent(void **context) { return *context = (void *)0x10, 0; }
int cuCtxSetCurrent(void *) { return 0; }
int cuCtxPushCurrent(void *) { return 0; }
int cuCtxPopCurrent(void **context) { return *context = (void *)0x10, 0; }
int cuCtxGetDevice(int *device) { return *device = 0, 0; }
int cuCtxGetId(void *, u64 *id) { return *id = 1, 0; }
int cuStreamGetCtx(void *, void **context) { return *context = (void *)0x10, 0; }
int cuThreadExchangeStreamCaptureMode(unsigned *) { return 0; }
int cuStreamCreate(void **stream, unsigned) { return *stream = (void *)0x20, 0; }
int cuStreamSynchronize(void *) { return 0; }
int cuStreamBeginCapture_v2(void *, int) { return captured = new graph, SUCCESS; }
int cuStreamEndCapture(void *, void **out) { return *out = captured, captured = nullptr, SUCCESS; }
int cuGraphInstantiateWithFlags(void **out, void *in, u64) { return *out = new graph(*(graph *)in), SUCCESS; }
int cuGraphLaunch(void *in, void *) {
    int status = SUCCESS;
    for (auto &work : *(graph *)in)
        if (status == SUCCESS) status = work();
    return status;
}
int cuGraphExecDestroy(void *in) { return delete (graph *)in, SUCCESS; }
int cuGraphDestroy(void *in) { return delete (graph *)in, SUCCESS; }
int cuEventCreate(void **event, unsigned) { return *event = (void *)0x30, 0; }
int cuEventRecord(void *, void *) { return 0; }
int cuEventSynchronize(void *) { return 0; }
int cuEventElapsedTime(float *milliseconds, void *, void *) { return *milliseconds = 1, 0; }
int cuEventDestroy_v2(void *) { return 0; }
int cuMemAlloc_v2(u64 *address, size_t bytes) {
    void *at = nullptr;
    if (posix_memalign(&at, 256, bytes ? bytes : 1)) return 2;
    return *address = (u64)(uintptr_t)at, 0;
}
int cuMemFree_v2(u64 address) { return free((void *)(uintptr_t)address), 0; }
int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t bytes, void *) { return memcpy((void *)(uintptr_t)to, from, bytes), 0; }
int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t bytes, void *) { return memcpy(to, (void *)(uintptr_t)from, bytes), 0; }
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void *) {
    return record([=] { return memcpy((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes), 0; });
}
int cuMemsetD8Async(u64 to, unsigned char value, size_t bytes, void *) {
    return record([=] { return memset((void *)(uintptr_t)to, value, bytes), 0; });
}
int cuMemsetD32Async(u64 to, unsigned value, size_t count, void *) {
    return record([=] {
        for (size_t n = 0; n < count; n++) ((unsigned *)(uintptr_t)to)[n] = value;
        return 0;
    });
}
int cuPointerGetAttributes(unsigned, unsigned *, void **values, u64) { return *(unsigned *)values[0] = 2, *(int *)values[1] = 0, 0; }

int cuModuleLoadDataEx(void **out, const void *image, unsigned, void *, void **) {
    // An ELF file ends with its section headers.
    const char *elf = (const char *)image;
    u64 at;
    unsigned short size, count;
    memcpy(&at, elf + 0x28, 8), memcpy(&size, elf + 0x3a, 2), memcpy(&count, elf + 0x3c, 2);
    char path[] = "/tmp/emulated_moduleXXXXXX";
    const int file = mkstemp(path);
    const size_t bytes = at + (u64)size * count;
    const bool written = file >= 0 && write(file, image, bytes) == (ssize_t)bytes;
    if (file >= 0) close(file);
    void *library = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (!library) fprintf(stderr, "emulated module: %s\n", dlerror());
    unlink(path);
    if (!library) return 200;
    return *out = new module{library}, SUCCESS;
}
int cuModuleGetFunction(void **out, void *in, const char *name) {
    void *library = ((module *)in)->library, *found = dlsym(library, (std::string("entry_") + name).c_str());
    if (!found) return NOT_FOUND;
    auto *f = new function{};
    f->entry = (void (*)(void **))found;
    f->set_block = (void (*)(emulated_block *))dlsym(library, "emulated_set_block");
    f->sizes = (const size_t *)dlsym(library, (std::string("sizes_") + name).c_str());
    const int *of_cluster = (const int *)dlsym(library, (std::string("cluster_") + name).c_str());
    f->cluster = of_cluster ? *of_cluster : 1;
    f->name = name;
    return *out = f, SUCCESS;
}
int cuFuncGetAttribute(int *value, unsigned, void *) { return *value = 0, 0; }
int cuFuncSetAttribute(void *, unsigned, int) { return 0; }
int cuLaunchKernel(void *f, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *,
                   void **parameters, void **) {
    if (y != 1 || z != 1 || by != 1 || bz != 1 || bx > MOST_THREADS || x == 0) return INVALID_VALUE;
    if (!captured) return launch((function *)f, x, bx, shared, parameters);
    std::vector<std::vector<char>> copies;
    for (int n = 0; ((function *)f)->sizes[n]; n++)
        copies.emplace_back((char *)parameters[n], (char *)parameters[n] + ((function *)f)->sizes[n]);
    return record([=]() mutable {
        std::vector<void *> own;
        for (auto &copy : copies) own.push_back(copy.data());
        return launch((function *)f, x, bx, shared, own.data());
    });
}
// With the limits of the real one, as far as the library may meet them.
int cuTensorMapEncodeTiled(void *out, unsigned type, unsigned rank, void *address, const u64 *extents, const u64 *strides,
                           const unsigned *box, const unsigned *steps, unsigned interleave, unsigned swizzle, unsigned, unsigned fill) {
    emulated_map map = {};
    if (rank != 4 || (type != 6 && type != 9) || (uintptr_t)address % 16 || (uintptr_t)out % 64) return INVALID_VALUE;
    if (interleave || fill || swizzle != 3 || box[0] != 64) return INVALID_VALUE; // the one way that hopper.h knows
    map.address = (u64)(uintptr_t)address;
    for (unsigned d = 0; d < rank; d++) {
        if (!extents[d] || extents[d] > (u64)1 << 32 || !box[d] || box[d] > 256 || steps[d] != 1) return INVALID_VALUE;
        if (d > 0 && (strides[d - 1] % 16 || strides[d - 1] >= (u64)1 << 40)) return INVALID_VALUE;
        map.extents[d] = extents[d], map.box[d] = box[d];
        if (d > 0) map.strides[d] = strides[d - 1];
    }
    return memcpy(out, &map, sizeof map), SUCCESS;
}
int cuLaunchKernelEx(const void *config, void *f, void **parameters, void **extra) {
    unsigned sizes[7]; // grid, block, shared memory; no attribute changes what is computed
    memcpy(sizes, config, sizeof sizes);
    return cuLaunchKernel(f, sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], nullptr, parameters, extra);
}

int cuGetProcAddress_v2(const char *name, void **address, int, u64, unsigned *) {
    static void *own = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *address = dlsym(own ? own : RTLD_DEFAULT, name);
    return *address ? SUCCESS : NOT_FOUND;
}
}
