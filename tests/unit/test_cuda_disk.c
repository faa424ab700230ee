/* test_cuda_disk.c: the disk cache under damage, races, full disks and missing folders: never fatal, never wrong. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "disk_cache.h"
#include "dlattn/dlattn.h"
#include "options.h"

enum { SIZE = 5000 };

static char folder[64]; /* of the running test, below /tmp */
static char why[200];
static uint8_t key[SHA256_BYTES];
static dlattn__disk_table real_disk;

static void begin(void) {
    unsetenv("DLATTN_CACHE_DIR");
    strcpy(folder, "/tmp/dlattn_disk_XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(dlattn_set_option("cache_dir", folder), DLATTN_OK);
    for (int i = 0; i < SHA256_BYTES; i++) key[i] = (uint8_t)(i * 37);
    real_disk = dlattn__disk;
}

static void finish(void) {
    char command[128];
    dlattn__disk = real_disk;
    dlattn_set_option("cache_dir", NULL);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_expect_eq(system(command), 0);
}

/* An image that its first byte tells. */
static kernel_image make_image(char first, int64_t size) {
    static char bytes[SIZE];
    for (int64_t i = 0; i < size; i++) bytes[i] = (char)(first + i % 51);
    return (kernel_image){bytes, size};
}

static void put(char first, int64_t size) {
    kernel_image image = make_image(first, size);
    dlattn__disk_put(key, &image);
}

/* The first byte of what is found, or 0; whatever is found is whole. */
static char get(void) {
    kernel_image image;
    if (!dlattn__disk_get(&image, why, sizeof why, key)) return 0;
    char first = image.bytes[0];
    kernel_image expected = make_image(first, image.size);
    cr_expect(memcmp(image.bytes, expected.bytes, (size_t)image.size) == 0, "torn");
    dlattn__image_release(&image);
    return first;
}

static char *path_of_key(void) {
    static char path[256];
    int at = snprintf(path, sizeof path, "%s/", folder);
    for (int i = 0; i < SHA256_BYTES; i++) at += snprintf(path + at, sizeof path - (size_t)at, "%02x", key[i]);
    return path;
}

/* How many files the folder has. */
static int count_files(const char *pattern) {
    char command[160];
    int count = -1;
    snprintf(command, sizeof command, "ls %s | grep -c '%s'", folder, pattern);
    FILE *pipe = popen(command, "r");
    cr_assert(pipe && fscanf(pipe, "%d", &count) == 1);
    pclose(pipe);
    return count;
}

Test(cuda_disk, keeps_and_finds) {
    begin();
    cr_expect_eq(get(), 0);
    cr_expect(strstr(why, "has it not"), "%s", why);
    put('a', SIZE);
    cr_expect_eq(get(), 'a');
    put('b', 1);
    cr_expect_eq(get(), 'b', "the later one replaces the earlier");
    cr_expect_eq(count_files(""), 1, "nothing but the file itself remains");
    key[31] ^= 1;
    cr_expect_eq(get(), 0, "another key");
    finish();
}

Test(cuda_disk, folder) {
    char found[256], *home = strdup(getenv("HOME") ? getenv("HOME") : "/");
    begin();
    dlattn_set_option("cache_dir", NULL);
    setenv("HOME", "/home/somebody", 1);
    setenv("XDG_CACHE_HOME", "/var/xdg", 1);
    cr_expect(dlattn__disk_folder(found, sizeof found));
    cr_expect_str_eq(found, "/var/xdg/dlattn");
    setenv("XDG_CACHE_HOME", "relative", 1);
    cr_expect(dlattn__disk_folder(found, sizeof found));
    cr_expect_str_eq(found, "/home/somebody/.cache/dlattn");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    cr_expect_not(dlattn__disk_folder(found, sizeof found));
    put('a', SIZE); /* nowhere, quietly */
    cr_expect_eq(get(), 0);
    cr_expect(strstr(why, "no HOME"), "%s", why);
    setenv("HOME", folder, 1); /* .cache is made */
    put('h', SIZE);
    cr_expect_eq(get(), 'h');
    setenv("HOME", "/dev/null", 1); /* a file: .cache cannot be made */
    put('a', SIZE);
    cr_expect_eq(get(), 0);
    setenv("HOME", home, 1);
    free(home);
    finish();
}

static void expect_replaced(const char *what, long place) {
    cr_expect_eq(get(), 0, "%s at %ld was not noticed", what, place);
    cr_expect(strstr(why, "is damaged"), "%s at %ld: %s", what, place, why);
    put('n', SIZE);
    cr_expect_eq(get(), 'n', "%s at %ld was not replaced", what, place);
}

Test(cuda_disk, damage_is_noticed_and_mended) {
    begin();
    put('a', SIZE);
    struct stat status;
    cr_assert_eq(stat(path_of_key(), &status), 0);
    for (long place = 0; place < status.st_size; place += place < 96 ? 1 : 611) { /* the head's bytes, some of the image */
        FILE *file = fopen(path_of_key(), "r+b");
        cr_assert_not_null(file);
        fseek(file, place, SEEK_SET);
        int byte = fgetc(file);
        fseek(file, place, SEEK_SET);
        fputc(byte ^ 0x40, file);
        fclose(file);
        expect_replaced("a changed byte", place);
    }
    for (long length = 0; length < status.st_size; length = length * 2 + 1) {
        cr_assert_eq(truncate(path_of_key(), length), 0);
        expect_replaced("the end", length);
    }
    cr_assert_eq(truncate(path_of_key(), status.st_size + 1), 0);
    expect_replaced("a byte too much", status.st_size);
    finish();
}

Test(cuda_disk, a_folder_in_the_place_of_the_file) {
    begin();
    cr_assert_eq(mkdir(path_of_key(), 0700), 0);
    cr_expect_eq(get(), 0);
    put('a', SIZE);
    cr_expect_eq(get(), 0);
    cr_expect_eq(count_files("^tmp"), 0);
    finish();
}

/* ---- a disk that fails ------------------------------------------------------------------------------------------------ */

static int64_t room; /* bytes until the disk is full */

static ssize_t write_until_full(int file, const void *bytes, size_t count) {
    if (room == 0) {
        errno = ENOSPC;
        return -1;
    }
    if ((int64_t)count > room) count = (size_t)room;
    room -= (int64_t)count;
    return real_disk.write(file, bytes, count);
}

static ssize_t write_in_bits(int file, const void *bytes, size_t count) {
    static int calls;
    if (calls++ % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return real_disk.write(file, bytes, count < 97 ? count : 97);
}

static int open_read_only(const char *path, int flags, mode_t mode) {
    if ((flags & O_ACCMODE) != O_RDONLY) {
        errno = EROFS;
        return -1;
    }
    return real_disk.open(path, flags, mode);
}

static int fail_to_rename(const char *from, const char *to) {
    (void)from, (void)to;
    errno = EIO;
    return -1;
}

Test(cuda_disk, full) {
    begin();
    put('a', SIZE);
    dlattn__disk.write = write_until_full;
    for (int64_t enough = 0; enough < SIZE; enough += 499) {
        room = enough;
        put('b', SIZE);
        cr_expect_eq(get(), 'a', "what was there stays");
        cr_expect_eq(count_files(""), 1, "no draft remains");
    }
    room = INT64_MAX;
    put('b', SIZE);
    cr_expect_eq(get(), 'b');
    finish();
}

Test(cuda_disk, interrupted_and_short_writes) {
    begin();
    dlattn__disk.write = write_in_bits;
    put('a', SIZE);
    cr_expect_eq(get(), 'a');
    finish();
}

Test(cuda_disk, read_only_or_failing) {
    begin();
    put('a', SIZE);
    dlattn__disk.open = open_read_only;
    put('b', SIZE);
    cr_expect_eq(get(), 'a', "a cache that others filled can be read");
    dlattn__disk.open = real_disk.open;
    dlattn__disk.rename = fail_to_rename;
    put('b', SIZE);
    cr_expect_eq(get(), 'a');
    cr_expect_eq(count_files("^tmp"), 0);
    finish();
}

/* ---- several processes ------------------------------------------------------------------------------------------------ */

static ssize_t write_half_and_die(int file, const void *bytes, size_t count) {
    if (count > 1000) {
        real_disk.write(file, bytes, count / 2);
        kill(getpid(), SIGKILL);
    }
    return real_disk.write(file, bytes, count);
}

Test(cuda_disk, killed_while_writing) {
    begin();
    pid_t child = fork();
    cr_assert_neq(child, -1);
    if (child == 0) {
        dlattn__disk.write = write_half_and_die;
        put('a', SIZE);
        _exit(1); /* not reached */
    }
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    cr_expect_eq(count_files("^tmp"), 1, "it left a draft");
    cr_expect_eq(get(), 0);
    put('b', SIZE);
    cr_expect_eq(get(), 'b');
    cr_expect_eq(count_files("^tmp"), 1, "a young draft may be somebody's work");
    char command[160];
    snprintf(command, sizeof command, "touch -d '2 hours ago' %s/tmp.*", folder);
    cr_assert_eq(system(command), 0);
    put('c', SIZE);
    cr_expect_eq(count_files(""), 1, "an old draft is swept away");
    finish();
}

Test(cuda_disk, two_processes_at_once) {
    enum { WRITERS = 2, ROUNDS = 300 };
    begin();
    pid_t children[WRITERS];
    for (int n = 0; n < WRITERS; n++) {
        children[n] = fork();
        cr_assert_neq(children[n], -1);
        if (children[n] == 0) {
            for (int i = 0; i < ROUNDS; i++) put((char)('a' + n), n ? SIZE : SIZE / 3);
            _exit(0);
        }
    }
    int found = 0, running = WRITERS;
    while (running > 0) {
        char first = get();
        found += first != 0;
        if (!first) cr_expect_not(strstr(why, "damaged"), "a reader saw half a file");
        int status = 0;
        pid_t ended = waitpid(-1, &status, WNOHANG);
        if (ended > 0) {
            running--;
            cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        }
    }
    cr_expect_gt(found, 0);
    cr_expect(get() == 'a' || get() == 'b');
    cr_expect_eq(count_files(""), 1);
    finish();
}
