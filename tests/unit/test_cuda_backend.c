/* test_cuda_backend.c: what a call on CUDA tensors asks of the driver: context, memory, launches, and what it refuses. */
#include <criterion/criterion.h>

#include "call.h"
#include "device.h"
#include "fake_cuda.h"
#include "launch.h"
#include "options.h"
#include "params.h"

static call c;

/* ---- what the driver is asked, and what it answers ------------------------------------------------------------------- */

enum { MAX_LAUNCHES = 16 };
static struct {
    int launches, pushes, pops, current_device, stream_device, pointer_device, refuse_launch;
    int questions, pointers, others; /* calls: about contexts; about addresses; none that a call should make */
    unsigned int pointer_type;
    unsigned int grid[MAX_LAUNCHES], block[MAX_LAUNCHES];
    CUstream stream;
    dlattn_params params[MAX_LAUNCHES];
} seen;

static CUcontext context_on(int device) { return (CUcontext)(uintptr_t)(0x100 * (device + 1)); }
static _Thread_local CUcontext stack[8];
static _Thread_local int depth;

static CUresult count_two(int *count) { return *count = 2, CUDA_SUCCESS; }
static CUresult same_device(CUdevice *device, int ordinal) { return *device = ordinal, CUDA_SUCCESS; }
static CUresult hopper(int *value, CUdevice_attribute attribute, CUdevice device) {
    (void)device;
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR   ? 9
             : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? 0
             : attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT     ? 132
                                                                         : 232448;
    return CUDA_SUCCESS;
}
static CUresult retain(CUcontext *context, CUdevice device) { return *context = context_on(device), CUDA_SUCCESS; }
static CUresult current(CUcontext *context) {
    __atomic_fetch_add(&seen.questions, 1, __ATOMIC_RELAXED);
    *context = depth ? stack[depth - 1] : seen.current_device < 0 ? NULL : context_on(seen.current_device);
    return CUDA_SUCCESS;
}
static CUresult push(CUcontext context) {
    __atomic_fetch_add(&seen.pushes, 1, __ATOMIC_RELAXED);
    return stack[depth++] = context, CUDA_SUCCESS;
}
static CUresult pop(CUcontext *context) {
    __atomic_fetch_add(&seen.pops, 1, __ATOMIC_RELAXED);
    return *context = stack[--depth], CUDA_SUCCESS;
}
static CUresult device_of_current(CUdevice *device) {
    CUcontext now;
    current(&now); /* one question, too */
    return *device = (CUdevice)((uintptr_t)now / 0x100 - 1), CUDA_SUCCESS;
}
static CUresult context_of_stream(CUstream stream, CUcontext *context) {
    (void)stream;
    seen.questions++;
    return *context = context_on(seen.stream_device), CUDA_SUCCESS;
}
static CUresult pointer(unsigned int count, CUpointer_attribute *attributes, void **values, CUdeviceptr address) {
    (void)address;
    seen.pointers++;
    for (unsigned int n = 0; n < count; n++) {
        if (attributes[n] == CU_POINTER_ATTRIBUTE_MEMORY_TYPE) *(unsigned int *)values[n] = seen.pointer_type;
        else *(int *)values[n] = seen.pointer_device;
    }
    return CUDA_SUCCESS;
}
static CUresult launch(CUfunction function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                       unsigned int by, unsigned int bz, unsigned int smem, CUstream stream, void **parameters,
                       void **extra) {
    (void)function, (void)smem, (void)extra;
    if (seen.refuse_launch || gy != 1 || gz != 1 || by != 1 || bz != 1) return CUDA_ERROR_INVALID_VALUE;
    seen.grid[seen.launches] = gx;
    seen.block[seen.launches] = bx;
    seen.stream = stream;
    seen.params[seen.launches++] = *(const dlattn_params *)parameters[0];
    return CUDA_SUCCESS;
}
/* A call on CUDA device `device`, with that device's context current. */
static void begin(int device) {
    fake_begin();
    cr_assert_eq(dlattn__driver_open(), DLATTN_OK, "%s", dlattn_last_error());
    dlattn__driver.cuDeviceGetCount = count_two;
    dlattn__driver.cuDeviceGet = same_device;
    dlattn__driver.cuDeviceGetAttribute = hopper;
    dlattn__driver.cuDevicePrimaryCtxRetain = retain;
    dlattn__driver.cuCtxGetCurrent = current;
    dlattn__driver.cuCtxPushCurrent = push;
    dlattn__driver.cuCtxPopCurrent = pop;
    dlattn__driver.cuCtxGetDevice = device_of_current;
    dlattn__driver.cuStreamGetCtx = context_of_stream;
    dlattn__driver.cuPointerGetAttributes = pointer;
    dlattn__driver.cuLaunchKernel = launch;
    memset(&seen, 0, sizeof seen);
    depth = 0;
    seen.current_device = seen.pointer_device = device;
    seen.pointer_type = CU_MEMORYTYPE_DEVICE;
    make_call(&c);
    for (int i = 0; i < TENSORS; i++) c.t[i].device = (DLDevice){kDLCUDA, device};
    c.exec.workspace = NULL;
    c.exec.workspace_bytes = 0;
}

static void expect(int32_t found, int32_t status, const char *sentence) {
    cr_expect_eq(found, status, "%s: %s", dlattn_status_name(found), dlattn_last_error());
    cr_expect(strstr(dlattn_last_error(), sentence), "\"%s\" is not in \"%s\"", sentence, dlattn_last_error());
    cr_expect(seen.pushes == seen.pops && depth == 0, "%d pushes, %d pops", seen.pushes, seen.pops);
}

/* ---- calls that work ---------------------------------------------------------------------------------------------------- */

Test(cuda_backend, a_forward_is_one_launch_with_the_callers_addresses) {
    begin(0);
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_OK, "");
    cr_assert_eq(seen.launches, 1);
    const dlattn_params *p = &seen.params[0];
    cr_expect(p->q.data == (dlattn_u64)(uintptr_t)c.t[Q].data && p->lse.data == (dlattn_u64)(uintptr_t)c.t[LSE].data);
    cr_expect(p->B == B && p->H == H && p->G == G && p->M == M && p->N == N && p->D == D && p->E == E);
    cr_expect(p->heads_per_group == H / G && p->splits == 1 && p->row_tiles == 1 && p->features == 0);
    cr_expect_eq(seen.grid[0], (unsigned int)(B * H));
    cr_expect(seen.pushes == 0, "the current context is the right one");
    c.exec.workspace_bytes = UINT64_MAX; /* that is not there: nor does this call need it */
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_OK, "");
    cr_expect_eq(seen.launches, 2);
}

Test(cuda_backend, the_other_device_gets_its_own_context) {
    begin(1);
    seen.current_device = 0;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_OK, "");
    cr_expect(seen.launches == 1 && seen.pushes == 1);
    begin(1);
    seen.current_device = -1; /* a thread without a context */
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_OK, "");
    cr_expect(seen.launches == 1 && seen.pushes == 1);
}

Test(cuda_backend, a_stream_brings_its_context) {
    begin(1);
    seen.current_device = 0;
    seen.stream_device = 1;
    c.exec.stream = (void *)0x5000;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_OK, "");
    cr_expect(seen.stream == (CUstream)0x5000 && seen.pushes == 1);
    begin(0);
    seen.stream_device = 1;
    c.exec.stream = (void *)0x5000;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_ERR_DEVICE, "stream belongs to CUDA device 1, expected q's device 0");
    cr_expect_eq(seen.launches, 0);
}

Test(cuda_backend, a_backward_needs_the_workspace_it_asks_for) {
    uint64_t bytes = 0, least = 0;
    static _Alignas(256) char workspace[1 << 20];
    begin(0);
    expect(dlattn_backward_workspace(c.a, c.g, NULL, &bytes, &least), DLATTN_OK, "");
    cr_assert(bytes >= least && least > 0 && bytes <= sizeof workspace);
    expect(dlattn_backward(c.a, c.g, &c.exec), DLATTN_ERR_WORKSPACE, "workspace is NULL, expected at least");
    c.exec.workspace_bytes = UINT64_MAX;
    expect(dlattn_backward(c.a, c.g, &c.exec), DLATTN_ERR_WORKSPACE, "workspace is NULL, expected at least");
    c.exec.workspace = workspace;
    c.exec.workspace_bytes = least - 1;
    expect(dlattn_backward(c.a, c.g, &c.exec), DLATTN_ERR_WORKSPACE, "expected at least");
    cr_expect_eq(seen.launches, 0);
    c.exec.workspace_bytes = bytes;
    expect(dlattn_backward(c.a, c.g, &c.exec), DLATTN_OK, "");
    cr_expect(seen.launches >= 3);
    const dlattn_params *last = &seen.params[seen.launches - 1];
    cr_expect(last->delta >= (uintptr_t)workspace && last->lse2 + 4 * (dlattn_u64)last->row_count <= (uintptr_t)workspace + bytes);
}

Test(cuda_backend, queries_need_no_data_and_any_device_no_driver) {
    uint64_t bytes = 0, any = 0, least = 0;
    begin(0);
    for (int i = 0; i < TENSORS; i++) c.t[i].data = NULL;
    expect(dlattn_backward_workspace(c.a, c.g, NULL, &bytes, &least), DLATTN_OK, "");
    for (int i = 0; i < TENSORS; i++) c.t[i].device.device_id = DLATTN_ANY_DEVICE;
    fake.no_library = true;
    dlattn__driver_forget();
    expect(dlattn_backward_workspace(c.a, c.g, NULL, &any, &least), DLATTN_OK, "");
    cr_expect(any >= bytes && least > 0);
}

Test(cuda_backend, prepare_loads_and_launches_nothing) {
    begin(0);
    expect(dlattn_prepare(c.a, c.o, c.g, NULL), DLATTN_OK, "");
    cr_expect(seen.launches == 0 && atomic_load(&fake.loads) >= 3);
    const int loads = atomic_load(&fake.loads);
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_OK, "");
    cr_expect_eq(atomic_load(&fake.loads), loads, "the call found what prepare loaded");
}

/* ---- what a call costs -------------------------------------------------------------------------------------------------- */

static CUresult other_call(void) { return seen.others++, CUDA_ERROR_NOT_FOUND; }

/* Every call of the driver but those that a warm call may make counts as another. */
static void watch_the_driver(void) {
    const dlattn__driver_table t = dlattn__driver;
    void *other = (void *)other_call, **calls = (void **)&dlattn__driver;
    for (size_t n = 0; n < sizeof t / sizeof *calls; n++) calls[n] = other;
    dlattn__driver.cuCtxGetCurrent = t.cuCtxGetCurrent;
    dlattn__driver.cuCtxGetDevice = t.cuCtxGetDevice;
    dlattn__driver.cuCtxGetId = t.cuCtxGetId;
    dlattn__driver.cuStreamGetCtx = t.cuStreamGetCtx;
    dlattn__driver.cuPointerGetAttributes = t.cuPointerGetAttributes;
    dlattn__driver.cuLaunchKernel = t.cuLaunchKernel;
    seen.launches = seen.questions = seen.pointers = seen.others = 0;
}

static CUlaunchConfig config;
static CUlaunchAttribute attribute;
static CUresult launch_ex(const CUlaunchConfig *given, CUfunction function, void **parameters, void **extra) {
    (void)function, (void)parameters, (void)extra;
    config = *given;
    attribute = *given->attrs;
    return CUDA_SUCCESS;
}

Test(cuda_backend, an_early_launch_says_so_where_graphs_can_hold_it) {
    const cuda_step plain = {.blocks = 7, .threads = 64}, early = {.blocks = 7, .threads = 64, .request.smem_bytes = 1024, .early = true};
    dlattn_params params;
    begin(0);
    memset(&params, 0, sizeof params);
    dlattn__driver.cuLaunchKernelEx = launch_ex;
    memset(&config, 0, sizeof config);
    expect(dlattn__launch(NULL, &plain, &params, NULL, (CUstream)0x5000), DLATTN_OK, "");
    cr_expect(seen.launches == 1 && config.numAttrs == 0);
    expect(dlattn__launch(NULL, &early, &params, NULL, (CUstream)0x5000), DLATTN_OK, "");
    cr_expect_eq(seen.launches, 1);
    cr_expect(config.gridDimX == 7 && config.gridDimY == 1 && config.gridDimZ == 1 && config.blockDimX == 64 && config.blockDimY == 1 &&
              config.blockDimZ == 1 && config.sharedMemBytes == 1024 && config.hStream == (CUstream)0x5000);
    cr_expect(config.numAttrs == 1 && attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION &&
              attribute.value.programmaticStreamSerializationAllowed == 1);

    fake.version = 12020;
    dlattn__driver_forget();
    cr_assert_eq(dlattn__driver_open(), DLATTN_OK);
    dlattn__driver.cuLaunchKernel = launch;
    dlattn__driver.cuLaunchKernelEx = NULL;
    expect(dlattn__launch(NULL, &early, &params, NULL, (CUstream)0x5000), DLATTN_OK, "");
    cr_expect(seen.launches == 2 && seen.grid[1] == 7);
}

static int allocations;
static void *(*allocate)(int64_t bytes);
static void *count_allocation(int64_t bytes) { return allocations++, allocate(bytes); }

Test(cuda_backend, a_warm_call_asks_little_of_the_driver) {
    static _Alignas(256) char workspace[1 << 20];
    begin(0);
    c.exec.stream = (void *)0x5000;
    c.exec.workspace = workspace;
    c.exec.workspace_bytes = sizeof workspace;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_OK, "");
    expect(dlattn_backward(c.a, c.g, &c.exec), DLATTN_OK, "");
    watch_the_driver();
    allocate = dlattn__memory.allocate;
    dlattn__memory.allocate = count_allocation;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_OK, "");
    cr_expect(seen.launches == 1 && seen.pointers == 5, "one kernel, five tensors: %d, %d", seen.launches, seen.pointers);
    expect(dlattn_backward(c.a, c.g, &c.exec), DLATTN_OK, "");
    cr_expect(seen.pointers == 5 + 9, "nine tensors: %d", seen.pointers - 5);
    cr_expect(seen.questions <= 2 * 3, "the thread's context, the stream's, its device: %d", seen.questions);
    cr_expect_eq(seen.others, 0, "nothing else");
    cr_expect_eq(allocations, 0, "and no memory of the host");
    dlattn__memory.allocate = allocate;
}

Test(cuda_backend, the_table_has_no_call_that_allocates_or_waits) {
    static const char *const names[] = {
#define NAME(name, parameters) #name,
        DLATTN_DRIVER_CALLS(NAME)
#undef NAME
    };
    static const char *const forbidden[] = {"Alloc", "Free", "Synchronize", "Memcpy", "StreamCreate", "Wait", "EventRecord"};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        for (size_t f = 0; f < sizeof forbidden / sizeof *forbidden; f++)
            cr_expect_null(strstr(names[n], forbidden[f]), "%s", names[n]);
}

/* ---- what is told about the machine ------------------------------------------------------------------------------------- */

static CUresult name_of(char *name, int bytes, CUdevice device) { return snprintf(name, (size_t)bytes, "Fake %d", device), CUDA_SUCCESS; }
static CUresult memory_of(size_t *bytes, CUdevice device) { return *bytes = (size_t)(80 + device) << 30, CUDA_SUCCESS; }
static CUresult count_three(int *count) { return *count = 3, CUDA_SUCCESS; }
static CUresult third_is_old(int *value, CUdevice_attribute attribute, CUdevice device) {
    CUresult result = hopper(value, attribute, device);
    if (device == 2 && attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) *value = 6;
    return result;
}

Test(cuda_backend, the_description_of_the_machine) {
    static char text[16384], folder[] = "/tmp/dlattn_test_XXXXXX", file[64];
    begin(0);
    cr_assert(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/kernel", folder);
    FILE *kernel = fopen(file, "w");
    for (int n = 0; n < 1 << 20; n++) fputc(0, kernel);
    fclose(kernel);
    dlattn_set_option("cache_dir", folder);
    fake_copy(1, "libnvrtc.so.12", 12, 8);
    fake_copies[1].missing = "nvrtcCompileProgram";
    dlattn__driver.cuDeviceGetName = name_of;
    dlattn__driver.cuDeviceTotalMem = memory_of;
    dlattn__driver.cuDeviceGetCount = count_three;
    dlattn__driver.cuDeviceGetAttribute = third_is_old;
    cr_assert_eq(dlattn_explain(NULL, NULL, NULL, NULL, text, sizeof text), DLATTN_OK);
    remove(file);
    remove(folder);
    static const char *const expected[] = {
        "driver: CUDA 13.0\n", "device 0: Fake 0, compute capability 9.0, 132 multiprocessors, 81920 MiB\n",
        "device 2: Fake 2, 83968 MiB, not served: q's CUDA device 2 has compute capability 6.0, expected 7.5 or later\n",
        "nvrtc: 13.0, libnvrtc.so.13\n", "nvrtc: not usable, libnvrtc.so.12: ", "compiled kernels: 1 files, 1.0 MiB in /tmp/dlattn_test_",
        "embedded kernels: none\n"};
    for (size_t n = 0; n < sizeof expected / sizeof *expected; n++)
        cr_expect(strstr(text, expected[n]), "\"%s\" is not in:\n%s", expected[n], text);
    fake.no_library = true;
    dlattn__driver_forget();
    cr_assert_eq(dlattn_explain(NULL, NULL, NULL, NULL, text, sizeof text), DLATTN_OK);
    cr_expect(strstr(text, "devices: none (no CUDA driver: libcuda.so.1"), "%s", text);
}

/* ---- calls that are refused ------------------------------------------------------------------------------------------- */

Test(cuda_backend, memory_of_the_wrong_place) {
    begin(0);
    seen.pointer_type = 0;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_ERR_DEVICE, "q's data is host memory, expected memory of CUDA device 0");
    seen.pointer_type = CU_MEMORYTYPE_HOST;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_ERR_DEVICE, "q's data is host memory");
    begin(0);
    seen.pointer_device = 1;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_ERR_DEVICE, "q's data is memory of CUDA device 1, expected device 0");
    for (int i = 0; i < TENSORS; i++) c.t[i].device.device_type = kDLCUDAManaged;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_OK, "");
    begin(0);
    c.t[K].byte_offset = 2;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_ERR_ARGUMENT, "k starts at an address that is no multiple of 4");
    cr_expect_eq(seen.launches, 0);
}

Test(cuda_backend, devices_that_are_not_there) {
    begin(0);
    for (int i = 0; i < TENSORS; i++) c.t[i].device.device_id = 7;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_ERR_DEVICE, "q is on CUDA device 7, expected 0 to 1");
    for (int i = 0; i < TENSORS; i++) c.t[i].device.device_id = 4000;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_ERR_DEVICE, "q is on CUDA device 4000");
}

Test(cuda_backend, a_device_that_is_too_old) {
    begin(0);
    dlattn__driver.cuDeviceGetCount = count_three;
    dlattn__driver.cuDeviceGetAttribute = third_is_old;
    for (int i = 0; i < TENSORS; i++) c.t[i].device.device_id = 2;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_ERR_DEVICE, "q's CUDA device 2 has compute capability 6.0, expected 7.5 or later");
    cr_expect_eq(seen.launches, 0);
}

Test(cuda_backend, float64_is_for_the_cpu) {
    begin(0);
    for (int i = 0; i < TENSORS; i++)
        if (c.t[i].dtype.code == kDLFloat) c.t[i].dtype.bits = 64;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_ERR_UNSUPPORTED, "float64 is computed on the CPU only");
}

Test(cuda_backend, a_failed_launch_names_the_kernel_and_harms_nothing) {
    begin(0);
    seen.refuse_launch = 1;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_ERR_CUDA, "cuLaunchKernel of forward_generic");
    seen.refuse_launch = 0;
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_OK, "");
}

Test(cuda_backend, a_kernel_that_does_not_compile) {
    begin(0);
    fake_copies[0].result = NVRTC_ERROR_COMPILATION;
    fake_copies[0].log = "generic_forward.cu(7): error: no";
    c.attention.softcap = 3; /* the same kernel: loaded functions stay, so ask in a context of its own */
    expect(dlattn_forward(c.a, c.o, &c.exec), DLATTN_ERR_COMPILE, "generic_forward.cu(7): error: no");
    cr_expect_eq(seen.launches, 0);
}
