/* oracle_narrowing.h: what rounding each p and each ds once, to the type in which products take them, may move a result
 * by; part of oracle_tmpl.h.
 *
 * That type is the input's where it has 16 bits, and TF32 where products may be TF32; in all other problems it is the one
 * of every step, nothing is narrowed, and all is 0. docs/numerics.md derives the bound on a sum of rounded terms. */

/* What rounding x may cost: of a normal number, its roundoff; of a smaller one, half of the least subnormal, but not more
 * than all of it. 0 and 1 are numbers of every type. */
static NUMBER narrowing_of(const head *w, NUMBER x) {
    const DLDataType dtype = w->a->q->dtype;
    const int narrow = w->request->tf32 || dtype.bits == 16;
    const NUMBER u = w->request->tf32 ? (NUMBER)0x1p-11 : (NUMBER)dtype_roundoff(dtype), least = (NUMBER)dtype_least_normal(dtype);
    if (!narrow || x == 0 || x == 1) return 0;
    x = fabs(x);
    return x >= least ? u * x : x > u * least ? u * least : x;
}

/* sums[x] and squares[x] take on the terms moved * row[x]. */
static void add_moved(NUMBER *restrict sums, NUMBER *restrict squares, NUMBER moved, const NUMBER *restrict row, int64_t width) {
    for (int64_t x = 0; x < width; x++) {
        NUMBER term = fabs(moved * row[x]);
        sums[x] += term;
        squares[x] += term * term;
    }
}

/* Never more than all costs together; and 2 sqrt(3) standard deviations of independent ones. */
static NUMBER narrowed_sum(NUMBER sum, NUMBER squares) {
    NUMBER likely = 2 * sqrt(squares);
    return likely < sum ? likely : sum;
}

static void narrowing_of_gradients(head *w, int64_t i, real *dq) {
    NUMBER *sums = numbers(2 * w->D), *squares = sums + w->D;
    take_given(w, i);
    load_row(w->dout, w->request->dout, oracle_row(&w->queries, w->b, w->h, i), w->E);
    const NUMBER delta = row_delta(w, i);
    make_operands(w, w->dout, w->E);
    dot_columns(w->dp, w->dout, w->v_columns, w->E, w->keys.length);
    for (int64_t j = 0; j < w->keys.length; j++) {
        if (!w->visible[j]) continue;
        const int64_t row = oracle_row(&w->keys, w->b, w->g, j);
        const NUMBER dp = w->keep[j] == 0 ? 0 : w->dp[j] * w->keep[j];
        const NUMBER p_moved = narrowing_of(w, w->p[j]) * w->keep[j];
        const NUMBER ds_moved = narrowing_of(w, w->p[j] * (dp - delta) * w->cap[j]);
        add_moved(w->dv + row * w->E, w->dv_squares + row * w->E, p_moved, w->dout, w->E);
        add_moved(w->dk + row * w->D, w->dk_squares + row * w->D, ds_moved, w->q, w->D);
        add_moved(sums, squares, ds_moved, w->k + j * w->D, w->D);
    }
    for (int64_t d = 0; d < w->D; d++) dq[d] = fabs(w->scale) * narrowed_sum(sums[d], squares[d]);
    free(sums);
}

/* Row i, whose scores, p and lse are there. lse is the sum of p as it was before: nothing moves it. */
static void narrowing_row(head *w, int64_t i, oracle_result *result) {
    const int64_t row = oracle_row(&w->queries, w->b, w->h, i);
    NUMBER *sums = numbers(2 * w->E), *squares = sums + w->E;
    result->lse[oracle_lse_row(&w->queries, w->b, w->h, i)] = 0;
    for (int64_t j = 0; j < w->keys.length; j++)
        if (w->visible[j]) add_moved(sums, squares, narrowing_of(w, w->p[j]) * w->keep[j], w->v + j * w->E, w->E);
    for (int64_t e = 0; e < w->E; e++) result->out[row * w->E + e] = narrowed_sum(sums[e], squares[e]);
    if (w->request->dout) narrowing_of_gradients(w, i, result->dq + row * w->D);
    free(sums);
}

/* dk and dv, once all rows have been added. dbias and dsinks are sums of what no product took. */
static void narrow_sums(head *w) {
    for (int64_t x = 0, count = tensor_count(w->a->k); x < count; x++) w->dk[x] = narrowed_sum(w->dk[x], w->dk_squares[x]);
    for (int64_t x = 0, count = tensor_count(w->a->v); x < count; x++) w->dv[x] = narrowed_sum(w->dv[x], w->dv_squares[x]);
}
