/* nvrtc_copies.c: finds every copy of NVRTC, opens it, and ranks the copies for a device. */
#include "nvrtc_copies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader.h"
#include "options.h"

static const char *const sonames[] = {"libnvrtc.so.13", "libnvrtc.so.12"};
enum { NUM_SONAMES = (int)(sizeof sonames / sizeof sonames[0]) };

/* ---- opening one copy ------------------------------------------------------------------------------------------------ */

static bool fill_table(nvrtc_copy *copy) {
    static const struct {
        const char *name;
        size_t offset;
    } calls[] = {
#define CALL(result, name, parameters) {#name, offsetof(nvrtc_table, name)},
        DLATTN_NVRTC_CALLS(CALL)
#undef CALL
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        void *address = dlattn__loader.symbol(copy->library, calls[i].name);
        if (!address) {
            snprintf(copy->reason, sizeof copy->reason, "has no %s", calls[i].name);
            return false;
        }
        memcpy((char *)&copy->call + calls[i].offset, &address, sizeof address);
    }
    return true;
}

/* NVRTC opens libnvrtc-builtins by its bare name, which the loader finds only if it lies on its path or is loaded: the
 * one beside this copy is therefore loaded here. */
static void load_builtins(const nvrtc_copy *copy) {
    const char *slash = strrchr(copy->path, '/');
    if (!slash) return;
    char name[320];
    snprintf(name, sizeof name, "%.*s/libnvrtc-builtins.so.%d.%d", (int)(slash - copy->path), copy->path,
             (int)copy->major, (int)copy->minor);
    if (access(name, R_OK) == 0) dlattn__loader.open(name, false);
}

static bool interrogate(nvrtc_copy *copy) {
    int major = 0, minor = 0, count = 0;
    if (!fill_table(copy)) return false;
    if (copy->call.nvrtcVersion(&major, &minor) != NVRTC_SUCCESS) {
        snprintf(copy->reason, sizeof copy->reason, "does not tell its version");
        return false;
    }
    if (major < DLATTN_OLDEST_NVRTC) {
        snprintf(copy->reason, sizeof copy->reason, "is version %d.%d, older than %d.0", major, minor,
                 DLATTN_OLDEST_NVRTC);
        return false;
    }
    if (copy->call.nvrtcGetNumSupportedArchs(&count) != NVRTC_SUCCESS || count < 1 || count > DLATTN_MAX_ARCHS ||
        copy->call.nvrtcGetSupportedArchs(copy->archs) != NVRTC_SUCCESS) {
        snprintf(copy->reason, sizeof copy->reason, "does not list its architectures");
        return false;
    }
    copy->major = major;
    copy->minor = minor;
    copy->count = count;
    return true;
}

/* Adds the library `name` unless it is there already. quiet: its absence is no news. */
static void add(nvrtc_copies *out, const char *name, bool named, bool loaded_only, bool quiet) {
    if (out->count == DLATTN_MAX_NVRTCS) return;
    nvrtc_copy *copy = &out->copy[out->count];
    memset(copy, 0, sizeof *copy);
    copy->named = named;
    snprintf(copy->path, sizeof copy->path, "%s", name);
    copy->library = dlattn__loader.open(name, loaded_only);
    if (!copy->library) {
        if (quiet) return;
        snprintf(copy->reason, sizeof copy->reason, "cannot be opened: %.120s", dlattn__loader.error());
        out->count++;
        return;
    }
    for (int i = 0; i < out->count; i++)
        if (out->copy[i].library == copy->library) return;
    out->count++;
    void *version = dlattn__loader.symbol(copy->library, "nvrtcVersion");
    const char *path = version ? dlattn__loader.path(version) : "";
    if (path[0]) snprintf(copy->path, sizeof copy->path, "%s", path);
    if (interrogate(copy)) load_builtins(copy);
}

/* ---- where they may be ----------------------------------------------------------------------------------------------- */

/* Both versions in a folder, if they are there. */
static int add_folder(nvrtc_copies *out, const char *folder, const char *below, bool named) {
    int before = out->count;
    for (int i = 0; i < NUM_SONAMES; i++) {
        char name[4096 + 64];
        snprintf(name, sizeof name, "%s%s/%s", folder, below, sonames[i]);
        if (access(name, F_OK) == 0) add(out, name, named, false, false);
    }
    return out->count - before;
}

/* What the user names: a library, or a folder that holds one. */
static void add_named(nvrtc_copies *out, const char *path) {
    if (!path) return;
    struct stat status;
    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode)) {
        add(out, path, true, false, false);
        return;
    }
    if (add_folder(out, path, "", true) + add_folder(out, path, "/lib", true) + add_folder(out, path, "/lib64", true))
        return;
    if (out->count == DLATTN_MAX_NVRTCS) return;
    nvrtc_copy *copy = &out->copy[out->count++];
    memset(copy, 0, sizeof *copy);
    snprintf(copy->path, sizeof copy->path, "%s", path);
    snprintf(copy->reason, sizeof copy->reason, "holds neither %s nor %s", sonames[0], sonames[1]);
}

void dlattn__nvrtc_find(nvrtc_copies *out) {
    out->count = 0;
    const char *option = dlattn__option("nvrtc"), *environment = dlattn__option_environment("nvrtc");
    add_named(out, option);
    if (environment && option != environment) add_named(out, environment);
    for (int i = 0; i < NUM_SONAMES; i++) add(out, sonames[i], false, true, true);
    for (int i = 0; i < NUM_SONAMES; i++) add(out, sonames[i], false, false, false);
    static const char *const homes[] = {"CUDA_HOME", "CUDA_PATH"};
    for (int i = 0; i < 2; i++) {
        const char *home = getenv(homes[i]);
        if (home && home[0] && strlen(home) < 4000) add_folder(out, home, "/lib64", false);
    }
    add_folder(out, "/usr/local/cuda", "/lib64", false);
}

/* ---- which is best --------------------------------------------------------------------------------------------------- */

/* The highest architecture the copy knows that the device can run, or 0. */
static int32_t highest_arch(const nvrtc_copy *copy, int32_t capability) {
    int32_t highest = 0;
    for (int i = 0; i < copy->count; i++)
        if (copy->archs[i] <= capability && copy->archs[i] > highest) highest = copy->archs[i];
    return highest;
}

/* 9.0 alone has instructions (wgmma) that its plain name does not allow. */
void dlattn__arch_name(char out[24], int32_t capability, bool cubin) {
    snprintf(out, 24, "%s_%d%s", cubin ? "sm" : "compute", (int)capability, cubin && capability == 90 ? "a" : "");
}

/* Smaller is better; ties keep the order in which the copies were found. */
static int64_t rank(const nvrtc_choice *c, int32_t driver) {
    int64_t class = c->copy->major > driver / 1000 ? 2 : c->cubin ? 0 : 1;
    return class * 1000000 + (c->copy->named ? 0 : 500000) - c->copy->major * 1000 - c->copy->minor;
}

int32_t dlattn__nvrtc_choose(nvrtc_choice out[DLATTN_MAX_NVRTCS], const nvrtc_copies *copies, int32_t capability,
                             int32_t driver) {
    int32_t count = 0;
    for (int32_t i = 0; i < copies->count; i++) {
        const nvrtc_copy *copy = &copies->copy[i];
        int32_t arch = copy->major ? highest_arch(copy, capability) : 0;
        if (!arch) continue;
        nvrtc_choice choice = {copy, arch == capability, ""};
        dlattn__arch_name(choice.arch, arch, choice.cubin);
        int32_t at = count++;
        for (; at > 0 && rank(&choice, driver) < rank(&out[at - 1], driver); at--) out[at] = out[at - 1];
        out[at] = choice;
    }
    return count;
}
