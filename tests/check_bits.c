/* check_bits.c: the same bits for any number of threads, any workspace, any subset of outputs, and in every call.
 *
 * On CUDA a smaller workspace or fewer gradients may mean another plan, whose results are judged by the bound. The
 * forward and, with DLATTN_DETERMINISTIC, the backward give the same bits again, from a captured graph too. */
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* The elements of a tensor, one after the other. */
static unsigned char *copy_elements(const DLTensor *t) {
    int64_t count = tensor_count(t), item = tensor_item_bytes(t);
    unsigned char *copy = malloc((size_t)(count * item + 1));
    if (!copy) abort();
    for (int64_t n = 0; n < count; n++) memcpy(copy + n * item, tensor_address(t, n), (size_t)item);
    return copy;
}

typedef struct snapshot {
    unsigned char *elements[T_COUNT];
} snapshot;

static void take(snapshot *s, const instance *x, int first, int last) {
    for (int id = first; id <= last; id++)
        if (x->tensors[id].used) s->elements[id] = copy_elements(&x->tensors[id].dl);
}

static void drop(snapshot *s) {
    for (int id = 0; id < T_COUNT; id++) free(s->elements[id]);
}

static void expect_same(check_report *report, const snapshot *s, const instance *x, int id, const char *when, long long n) {
    const held_tensor *t = &x->tensors[id];
    char message[100];
    if (!t->used || !s->elements[id]) return;
    unsigned char *now = copy_elements(&t->dl);
    if (memcmp(now, s->elements[id], (size_t)(tensor_count(&t->dl) * tensor_item_bytes(&t->dl))))
        check_fail(report, "%s has other bits %s (%lld)", tensor_names[id], when, n);
    free(now);
    if (instance_untouched(x, message, sizeof message)) check_fail(report, "%s %s (%lld)", message, when, n);
}

/* Runs forward or backward once more and compares. */
typedef struct rerun {
    check_report *report;
    instance *x;
    const check_truth *truth;
    const snapshot *before;
    int32_t backward;
    int32_t judged; /* by the bound instead of bit for bit */
} rerun;

static void compare(const rerun *r, int id, const char *when, long long n) {
    char text[100];
    if (!r->judged) {
        expect_same(r->report, r->before, r->x, id, when, n);
        return;
    }
    snprintf(text, sizeof text, "%s: ", when);
    check_tensor(r->report, r->x, r->truth, id, text);
    if (instance_untouched(r->x, text, sizeof text)) check_fail(r->report, "%s %s", text, when);
}

static void run_again(const rerun *r, const dlattn_exec *exec, const char *when, long long n) {
    int first = r->backward ? T_DQ : T_OUT, last = r->backward ? T_DSINKS : T_LSE;
    instance_poison(r->x, first, last);
    int32_t status = r->backward ? device_backward(&r->x->attention, &r->x->gradients, exec)
                                 : device_forward(&r->x->attention, &r->x->outputs, exec);
    if (check_status(r->report, status, when)) return;
    for (int id = first; id <= last; id++) compare(r, id, when, n);
}

static int32_t query_workspace(const rerun *r, const dlattn_exec *exec, uint64_t *bytes, uint64_t *least) {
    return r->backward ? device_backward_workspace(&r->x->attention, &r->x->gradients, exec, bytes, least)
                       : device_forward_workspace(&r->x->attention, &r->x->outputs, exec, bytes, least);
}

/* The questions that read no data: the same answers with data NULL everywhere. */
static void ask_without_data(const rerun *r, const dlattn_exec *exec, uint64_t bytes, uint64_t least) {
    void *data[T_COUNT];
    char text[4096];
    uint64_t blind_bytes = 0, blind_least = 0;
    const dlattn_outputs *outputs = r->backward ? NULL : &r->x->outputs;
    const dlattn_gradients *gradients = r->backward ? &r->x->gradients : NULL;
    for (int id = 0; id < T_COUNT; id++) data[id] = r->x->tensors[id].dl.data, r->x->tensors[id].dl.data = NULL;
    check_status(r->report, query_workspace(r, exec, &blind_bytes, &blind_least), "workspace query without data");
    check_status(r->report, device_prepare(&r->x->attention, outputs, gradients, exec), "dlattn_prepare without data");
    for (int id = 0; id < T_COUNT; id++) r->x->tensors[id].dl.data = data[id];
    check_status(r->report, device_explain(&r->x->attention, outputs, gradients, exec, text, sizeof text), "dlattn_explain");
    if (blind_bytes != bytes || blind_least != least) check_fail(r->report, "another workspace without data");
}

/* A workspace of exactly the asked size, poisoned, between fences. */
static void run_with_workspace(const rerun *r, int32_t threads, int minimum) {
    uint64_t bytes = 0, least = 0;
    dlattn_exec exec = {.struct_size = sizeof exec, .num_threads = threads};
    if (check_status(r->report, query_workspace(r, &exec, &bytes, &least), "workspace query")) return;
    ask_without_data(r, &exec, bytes, least);
    if (least > bytes) check_fail(r->report, "minimum workspace %llu is above %llu", (unsigned long long)least, (unsigned long long)bytes);
    exec.workspace_bytes = minimum ? least : bytes;
    exec.workspace = guarded_alloc((size_t)exec.workspace_bytes);
    rerun other = *r;
    other.judged = r->judged || (minimum && least < bytes && device_kind() == DEVICE_CUDA);
    run_again(&other, &exec, minimum ? "with the least workspace" : "with a workspace", (long long)exec.workspace_bytes);
    if (!guarded_intact(exec.workspace, (size_t)exec.workspace_bytes))
        check_fail(r->report, "memory outside the workspace of %llu bytes was written", (unsigned long long)exec.workspace_bytes);
    guarded_free(exec.workspace);
}

static void repeat_on_device(const rerun *r, const check_options *options) {
    for (int32_t n = 0; n < options->repeats && !r->judged && !r->report->failures; n++) run_again(r, NULL, "in another call", n);
    device_capture(1);
    run_again(r, NULL, "from a captured graph", 0);
    device_capture(0);
}

/* Where products are never TF32, the flag that allows it changes nothing. */
static void forbid_tf32(const rerun *r) {
    const int may_matter = device_kind() == DEVICE_CUDA && r->x->test->dtype == F32;
    if (may_matter || !(r->x->attention.flags & DLATTN_ALLOW_TF32)) return;
    r->x->attention.flags &= ~(uint32_t)DLATTN_ALLOW_TF32;
    run_again(r, NULL, "without DLATTN_ALLOW_TF32", 0);
    r->x->attention.flags |= DLATTN_ALLOW_TF32;
}

static void vary(const rerun *r, const check_options *options) {
    forbid_tf32(r);
    if (device_kind() == DEVICE_CUDA) {
        repeat_on_device(r, options);
        run_with_workspace(r, 0, 0);
        run_with_workspace(r, 0, 1);
        return;
    }
    run_again(r, NULL, "in a second call", 0);
    for (int32_t n = 0; n < options->thread_count; n++) {
        dlattn_exec exec = {.struct_size = sizeof exec, .num_threads = options->threads[n]};
        run_again(r, &exec, "with another number of threads", options->threads[n]);
    }
    run_with_workspace(r, options->threads[options->thread_count - 1], 0);
    run_with_workspace(r, options->threads[options->thread_count - 1], 1);
}

static void forward_without_lse(const rerun *r) {
    dlattn_outputs outputs = {sizeof outputs, r->x->outputs.out, NULL};
    instance_poison(r->x, T_OUT, T_OUT);
    if (check_status(r->report, device_forward(&r->x->attention, &outputs, NULL), "forward without lse")) return;
    expect_same(r->report, r->before, r->x, T_OUT, "without lse", 0);
}

/* Each gradient alone, and all but each. */
static void gradient_subsets(const rerun *r) {
    dlattn_gradients all = r->x->gradients;
    for (int pass = 0; pass < 10; pass++) {
        int one = T_DQ + pass % 5, alone = pass < 5;
        DLTensor **fields[] = {&r->x->gradients.dq, &r->x->gradients.dk, &r->x->gradients.dv, &r->x->gradients.dbias,
                               &r->x->gradients.dsinks};
        if (!r->x->tensors[one].used) continue;
        for (int n = 0; n < 5; n++)
            if ((T_DQ + n == one) != alone) *fields[n] = NULL;
        instance_poison(r->x, T_DQ, T_DSINKS);
        const char *when = alone ? "when it is the only gradient" : "when one gradient is left out";
        if (!check_status(r->report, device_backward(&r->x->attention, &r->x->gradients, NULL), when))
            for (int n = 0; n < 5; n++)
                if (*fields[n]) compare(r, T_DQ + n, when, one - T_DQ);
        r->x->gradients = all;
    }
}

void check_forward_bits(check_report *report, instance *x, const check_truth *truth, const check_options *options) {
    snapshot before = {{0}};
    rerun forward = {report, x, truth, &before, 0, 0};
    if (options->brief) return;
    take(&before, x, T_OUT, T_LSE);
    vary(&forward, options);
    forward_without_lse(&forward);
    drop(&before);
}

/* CUDA: the backward as the case has it, judged by the bound, and the deterministic one, whose bits are compared. */
static void backward_on_device(const rerun *r, const check_options *options) {
    rerun judged = *r;
    uint32_t flags = r->x->attention.flags;
    snapshot before = {{0}};
    judged.judged = 1;
    if (!options->brief) {
        vary(&judged, options);
        gradient_subsets(&judged);
    }
    r->x->attention.flags |= DLATTN_DETERMINISTIC;
    run_again(&judged, NULL, "when deterministic", 0);
    take(&before, r->x, T_DQ, T_DSINKS);
    rerun again = *r;
    again.before = &before;
    if (!options->brief) repeat_on_device(&again, options);
    r->x->attention.flags = flags;
    drop(&before);
}

void check_backward_bits(check_report *report, instance *x, const check_truth *truth, const check_options *options) {
    snapshot before = {{0}};
    rerun backward = {report, x, truth, &before, 1, 0};
    if (device_kind() == DEVICE_CUDA) {
        backward_on_device(&backward, options);
        return;
    }
    if (options->brief) return;
    take(&before, x, T_DQ, T_DSINKS);
    vary(&backward, options);
    gradient_subsets(&backward);
    drop(&before);
}
