/* test_cuda_source.c: the library carries every file of kernels/, and every #include in them finds its file. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sha256.h"
#include "source.h"

static int files_seen; /* below kernels/; the tests run in the top folder of the tree */

static bool ends_with(const char *text, const char *tail) {
    size_t n = strlen(text), t = strlen(tail);
    return n >= t && strcmp(text + n - t, tail) == 0;
}

static int compare_file(const char *path, const struct stat *status, int kind, struct FTW *where) {
    (void)where;
    if (kind != FTW_F || !(ends_with(path, ".cu") || ends_with(path, ".cuh") || ends_with(path, ".h"))) return 0;
    files_seen++;
    const source_file *carried = dlattn__source_find(path + strlen("kernels/"));
    cr_expect_not_null(carried, "%s is missing in src/cuda/source_files.h", path);
    if (!carried) return 0;
    char *text = malloc((size_t)status->st_size + 1);
    FILE *file = fopen(path, "rb");
    cr_assert(text && file);
    size_t bytes = fread(text, 1, (size_t)status->st_size + 1, file);
    fclose(file);
    cr_expect_eq((int64_t)bytes, carried->bytes, "%s", path);
    cr_expect((int64_t)bytes == carried->bytes && memcmp(text, carried->text, bytes) == 0, "%s is stale", path);
    cr_expect_eq(carried->text[carried->bytes], 0, "%s does not end", path);
    free(text);
    return 0;
}

Test(cuda_source, carries_every_file) {
    files_seen = 0;
    cr_assert_eq(nftw("kernels", compare_file, 8, FTW_PHYS), 0);
    cr_expect_gt(files_seen, 10);
    cr_expect_eq(dlattn__source_count(), files_seen, "source_files.h names a file twice");
    cr_expect_null(dlattn__source_find("no_such.cu"));
}

/* The text behind a name, as NVRTC looks it up; NULL when it would not find it. */
static const char *included(const char *name) {
    const source_headers *h = dlattn__source_headers();
    const char *found = NULL;
    for (int32_t i = 0; i < h->count; i++) {
        if (strcmp(h->names[i], name) != 0) continue;
        cr_expect(!found || found == h->texts[i], "\"%s\" could be two files", name);
        found = h->texts[i];
    }
    return found;
}

/* What the compiler of the CPU backend, which knows folders, would include: relative to the includer, else in kernels/ or
 * kernels/shared/. */
static const source_file *meant(const source_file *includer, const char *name) {
    char path[256], *slash;
    snprintf(path, sizeof path, "%s", includer->path);
    slash = strrchr(path, '/');
    path[slash ? slash - path + 1 : 0] = 0;
    while (strncmp(name, "../", 3) == 0 && path[0]) {
        path[strlen(path) - 1] = 0;
        slash = strrchr(path, '/');
        path[slash ? slash - path + 1 : 0] = 0;
        name += 3;
    }
    strcat(path, name);
    const source_file *found = dlattn__source_find(path);
    if (found) return found;
    snprintf(path, sizeof path, "shared/%s", name);
    return (found = dlattn__source_find(name)) ? found : dlattn__source_find(path);
}

Test(cuda_source, every_include_finds_its_file) {
    int includes = 0;
    for (int32_t i = 0; i < dlattn__source_count(); i++) {
        const source_file *file = dlattn__source_file(i);
        for (const char *p = file->text; (p = strstr(p, "#include \"")); includes++) {
            char name[128];
            p += strlen("#include \"");
            snprintf(name, sizeof name, "%.*s", (int)strcspn(p, "\""), p);
            const char *text = included(name);
            const source_file *wanted = meant(file, name);
            cr_expect_not_null(text, "%s includes \"%s\", which NVRTC would not find", file->path, name);
            cr_expect_not_null(wanted, "%s includes \"%s\", which is no file", file->path, name);
            if (text && wanted) cr_expect(text == wanted->text, "%s: \"%s\" is another file", file->path, name);
        }
    }
    cr_expect_gt(includes, 10);
}

/* A file's digest covers what it includes, and only that. */
Test(cuda_source, digest) {
    uint8_t mask[SHA256_BYTES], causal[SHA256_BYTES], again[SHA256_BYTES];
    sha256 state;
    dlattn__source_digest(mask, "shared/masks/mask.h");
    dlattn__source_digest(causal, "shared/masks/causal.h");
    cr_expect(memcmp(mask, causal, SHA256_BYTES) != 0);
    dlattn__sha256_begin(&state);
    for (int32_t i = 0; i < dlattn__source_count(); i++) { /* in the table's order */
        const source_file *f = dlattn__source_file(i);
        if (strcmp(f->path, "shared/masks/causal.h") && strcmp(f->path, "shared/masks/mask.h") &&
            strcmp(f->path, "shared/shared.h"))
            continue;
        dlattn__sha256_add(&state, f->path, strlen(f->path) + 1);
        dlattn__sha256_add(&state, f->text, (size_t)f->bytes + 1);
    }
    dlattn__sha256_end(&state, again);
    cr_expect(memcmp(causal, again, SHA256_BYTES) == 0, "causal.h includes mask.h, which includes shared.h");
}

static void expect_digest(const char *text, size_t repeat, const char *expected) {
    sha256 state;
    uint8_t digest[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    dlattn__sha256_begin(&state);
    for (size_t i = 0; i < repeat; i++) dlattn__sha256_add(&state, text, strlen(text));
    dlattn__sha256_end(&state, digest);
    for (int i = 0; i < SHA256_BYTES; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    cr_expect_str_eq(hex, expected, "%zu times \"%s\"", repeat, text);
}

/* The examples of FIPS 180-4, and lengths around the padding's edge. */
Test(cuda_source, sha256) {
    expect_digest("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect_digest("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect_digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
                  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    expect_digest("a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    expect_digest("a", 55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
    expect_digest("a", 56, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
    expect_digest("a", 63, "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34");
    expect_digest("a", 64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
}
