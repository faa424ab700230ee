/* embedded.c: finds a kernel in the archive that the build put into the library (DLATTN_CUBINS_FILE), if it did. */
#include "embedded.h"

#include <string.h>

#ifdef DLATTN_CUBINS_FILE
__asm__(".pushsection .rodata\n"
        ".balign 64\n"
        "dlattn__cubins: .incbin \"" DLATTN_CUBINS_FILE "\"\n"
        "dlattn__cubins_end: .byte 0\n"
        ".popsection\n");
extern __attribute__((visibility("hidden"))) const char dlattn__cubins[], dlattn__cubins_end[];

kernel_archive dlattn__embedded = {dlattn__cubins, dlattn__cubins_end};
#else
static const char none[1];
kernel_archive dlattn__embedded = {none, none};
#endif

/* 0 too for an archive that is damaged. */
uint64_t dlattn__archive_count(const kernel_archive *archive) {
    const uint64_t room = (uint64_t)(archive->end - archive->begin);
    uint64_t count = 0;
    if (room < ARCHIVE_HEAD) return 0;
    memcpy(&count, archive->begin, sizeof count);
    return count > (room - ARCHIVE_HEAD) / sizeof(archive_record) ? 0 : count;
}

bool dlattn__archive_find(kernel_image *out, const kernel_archive *archive, const uint8_t key[SHA256_BYTES]) {
    const char *begin = archive->begin;
    const uint64_t room = (uint64_t)(archive->end - begin), count = dlattn__archive_count(archive);
    for (uint64_t low = 0, high = count; low < high;) {
        const uint64_t middle = (low + high) / 2;
        archive_record r;
        memcpy(&r, begin + ARCHIVE_HEAD + middle * sizeof r, sizeof r);
        const int order = memcmp(key, r.key, SHA256_BYTES);
        if (order == 0) {
            if (r.at > room || r.size > room - r.at) return false;
            *out = (kernel_image){(char *)begin + r.at, (int64_t)r.size}; /* read only, as the driver takes it */
            return true;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

bool dlattn__embedded_get(kernel_image *out, char arch[24], int32_t capability, const kernel_request *r) {
    for (int32_t c = capability; dlattn__embedded.end > dlattn__embedded.begin && c >= capability / 10 * 10; c--) {
        uint8_t key[SHA256_BYTES];
        nvrtc_choice choice = {NULL, true, ""};
        dlattn__arch_name(choice.arch, c, true);
        memcpy(arch, choice.arch, sizeof choice.arch);
        dlattn__compile_key(key, &choice, r);
        if (dlattn__archive_find(out, &dlattn__embedded, key)) return true;
    }
    return false;
}
