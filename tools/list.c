/* list.c: `dlattn cases` lists the named problems, as text or as JSON for other languages. */
#include <getopt.h>
#include <stdio.h>

#include "case.h"
#include "commands.h"

static const char help[] =
    "usage: dlattn cases [--json] [PATTERN]\n\n"
    "Lists the named problems that `dlattn check` runs. PATTERN is a part of a name, or a glob.\n\n"
    "  dlattn cases window           all names with \"window\" in them\n"
    "  dlattn cases --json 'packed_*'  as JSON: sizes, dtype, flags and every term that is switched on\n";

int command_cases(int argc, char **argv) {
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    int json = 0, first = 1;
    for (int code; (code = getopt_long(argc, argv, "jh", options, NULL)) != -1;) {
        if (code == 'j') json = 1;
        else if (code == 'h') return fputs(help, stdout) < 0;
        else return fputs(help, stderr), 2;
    }
    const char *pattern = optind < argc ? argv[optind] : NULL;
    if (json) printf("[");
    for (int64_t n = 0; n < test_case_count; n++) {
        char text[300];
        if (!case_matches(&test_cases[n], pattern)) continue;
        if (json) {
            fputs(first ? "\n" : ",\n", stdout);
            case_print_json(stdout, &test_cases[n]);
        } else {
            case_describe(text, sizeof text, &test_cases[n]);
            printf("%-40s %s\n", test_cases[n].name, text);
        }
        first = 0;
    }
    if (json) printf("\n]\n");
    return 0;
}
