/* function.c: the memory cache of loaded functions: hits without a lock, each module made once. */
#include "function.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "dlattn/dlattn.h"
#include "error.h"
#include "module.h"
#include "options.h"

/* ---- the table of functions: entries are added, never changed or freed, so readers need no lock ---------------------- */

typedef struct function_entry {
    struct function_entry *next;
    unsigned long long context_id; /* never reused by the driver, unlike the handle */
    CUfunction function;
    kernel_request request;
} function_entry;

enum { NUM_BUCKETS = 1024, PLAIN_SMEM_BYTES = 48 * 1024 };
static _Atomic(function_entry *) buckets[NUM_BUCKETS];

static size_t request_bytes(const kernel_request *r) {
    return offsetof(kernel_request, defines) + (size_t)r->count * sizeof r->defines[0];
}

/* Over the words of the request that are used: a sum of products, none of which waits for the one before. */
static uint64_t hash(unsigned long long context_id, const kernel_request *r) {
    const char *bytes = (const char *)r;
    uint64_t h = context_id, factor = 0x9E3779B97F4A7C15u;
    for (size_t at = 0; at < request_bytes(r); at += 8, factor += 0xD1B54A32D192ED02u) { /* factors stay odd */
        uint64_t word;
        memcpy(&word, bytes + at, 8);
        h += word * factor;
    }
    h = (h ^ h >> 32) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 32;
}
_Static_assert(offsetof(kernel_request, defines) % 8 == 0 && sizeof(kernel_define) % 8 == 0, "hashed by words");

static CUfunction lookup(uint64_t h, unsigned long long context_id, const kernel_request *r) {
    const function_entry *e = atomic_load_explicit(&buckets[h % NUM_BUCKETS], memory_order_acquire);
    for (; e; e = e->next)
        if (e->context_id == context_id && e->request.count == r->count &&
            memcmp(&e->request, r, request_bytes(r)) == 0)
            return e->function;
    return NULL;
}

/* ---- modules, and who is making one; all under the lock --------------------------------------------------------------- */

typedef struct module_entry {
    struct module_entry *next;
    unsigned long long context_id;
    CUmodule module; /* NULL while its maker is at work */
    kernel_request request;
} module_entry;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static module_entry *modules;

static bool same_module(const kernel_request *a, const kernel_request *b) {
    if (strcmp(a->file, b->file) != 0 || a->count != b->count) return false;
    for (int32_t i = 0; i < a->count; i++)
        if (a->defines[i].value != b->defines[i].value || strcmp(a->defines[i].name, b->defines[i].name) != 0)
            return false;
    return true;
}

static module_entry *find_module(unsigned long long context_id, const kernel_request *r) {
    module_entry *m = modules;
    while (m && (m->context_id != context_id || !same_module(&m->request, r))) m = m->next;
    return m;
}

static void remove_module(module_entry *gone) {
    module_entry **link = &modules;
    while (*link != gone) link = &(*link)->next;
    *link = gone->next;
    dlattn__memory.release(gone);
}

static int32_t out_of_memory(const kernel_request *r) {
    return dlattn__fail(DLATTN_ERR_OUT_OF_MEMORY, "no host memory to load %s", r->entry);
}

/* The module of a request, made by this thread or awaited. Called and left with the lock held, which it gives away
 * while it works. */
static int32_t get_module(CUmodule *out, unsigned long long context_id, CUdevice device, const kernel_request *r) {
    module_entry *m;
    while ((m = find_module(context_id, r)) && !m->module) pthread_cond_wait(&changed, &lock);
    if (!m) { /* never made, or its maker failed */
        m = dlattn__memory.allocate(sizeof *m);
        if (!m) return out_of_memory(r);
        *m = (module_entry){modules, context_id, NULL, *r};
        modules = m;
        CUmodule module = NULL;
        pthread_mutex_unlock(&lock);
        int32_t status = dlattn__module_load(&module, device, r);
        pthread_mutex_lock(&lock);
        pthread_cond_broadcast(&changed);
        if (status != DLATTN_OK) {
            remove_module(m);
            return status;
        }
        m->module = module;
    }
    *out = m->module;
    return DLATTN_OK;
}

/* ---- loading ---------------------------------------------------------------------------------------------------------- */

/* More than 48 KiB of dynamic shared memory must be allowed per function; another request's larger share stays. */
static int32_t allow_smem(CUfunction function, const kernel_request *r) {
    int allowed = 0;
    if (r->smem_bytes <= PLAIN_SMEM_BYTES) return DLATTN_OK;
    DLATTN_TRY(dlattn__cuda_check(
        dlattn__driver.cuFuncGetAttribute(&allowed, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, function),
        "cuFuncGetAttribute", r->entry));
    if (allowed >= r->smem_bytes) return DLATTN_OK;
    return dlattn__cuda_check(
        dlattn__driver.cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, r->smem_bytes),
        "cuFuncSetAttribute (dynamic shared memory)", r->entry);
}

/* With the lock held. */
static int32_t add_function(CUfunction *out, uint64_t h, unsigned long long context_id, CUdevice device,
                            const kernel_request *r) {
    CUmodule module = NULL;
    CUfunction function = NULL;
    DLATTN_TRY(get_module(&module, context_id, device, r));
    if ((*out = lookup(h, context_id, r))) return DLATTN_OK; /* added by the thread that was awaited */
    DLATTN_TRY(dlattn__cuda_check(dlattn__driver.cuModuleGetFunction(&function, module, r->entry),
                                  "cuModuleGetFunction", r->entry));
    DLATTN_TRY(allow_smem(function, r));
    function_entry *e = dlattn__memory.allocate(sizeof *e);
    if (!e) return out_of_memory(r);
    *e = (function_entry){atomic_load(&buckets[h % NUM_BUCKETS]), context_id, function, *r};
    atomic_store_explicit(&buckets[h % NUM_BUCKETS], e, memory_order_release);
    *out = function;
    return DLATTN_OK;
}

/* Loading allocates and may synchronise, which a stream capture forbids to every thread that has not said that it
 * knows what it does: nothing here touches the captured stream. */
static int32_t load(CUfunction *out, uint64_t h, unsigned long long context_id, CUdevice device,
                    const kernel_request *r) {
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    DLATTN_TRY(dlattn__cuda_check(dlattn__driver.cuThreadExchangeStreamCaptureMode(&mode),
                                  "cuThreadExchangeStreamCaptureMode", r->entry));
    pthread_mutex_lock(&lock);
    int32_t status = add_function(out, h, context_id, device, r);
    pthread_mutex_unlock(&lock);
    dlattn__driver.cuThreadExchangeStreamCaptureMode(&mode);
    return status;
}

static int32_t find(CUfunction *out, uint64_t *h, unsigned long long *context_id, CUcontext context, const kernel_request *r) {
    assert(r->count >= 0 && r->count <= DLATTN_MAX_DEFINES);
    *out = NULL;
    CUresult result = dlattn__driver.cuCtxGetId(context, context_id);
    if (result != CUDA_SUCCESS) return dlattn__cuda_check(result, "cuCtxGetId", r->entry);
    *h = hash(*context_id, r);
    *out = lookup(*h, *context_id, r);
    return DLATTN_OK;
}

int32_t dlattn__function_find(CUfunction *out, CUcontext context, const kernel_request *r) {
    unsigned long long context_id;
    uint64_t h;
    return find(out, &h, &context_id, context, r);
}

int32_t dlattn__function_get(CUfunction *out, CUcontext context, CUdevice device, const kernel_request *r) {
    unsigned long long context_id = 0;
    uint64_t h = 0;
    DLATTN_TRY(find(out, &h, &context_id, context, r));
    return *out ? DLATTN_OK : load(out, h, context_id, device, r);
}
