/* load.c: the functions of a call's steps: a first backward waits for its longest compilation, not for the sum of all. */
#include "load.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include "error.h"

enum { STACK_BYTES = 16 << 20, SENTENCE_BYTES = 512 }; /* NVRTC is written for a main thread's stack */

/* One function that is not in memory, and the thread that gets it. */
typedef struct loading {
    const kernel_request *request;
    const cuda_scope *scope;
    CUfunction *out;
    int32_t status;
    bool apart; /* by a thread of its own */
    pthread_t thread;
    char sentence[SENTENCE_BYTES]; /* of a failure: the thread's own ends with it */
} loading;

static void get(loading *l) {
    l->status = dlattn__function_get(l->out, l->scope->context, l->scope->device, l->request);
    if (l->status != DLATTN_OK) snprintf(l->sentence, sizeof l->sentence, "%s", dlattn__error_text());
}

/* A thread begins without a context. */
static void *get_apart(void *argument) {
    loading *l = argument;
    CUcontext ignored;
    l->status = dlattn__cuda_check(dlattn__driver.cuCtxPushCurrent(l->scope->context), "cuCtxPushCurrent", l->request->entry);
    if (l->status != DLATTN_OK) {
        snprintf(l->sentence, sizeof l->sentence, "%s", dlattn__error_text());
        return NULL;
    }
    get(l);
    dlattn__driver.cuCtxPopCurrent(&ignored);
    return NULL;
}

/* No signal of the application's is handled in our threads. */
static bool start(loading *l) {
    pthread_attr_t attributes;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* a thread starts with its creator's mask */
    const bool started = pthread_create(&l->thread, &attributes, get_apart, l) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

/* The first is this thread's own, and whatever no thread can be had for. */
static __attribute__((noinline, cold)) int32_t get_missing(CUfunction *functions, const cuda_schedule *s, const cuda_scope *scope) {
    loading missing[DLATTN_MAX_STEPS];
    int32_t count = 0;
    for (int32_t n = 0; n < s->step_count; n++)
        if (!functions[n]) missing[count++] = (loading){.request = &s->steps[n].request, .scope = scope, .out = &functions[n]};
    for (int32_t n = 1; n < count; n++) missing[n].apart = start(&missing[n]);
    for (int32_t n = 0; n < count; n++) {
        if (missing[n].apart) pthread_join(missing[n].thread, NULL);
        else get(&missing[n]);
    }
    for (int32_t n = 0; n < count; n++)
        if (missing[n].status != DLATTN_OK) return dlattn__fail(missing[n].status, "%s", missing[n].sentence);
    return DLATTN_OK;
}

int32_t dlattn__load_steps(CUfunction *functions, const cuda_schedule *s, const cuda_scope *scope) {
    bool all = true;
    for (int32_t n = 0; n < s->step_count; n++) {
        DLATTN_TRY(dlattn__function_find(&functions[n], scope->context, &s->steps[n].request));
        all = all && functions[n];
    }
    return all ? DLATTN_OK : get_missing(functions, s, scope);
}
