/* no_driver.h: for the rest of the process the machine has no CUDA driver, whatever it has. */
#ifndef DLATTN_TESTS_NO_DRIVER_H
#define DLATTN_TESTS_NO_DRIVER_H

#include "driver.h"
#include "loader.h"

static inline void *open_nothing(const char *name, bool loaded_only) {
    (void)name, (void)loaded_only;
    return NULL;
}

static inline void take_driver_away(void) {
    dlattn__loader.open = open_nothing;
    dlattn__driver_forget();
}

#endif
