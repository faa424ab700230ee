/* error.h: how a failure is told: a code, and a sentence kept per thread. */
#ifndef DLATTN_ERROR_H
#define DLATTN_ERROR_H

#include <stdint.h>

/* Sets this thread's sentence (printf form, truncated at 511 bytes) and returns `status`. Called once, where the
 * cause is known. */
__attribute__((format(printf, 2, 3))) int32_t dlattn__fail(int32_t status, const char *format, ...);

void dlattn__error_clear(void);
const char *dlattn__error_text(void);

/* Passes a failure up. */
#define DLATTN_TRY(call)                                  \
    do {                                                  \
        int32_t dlattn_try_status = (call);               \
        if (dlattn_try_status != 0) return dlattn_try_status; \
    } while (0)

#endif
