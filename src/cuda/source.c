/* source.c: embeds kernels/ (DLATTN_KERNELS_FOLDER, a string from the build) and names its headers for NVRTC. */
#include "source.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "source_files.h"

#define EMBED(id, path)                                                      \
    __asm__(".pushsection .rodata\n"                                         \
            "dlattn__source_" #id ": .incbin \"" DLATTN_KERNELS_FOLDER "/" path "\"\n" \
            "dlattn__source_" #id "_end: .byte 0\n"                          \
            ".popsection\n");                                                \
    extern __attribute__((visibility("hidden"))) const char dlattn__source_##id[], dlattn__source_##id##_end[];
DLATTN_SOURCE_FILES(EMBED)

#define COUNT(id, path) +1
enum { FILES = 0 DLATTN_SOURCE_FILES(COUNT) };

/* "shared/masks/mask.h": three suffixes, each with and without "../". */
enum { MOST_SUFFIXES = 4, MOST_NAMES = FILES * MOST_SUFFIXES * 2, MOST_NAME_BYTES = 64 };

static source_file files[FILES];
static char name_bytes[MOST_NAMES][MOST_NAME_BYTES];
static const char *header_names[MOST_NAMES], *header_texts[MOST_NAMES];
static source_headers headers = {0, header_names, header_texts};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void add_name(const char *prefix, const char *name, const char *text) {
    if (headers.count >= MOST_NAMES || strlen(prefix) + strlen(name) >= MOST_NAME_BYTES) return; /* a test would see */
    char *place = name_bytes[headers.count];
    strcpy(place, prefix);
    strcat(place, name);
    header_names[headers.count] = place;
    header_texts[headers.count++] = text;
}

static void prepare(void) {
    int32_t n = 0;
#define FILL(id, name) \
    files[n++] = (source_file){name, dlattn__source_##id, dlattn__source_##id##_end - dlattn__source_##id};
    DLATTN_SOURCE_FILES(FILL)
    for (const source_file *f = files; f < files + FILES; f++) {
        if (strcmp(f->path + strlen(f->path) - 3, ".cu") == 0) continue; /* a kernel, included by nobody */
        for (const char *suffix = f->path; suffix; suffix = strchr(suffix, '/') ? strchr(suffix, '/') + 1 : NULL) {
            add_name("", suffix, f->text);
            add_name("../", suffix, f->text);
        }
    }
}

int32_t dlattn__source_count(void) { return FILES; }

const source_file *dlattn__source_file(int32_t index) {
    pthread_once(&once, prepare);
    return &files[index];
}

const source_file *dlattn__source_find(const char *path) {
    pthread_once(&once, prepare);
    for (int32_t i = 0; i < FILES; i++)
        if (strcmp(files[i].path, path) == 0) return &files[i];
    return NULL;
}

const source_headers *dlattn__source_headers(void) {
    pthread_once(&once, prepare);
    return &headers;
}

/* The file behind a name between quotes. */
static const source_file *header_named(const char *name, size_t bytes) {
    for (int32_t i = 0; i < headers.count; i++)
        if (strlen(header_names[i]) == bytes && memcmp(header_names[i], name, bytes) == 0)
            for (const source_file *f = files; f < files + FILES; f++)
                if (f->text == header_texts[i]) return f;
    return NULL;
}

/* Marks a file and what it includes. */
static void mark(bool seen[FILES], const source_file *file) {
    static const char include[] = "#include \"";
    if (!file || seen[file - files]) return;
    seen[file - files] = true;
    for (const char *p = file->text; (p = strstr(p, include));) {
        p += sizeof include - 1;
        mark(seen, header_named(p, strcspn(p, "\"")));
    }
}

void dlattn__source_digest(uint8_t digest[SHA256_BYTES], const char *path) {
    bool seen[FILES] = {false};
    sha256 state;
    mark(seen, dlattn__source_find(path));
    dlattn__sha256_begin(&state);
    for (int32_t i = 0; i < FILES; i++) {
        if (!seen[i]) continue;
        dlattn__sha256_add(&state, files[i].path, strlen(files[i].path) + 1);
        dlattn__sha256_add(&state, files[i].text, (size_t)files[i].bytes + 1);
    }
    dlattn__sha256_end(&state, digest);
}
