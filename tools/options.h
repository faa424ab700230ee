/* options.h: the command-line options that describe one attention problem, shared by bench and explain. */
#ifndef DLATTN_TOOLS_OPTIONS_H
#define DLATTN_TOOLS_OPTIONS_H

#include <getopt.h>

#include "case.h"
#include "device_call.h"

typedef struct problem_options {
    test_case problem; /* sizes and terms, as a case of its own */
    int64_t window_size, keys;
    int32_t head_size_v_given, keys_given, kv_heads_given, mode;
} problem_options;

enum { OPTION_FIRST = 1000 }; /* codes from here on belong to the problem */

/* To be put into a table of struct option; text for --help. */
#define PROBLEM_OPTIONS                                                                                                   \
    {"batch-size", required_argument, NULL, OPTION_FIRST}, {"num-heads", required_argument, NULL, OPTION_FIRST + 1},       \
    {"kv-heads", required_argument, NULL, OPTION_FIRST + 2}, {"seq-len", required_argument, NULL, OPTION_FIRST + 3},       \
    {"seq-len-k", required_argument, NULL, OPTION_FIRST + 4}, {"head-dim", required_argument, NULL, OPTION_FIRST + 5},     \
    {"head-dim-v", required_argument, NULL, OPTION_FIRST + 6}, {"dtype", required_argument, NULL, OPTION_FIRST + 7},       \
    {"attn-mode", required_argument, NULL, OPTION_FIRST + 8}, {"window-size", required_argument, NULL, OPTION_FIRST + 9},  \
    {"block-size", required_argument, NULL, OPTION_FIRST + 10}, {"block-count", required_argument, NULL, OPTION_FIRST + 11}, \
    {"softcap", required_argument, NULL, OPTION_FIRST + 12}, {"scale", required_argument, NULL, OPTION_FIRST + 13},        \
    {"bias", optional_argument, NULL, OPTION_FIRST + 14}, {"mask", optional_argument, NULL, OPTION_FIRST + 15},            \
    {"alibi", no_argument, NULL, OPTION_FIRST + 16}, {"sinks", no_argument, NULL, OPTION_FIRST + 17},                      \
    {"dropout", required_argument, NULL, OPTION_FIRST + 18}, {"segments", no_argument, NULL, OPTION_FIRST + 19},           \
    {"layout", required_argument, NULL, OPTION_FIRST + 20}, {"top-left", no_argument, NULL, OPTION_FIRST + 21}
extern const char problem_help[];

void problem_defaults(problem_options *o);
/* Takes one option; 0, or nonzero after a sentence on stderr. command names the subcommand in that sentence. */
int problem_option(problem_options *o, int code, const char *value, const char *command);
/* Fills in what depends on several options and checks it; the same result. */
int problem_finish(problem_options *o, const char *command);

/* cpu, cuda, cuda:NUMBER or cuda-host; the same result. */
int parse_device(device_options *to, const char *name, const char *command);

/* A whole number of at least `least`; the same result. */
int parse_count(int64_t *to, const char *value, int64_t least, const char *name, const char *command);

#endif
