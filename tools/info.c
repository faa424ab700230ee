/* info.c: `dlattn info` says what the library and the machine offer. */
#include <getopt.h>
#include <stdio.h>

#include <dlattn/dlattn.h>

#include "commands.h"
#include "json.h"

static const char help[] =
    "usage: dlattn info [--json]\n\n"
    "Version, instruction sets, threads; CUDA devices, copies of NVRTC, where compiled kernels are kept.\n"
    "DLATTN_CPU_ISA and DLATTN_NUM_THREADS change what is used:  DLATTN_CPU_ISA=avx2 dlattn info\n";

int command_info(int argc, char **argv) {
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    char text[16384];
    int json = 0;
    for (int code; (code = getopt_long(argc, argv, "jh", options, NULL)) != -1;) {
        if (code == 'j') json = 1;
        else if (code == 'h') return fputs(help, stdout) < 0;
        else return fputs(help, stderr), 2;
    }
    int32_t status = dlattn_explain(NULL, NULL, NULL, NULL, text, sizeof text), version = dlattn_version();
    if (!json) {
        fputs(text, stdout);
        return status != DLATTN_OK;
    }
    printf("{\"version\": \"%d.%d.%d\", \"abi_version\": %d, \"text\": ", version / 10000, version / 100 % 100, version % 100,
           dlattn_abi_version());
    json_string(stdout, text);
    printf("}\n");
    return status != DLATTN_OK;
}
