/* device_memory.h: where device calls keep their copies of guarded memory; for device_call.c alone. */
#ifndef DLATTN_TESTS_DEVICE_MEMORY_H
#define DLATTN_TESTS_DEVICE_MEMORY_H

#include "device_call.h"
#include "device_driver.h"
#include "guarded.h"

/* The device in use. driver is NULL unless kind is DEVICE_CUDA. */
typedef struct device_state {
    device_options options;
    const device_driver *driver;
    void *stream;
    int lost, capture;
    char message[300];
} device_state;
extern device_state device_now;

DLDevice device_id(void);
/* Address on the device of an address in guarded memory; makes the copy's room, without data, when it is new. */
void *device_address(const void *host);
/* 0 or 1, with the message set. */
int device_upload(const guarded_block *block);
int device_download(const guarded_block *block);
int device_fill(const guarded_block *block, unsigned char value);
/* Notes a driver error: 0 if there is none, else 1. */
int device_error(int error, const char *what);

#endif
