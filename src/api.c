/* api.c: every exported function. Each clears the sentence, validates, plans, runs, and hands the sentence on. */
#include <stdio.h>
#include <string.h>

#include "backend.h"
#include "dlattn/dlattn.h"
#include "error.h"
#include "explain.h"
#include "options.h"
#include "reading.h"
#include "workspace.h"

/* The head and the tail of every call that has an exec. `local` is usable whatever begin returns. */
static int32_t begin(dlattn_exec *local, const dlattn_exec *exec) {
    dlattn__error_clear();
    int32_t status = dlattn__problem_exec(local, exec);
    if (local->message && local->message_bytes > 0) local->message[0] = 0;
    return status;
}

static int32_t end(const dlattn_exec *local, int32_t status) {
    if (status == DLATTN_OK) {
        dlattn__error_clear(); /* a refusal on the way to success is no news */
    } else if (local->message && local->message_bytes > 0) {
        snprintf(local->message, (size_t)local->message_bytes, "%s", dlattn__error_text());
    }
    return status;
}

static int32_t check_stream(int32_t device_type, const dlattn_exec *exec) {
    if (!exec->stream || !dlattn__device_is_host(device_type)) return DLATTN_OK;
    return dlattn__fail(DLATTN_ERR_ARGUMENT, "stream is not NULL, expected NULL for tensors on the CPU");
}

static int32_t plan_to_run(plan *plan, const problem *p, const buffers *x, const dlattn_exec *exec) {
    DLATTN_TRY(dlattn__plan(plan, p, x, exec));
    DLATTN_TRY(check_stream(p->device_type, exec));
    return dlattn__workspace_check(plan, exec);
}

static int32_t forward(const dlattn_attention *attention, const dlattn_outputs *outputs, const dlattn_exec *exec) {
    problem p;
    buffers x;
    plan plan;
    DLATTN_TRY(dlattn__problem_forward(&p, &x, attention, outputs, true));
    DLATTN_TRY(plan_to_run(&plan, &p, &x, exec));
    return plan.backend->run(&plan, exec);
}

int32_t dlattn_forward(const dlattn_attention *attention, const dlattn_outputs *outputs, const dlattn_exec *exec) {
    dlattn_exec local;
    int32_t status = begin(&local, exec);
    if (status == DLATTN_OK) status = forward(attention, outputs, &local);
    return end(&local, status);
}

static int32_t backward(const dlattn_attention *attention, const dlattn_gradients *gradients,
                        const dlattn_exec *exec) {
    problem p;
    buffers x;
    plan plan;
    DLATTN_TRY(dlattn__problem_backward(&p, &x, attention, gradients, true));
    DLATTN_TRY(plan_to_run(&plan, &p, &x, exec));
    return plan.backend->run(&plan, exec);
}

int32_t dlattn_backward(const dlattn_attention *attention, const dlattn_gradients *gradients,
                        const dlattn_exec *exec) {
    dlattn_exec local;
    int32_t status = begin(&local, exec);
    if (status == DLATTN_OK) status = backward(attention, gradients, &local);
    return end(&local, status);
}

/* The plan of a call whose data may be missing. */
static int32_t plan_forward(plan *plan, problem *p, const dlattn_attention *attention, const dlattn_outputs *outputs,
                            const dlattn_exec *exec) {
    DLATTN_TRY(dlattn__problem_forward(p, NULL, attention, outputs, false));
    return dlattn__plan(plan, p, NULL, exec);
}

static int32_t plan_backward(plan *plan, problem *p, const dlattn_attention *attention,
                             const dlattn_gradients *gradients, const dlattn_exec *exec) {
    DLATTN_TRY(dlattn__problem_backward(p, NULL, attention, gradients, false));
    return dlattn__plan(plan, p, NULL, exec);
}

static void tell_workspace(const plan *plan, uint64_t *bytes, uint64_t *minimum_bytes) {
    if (bytes) *bytes = plan->workspace_bytes;
    if (minimum_bytes) *minimum_bytes = plan->minimum_bytes;
}

int32_t dlattn_forward_workspace(const dlattn_attention *attention, const dlattn_outputs *outputs,
                                 const dlattn_exec *exec, uint64_t *bytes, uint64_t *minimum_bytes) {
    dlattn_exec local;
    problem p;
    plan plan;
    int32_t status = begin(&local, exec);
    if (status == DLATTN_OK) status = plan_forward(&plan, &p, attention, outputs, &local);
    if (status == DLATTN_OK) tell_workspace(&plan, bytes, minimum_bytes);
    return end(&local, status);
}

int32_t dlattn_backward_workspace(const dlattn_attention *attention, const dlattn_gradients *gradients,
                                  const dlattn_exec *exec, uint64_t *bytes, uint64_t *minimum_bytes) {
    dlattn_exec local;
    problem p;
    plan plan;
    int32_t status = begin(&local, exec);
    if (status == DLATTN_OK) status = plan_backward(&plan, &p, attention, gradients, &local);
    if (status == DLATTN_OK) tell_workspace(&plan, bytes, minimum_bytes);
    return end(&local, status);
}

static int32_t prepare(const dlattn_attention *attention, const dlattn_outputs *outputs,
                       const dlattn_gradients *gradients, const dlattn_exec *exec) {
    problem p;
    plan plan;
    if (!outputs && !gradients)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "outputs and gradients are both NULL, expected at least one");
    if (outputs) {
        DLATTN_TRY(plan_forward(&plan, &p, attention, outputs, exec));
        if (plan.backend->prepare) DLATTN_TRY(plan.backend->prepare(&plan, exec));
    }
    if (gradients) {
        DLATTN_TRY(plan_backward(&plan, &p, attention, gradients, exec));
        if (plan.backend->prepare) DLATTN_TRY(plan.backend->prepare(&plan, exec));
    }
    return DLATTN_OK;
}

int32_t dlattn_prepare(const dlattn_attention *attention, const dlattn_outputs *outputs,
                       const dlattn_gradients *gradients, const dlattn_exec *exec) {
    dlattn_exec local;
    int32_t status = begin(&local, exec);
    if (status == DLATTN_OK) status = prepare(attention, outputs, gradients, &local);
    return end(&local, status);
}

static int32_t explain(text *t, const dlattn_attention *attention, const dlattn_outputs *outputs,
                       const dlattn_gradients *gradients, const dlattn_exec *exec) {
    problem p;
    plan plan;
    if (!attention && !outputs && !gradients) {
        dlattn__explain_library(t);
        return DLATTN_OK;
    }
    if (!outputs == !gradients)
        return dlattn__fail(DLATTN_ERR_ARGUMENT, "outputs and gradients are both %s, expected exactly one of them",
                            outputs ? "given" : "NULL");
    if (outputs) DLATTN_TRY(dlattn__problem_forward(&p, NULL, attention, outputs, false));
    if (gradients) DLATTN_TRY(dlattn__problem_backward(&p, NULL, attention, gradients, false));
    dlattn__explain_problem(t, &p);
    DLATTN_TRY(dlattn__plan(&plan, &p, NULL, exec));
    plan.backend->tell(&plan);
    dlattn__explain_plan(t, &plan);
    DLATTN_TRY(check_stream(p.device_type, exec));
    return dlattn__workspace_check(&plan, exec);
}

int32_t dlattn_explain(const dlattn_attention *attention, const dlattn_outputs *outputs,
                       const dlattn_gradients *gradients, const dlattn_exec *exec, char *text_out,
                       int64_t text_bytes) {
    dlattn_exec local;
    int32_t status = begin(&local, exec);
    if (status == DLATTN_OK && (!text_out || text_bytes < 1))
        status = dlattn__fail(DLATTN_ERR_ARGUMENT, "text is %s, expected room for at least 1 byte",
                              text_out ? "0 bytes long" : "NULL");
    if (text_out && text_bytes > 0) {
        text t = {text_out, text_bytes};
        text_out[0] = 0;
        if (status == DLATTN_OK) status = explain(&t, attention, outputs, gradients, &local);
        if (status != DLATTN_OK)
            dlattn__text_add(&t, "refused: %s: %s\n", dlattn_status_name(status), dlattn__error_text());
    }
    return end(&local, status);
}

static int32_t merge(const dlattn_parts *parts, const dlattn_outputs *merged, const dlattn_exec *exec) {
    dlattn_parts local;
    merge_problem p;
    void *out = NULL, *lse = NULL;
    const backend *backend = NULL;
    DLATTN_TRY(dlattn__problem_parts(&local, parts));
    merge_part *read = dlattn__memory.allocate(local.count * (int64_t)sizeof *read);
    if (!read)
        return dlattn__fail(DLATTN_ERR_OUT_OF_MEMORY, "no memory for the description of %d parts", (int)local.count);
    int32_t status = dlattn__problem_merge(&p, read, &out, &lse, &local, merged);
    if (status == DLATTN_OK) status = dlattn__backend_for(&backend, p.device_type);
    if (status == DLATTN_OK) status = check_stream(p.device_type, exec);
    if (status == DLATTN_OK) status = backend->merge(&p, read, out, lse, exec);
    dlattn__memory.release(read);
    return status;
}

int32_t dlattn_merge(const dlattn_parts *parts, const dlattn_outputs *merged, const dlattn_exec *exec) {
    dlattn_exec local;
    int32_t status = begin(&local, exec);
    if (status == DLATTN_OK) status = merge(parts, merged, &local);
    return end(&local, status);
}

static int32_t dropout_mask(const dlattn_attention *attention, DLTensor *keep, const dlattn_exec *exec) {
    problem p;
    buffers x;
    const backend *backend = NULL;
    DLATTN_TRY(dlattn__problem_dropout_mask(&p, &x, attention, keep));
    DLATTN_TRY(dlattn__backend_for(&backend, p.device_type));
    DLATTN_TRY(check_stream(p.device_type, exec));
    return backend->dropout_mask(&p, &x, exec);
}

int32_t dlattn_dropout_mask(const dlattn_attention *attention, DLTensor *keep, const dlattn_exec *exec) {
    dlattn_exec local;
    int32_t status = begin(&local, exec);
    if (status == DLATTN_OK) status = dropout_mask(attention, keep, &local);
    return end(&local, status);
}

static int32_t kv_append(const dlattn_cache *cache, const dlattn_exec *exec) {
    append_problem p;
    append_buffers x;
    const backend *backend = NULL;
    DLATTN_TRY(dlattn__problem_cache(&p, &x, cache));
    DLATTN_TRY(dlattn__backend_for(&backend, p.device_type));
    DLATTN_TRY(check_stream(p.device_type, exec));
    return backend->kv_append(&p, &x, exec);
}

int32_t dlattn_kv_append(const dlattn_cache *cache, const dlattn_exec *exec) {
    dlattn_exec local;
    int32_t status = begin(&local, exec);
    if (status == DLATTN_OK) status = kv_append(cache, &local);
    return end(&local, status);
}

static int32_t rotary(const dlattn_rotation *rotation, const dlattn_exec *exec) {
    rotary_problem p;
    rotary_buffers x;
    const backend *backend = NULL;
    DLATTN_TRY(dlattn__problem_rotation(&p, &x, rotation));
    DLATTN_TRY(dlattn__backend_for(&backend, p.device_type));
    DLATTN_TRY(check_stream(p.device_type, exec));
    return backend->rotary(&p, &x, exec);
}

int32_t dlattn_rotary(const dlattn_rotation *rotation, const dlattn_exec *exec) {
    dlattn_exec local;
    int32_t status = begin(&local, exec);
    if (status == DLATTN_OK) status = rotary(rotation, &local);
    return end(&local, status);
}

#define DEFINE_INIT(name)                                                            \
    int32_t dlattn_##name##_init(dlattn_##name *name, int64_t struct_size) {         \
        dlattn__error_clear();                                                       \
        return dlattn__init_##name(name, struct_size);                               \
    }
DEFINE_INIT(attention)
DEFINE_INIT(outputs)
DEFINE_INIT(gradients)
DEFINE_INIT(exec)
DEFINE_INIT(parts)
DEFINE_INIT(cache)
DEFINE_INIT(rotation)

int32_t dlattn_version(void) {
    return 10000 * DLATTN_VERSION_MAJOR + 100 * DLATTN_VERSION_MINOR + DLATTN_VERSION_PATCH;
}

int32_t dlattn_abi_version(void) { return DLATTN_ABI_VERSION; }

int32_t dlattn_set_option(const char *name, const char *value) {
    dlattn__error_clear();
    return dlattn__option_set(name, value);
}

const char *dlattn_status_name(int32_t status) {
    static const char *const names[] = {
        "DLATTN_OK",           "DLATTN_ERR_ARGUMENT",  "DLATTN_ERR_SHAPE",         "DLATTN_ERR_DTYPE",
        "DLATTN_ERR_DEVICE",   "DLATTN_ERR_UNSUPPORTED", "DLATTN_ERR_WORKSPACE",   "DLATTN_ERR_OUT_OF_MEMORY",
        "DLATTN_ERR_CUDA",     "DLATTN_ERR_COMPILE",   "DLATTN_ERR_INTERNAL",
    };
    if (status < 0 || status >= (int32_t)(sizeof names / sizeof names[0])) return "DLATTN_ERR_UNKNOWN";
    return names[status];
}

const char *dlattn_last_error(void) { return dlattn__error_text(); }
