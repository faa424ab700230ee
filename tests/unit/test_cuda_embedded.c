/* test_cuda_embedded.c: kernels that the library carries compiled: found by key, used before any compiler is asked. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "embedded.h"
#include "fake_cuda.h"
#include "function.h"
#include "source.h"

enum { KERNELS = 3, IMAGE_BYTES = 40 };

static struct {
    uint64_t head[ARCHIVE_HEAD / 8];
    archive_record records[KERNELS];
    char images[KERNELS][IMAGE_BYTES];
} made;

static const kernel_archive whole = {(const char *)&made, (const char *)(&made + 1)};

/* Keys that begin with 10, 20, 30. */
static void make_archive(void) {
    memset(&made, 0, sizeof made);
    made.head[0] = KERNELS;
    for (int i = 0; i < KERNELS; i++) {
        made.records[i].key[0] = (uint8_t)(10 * (i + 1));
        made.records[i].at = (uint64_t)(made.images[i] - (char *)&made);
        made.records[i].size = IMAGE_BYTES;
        snprintf(made.images[i], IMAGE_BYTES, "image %d", i);
    }
}

static const char *find(const kernel_archive *archive, uint8_t first) {
    kernel_image image;
    uint8_t key[SHA256_BYTES] = {first};
    return dlattn__archive_find(&image, archive, key) ? image.bytes : "none";
}

Test(cuda_embedded, finds_each_key) {
    make_archive();
    cr_expect_str_eq(find(&whole, 10), "image 0");
    cr_expect_str_eq(find(&whole, 20), "image 1");
    cr_expect_str_eq(find(&whole, 30), "image 2");
    for (int first = 0; first < 256; first++)
        if (first % 10 || first < 10 || first > 30) cr_expect_str_eq(find(&whole, (uint8_t)first), "none");
}

Test(cuda_embedded, a_short_archive_holds_nothing) {
    make_archive();
    for (size_t size = 0; size < offsetof(__typeof__(made), images); size++) {
        const kernel_archive cut = {whole.begin, whole.begin + size};
        cr_expect_str_eq(find(&cut, 10), "none", "%zu bytes", size);
    }
    made.head[0] = UINT64_MAX;
    cr_expect_str_eq(find(&whole, 10), "none");
    make_archive();
    made.records[0].size = UINT64_MAX;
    cr_expect_str_eq(find(&whole, 10), "none");
    made.records[1].at = UINT64_MAX;
    cr_expect_str_eq(find(&whole, 20), "none");
}

/* Puts the key of `r` for `arch` into the archive of the library. */
static void embed(const kernel_request *r, const char *arch) {
    nvrtc_choice choice = {NULL, true, ""};
    make_archive();
    snprintf(choice.arch, sizeof choice.arch, "%s", arch);
    made.head[0] = 1;
    dlattn__compile_key(made.records[0].key, &choice, r);
    dlattn__embedded = whole;
}

Test(cuda_embedded, used_before_a_compiler) {
    const kernel_archive real = dlattn__embedded;
    const CUcontext context = (CUcontext)8;
    CUfunction f;
    kernel_request r, other;
    fake_begin();
    cr_assert_eq(dlattn__driver_open(), DLATTN_OK, "%s", dlattn_last_error());
    memset(&r, 0, sizeof r);
    r.file = dlattn__source_file(0)->path;
    r.entry = "kernel";
    r.count = 1;
    r.defines[0] = (kernel_define){"HEAD", 64};
    other = r;
    other.defines[0].value = 65;

    embed(&r, "sm_90a");
    cr_assert_eq(dlattn__function_get(&f, context, 0, &r), DLATTN_OK, "%s", dlattn_last_error());
    cr_expect_str_eq(fake.image, "image 0");
    cr_expect_eq(fake_copies[0].compiles, 0);
    cr_assert_eq(dlattn__function_get(&f, context, 0, &other), DLATTN_OK);
    cr_expect_eq(fake_copies[0].compiles, 1, "what is not carried is compiled");

    fake.epoch++;
    fake.capability = 89; /* runs what was compiled for 8.0 */
    embed(&r, "sm_80");
    cr_assert_eq(dlattn__function_get(&f, context, 0, &r), DLATTN_OK);
    cr_expect_str_eq(fake.image, "image 0");

    fake.epoch++;
    fake.capability = 100; /* another generation */
    cr_assert_eq(dlattn__function_get(&f, context, 0, &r), DLATTN_OK);
    cr_expect(strstr(fake.image, "-arch=sm_100"), "%s", fake.image);

    fake.epoch++;
    fake.capability = 80;
    fake.refused = "image 0"; /* by a driver older than the compiler of the build */
    cr_assert_eq(dlattn__function_get(&f, context, 0, &r), DLATTN_OK, "%s", dlattn_last_error());
    cr_expect(strstr(fake.image, "-arch=sm_80"), "%s", fake.image);
    dlattn__embedded = real;
}
