/* error.c: the sentence of the last failure, one per thread. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char sentence[512];

int32_t dlattn__fail(int32_t status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return status;
}

void dlattn__error_clear(void) { sentence[0] = 0; }

const char *dlattn__error_text(void) { return sentence; }
