/* explain.c: a problem and its plan in words, for dlattn_explain. */
#include "explain.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tensor.h"

void dlattn__text_add(text *t, const char *format, ...) {
    if (t->bytes <= 1) return;
    va_list arguments;
    va_start(arguments, format);
    int64_t length = vsnprintf(t->at, (size_t)t->bytes, format, arguments);
    va_end(arguments);
    if (length < 0) return;
    if (length > t->bytes - 1) length = t->bytes - 1;
    t->at += length;
    t->bytes -= length;
}

static void add_operand(text *t, const char *name, const operand *o, int32_t rank) {
    char shape[DLATTN_SHAPE_TEXT], strides[DLATTN_SHAPE_TEXT];
    if (o->dtype == DLATTN_T_NONE) return;
    dlattn__text_add(t, "  %-13s %s %s, strides %s\n", name, dlattn__dtype_name(o->dtype),
                     dlattn__shape_text(shape, o->extent, rank), dlattn__shape_text(strides, o->stride, rank));
}

static void add_sizes(text *t, const problem *p) {
    static const char *const operations[] = {"", "forward", "backward", "dropout mask"};
    dlattn__text_add(t, "problem: %s, %s\n", operations[p->op], dlattn__dtype_name(p->dtype));
    dlattn__text_add(t, "  sizes         batch %" PRId64 ", query heads %" PRId64 ", key heads %" PRId64, p->B, p->H,
                     p->G);
    dlattn__text_add(t, ", head sizes %" PRId64 " and %" PRId64 "\n", p->D, p->E);
    dlattn__text_add(t, "  queries       %s, at most %" PRId64 " of a sequence%s\n", p->packed_q ? "packed" : "padded",
                     p->M, p->seqlens_q.dtype ? ", used lengths given" : "");
    dlattn__text_add(t, "  keys          %s, at most %" PRId64 " of a sequence%s\n",
                     p->page ? "paged" : p->packed_k ? "packed" : "padded", p->N, p->seqlens_k.dtype ? ", used lengths given" : "");
}

static void add_bound(text *t, const char *name, int64_t bound) {
    if (bound < 0)
        dlattn__text_add(t, "%s unlimited", name);
    else
        dlattn__text_add(t, "%s %" PRId64, name, bound);
}

static void add_masks(text *t, const problem *p) {
    if (p->flags & DLATTN_POSITIONS) {
        dlattn__text_add(t, "  positions     explicit: queries from ");
        dlattn__text_add(t, p->q_starts.dtype ? "q_starts" : "%" PRId64, p->q_start);
        dlattn__text_add(t, ", keys from ");
        dlattn__text_add(t, p->k_starts.dtype ? "k_starts" : "%" PRId64, p->k_start);
        dlattn__text_add(t, "\n");
    } else {
        dlattn__text_add(t, "  positions     %s\n", p->flags & DLATTN_TOP_LEFT
                                                         ? "top-left: the first query stands at the first key"
                                                         : "bottom-right: the last query stands at the last key");
    }
    if (p->flags & DLATTN_CAUSAL) dlattn__text_add(t, "  mask          causal\n");
    if (p->flags & DLATTN_WINDOW) {
        dlattn__text_add(t, "  mask          window, ");
        add_bound(t, "left", p->window_left);
        add_bound(t, ", right", p->window_right);
        dlattn__text_add(t, "\n");
    }
    if (p->flags & DLATTN_BLOCK_WINDOW)
        dlattn__text_add(t, "  mask          block window, %" PRId64 " blocks of %" PRId64 "\n", p->block_count,
                         p->block_size);
    if (p->q_segments.dtype) dlattn__text_add(t, "  mask          segments\n");
}

static void add_scores(text *t, const problem *p) {
    dlattn__text_add(t, "  scale         %g%s\n", p->scale, p->flags & DLATTN_SCALE ? "" : " (1/sqrt(D))");
    if (p->softcap > 0) dlattn__text_add(t, "  softcap       %g\n", p->softcap);
    if (p->dropout_threshold)
        dlattn__text_add(t, "  dropout       %g (%d of 256 bytes), seed and offset %s\n", p->dropout,
                         (int)p->dropout_threshold, p->rng_state.dtype ? "from rng_state" : "given");
}

static void add_operands(text *t, const problem *p) {
    add_operand(t, "q", &p->q, 4);
    add_operand(t, "k", &p->k, 4);
    add_operand(t, "v", &p->v, 4);
    add_operand(t, "out", &p->out, 4);
    add_operand(t, "lse", &p->lse, 3);
    add_operand(t, "dout", &p->dout, 4);
    add_operand(t, "dlse", &p->dlse, 3);
    add_operand(t, "dq", &p->dq, 4);
    add_operand(t, "dk", &p->dk, 4);
    add_operand(t, "dv", &p->dv, 4);
    add_operand(t, "bias", &p->bias, 4);
    add_operand(t, "dbias", &p->dbias, 4);
    add_operand(t, "mask", &p->mask, 4);
    add_operand(t, "alibi_slopes", &p->alibi_slopes, 2);
    add_operand(t, "sinks", &p->sinks, 1);
    add_operand(t, "dsinks", &p->dsinks, 1);
}

void dlattn__explain_problem(text *t, const problem *p) {
    add_sizes(t, p);
    add_masks(t, p);
    add_scores(t, p);
    add_operands(t, p);
}

void dlattn__explain_plan(text *t, const plan *plan) {
    dlattn__text_add(t, "backend: %s\n", plan->backend->name);
    if (plan->note[0]) dlattn__text_add(t, "plan: %s\n", plan->note);
    dlattn__text_add(t, "workspace: %" PRIu64 " bytes, at least %" PRIu64 "\n", plan->workspace_bytes,
                     plan->minimum_bytes);
    dlattn__text_add(t, "threads: at most %d\n", (int)plan->num_threads);
}

void dlattn__explain_library(text *t) {
    dlattn__text_add(t, "dlattn: %d.%d.%d, ABI %d\n", DLATTN_VERSION_MAJOR, DLATTN_VERSION_MINOR, DLATTN_VERSION_PATCH,
                     DLATTN_ABI_VERSION);
    for (const backend *const *b = dlattn__backends; *b; b++) {
        char lines[6144] = "";
        (*b)->describe(lines, sizeof lines);
        size_t length = strlen(lines);
        dlattn__text_add(t, "backend: %s\n%s%s", (*b)->name, lines, length && lines[length - 1] != '\n' ? "\n" : "");
    }
}
