/* oracle.h: attention computed by plain loops straight from the formulas in dlattn.h, to judge every backend.
 *
 * It reads the public structs and shares no code with the library: masks, positions, Philox and gradients are written
 * out again, so that no mistake can be in both. Arithmetic decides what the result is good for:
 *     ORACLE_REFERENCE   double, or long double for float64 inputs: what is true
 *     ORACLE_PLAIN       each step rounded to the input dtype: what an honest direct evaluation gets
 *     ORACLE_PLAIN_F32   each step in float (double for float64 inputs): judges lse
 *     ORACLE_ROUNDING    how much one float32 (float64) rounding in every step may move a result, to first order: running
 *                        error analysis (Higham, 2002, section 3.3), see docs/numerics.md
 *     ORACLE_NARROWING   how much one rounding of each p and each ds, to the type in which products take them, may move a
 *                        result: 0 where that type is the one of all other steps */
#ifndef DLATTN_TESTS_ORACLE_H
#define DLATTN_TESTS_ORACLE_H

#include <dlattn/dlattn.h>

#include "element.h"

enum { ORACLE_REFERENCE, ORACLE_PLAIN, ORACLE_PLAIN_F32, ORACLE_ROUNDING, ORACLE_NARROWING };

/* What one side (queries or keys) looks like. Rows of tokens are numbered row-major over all dimensions but the last. */
typedef struct oracle_side {
    int64_t count, heads;  /* sequences; heads */
    int64_t tokens;        /* extent of the token dimension: of one sequence when padded, of all when packed */
    int64_t longest;       /* what a bias or mask dimension over this side must hold */
    int64_t start, length; /* of the sequence that oracle_sides was asked about */
    int32_t packed, layout;
    const DLTensor *table; /* keys in pages: `pool` of them, `page` tokens each; count is that of the table's rows. NULL: not */
    int64_t page, pool;
} oracle_side;

/* Fills both sides for sequence b. */
void oracle_sides(const dlattn_attention *a, int64_t b, oracle_side *queries, oracle_side *keys);
int64_t oracle_row(const oracle_side *side, int64_t b, int64_t h, int64_t at);     /* in q, k, v, out, gradients */
int64_t oracle_lse_row(const oracle_side *side, int64_t b, int64_t h, int64_t at); /* in lse, dlse */
int64_t oracle_rows(const oracle_side *side);                                      /* how many there are */

/* May query i of sequence b see key j under every mask that is set? Lengths included. */
int oracle_visible(const dlattn_attention *a, int64_t b, int64_t h, int64_t i, int64_t j);
/* Does dropout keep the score? */
int oracle_kept(const dlattn_attention *a, int64_t b, int64_t h, int64_t i, int64_t j);
/* i' - j' */
int64_t oracle_distance(const dlattn_attention *a, int64_t b, int64_t i, int64_t j);
double oracle_dropout_factor(double dropout); /* 256/(256-t), 1 when off, 0 when nothing is kept */

/* Dense row-major arrays in the shapes of the tensors of the same name. Arrays not wanted are NULL. */
typedef struct oracle_result {
    real *out, *lse, *dq, *dk, *dv, *dbias, *dsinks;
} oracle_result;

/* What to compute. Without dout only out and lse. given_out and given_lse are what the backward is handed; NULL: the
 * oracle's own. *_dtype is what PLAIN rounds its last step to. */
typedef struct oracle_request {
    const dlattn_attention *attention;
    const DLTensor *dout, *dlse, *given_out, *given_lse;
    DLDataType out_dtype, gradient_dtype, dbias_dtype, dsinks_dtype;
    int32_t arithmetic;
    int32_t tf32; /* products take TF32: of q, k, v and dout in every arithmetic, of p and ds in PLAIN and PLAIN_F32 */
} oracle_request;

oracle_result oracle_run(const oracle_request *request);
void oracle_free(oracle_result *result);

/* The three instances of oracle_tmpl.h. round and round_* may be NULL for no rounding. */
void oracle_run_float(const oracle_request *request, oracle_result *result);
void oracle_run_double(const oracle_request *request, oracle_result *result);
void oracle_run_long_double(const oracle_request *request, oracle_result *result);

#endif
