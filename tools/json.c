/* json.c: the little JSON that the tools write. */
#include "json.h"

#include <math.h>

void json_string(FILE *to, const char *text) {
    fputc('"', to);
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at == '"' || *at == '\\') fprintf(to, "\\%c", *at);
        else if (*at == '\n') fputs("\\n", to);
        else if (*at < 32) fprintf(to, "\\u%04x", *at);
        else fputc(*at, to);
    }
    fputc('"', to);
}

void json_number(FILE *to, double value) {
    if (isfinite(value)) fprintf(to, "%.6g", value);
    else fputs("null", to);
}
