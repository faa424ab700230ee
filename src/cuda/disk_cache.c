/* disk_cache.c: compiled kernels in a folder. */
#define _POSIX_C_SOURCE 200809L
#include "disk_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "options.h"

enum { PATH_BYTES = 4096 + 128, NAME_HEX = 2 * SHA256_BYTES, STALE_SECONDS = 3600 };

/* The head of each file; the image follows. */
typedef struct disk_header {
    char magic[8];
    uint64_t size;
    uint8_t key[SHA256_BYTES], checksum[SHA256_BYTES]; /* checksum: of the image */
} disk_header;

static const char magic[8] = "dlattn1\n";
static const int64_t most_bytes = (int64_t)1 << 30;

static int open_file(const char *path, int flags, mode_t mode) { return open(path, flags, mode); }

dlattn__disk_table dlattn__disk = {open_file, write, rename};

/* ---- names ----------------------------------------------------------------------------------------------------------- */

bool dlattn__disk_folder(char *out, int64_t out_bytes) {
    const char *chosen = dlattn__option("cache_dir"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int64_t length = 0;
    if (chosen)
        length = snprintf(out, (size_t)out_bytes, "%s", chosen);
    else if (cache && cache[0] == '/') /* a relative one is to be ignored, says its specification */
        length = snprintf(out, (size_t)out_bytes, "%s/dlattn", cache);
    else if (home && home[0])
        length = snprintf(out, (size_t)out_bytes, "%s/.cache/dlattn", home);
    return length > 0 && length < out_bytes;
}

void dlattn__disk_usage(int64_t *files, int64_t *bytes) {
    char folder[PATH_BYTES], path[PATH_BYTES + 256];
    struct stat status;
    DIR *open_folder = dlattn__disk_folder(folder, sizeof folder) ? opendir(folder) : NULL;
    *files = *bytes = 0;
    for (struct dirent *entry; open_folder && (entry = readdir(open_folder));) {
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path) continue;
        if (lstat(path, &status) != 0 || !S_ISREG(status.st_mode)) continue;
        *files += 1;
        *bytes += status.st_size;
    }
    if (open_folder) closedir(open_folder);
}

static void hex(char out[NAME_HEX + 1], const uint8_t key[SHA256_BYTES]) {
    for (int i = 0; i < SHA256_BYTES; i++) snprintf(out + 2 * i, 3, "%02x", key[i]);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

static bool read_all(int file, void *out, int64_t bytes) {
    char *p = out;
    while (bytes > 0) {
        ssize_t got = read(file, p, (size_t)bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        p += got;
        bytes -= got;
    }
    return true;
}

/* The image of an open file, if all of it is as its head says. */
static bool read_image(kernel_image *out, int file, const uint8_t key[SHA256_BYTES]) {
    disk_header head;
    struct stat status;
    uint8_t checksum[SHA256_BYTES];
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || !read_all(file, &head, sizeof head)) return false;
    if (memcmp(head.magic, magic, sizeof magic) != 0 || memcmp(head.key, key, SHA256_BYTES) != 0) return false;
    if (head.size == 0 || head.size > (uint64_t)most_bytes || status.st_size != (int64_t)(sizeof head + head.size))
        return false;
    out->bytes = dlattn__memory.allocate((int64_t)head.size);
    if (!out->bytes) return false;
    out->size = (int64_t)head.size;
    if (read_all(file, out->bytes, out->size)) {
        dlattn__sha256(checksum, out->bytes, (size_t)out->size);
        if (memcmp(checksum, head.checksum, SHA256_BYTES) == 0) return true;
    }
    dlattn__image_release(out);
    return false;
}

bool dlattn__disk_get(kernel_image *out, char *why, int64_t why_bytes, const uint8_t key[SHA256_BYTES]) {
    char folder[PATH_BYTES], path[PATH_BYTES + NAME_HEX + 2], name[NAME_HEX + 1];
    *out = (kernel_image){NULL, 0};
    if (!dlattn__disk_folder(folder, sizeof folder)) {
        snprintf(why, (size_t)why_bytes, "there is no folder to keep it (no HOME, no DLATTN_CACHE_DIR)");
        return false;
    }
    hex(name, key);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = dlattn__disk.open(path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0) {
        snprintf(why, (size_t)why_bytes, "%.100s has it not", folder);
        return false;
    }
    bool whole = read_image(out, file, key);
    close(file);
    if (!whole) snprintf(why, (size_t)why_bytes, "the file in %.100s is damaged", folder);
    return whole;
}

/* ---- writing ---------------------------------------------------------------------------------------------------------- */

/* mkdir -p; whether it worked is seen when a file is made in it. */
static void make_folder(char *path) {
    for (char *p = path + 1; *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        mkdir(path, 0700);
        *p = '/';
    }
    mkdir(path, 0700);
}

static bool write_all(int file, const void *bytes, int64_t count) {
    const char *p = bytes;
    while (count > 0) {
        ssize_t done = dlattn__disk.write(file, p, (size_t)count);
        if (done < 0 && errno == EINTR) continue;
        if (done == 0) errno = ENOSPC;
        if (done <= 0) return false;
        p += done;
        count -= done;
    }
    return true;
}

/* What a process that was killed while it wrote left behind. */
static void sweep(const char *folder) {
    DIR *all = opendir(folder);
    if (!all) return;
    time_t now = time(NULL);
    for (struct dirent *e; (e = readdir(all));) {
        struct stat status;
        if (strncmp(e->d_name, "tmp.", 4) == 0 && fstatat(dirfd(all), e->d_name, &status, 0) == 0 &&
            now - status.st_mtime > STALE_SECONDS)
            unlinkat(dirfd(all), e->d_name, 0);
    }
    closedir(all);
}

void dlattn__disk_put(const uint8_t key[SHA256_BYTES], const kernel_image *image) {
    static atomic_uint serial; /* two threads of one process write two files */
    char folder[PATH_BYTES], path[PATH_BYTES + NAME_HEX + 2], draft[PATH_BYTES + 64], name[NAME_HEX + 1];
    disk_header head = {.size = (uint64_t)image->size};
    if (!dlattn__disk_folder(folder, sizeof folder)) return;
    memcpy(head.magic, magic, sizeof magic);
    memcpy(head.key, key, SHA256_BYTES);
    dlattn__sha256(head.checksum, image->bytes, (size_t)image->size);
    hex(name, key);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(draft, sizeof draft, "%s/tmp.%ld.%u.%.16s", folder, (long)getpid(), atomic_fetch_add(&serial, 1), name);

    make_folder(folder);
    sweep(folder);
    int file = dlattn__disk.open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) {
        dlattn__log("kernels are not kept: %s: %s", draft, strerror(errno));
        return;
    }
    bool done = write_all(file, &head, sizeof head) && write_all(file, image->bytes, image->size);
    int error = errno;
    if (close(file) != 0 && done) {
        done = false;
        error = errno;
    }
    if (done && dlattn__disk.rename(draft, path) != 0) {
        done = false;
        error = errno;
    }
    if (done) return;
    unlink(draft);
    dlattn__log("the kernel is not kept: %s: %s", path, strerror(error));
}
