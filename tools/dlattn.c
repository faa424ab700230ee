/* dlattn.c: the command dlattn: help, and the way to the subcommands. */
#include <stdio.h>
#include <string.h>

#include <dlattn/dlattn.h>

#include "commands.h"

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"demo", "attention layers of real models: run, timed, checked", command_demo},
    {"info", "version, instruction sets, threads and caches of this machine", command_info},
    {"check", "run the case table against the oracle and judge every result", command_check},
    {"bench", "time one problem, or the table of bench cases", command_bench},
    {"explain", "say in words what a call would do, and why a backend refuses", command_explain},
    {"cases", "list the named problems (--json for other programs)", command_cases},
};

static void print_help(FILE *to) {
    fprintf(to, "dlattn %d.%d.%d: exact attention, forward and backward, on DLPack tensors.\n\n"
                "usage: dlattn COMMAND [OPTION ...]\n\n", DLATTN_VERSION_MAJOR, DLATTN_VERSION_MINOR, DLATTN_VERSION_PATCH);
    for (unsigned n = 0; n < sizeof commands / sizeof *commands; n++) fprintf(to, "  %-9s %s\n", commands[n].name, commands[n].summary);
    fprintf(to, "\n`dlattn COMMAND --help` explains a command with examples. A first tour:\n\n"
                "  dlattn info\n"
                "  dlattn demo\n"
                "  dlattn check --quick\n"
                "  dlattn bench --seq-len 1024 --num-heads 8 --head-dim 64 --attn-mode causal --backward\n"
                "  dlattn explain --seq-len 1024 --dtype bf16 --attn-mode sliding_window --window-size 500\n\n"
                "Environment: DLATTN_NUM_THREADS, DLATTN_CPU_ISA (scalar, avx2, avx512, avx512bf16, amx, neon), DLATTN_LOG=1.\n");
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version")) {
        int32_t version = dlattn_version();
        printf("%d.%d.%d\n", version / 10000, version / 100 % 100, version % 100);
        return 0;
    }
    for (unsigned n = 0; n < sizeof commands / sizeof *commands; n++)
        if (!strcmp(argv[1], commands[n].name)) return commands[n].run(argc - 1, argv + 1);
    fprintf(stderr, "dlattn: unknown command \"%s\"\n\n", argv[1]);
    print_help(stderr);
    return 2;
}
