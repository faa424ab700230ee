/* explain.c: `dlattn explain` says in words what a call would do. */
#include <stdio.h>
#include <string.h>

#include <dlattn/dlattn.h>

#include "commands.h"
#include "instance.h"
#include "json.h"
#include "options.h"

static const char help[] =
    "usage: dlattn explain [OPTION ...]\n\n"
    "Says how the library understands a problem, which backend and kernel it would run, with how much workspace, and\n"
    "why other backends refuse.\n\n"
    "  --backward      of the gradients instead of the forward\n"
    "  --threads N     as exec.num_threads\n"
    "  --device NAME   cpu, cuda, cuda:1 and so on (cpu)\n"
    "  --case NAME     a named problem of `dlattn cases` instead of the options below\n"
    "  --json          the text inside JSON\n\n";
static const char examples[] =
    "\n  dlattn explain --seq-len 4096 --num-heads 32 --kv-heads 8 --head-dim 128 --dtype bf16 --attn-mode causal\n"
    "  dlattn explain --case decode_gqa_long_keys\n";

typedef struct request {
    problem_options options;
    const test_case *named;
    int64_t threads;
    device_options device;
    int json, backward;
} request;

static DLDevice explained_device(const device_options *device) {
    if (device->kind == DEVICE_CUDA) return (DLDevice){kDLCUDA, device->ordinal};
    return (DLDevice){device->kind == DEVICE_CUDA_HOST ? kDLCUDAHost : kDLCPU, 0};
}

static int explain(const request *r) {
    instance x;
    char text[8192];
    dlattn_exec exec = {.struct_size = sizeof exec, .num_threads = (int32_t)r->threads};
    instance_make_empty(&x, r->named ? r->named : &r->options.problem, 1);
    for (int id = 0; id < T_COUNT; id++) x.tensors[id].dl.device = explained_device(&r->device); /* no data is read */
    int32_t status = dlattn_explain(&x.attention, r->backward ? NULL : &x.outputs, r->backward ? &x.gradients : NULL, &exec, text,
                                    sizeof text);
    if (r->json) {
        printf("{\"status\": \"%s\", \"text\": ", dlattn_status_name(status));
        json_string(stdout, text);
        printf("}\n");
    } else {
        fputs(text, stdout);
    }
    instance_free(&x);
    return status != DLATTN_OK;
}

int command_explain(int argc, char **argv) {
    static const struct option options[] = {
        {"backward", no_argument, NULL, 'b'}, {"threads", required_argument, NULL, 't'}, {"case", required_argument, NULL, 'c'},
        {"json", no_argument, NULL, 'j'},     {"help", no_argument, NULL, 'h'},          {"device", required_argument, NULL, 'd'},
        PROBLEM_OPTIONS,                      {0}};
    request r = {.named = NULL};
    int wrong = 0;
    problem_defaults(&r.options);
    for (int code; !wrong && (code = getopt_long(argc, argv, "bt:c:jh", options, NULL)) != -1;) {
        switch (code) {
        case 'b': r.backward = 1; break;
        case 't': wrong = parse_count(&r.threads, optarg, 1, "threads", "explain"); break;
        case 'c':
            if (!(r.named = case_find(optarg))) wrong = fprintf(stderr, "dlattn explain: no case is named \"%s\"\n", optarg);
            break;
        case 'd': wrong = parse_device(&r.device, optarg, "explain"); break;
        case 'j': r.json = 1; break;
        case 'h': return printf("%s%s%s", help, problem_help, examples) < 0;
        default: wrong = code < OPTION_FIRST ? 1
                                             : problem_option(&r.options, code, optarg, "explain");
        }
    }
    if (wrong || problem_finish(&r.options, "explain")) return 2;
    return explain(&r);
}
