/* compile.c: calls NVRTC for one request and reads its log. */
#include "compile.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "dlattn/dlattn.h"
#include "error.h"
#include "options.h"
#include "source.h"

/* ---- options --------------------------------------------------------------------------------------------------------- */

enum { FIXED_OPTIONS = 6, MOST_OPTIONS = FIXED_OPTIONS + DLATTN_MAX_DEFINES, OPTION_BYTES = 96 };

typedef struct option_list {
    int count;
    const char *pointers[MOST_OPTIONS];
    char text[MOST_OPTIONS][OPTION_BYTES];
} option_list;

__attribute__((format(printf, 2, 3))) static void add_option(option_list *o, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(o->text[o->count], OPTION_BYTES, format, arguments);
    va_end(arguments);
    o->pointers[o->count] = o->text[o->count];
    o->count++;
}

/* No --use_fast_math: it makes division inexact and flushes subnormals. -v costs nothing and tells registers and
 * spills. */
static void make_options(option_list *o, const nvrtc_choice *choice, const kernel_request *r) {
    o->count = 0;
    add_option(o, "-arch=%s", choice->arch);
    add_option(o, "--std=c++17");
    add_option(o, "-default-device");
    add_option(o, "--ptxas-options=-v");
    if (choice->copy && choice->copy->major >= 13) {
        add_option(o, "--no-cache"); /* ours suffices; theirs drops the log */
        add_option(o, "--minimal");  /* without declarations of textures and the like, 13 ms in each compilation */
    }
    for (int32_t i = 0; i < r->count && i < DLATTN_MAX_DEFINES; i++)
        add_option(o, "-D%s=%lld", r->defines[i].name, (long long)r->defines[i].value);
}

void dlattn__compile_key(uint8_t key[SHA256_BYTES], const nvrtc_choice *choice, const kernel_request *r) {
    option_list options;
    char version[64];
    uint8_t source[SHA256_BYTES];
    sha256 state;
    make_options(&options, choice, r);
    if (choice->copy)
        snprintf(version, sizeof version, "nvrtc %d.%d", (int)choice->copy->major, (int)choice->copy->minor);
    else
        snprintf(version, sizeof version, "any nvrtc");
    dlattn__sha256_begin(&state);
    dlattn__source_digest(source, r->file);
    dlattn__sha256_add(&state, source, sizeof source);
    dlattn__sha256_add(&state, version, strlen(version) + 1);
    dlattn__sha256_add(&state, r->file, strlen(r->file) + 1);
    for (int i = 0; i < options.count; i++) /* the architecture is one of them */
        dlattn__sha256_add(&state, options.text[i], strlen(options.text[i]) + 1);
    dlattn__sha256_end(&state, key);
}

void dlattn__request_text(char *text, int64_t text_bytes, const kernel_request *r) {
    int64_t at = snprintf(text, (size_t)text_bytes, "%s", r->file);
    for (int32_t i = 0; i < r->count && at < text_bytes; i++)
        at += snprintf(text + at, (size_t)(text_bytes - at), " -D%s=%lld", r->defines[i].name,
                       (long long)r->defines[i].value);
}

/* ---- the log --------------------------------------------------------------------------------------------------------- */

/* The line that says why it failed, as a piece of the log. */
static const char *first_error_line(const char *log, int *length) {
    const char *found = strstr(log, "error");
    if (!found) found = log;
    while (found > log && found[-1] != '\n') found--;
    *length = (int)strcspn(found, "\n");
    return found;
}

/* Each line of NVRTC's as a line of ours. */
static void log_lines(const char *log) {
    char line[400];
    while (*log) {
        size_t length = strcspn(log, "\n");
        snprintf(line, sizeof line, "%.*s", (int)length, log);
        dlattn__log("%s", line);
        log += length + (log[length] == '\n');
    }
}

static bool number_before(int32_t *out, const char *text, const char *end, const char *words) {
    const char *found = strstr(text, words);
    if (!found || (end && found >= end)) return false;
    while (found > text && found[-1] >= '0' && found[-1] <= '9') found--;
    return sscanf(found, "%d", out) == 1;
}

bool dlattn__log_usage(kernel_usage *out, const char *log, const char *entry) {
    char head[160];
    snprintf(head, sizeof head, "Compiling entry function '%.100s'", entry);
    const char *text = strstr(log, head);
    if (!text) return false;
    text += strlen(head);
    const char *end = strstr(text, "Compiling entry function"), *used = strstr(text, "Used ");
    if (!used || (end && used > end) || sscanf(used, "Used %d registers", &out->registers) != 1) return false;
    return number_before(&out->stack_bytes, text, end, " bytes stack frame") &&
           number_before(&out->spill_store_bytes, text, end, " bytes spill stores") &&
           number_before(&out->spill_load_bytes, text, end, " bytes spill loads");
}

/* ---- compiling ------------------------------------------------------------------------------------------------------- */

void dlattn__image_release(kernel_image *image) {
    dlattn__memory.release(image->bytes);
    *image = (kernel_image){NULL, 0};
}

static int32_t out_of_memory(const kernel_request *r) {
    return dlattn__fail(DLATTN_ERR_OUT_OF_MEMORY, "no host memory to compile %s", r->file);
}

/* Copies the log; without memory for it, it is "". */
static char *take_log(const nvrtc_table *call, nvrtcProgram program) {
    size_t bytes = 0;
    if (call->nvrtcGetProgramLogSize(program, &bytes) != NVRTC_SUCCESS) return NULL;
    char *log = dlattn__memory.allocate((int64_t)bytes + 1);
    if (!log) return NULL;
    memset(log, 0, bytes + 1);
    if (call->nvrtcGetProgramLog(program, log) != NVRTC_SUCCESS) log[0] = 0;
    return log;
}

static int32_t compile_failed(const nvrtc_choice *choice, const kernel_request *r, nvrtcResult result,
                              const char *log) {
    char name[200];
    int length = 0;
    const char *line = first_error_line(log, &length);
    dlattn__request_text(name, sizeof name, r);
    log_lines(log);
    return dlattn__fail(DLATTN_ERR_COMPILE, "%s for %s, NVRTC %d.%d: %.*s", name, choice->arch,
                        (int)choice->copy->major, (int)choice->copy->minor, length ? length : 100,
                        length ? line : choice->copy->call.nvrtcGetErrorString(result));
}

static int32_t take_image(kernel_image *out, const nvrtc_choice *choice, const kernel_request *r,
                          nvrtcProgram program) {
    const nvrtc_table *call = &choice->copy->call;
    size_t bytes = 0;
    nvrtcResult result = choice->cubin ? call->nvrtcGetCUBINSize(program, &bytes)
                                       : call->nvrtcGetPTXSize(program, &bytes);
    if (result == NVRTC_SUCCESS && bytes == 0) return compile_failed(choice, r, result, "error: NVRTC made nothing");
    if (result != NVRTC_SUCCESS) return compile_failed(choice, r, result, "");
    out->bytes = dlattn__memory.allocate((int64_t)bytes);
    if (!out->bytes) return out_of_memory(r);
    out->size = (int64_t)bytes;
    result = choice->cubin ? call->nvrtcGetCUBIN(program, out->bytes) : call->nvrtcGetPTX(program, out->bytes);
    if (result == NVRTC_SUCCESS) return DLATTN_OK;
    dlattn__image_release(out);
    return compile_failed(choice, r, result, "");
}

int32_t dlattn__compile(kernel_image *out, const nvrtc_choice *choice, const kernel_request *r, char *log,
                        int64_t log_bytes) {
    const nvrtc_table *call = &choice->copy->call;
    const source_file *source = dlattn__source_find(r->file);
    const source_headers *headers = dlattn__source_headers();
    option_list options;
    nvrtcProgram program = NULL;

    *out = (kernel_image){NULL, 0};
    if (log) log[0] = 0;
    if (!source) return dlattn__fail(DLATTN_ERR_INTERNAL, "the library carries no kernel file %s", r->file);
    nvrtcResult result = call->nvrtcCreateProgram(&program, source->text, r->file, headers->count, headers->texts,
                                                  headers->names);
    if (result == NVRTC_ERROR_OUT_OF_MEMORY) return out_of_memory(r);
    if (result != NVRTC_SUCCESS) return compile_failed(choice, r, result, "");
    make_options(&options, choice, r);
    result = call->nvrtcCompileProgram(program, options.count, options.pointers);
    char *text = take_log(call, program);
    int32_t status;
    if (result == NVRTC_ERROR_OUT_OF_MEMORY)
        status = out_of_memory(r);
    else if (result != NVRTC_SUCCESS)
        status = compile_failed(choice, r, result, text ? text : "");
    else
        status = take_image(out, choice, r, program);
    if (log && text) snprintf(log, (size_t)log_bytes, "%s", text);
    dlattn__memory.release(text);
    call->nvrtcDestroyProgram(&program);
    return status;
}
