/* test_cuda_nvrtc.c: which copies of NVRTC are found, in what order, and which of them compiles for which device. */
#include <criterion/criterion.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_cuda.h"

static nvrtc_copies copies;
static nvrtc_choice choices[DLATTN_MAX_NVRTCS];

static const nvrtc_copy *find_copy(const char *path) {
    for (int32_t i = 0; i < copies.count; i++)
        if (strcmp(copies.copy[i].path, path) == 0) return &copies.copy[i];
    return NULL;
}

/* "libnvrtc.so.13 sm_90a, libnvrtc.so.12 compute_80": what is chosen, in order. */
static const char *chosen(int32_t capability, int32_t driver) {
    static char text[1024];
    int at = 0;
    dlattn__nvrtc_find(&copies);
    int32_t count = dlattn__nvrtc_choose(choices, &copies, capability, driver);
    text[0] = 0;
    for (int32_t i = 0; i < count; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%s%s %s", i ? ", " : "", choices[i].copy->path,
                       choices[i].arch);
    return text;
}

Test(cuda_nvrtc, architecture_of_each_device) {
    fake_begin();
    cr_expect_str_eq(chosen(75, 13000), "libnvrtc.so.13 sm_75");
    cr_expect_str_eq(chosen(80, 13000), "libnvrtc.so.13 sm_80");
    cr_expect_str_eq(chosen(90, 13000), "libnvrtc.so.13 sm_90a");
    cr_expect_str_eq(chosen(120, 13000), "libnvrtc.so.13 sm_120");
    cr_expect_str_eq(chosen(87, 13000), "libnvrtc.so.13 compute_86"); /* not listed: the driver compiles */
    cr_expect_str_eq(chosen(999, 13000), "libnvrtc.so.13 compute_120");
    cr_expect_str_eq(chosen(70, 13000), ""); /* older than all it knows */
}

Test(cuda_nvrtc, newest_that_the_driver_bears) {
    fake_begin();
    fake_copy(1, "libnvrtc.so.12", 12, 8);
    cr_expect_str_eq(chosen(90, 13000), "libnvrtc.so.13 sm_90a, libnvrtc.so.12 sm_90a");
    cr_expect_str_eq(chosen(90, 12040), "libnvrtc.so.12 sm_90a, libnvrtc.so.13 sm_90a");
    /* One that lists the device goes before one that needs PTX, whatever their age. */
    cr_expect_str_eq(chosen(120, 13000), "libnvrtc.so.13 sm_120, libnvrtc.so.12 compute_90");
    /* Too new a compiler comes last, even if the other one needs PTX. */
    cr_expect_str_eq(chosen(120, 12080), "libnvrtc.so.12 compute_90, libnvrtc.so.13 sm_120");
}

Test(cuda_nvrtc, one_that_was_named_comes_first) {
    fake_begin();
    fake_copy(1, "/opt/mine/libnvrtc.so.12", 12, 4);
    cr_assert_eq(dlattn_set_option("nvrtc", "/opt/mine/libnvrtc.so.12"), DLATTN_OK);
    cr_expect_str_eq(chosen(90, 13000), "/opt/mine/libnvrtc.so.12 sm_90a, libnvrtc.so.13 sm_90a");
    cr_expect_str_eq(chosen(100, 13000), "libnvrtc.so.13 sm_100, /opt/mine/libnvrtc.so.12 compute_90");
    cr_assert_eq(dlattn_set_option("nvrtc", "/opt/none.so"), DLATTN_OK);
    cr_expect_str_eq(chosen(90, 13000), "libnvrtc.so.13 sm_90a");
    const nvrtc_copy *none = find_copy("/opt/none.so");
    cr_assert_not_null(none);
    cr_expect_str_eq(none->reason, "cannot be opened: no such file");
    dlattn_set_option("nvrtc", NULL);
}

Test(cuda_nvrtc, loaded_copies_are_used_but_once) {
    fake_begin();
    fake_copies[0].loaded = true;
    fake_copy(1, "libnvrtc.so.12", 12, 1);
    fake_copies[1].loaded = true;
    cr_expect_str_eq(chosen(80, 12020), "libnvrtc.so.12 sm_80, libnvrtc.so.13 sm_80");
    cr_expect_eq(copies.count, 2 + (access("/usr/local/cuda/lib64/libnvrtc.so.13", F_OK) == 0) +
                                   (access("/usr/local/cuda/lib64/libnvrtc.so.12", F_OK) == 0));
}

/* A folder of the test's own with empty files of these names. */
static void make_files(char *folder, const char *const *names) {
    strcpy(folder, "/tmp/dlattn_nvrtc_XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    for (; *names; names++) {
        char path[128], *slash;
        snprintf(path, sizeof path, "%s/%s", folder, *names);
        slash = strrchr(path, '/');
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
        FILE *file = fopen(path, "w");
        cr_assert_not_null(file);
        fclose(file);
    }
}

static void remove_files(const char *folder, const char *const *names) {
    char path[128];
    for (; *names; names++) {
        snprintf(path, sizeof path, "%s/%s", folder, *names);
        unlink(path);
        *strrchr(path, '/') = 0;
        rmdir(path);
    }
    rmdir(folder);
}

Test(cuda_nvrtc, folders) {
    static const char *const names[] = {"lib64/libnvrtc.so.12", NULL}, *const none[] = {NULL};
    static char library[128];
    char folder[64], empty[64];
    fake_begin();
    make_files(folder, names);
    make_files(empty, none);
    snprintf(library, sizeof library, "%s/lib64/libnvrtc.so.12", folder);
    fake_copies[0].name = NULL;
    fake_copy(1, library, 12, 6);
    cr_expect_str_eq(chosen(90, 13000), "", "not found unless told where");

    setenv("CUDA_HOME", folder, 1);
    char expected[160];
    snprintf(expected, sizeof expected, "%s sm_90a", library);
    cr_expect_str_eq(chosen(90, 13000), expected);
    cr_expect_not(find_copy(library)->named);
    unsetenv("CUDA_HOME");

    dlattn_set_option("nvrtc", folder);
    cr_expect_str_eq(chosen(90, 13000), expected);
    cr_expect(find_copy(library)->named);

    dlattn_set_option("nvrtc", empty);
    cr_expect_str_eq(chosen(90, 13000), "");
    cr_assert_not_null(find_copy(empty));
    cr_expect_str_eq(find_copy(empty)->reason, "holds neither libnvrtc.so.13 nor libnvrtc.so.12");
    dlattn_set_option("nvrtc", NULL);
    remove_files(folder, names);
    remove_files(empty, none);
}

Test(cuda_nvrtc, unusable_copies_say_why) {
#define NAME(result, name, parameters) #name,
    static const char *const names[] = {DLATTN_NVRTC_CALLS(NAME)};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        fake_begin();
        fake_copies[0].missing = names[i];
        fake_copy(1, "libnvrtc.so.12", 12, 0);
        cr_expect_str_eq(chosen(80, 13000), "libnvrtc.so.12 sm_80", "%s", names[i]);
        const nvrtc_copy *copy = find_copy("libnvrtc.so.13");
        cr_assert_not_null(copy);
        cr_expect(strncmp(copy->reason, "has no ", 7) == 0 && strcmp(copy->reason + 7, names[i]) == 0, "%s: %s",
                  names[i], copy->reason);
    }
    fake_begin();
    fake_copies[0].major = 11;
    fake_copies[0].minor = 8;
    cr_expect_str_eq(chosen(80, 13000), "");
    cr_expect_str_eq(find_copy("libnvrtc.so.13")->reason, "is version 11.8, older than 12.0");
    fake_begin();
    fake_copies[0].num_archs = 0;
    cr_expect_str_eq(chosen(80, 13000), "");
    cr_expect_str_eq(find_copy("libnvrtc.so.13")->reason, "does not list its architectures");
}
