/* case.h: what a named test problem can say; the problems themselves are in cases.h.
 *
 * A case states only what it stresses. CASE_DEFAULTS gives the rest: one small float32 problem, everything off. */
#ifndef DLATTN_TESTS_CASE_H
#define DLATTN_TESTS_CASE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { CASE_MAX_SEQUENCES = 12 };

enum case_dtype { F32, F16, BF16, F64 };

/* How tensors lie in memory. Each kind but COMPACT leaves elements of nobody between, before or after. */
enum case_strides {
    COMPACT,     /* strides NULL for inputs, written out for outputs */
    GAPS,        /* every stride larger than needed */
    NEGATIVE,    /* every dimension runs backwards */
    PERMUTED,    /* dimensions lie in memory in the opposite order, the last one outermost */
    BROADCAST,   /* k and v have stride 0 over batch and heads; all else has gaps */
    INTERLEAVED, /* q, k, v are views of one array, dq, dk, dv of another (needs M = N, D = E) */
    BYTE_OFFSET, /* data points before the first element */
    MISALIGNED   /* data is aligned to one element only */
};

enum case_inputs {
    NORMAL,
    LARGE,        /* q and k times 30: rows of one visible weight, large lse */
    ZERO_SCORES,  /* q = k = 0 */
    BAD_BIAS,     /* NaN, inf and huge values in bias where every score that reads it is hidden */
    BAD_KEYS,     /* NaN and inf in k rows that nobody sees and in q rows that see nothing; forward only */
    NAN_IN_Q,     /* one query row is NaN */
    INF_IN_V,     /* one value is inf */
    MINUS_INF_BIAS /* bias is -inf in visible places, whole rows included */
};

enum case_masks { MASK_RANDOM, MASK_HIDDEN_ROWS, MASK_PADDING, MASK_NOTHING_VISIBLE };
/* What the block table of a paged case says. Entries past a sequence's last key are no pages in all of them. */
enum case_tables {
    TABLE_SHUFFLED, /* each page belongs to one sequence, in no order; some to none */
    TABLE_SHARED,   /* the first half of sequence 0's pages is that of all others too */
    TABLE_WILD,     /* the second page of each sequence does not exist: page 0 is read. CUDA only, the CPU refuses it */
    TABLE_NO_PAGES  /* there are no pages at all, whatever table and lengths say. CUDA only */
};
enum case_segments { SEGMENTS_NONE, SEGMENTS_SORTED, SEGMENTS_SHUFFLED };
enum case_gradients { NO_GRADIENTS = -1, ALL_GRADIENTS = 0 };

typedef struct test_case {
    const char *name;
    int64_t B, H, G, M, N, D, E; /* packed sides: M or N is the sum of the lengths and is set by the instance */
    int32_t dtype, layout;
    uint32_t flags;
    int64_t window_left, window_right, block_size, block_count;
    int64_t q_start, k_start;
    int64_t q_starts[CASE_MAX_SEQUENCES], k_starts[CASE_MAX_SEQUENCES]; /* used when start_tensors is set */
    double scale, softcap, dropout;
    uint64_t seed, offset;
    int32_t start_tensors;
    int32_t rng_state;         /* 2 or 4: the generator's state is a tensor of so many elements */
    const char *bias, *mask;   /* one letter per dimension: b h m n in full, 1 broadcast, B H M N stride 0; NULL off */
    const char *alibi;         /* "h", "bh" or NULL */
    int32_t bias_f32, alibi_f32, sinks_f32;
    int32_t mask_kind, mask_bool, sinks, segments, index64;
    int32_t packed_q, packed_k;                                         /* B sequences of q_lengths, k_lengths */
    int64_t q_lengths[CASE_MAX_SEQUENCES], k_lengths[CASE_MAX_SEQUENCES]; /* room of each sequence */
    int64_t q_used[CASE_MAX_SEQUENCES], k_used[CASE_MAX_SEQUENCES];       /* seqlens, when use_* is set */
    int32_t use_q, use_k;
    int64_t tokens_before, tokens_after; /* packed: rows of no sequence */
    int64_t max_q, max_k;
    int64_t page;  /* keys of a page, in an N that is a multiple of it; 0: keys are not paged. Needs use_k; forward only */
    int32_t table; /* TABLE_X */
    int32_t strides, inputs;
    int32_t f32_out, f32_gradients, dlse;
    int32_t gradients; /* NO_GRADIENTS: forward only */
    int32_t cuda_only; /* so large that only a GPU's kernels are worth the oracle's time, or refused by the CPU */
} test_case;

#define CASE_DEFAULTS .B = 1, .H = 2, .G = 1, .M = 19, .N = 23, .D = 16, .E = 16, .dlse = 1

/* The table, and how it is searched and written. */
extern const test_case test_cases[];
extern const int64_t test_case_count;
const test_case *case_find(const char *name);
/* The dtype of this name (f32, f16, bf16, f64), or -1. */
int32_t case_dtype_named(const char *name);
const char *case_dtype_name(int32_t dtype);
/* Does `pattern` select the name? A pattern with * or ? is a glob, any other one a part of the name; NULL: all. */
int case_matches(const test_case *c, const char *pattern);
void case_print_json(FILE *to, const test_case *c);
/* One line: sizes and what is switched on. */
void case_describe(char *to, size_t bytes, const test_case *c);

#endif
