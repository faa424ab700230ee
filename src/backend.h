/* backend.h: what a backend is, and the plan it fills. The last two rooms of a call: problem -> plan -> backend. */
#ifndef DLATTN_BACKEND_H
#define DLATTN_BACKEND_H

#include "cache.h"

struct backend;

/* What will be done, decided from the problem, the options and the number of threads alone. */
typedef struct plan {
    const struct backend *backend;
    const problem *problem;
    const buffers *buffers;                  /* of a call that runs; NULL: the question alone */
    uint64_t workspace_bytes, minimum_bytes; /* what it would like, what it cannot do without; CUDA says it only when asked */
    int32_t num_threads;                     /* at most */
    int32_t reserved0;
    const void *variant;                     /* the backend's own: which kernels */
    int64_t pieces;                          /* into how many pieces the keys are split */
    char note[256];                          /* in words: what was chosen, or why it was refused */
} plan;

typedef struct backend {
    const char *name;
    bool (*serves)(int32_t device_type); /* a DLPack device type */
    /* Fills the plan and returns DLATTN_OK, or writes the reason into plan->note and returns DLATTN_ERR_UNSUPPORTED
     * (or DLATTN_ERR_DEVICE when the device cannot be used). */
    int32_t (*consider)(const problem *, const dlattn_exec *, plan *);
    void (*tell)(plan *); /* says in plan->note what consider chose: for dlattn_explain, since it takes a while */
    /* exec is never NULL here. Sets the error sentence when it fails, and then has written no output. */
    int32_t (*run)(const plan *, const dlattn_exec *);
    int32_t (*merge)(const merge_problem *, const merge_part *, void *out, void *lse, const dlattn_exec *);
    int32_t (*dropout_mask)(const problem *, const buffers *, const dlattn_exec *);
    int32_t (*kv_append)(const append_problem *, const append_buffers *, const dlattn_exec *);
    int32_t (*rotary)(const rotary_problem *, const rotary_buffers *, const dlattn_exec *);
    void (*describe)(char *text, int64_t text_bytes); /* the machine as this backend sees it, lines of "key: value" */
    /* Can dlattn_set_option("cpu_isa", name) be obeyed on this machine? "auto" always can. NULL: not this backend's. */
    bool (*isa_available)(const char *name);
    /* Makes the first run of the plan as fast as the next (starts threads, compiles). NULL: nothing to do. */
    int32_t (*prepare)(const plan *, const dlattn_exec *);
} backend;

extern const backend dlattn__cpu_backend, dlattn__cuda_backend;

/* Asks the backend of the problem's device; on failure the sentence holds its reason. x: as plan.buffers. */
int32_t dlattn__plan(plan *out, const problem *p, const buffers *x, const dlattn_exec *exec);

/* The sentence of a backend's refusal, in its own words and with its own code, which is returned. */
int32_t dlattn__fail_refused(int32_t status, const backend *b, const char *reason);

/* The backend that serves a DLPack device type, or a failure: for what needs no plan (merge). */
int32_t dlattn__backend_for(const backend **out, int32_t device_type);

/* Does any backend of this build offer the instruction set here? */
bool dlattn__isa_available(const char *name);

/* All backends of this build, the last one followed by NULL. */
extern const backend *const dlattn__backends[];

#endif
