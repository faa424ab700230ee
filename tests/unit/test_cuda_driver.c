/* test_cuda_driver.c: opening the driver: each way to fail has its sentence, and says it again. */
#include <criterion/criterion.h>

#include "fake_cuda.h"

static void expect_failure(int32_t status, const char *words) {
    char first[512];
    cr_expect_eq(dlattn__driver_open(), status, "%s", dlattn_last_error());
    cr_expect(strstr(dlattn_last_error(), words), "\"%s\" lacks \"%s\"", dlattn_last_error(), words);
    snprintf(first, sizeof first, "%s", dlattn_last_error());
    dlattn_version(); /* which leaves the sentence alone */
    dlattn_set_option("log", NULL);
    cr_expect_eq(dlattn__driver_open(), status);
    cr_expect_str_eq(dlattn_last_error(), first);
}

Test(cuda_driver, opens_once) {
    fake_begin();
    cr_assert_eq(dlattn__driver_open(), DLATTN_OK, "%s", dlattn_last_error());
    cr_expect_eq(dlattn__driver_open(), DLATTN_OK);
    cr_expect_eq(fake.inits, 1);
    cr_expect_eq(dlattn__driver_version(), 13000);
    cr_expect(dlattn__driver.cuCtxGetId == fake_cuCtxGetId);
}

Test(cuda_driver, missing) {
    fake_begin();
    fake.no_library = true;
    expect_failure(DLATTN_ERR_DEVICE, "libcuda.so.1 cannot be opened (no such file); install the NVIDIA driver");
}

Test(cuda_driver, too_old) {
    fake_begin();
    fake.version = 11080;
    expect_failure(DLATTN_ERR_UNSUPPORTED, "serves CUDA 11.8, dlattn needs one that serves 12.0 or later");
    fake_begin();
    fake.version = 12000;
    cr_expect_eq(dlattn__driver_open(), DLATTN_OK, "%s", dlattn_last_error());
}

Test(cuda_driver, no_gpu) {
    fake_begin();
    fake.init_result = CUDA_ERROR_NO_DEVICE;
    expect_failure(DLATTN_ERR_DEVICE, "finds no GPU");
}

Test(cuda_driver, does_not_start) {
    fake_begin();
    fake.init_result = CUDA_ERROR_INVALID_IMAGE; /* any error that is not about devices */
    expect_failure(DLATTN_ERR_CUDA, "cuInit: CUDA_ERROR_INVALID_IMAGE (device kernel image is invalid)");
}

Test(cuda_driver, each_call_missing) {
#define NAME(name, parameters) #name,
    static const char *const names[] = {DLATTN_DRIVER_CALLS(NAME)};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        fake_begin();
        fake.missing = names[i];
        expect_failure(DLATTN_ERR_UNSUPPORTED, strcmp(names[i], "cuDriverGetVersion") ? names[i] : "its version");
    }
    fake_begin();
    fake.missing = "cuGetProcAddress_v2"; /* came with 12.0: without it, whatever the number says, it is older */
    expect_failure(DLATTN_ERR_UNSUPPORTED, "update the driver");
}

Test(cuda_driver, check_names_error_and_object) {
    fake_begin();
    cr_assert_eq(dlattn__driver_open(), DLATTN_OK);
    cr_expect_eq(dlattn__cuda_check(CUDA_SUCCESS, "cuLaunchKernel", "forward"), DLATTN_OK);
    cr_expect_eq(dlattn__cuda_check(CUDA_ERROR_INVALID_IMAGE, "cuLaunchKernel", "forward"), DLATTN_ERR_CUDA);
    cr_expect_str_eq(dlattn_last_error(),
                     "cuLaunchKernel of forward: CUDA_ERROR_INVALID_IMAGE (device kernel image is invalid)");
    cr_expect_eq(dlattn__cuda_check(12345, "cuCtxGetId", NULL), DLATTN_ERR_CUDA);
    cr_expect_str_eq(dlattn_last_error(), "cuCtxGetId: error 12345 (unknown to this driver)");
}
