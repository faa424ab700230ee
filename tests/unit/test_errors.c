/* test_errors.c: codes, sentences, options and explanations: how the library talks. */
#define _POSIX_C_SOURCE 200809L
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "call.h"
#include "no_driver.h"
#include "error.h"
#include "options.h"

static void expect_option(const char *name, const char *value, int32_t status, const char *sentence) {
    cr_expect_eq(dlattn_set_option(name, value), status, "%s = %s: %s", name, value, dlattn_last_error());
    cr_expect(strstr(dlattn_last_error(), sentence), "%s = %s says \"%s\"", name, value, dlattn_last_error());
}

/* First in the file: the environment is read once in the life of a process. */
Test(options, environment_is_the_default) {
    setenv("DLATTN_NUM_THREADS", "7", 1);
    setenv("DLATTN_LOG", "loud", 1);
    cr_expect_str_eq(dlattn__option("num_threads"), "7");
    setenv("DLATTN_NUM_THREADS", "8", 1);
    cr_expect_str_eq(dlattn__option("num_threads"), "7", "read at first use");
    cr_expect_null(dlattn__option("log"), "a malformed variable is as if unset");
    expect_option("num_threads", "2", DLATTN_OK, "");
    cr_expect_str_eq(dlattn__option("num_threads"), "2");
    expect_option("num_threads", NULL, DLATTN_OK, "");
    cr_expect_str_eq(dlattn__option("num_threads"), "7");
}

Test(errors, names_of_codes_are_pinned) {
    static const char *const names[] = {"DLATTN_OK", "DLATTN_ERR_ARGUMENT", "DLATTN_ERR_SHAPE", "DLATTN_ERR_DTYPE",
                                        "DLATTN_ERR_DEVICE", "DLATTN_ERR_UNSUPPORTED", "DLATTN_ERR_WORKSPACE",
                                        "DLATTN_ERR_OUT_OF_MEMORY", "DLATTN_ERR_CUDA", "DLATTN_ERR_COMPILE",
                                        "DLATTN_ERR_INTERNAL"};
    for (int32_t code = 0; code <= 10; code++) cr_expect_str_eq(dlattn_status_name(code), names[code]);
    cr_expect_str_eq(dlattn_status_name(11), "DLATTN_ERR_UNKNOWN");
    cr_expect_str_eq(dlattn_status_name(-1), "DLATTN_ERR_UNKNOWN");
    cr_expect_str_eq(dlattn_status_name(INT32_MIN), "DLATTN_ERR_UNKNOWN");
}

Test(errors, version) {
    cr_expect_eq(dlattn_version(), 10000 * DLATTN_VERSION_MAJOR + 100 * DLATTN_VERSION_MINOR + DLATTN_VERSION_PATCH);
    cr_expect_eq(dlattn_abi_version(), DLATTN_ABI_VERSION);
}

static int32_t failing_call(char *message, int64_t message_bytes) {
    static call c;
    make_call(&c);
    c.attention.q = NULL;
    c.exec.message = message;
    c.exec.message_bytes = message_bytes;
    return dlattn_forward(c.a, c.o, &c.exec);
}

Test(errors, the_next_call_clears_the_sentence) {
    static call c;
    cr_assert_eq(failing_call(NULL, 0), DLATTN_ERR_ARGUMENT);
    cr_expect_str_neq(dlattn_last_error(), "");
    cr_expect(dlattn_version() >= 0 && dlattn_status_name(3)[0] == 'D');
    cr_expect(strstr(dlattn_last_error(), "q is NULL"), "asking for names must not clear it");
    make_call(&c);
    cr_assert_eq(dlattn_forward(c.a, c.o, NULL), DLATTN_OK, "%s", dlattn_last_error());
    cr_expect_str_eq(dlattn_last_error(), "");
    cr_assert_eq(failing_call(NULL, 0), DLATTN_ERR_ARGUMENT);
    dlattn_outputs outputs;
    cr_assert_eq(dlattn_outputs_init(&outputs, sizeof outputs), DLATTN_OK);
    cr_expect_str_eq(dlattn_last_error(), "");
}

Test(errors, message_is_cut_and_ended) {
    char message[16];
    memset(message, '#', sizeof message);
    cr_assert_eq(failing_call(message, 10), DLATTN_ERR_ARGUMENT);
    cr_expect_str_eq(message, "q is NULL");
    cr_expect_eq(message[10], '#', "nothing past message_bytes");
    memset(message, '#', sizeof message);
    cr_assert_eq(failing_call(message, 1), DLATTN_ERR_ARGUMENT);
    cr_expect(message[0] == 0 && message[1] == '#');
    memset(message, '#', sizeof message);
    cr_assert_eq(failing_call(message, 0), DLATTN_ERR_ARGUMENT);
    cr_expect_eq(message[0], '#', "no room, no write");
}

Test(errors, long_sentences_are_cut) {
    char much[2000];
    memset(much, 'x', sizeof much);
    much[sizeof much - 1] = 0;
    cr_expect_eq(dlattn__fail(DLATTN_ERR_SHAPE, "%s", much), DLATTN_ERR_SHAPE);
    cr_expect_eq(strlen(dlattn_last_error()), 511);
}

static void *fail_elsewhere(void *unused) {
    (void)unused;
    if (dlattn_last_error()[0]) return "a new thread begins with a sentence";
    if (dlattn_set_option("no_such_option", "1") != DLATTN_ERR_ARGUMENT) return "not refused";
    if (!strstr(dlattn_last_error(), "no_such_option")) return "no sentence";
    return NULL;
}

Test(errors, each_thread_has_its_own_sentence) {
    pthread_t thread;
    void *complaint = NULL;
    cr_assert_eq(failing_call(NULL, 0), DLATTN_ERR_ARGUMENT);
    cr_assert_eq(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    pthread_join(thread, &complaint);
    cr_expect_null(complaint, "%s", (char *)complaint);
    cr_expect(strstr(dlattn_last_error(), "q is NULL"), "%s", dlattn_last_error());
}

Test(options, bad_names_and_values) {
    expect_option(NULL, "1", DLATTN_ERR_ARGUMENT, "name is NULL, expected num_threads, cpu_isa, log, nvrtc, cuda_variant or cache_dir");
    expect_option("threads", "1", DLATTN_ERR_ARGUMENT, "option \"threads\" is unknown, expected num_threads");
    expect_option("num_threads", "-1", DLATTN_ERR_ARGUMENT, "num_threads is \"-1\", expected a number from 0");
    expect_option("num_threads", "", DLATTN_ERR_ARGUMENT, "num_threads is \"\"");
    expect_option("num_threads", "2 ", DLATTN_ERR_ARGUMENT, "num_threads is \"2 \"");
    expect_option("num_threads", "2147483648", DLATTN_ERR_ARGUMENT, "num_threads is \"2147483648\"");
    expect_option("num_threads", "99999999999999999999", DLATTN_ERR_ARGUMENT, "expected a number");
    expect_option("cpu_isa", "sse2", DLATTN_ERR_ARGUMENT, "cpu_isa is \"sse2\", expected scalar, avx2");
    expect_option("cpu_isa", "AVX2", DLATTN_ERR_ARGUMENT, "cpu_isa is \"AVX2\"");
    expect_option("log", "yes", DLATTN_ERR_ARGUMENT, "log is \"yes\", expected 0 or 1");
}

Test(options, kernels_are_named_by_family_and_tile) {
    static const char *const good[] = {"auto", "generic", "sm80", "sm90", "sm80:128x64", "sm90:192x80x16", "sm90:192x80x16x3"};
    static const char *const bad[] = {"", "sm", "sm8", "sm800", "sm80:", "sm80:128", "sm80:128x", "sm80:x64", "sm80:128x64x4x1x1",
                                      "sm80:128x64 ", "sm80:12800x64", "sm80:-1x64", "auto:128x64", "SM80"};
    for (size_t n = 0; n < sizeof good / sizeof good[0]; n++) expect_option("cuda_variant", good[n], DLATTN_OK, "");
    for (size_t n = 0; n < sizeof bad / sizeof bad[0]; n++)
        expect_option("cuda_variant", bad[n], DLATTN_ERR_ARGUMENT, "expected auto, generic, sm80 or sm90, or one of these with a tile");
    cr_expect_str_eq(dlattn__option("cuda_variant"), "sm90:192x80x16x3", "a bad value changes nothing");
    expect_option("cuda_variant", NULL, DLATTN_OK, "");
}

Test(options, missing_instruction_set_is_unsupported) {
#if defined(__x86_64__)
    expect_option("cpu_isa", "neon", DLATTN_ERR_UNSUPPORTED, "cpu_isa is neon, which this machine or this build lacks");
#else
    expect_option("cpu_isa", "avx2", DLATTN_ERR_UNSUPPORTED, "cpu_isa is avx2, which this machine or this build lacks");
#endif
    expect_option("cpu_isa", "scalar", DLATTN_OK, "");
    cr_expect_str_eq(dlattn__option("cpu_isa"), "scalar");
    expect_option("cpu_isa", "auto", DLATTN_OK, "");
    expect_option("cpu_isa", NULL, DLATTN_OK, "");
}

Test(options, set_then_restore) {
    const char *before = dlattn__option("num_threads");
    expect_option("num_threads", "3", DLATTN_OK, "");
    const char *three = dlattn__option("num_threads");
    cr_expect_str_eq(three, "3");
    expect_option("num_threads", "4", DLATTN_OK, "");
    cr_expect_str_eq(dlattn__option("num_threads"), "4");
    cr_expect_str_eq(three, "3", "a value stays readable after it was replaced");
    expect_option("num_threads", "3", DLATTN_OK, "");
    cr_expect_eq(dlattn__option("num_threads"), three, "each text is kept once");
    expect_option("num_threads", "x", DLATTN_ERR_ARGUMENT, "num_threads");
    cr_expect_str_eq(dlattn__option("num_threads"), "3", "a refusal changes nothing");
    expect_option("num_threads", NULL, DLATTN_OK, "");
    cr_expect_eq(dlattn__option("num_threads"), before);
    cr_expect_null(dlattn__option("no_such_option"));
}

Test(init, writes_exactly_struct_size_bytes) {
    static const struct {
        int64_t bytes;
        const char *name;
    } structs[] = {{sizeof(dlattn_attention), "attention"}, {sizeof(dlattn_outputs), "outputs"},
                   {sizeof(dlattn_gradients), "gradients"}, {sizeof(dlattn_exec), "exec"},
                   {sizeof(dlattn_parts), "parts"},         {sizeof(dlattn_cache), "cache"},
                   {sizeof(dlattn_rotation), "rotation"}};
    for (int s = 0; s < 7; s++)
        for (int64_t more = -8; more <= 16; more += 8) {
            _Alignas(8) unsigned char memory[320], expected[320];
            int64_t bytes = structs[s].bytes + more;
            void *m = memory;
            memset(memory, 0x5A, sizeof memory);
            memset(expected, 0x5A, sizeof expected);
            if (more >= 0) {
                memset(expected, 0, (size_t)bytes);
                memcpy(expected, &bytes, sizeof bytes);
            }
            int32_t status = s == 0   ? dlattn_attention_init(m, bytes)
                             : s == 1 ? dlattn_outputs_init(m, bytes)
                             : s == 2 ? dlattn_gradients_init(m, bytes)
                             : s == 3 ? dlattn_exec_init(m, bytes)
                             : s == 4 ? dlattn_parts_init(m, bytes)
                             : s == 5 ? dlattn_cache_init(m, bytes)
                                      : dlattn_rotation_init(m, bytes);
            cr_expect_eq(status, more < 0 ? DLATTN_ERR_ARGUMENT : DLATTN_OK, "%s + %d", structs[s].name, (int)more);
            cr_expect(memcmp(memory, expected, sizeof memory) == 0, "%s + %d", structs[s].name, (int)more);
            if (more < 0) cr_expect(strstr(dlattn_last_error(), structs[s].name), "%s", dlattn_last_error());
        }
    cr_expect_eq(dlattn_exec_init(NULL, sizeof(dlattn_exec)), DLATTN_ERR_ARGUMENT);
}

Test(explain, problem_in_words) {
    static call c;
    char text[4096];
    make_call(&c);
    c.attention.flags = DLATTN_CAUSAL | DLATTN_WINDOW | DLATTN_POSITIONS;
    c.attention.window_left = 4;
    c.attention.window_right = -1;
    c.attention.q_start = 17;
    c.attention.sinks = &c.t[SINKS];
    c.attention.dropout = 0.25;
    cr_assert_eq(dlattn_explain(c.a, c.o, NULL, NULL, text, sizeof text), DLATTN_OK, "%s", dlattn_last_error());
    static const char *const parts[] = {"problem: forward, float32", "query heads 4, key heads 2", "head sizes 8 and 6",
                                        "queries from 17, keys from 0", "causal", "left 4, right unlimited",
                                        "0.353553 (1/sqrt(D))", "0.25 (64 of 256 bytes)", "sinks", "[2,3,4,8]",
                                        "backend: cpu", "workspace: ", "threads: "};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        cr_expect(strstr(text, parts[i]), "\"%s\" is not in\n%s", parts[i], text);
}

Test(explain, refusal_in_words) {
    static call c;
    char text[4096];
    make_call(&c);
    c.attention.k = NULL;
    cr_expect_eq(dlattn_explain(c.a, NULL, c.g, NULL, text, sizeof text), DLATTN_ERR_ARGUMENT);
    cr_expect(strstr(text, "refused: DLATTN_ERR_ARGUMENT: k is NULL"), "%s", text);
    make_call(&c);
    take_driver_away();
    for (int i = 0; i < TENSORS; i++) c.t[i].device = (DLDevice){kDLCUDA, 0};
    cr_expect_eq(dlattn_explain(c.a, c.o, NULL, NULL, text, sizeof text), DLATTN_ERR_DEVICE);
    cr_expect(strstr(text, "problem: forward") && strstr(text, "no CUDA driver"), "%s", text);
}

Test(explain, library_and_room) {
    static call c;
    char text[4096], first_lines[64], small[8];
    make_call(&c);
    cr_expect_eq(dlattn_explain(NULL, NULL, NULL, NULL, text, sizeof text), DLATTN_OK);
    snprintf(first_lines, sizeof first_lines, "dlattn: %d.%d.%d, ABI %d\nbackend: cpu\n", DLATTN_VERSION_MAJOR,
             DLATTN_VERSION_MINOR, DLATTN_VERSION_PATCH, DLATTN_ABI_VERSION);
    cr_expect(strstr(text, first_lines) == text, "%s", text);
    memset(small, '#', sizeof small);
    cr_expect_eq(dlattn_explain(c.a, c.o, NULL, NULL, small, 5), DLATTN_OK);
    cr_expect(memcmp(small, "prob\0###", 8) == 0, "cut and ended");
    cr_expect_eq(dlattn_explain(c.a, c.o, NULL, NULL, NULL, 100), DLATTN_ERR_ARGUMENT);
    cr_expect_eq(dlattn_explain(c.a, c.o, NULL, NULL, small, 0), DLATTN_ERR_ARGUMENT);
    cr_expect_eq(dlattn_explain(c.a, c.o, c.g, NULL, text, sizeof text), DLATTN_ERR_ARGUMENT);
    cr_expect(strstr(text, "both given, expected exactly one"), "%s", text);
    cr_expect_eq(dlattn_explain(c.a, NULL, NULL, NULL, text, sizeof text), DLATTN_ERR_ARGUMENT);
    cr_expect_eq(dlattn_prepare(c.a, NULL, NULL, NULL), DLATTN_ERR_ARGUMENT);
}
