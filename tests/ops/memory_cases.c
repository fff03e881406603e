/* Ops of the latent memory on rows: laid together, attended to from another layout, modulated, averaged, scaled. */
#include "tests/ops/memory_reference.h"
#include "tests/ops/op_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double *new_doubles(int64_t count) { return calloc((size_t)count + 1, sizeof(double)); }

static Tolerance of_sum(DType dtype, double terms, double largest) {
    Tolerance tolerance = one_rounding(dtype);
    tolerance.absolute = 2e-7 * sqrt(terms) * largest; /* where a sum cancels */
    return tolerance;
}

/* A layout of its own; what only dropout reads is left out. */
typedef struct OwnLayout {
    SequenceLayout layout;
    int32_t offsets[MAX_SEQUENCES + 3];
} OwnLayout;

/* The host pointer is set by whoever holds the result, which is returned by value. */
static OwnLayout own_layout(Run *run, const int64_t *lengths, int64_t sequences) {
    OwnLayout own = {.layout = {.sequences = sequences}};
    for (int64_t s = 0; s < sequences; ++s) {
        own.offsets[s + 1] = own.offsets[s] + (int32_t)lengths[s];
        if (lengths[s] > own.layout.longest) own.layout.longest = lengths[s];
    }
    own.layout.tokens = own.offsets[sequences];
    own.layout.offsets = run_indices(run, own.offsets, sequences + 1).data;
    return own;
}

/* The shape's sequences with empty ones around and between them. */
static OwnLayout layout_with_empty(Run *run, const Shape *s) {
    int64_t lengths[MAX_SEQUENCES + 2] = {0}, sequences = 1;
    for (int i = 0; i < MAX_SEQUENCES && s->lengths[i]; ++i) {
        lengths[sequences++] = s->lengths[i];
        if (i == 0 && s->lengths[1]) ++sequences;
        if (sequences == MAX_SEQUENCES + 1) break;
    }
    return own_layout(run, lengths, sequences + 1);
}

/* ---- rows ---- */

/* Two sources laid into one: rows of x where the index is not negative, in no order and some of them often, the rest as before.
 * Sources are rows of a packed batch, or a few vectors that are named all the time. */
static void check_rows(Run *run, const Shape *s, DType act, int64_t source_rows) {
    int64_t rows = 2 * shape_tokens(s) + 3, width = s->width;
    int32_t *index = calloc((size_t)rows + 1, sizeof *index);
    for (int64_t n = 0; n < rows; ++n)
        index[n] = n % 3 == 1 || !source_rows ? -1 - (int32_t)n : (int32_t)(run_uniform(run) * (double)source_rows);
    Value x = run_random(run, act, SHAPE2(source_rows, width), 1.0), y = run_random(run, act, SHAPE2(rows, width), 1.0);
    Value dy = run_random(run, act, SHAPE2(rows, width), 1.0), dx = run_poisoned(run, act, SHAPE2(source_rows, width));
    Value added = run_random(run, act, SHAPE2(source_rows, width), 1.0);
    Value fp32 = run_random(run, DTYPE_F32, SHAPE2(source_rows, width), 1.0);
    Tensor indices = run_indices(run, index, rows);
    double *sum = new_doubles(source_rows * width);
    const Ops *ops = run->device->ops;
    run_succeeds(run, ops->gather_rows(run->device, y.tensor, x.tensor, indices));
    run_succeeds(run, ops->scatter_rows(run->device, run->arena, dx.tensor, false, dy.tensor, indices));
    run_succeeds(run, ops->scatter_rows(run->device, run->arena, added.tensor, true, dy.tensor, indices));
    run_succeeds(run, ops->scatter_rows(run->device, run->arena, fp32.tensor, true, dy.tensor, indices));
    for (int64_t n = 0; n < rows; ++n)
        for (int64_t i = 0; i < width && index[n] >= 0; ++i) {
            y.host[n * width + i] = x.host[index[n] * width + i];
            sum[index[n] * width + i] += dy.host[n * width + i];
        }
    for (int64_t i = 0; i < source_rows * width; ++i) added.host[i] += sum[i], fp32.host[i] += sum[i];
    run_expect(run, y, y.host, (Tolerance){0, 0, 0}, "y");
    run_expect(run, dx, sum, of_sum(act, (double)rows, 1), "dx");
    run_expect(run, added, added.host, of_sum(act, (double)rows, 1), "accumulated dx");
    run_expect(run, fp32, fp32.host, of_sum(DTYPE_F32, (double)rows, 1), "dx of a parameter");
    free(sum);
    free(index);
}

static void rows_of_batch(Run *run, const Shape *s, DType act) { check_rows(run, s, act, shape_tokens(s)); }
static void rows_of_few(Run *run, const Shape *s, DType act) { check_rows(run, s, act, 3); }

/* ---- attention between two layouts ---- */

typedef struct CrossOperands {
    OwnLayout queries, keys;
    AttentionShape shape;
    Value q, k, v, out, lse, dout;
    double *expected_out, *expected_lse;
    int64_t query_elements, key_elements;
} CrossOperands;

/* At most 150 queries to a sequence; by turns more keys, fewer keys (under a causal mask some queries see none), no keys, many
 * keys; and at the end keys without queries. */
static CrossOperands cross_operands(Run *run, const Shape *s, DType act, bool causal) {
    int64_t query_lengths[MAX_SEQUENCES + 1] = {0}, key_lengths[MAX_SEQUENCES + 1] = {0}, sequences = 0;
    for (; sequences < MAX_SEQUENCES && s->lengths[sequences]; ++sequences) {
        int64_t n = s->lengths[sequences], turns[] = {n + 37, n / 2, 0, 3 * n + 5};
        query_lengths[sequences] = n < 150 ? n : 150;
        key_lengths[sequences] = turns[sequences % 4];
    }
    key_lengths[sequences] = 5;
    int64_t h = s->query_heads, g = s->key_heads, e = s->head_dimension;
    CrossOperands c = {.queries = own_layout(run, query_lengths, sequences + 1),
                       .keys = own_layout(run, key_lengths, sequences + 1),
                       .shape = {h, g, e, 1.0f / sqrtf((float)e), causal}};
    int64_t tq = c.queries.layout.tokens, tk = c.keys.layout.tokens;
    c.q = run_random(run, act, SHAPE3(tq, h, e), 1.5);
    c.k = run_random(run, act, SHAPE3(tk, g, e), 1.5);
    c.v = run_random(run, act, SHAPE3(tk, g, e), 1.0);
    c.dout = run_random(run, act, SHAPE3(tq, h, e), 1.0);
    c.out = run_poisoned(run, act, SHAPE3(tq, h, e));
    c.lse = run_poisoned(run, DTYPE_F32, SHAPE2(h, tq));
    c.query_elements = tq * h * e;
    c.key_elements = tk * g * e;
    c.expected_out = new_doubles(c.query_elements);
    c.expected_lse = new_doubles(h * tq);
    return c;
}

static void cross_forward(Run *run, CrossOperands *c) {
    c->queries.layout.host_offsets = c->queries.offsets;
    c->keys.layout.host_offsets = c->keys.offsets;
    reference_cross_attention_forward(c->expected_out, c->expected_lse, c->q.host, c->k.host, c->v.host, &c->queries.layout,
                                      &c->keys.layout, c->shape);
    run_succeeds(run, run->device->ops->cross_attention_forward(run->device, run->arena, c->out.tensor, c->lse.tensor,
                                                                c->q.tensor, c->k.tensor, c->v.tensor, &c->queries.layout,
                                                                &c->keys.layout, c->shape));
}

/* Rows of lse without a key are -infinity, and are exactly that. */
static void expect_lse(Run *run, const CrossOperands *c) {
    double *got = run_read(run, c->lse.tensor);
    for (int64_t i = 0; i < tensor_elements(c->lse.tensor); ++i) {
        double expected = c->expected_lse[i];
        if (got[i] != expected && !(fabs(got[i] - expected) <= 1e-5 * (1 + fabs(expected))))
            fail_msg("%s: lse[%lld] is %.9g, expected %.9g", run->label, (long long)i, got[i], expected);
    }
    free(got);
}

static void cross_attention(Run *run, const Shape *s, DType act) {
    for (int causal = 0; causal < 2; ++causal) {
        CrossOperands c = cross_operands(run, s, act, causal);
        cross_forward(run, &c);
        run_expect(run, c.out, c.expected_out, one_rounding(act), causal ? "causal out" : "out");
        expect_lse(run, &c);
        free(c.expected_out);
        free(c.expected_lse);
    }
}

/* From the reference's out and lse, so that no backend goes on from its own rounding. */
static void cross_attention_gradient(Run *run, const Shape *s, DType act) {
    int64_t h = s->query_heads, g = s->key_heads, e = s->head_dimension;
    for (int causal = 0; causal < 2; ++causal) {
        CrossOperands c = cross_operands(run, s, act, causal);
        cross_forward(run, &c);
        int64_t tq = c.queries.layout.tokens, tk = c.keys.layout.tokens;
        Value out = run_values(run, act, SHAPE3(tq, h, e), c.expected_out);
        Value lse = run_values(run, DTYPE_F32, SHAPE2(h, tq), c.expected_lse);
        Value dq = run_poisoned(run, act, SHAPE3(tq, h, e)), dk = run_poisoned(run, act, SHAPE3(tk, g, e));
        Value dv = run_poisoned(run, act, SHAPE3(tk, g, e));
        run_succeeds(run, run->device->ops->cross_attention_backward(
                              run->device, run->arena, dq.tensor, dk.tensor, dv.tensor, c.dout.tensor, out.tensor, lse.tensor,
                              c.q.tensor, c.k.tensor, c.v.tensor, &c.queries.layout, &c.keys.layout, c.shape));
        double *expected_q = new_doubles(c.query_elements), *expected_k = new_doubles(c.key_elements);
        double *expected_v = new_doubles(c.key_elements);
        reference_cross_attention_backward(expected_q, expected_k, expected_v, c.dout.host, out.host, c.q.host, c.k.host,
                                           c.v.host, &c.queries.layout, &c.keys.layout, c.shape);
        Tolerance score = one_rounding(act);
        score.absolute = 4e-7 * sqrt((double)e); /* a query's exact gradient may be zero, a difference of numbers near one */
        run_expect(run, dq, expected_q, score, causal ? "causal dq" : "dq");
        run_expect(run, dk, expected_k, score, causal ? "causal dk" : "dk");
        run_expect(run, dv, expected_v, one_rounding(act), causal ? "causal dv" : "dv");
        free(expected_q);
        free(expected_k);
        free(expected_v);
        free(c.expected_out);
        free(c.expected_lse);
    }
}

static void expect_same_bytes(Run *run, Value a, Value b, const char *what) {
    double *first = run_read(run, a.tensor), *second = run_read(run, b.tensor);
    if (memcmp(first, second, (size_t)tensor_elements(a.tensor) * sizeof *first) != 0)
        fail_msg("%s: %s has other bits than attention inside a sequence", run->label, what);
    free(first);
    free(second);
}

/* Between equal layouts it is attention inside a sequence, to the bit. */
static void cross_attention_of_one_layout(Run *run, const Shape *s, DType act) {
    if (shape_tokens(s) > 300) return;
    int64_t t = shape_tokens(s), h = s->query_heads, g = s->key_heads, e = s->head_dimension;
    const SequenceLayout *layout = &run->layout;
    const Ops *ops = run->device->ops;
    for (int causal = 0; causal < 2; ++causal) {
        AttentionShape shape = {h, g, e, 0.2f, causal};
        Value q = run_random(run, act, SHAPE3(t, h, e), 1.0), k = run_random(run, act, SHAPE3(t, g, e), 1.0);
        Value v = run_random(run, act, SHAPE3(t, g, e), 1.0), dout = run_random(run, act, SHAPE3(t, h, e), 1.0);
        Value results[2][5]; /* out, lse, dq, dk, dv */
        for (int cross = 0; cross < 2; ++cross) {
            Value *r = results[cross];
            for (int i = 0; i < 5; ++i)
                r[i] = i == 1 ? run_poisoned(run, DTYPE_F32, SHAPE2(h, t)) : run_poisoned(run, act, SHAPE3(t, i < 3 ? h : g, e));
        }
        Value *a = results[0], *b = results[1];
        run_succeeds(run, ops->attention_forward(run->device, run->arena, a[0].tensor, a[1].tensor, q.tensor, k.tensor, v.tensor,
                                                 layout, shape));
        run_succeeds(run, ops->cross_attention_forward(run->device, run->arena, b[0].tensor, b[1].tensor, q.tensor, k.tensor,
                                                       v.tensor, layout, layout, shape));
        run_succeeds(run, ops->attention_backward(run->device, run->arena, a[2].tensor, a[3].tensor, a[4].tensor, dout.tensor,
                                                  a[0].tensor, a[1].tensor, q.tensor, k.tensor, v.tensor, layout, shape));
        run_succeeds(run, ops->cross_attention_backward(run->device, run->arena, b[2].tensor, b[3].tensor, b[4].tensor,
                                                        dout.tensor, b[0].tensor, b[1].tensor, q.tensor, k.tensor, v.tensor,
                                                        layout, layout, shape));
        const char *names[] = {"out", "lse", "dq", "dk", "dv"};
        for (int i = 0; i < 5; ++i) expect_same_bytes(run, a[i], b[i], names[i]);
    }
}

/* ---- modulation, means, one factor ---- */

enum { PLACES = 3 };

static void film(Run *run, const Shape *s, DType act) {
    OwnLayout own = layout_with_empty(run, s);
    own.layout.host_offsets = own.offsets;
    const SequenceLayout *layout = &own.layout;
    int64_t t = layout->tokens, width = s->width, columns = 2 * PLACES * width, codes = layout->sequences * columns;
    Value x = run_random(run, act, SHAPE2(t, width), 1.0), dy = run_random(run, act, SHAPE2(t, width), 1.0);
    Value modulation = run_random(run, act, SHAPE2(layout->sequences, columns), 0.5);
    Value y = run_poisoned(run, act, SHAPE2(t, width)), dx = run_poisoned(run, act, SHAPE2(t, width));
    Value added = run_random(run, act, SHAPE2(t, width), 1.0);
    Value dmodulation = run_random(run, act, SHAPE2(layout->sequences, columns), 1.0);
    double *expected = new_doubles(t * width), *gradient = new_doubles(t * width), *sum = new_doubles(codes);
    const Ops *ops = run->device->ops;
    reference_film_forward(expected, x.host, modulation.host, 1, layout, width, columns);
    memcpy(sum, dmodulation.host, (size_t)codes * sizeof *sum);
    reference_film_backward(gradient, sum, dy.host, x.host, modulation.host, 1, layout, width, columns);
    for (int64_t i = 0; i < t * width; ++i) added.host[i] += gradient[i];
    run_succeeds(run, ops->film_forward(run->device, y.tensor, x.tensor, modulation.tensor, 1, layout));
    run_succeeds(run, ops->film_backward(run->device, dx.tensor, false, dmodulation.tensor, dy.tensor, x.tensor,
                                         modulation.tensor, 1, layout));
    run_succeeds(run, ops->film_backward(run->device, added.tensor, true, tensor_absent(), dy.tensor, x.tensor, modulation.tensor,
                                         1, layout));
    run_expect(run, y, expected, one_rounding(act), "y");
    run_expect(run, dx, gradient, one_rounding(act), "dx");
    run_expect(run, added, added.host, one_rounding(act), "accumulated dx");
    run_expect(run, dmodulation, sum, of_sum(act, (double)t, 1), "dmodulation");
    /* In place: the gradient over its upstream, the sums from what was there before; then the rows over themselves. */
    memcpy(sum, modulation.host, (size_t)codes * sizeof *sum);
    Value once_more = run_values(run, act, SHAPE2(layout->sequences, columns), sum);
    reference_film_backward(gradient, sum, dy.host, x.host, modulation.host, 2, layout, width, columns);
    reference_film_forward(expected, x.host, modulation.host, 2, layout, width, columns);
    run_succeeds(run, ops->film_backward(run->device, dy.tensor, false, once_more.tensor, dy.tensor, x.tensor, modulation.tensor,
                                         2, layout));
    run_succeeds(run, ops->film_forward(run->device, x.tensor, x.tensor, modulation.tensor, 2, layout));
    run_expect(run, dy, gradient, one_rounding(act), "dx in place");
    run_expect(run, once_more, sum, of_sum(act, (double)t, 1), "dmodulation in place");
    run_expect(run, x, expected, one_rounding(act), "y in place");
    free(expected);
    free(gradient);
    free(sum);
}

/* A modulation of zeros changes nothing, to the bit: a fresh network does not depend on the query. */
static void film_of_zeros(Run *run, const Shape *s, DType act) {
    int64_t t = run->layout.tokens, width = s->width;
    double *zeros = new_doubles(run->layout.sequences * 2 * width);
    Value x = run_random(run, act, SHAPE2(t, width), 1.0), y = run_poisoned(run, act, SHAPE2(t, width));
    Value modulation = run_values(run, act, SHAPE2(run->layout.sequences, 2 * width), zeros);
    run_succeeds(run, run->device->ops->film_forward(run->device, y.tensor, x.tensor, modulation.tensor, 0, &run->layout));
    run_expect(run, y, x.host, (Tolerance){0, 0, 0}, "y");
    free(zeros);
}

static void segment_mean(Run *run, const Shape *s, DType act) {
    OwnLayout own = layout_with_empty(run, s);
    own.layout.host_offsets = own.offsets;
    const SequenceLayout *layout = &own.layout;
    int64_t t = layout->tokens, width = s->width, sequences = layout->sequences;
    Value x = run_random(run, act, SHAPE2(t, width), 1.0), y = run_poisoned(run, act, SHAPE2(sequences, width));
    Value dy = run_random(run, act, SHAPE2(sequences, width), 1.0), dx = run_poisoned(run, act, SHAPE2(t, width));
    Value added = run_random(run, act, SHAPE2(t, width), 1.0);
    double *expected = new_doubles(sequences * width), *gradient = new_doubles(t * width);
    reference_segment_mean(expected, x.host, layout, width);
    for (int64_t i = 0; i < sequences; ++i)
        for (int64_t at = layout->host_offsets[i] * width; at < layout->host_offsets[i + 1] * width; ++at)
            gradient[at] = dy.host[i * width + at % width] / (layout->host_offsets[i + 1] - layout->host_offsets[i]);
    for (int64_t i = 0; i < t * width; ++i) added.host[i] += gradient[i];
    const Ops *ops = run->device->ops;
    run_succeeds(run, ops->segment_mean_forward(run->device, y.tensor, x.tensor, layout));
    run_succeeds(run, ops->segment_mean_backward(run->device, dx.tensor, false, dy.tensor, layout));
    run_succeeds(run, ops->segment_mean_backward(run->device, added.tensor, true, dy.tensor, layout));
    run_expect(run, y, expected, one_rounding(act), "y");
    run_expect(run, dx, gradient, one_rounding(act), "dx");
    run_expect(run, added, added.host, one_rounding(act), "accumulated dx");
    free(expected);
    free(gradient);
}

/* factor: of both types that it may have. */
static void scale(Run *run, const Shape *s, DType act) {
    int64_t t = shape_tokens(s), width = s->width, n = t * width;
    const double host = -0.7;
    Value x = run_random(run, act, SHAPE2(t, width), 1.0), dy = run_random(run, act, SHAPE2(t, width), 1.0);
    Value factor = run_values(run, DTYPE_F32, SHAPE1(1), &host), rounded = run_values(run, act, SHAPE1(1), &host);
    Value y = run_poisoned(run, act, SHAPE2(t, width)), dx = run_poisoned(run, act, SHAPE2(t, width));
    Value added = run_random(run, act, SHAPE2(t, width), 1.0), dfactor = run_random(run, DTYPE_F32, SHAPE1(1), 1.0);
    double *expected = new_doubles(n), *gradient = new_doubles(n), sum = dfactor.host[0];
    for (int64_t i = 0; i < n; ++i) {
        expected[i] = factor.host[0] * x.host[i];
        gradient[i] = rounded.host[0] * dy.host[i];
        added.host[i] += factor.host[0] * dy.host[i];
        sum += dy.host[i] * x.host[i];
    }
    const Ops *ops = run->device->ops;
    run_succeeds(run, ops->scale_forward(run->device, y.tensor, x.tensor, factor.tensor));
    run_succeeds(run, ops->scale_backward(run->device, run->arena, dx.tensor, false, tensor_absent(), dy.tensor, x.tensor,
                                          rounded.tensor));
    run_succeeds(run, ops->scale_backward(run->device, run->arena, added.tensor, true, dfactor.tensor, dy.tensor, x.tensor,
                                          factor.tensor));
    run_expect(run, y, expected, one_rounding(act), "y");
    run_expect(run, dx, gradient, one_rounding(act), "dx");
    run_expect(run, added, added.host, one_rounding(act), "accumulated dx");
    run_expect(run, dfactor, &sum, of_sum(DTYPE_F32, (double)n, 1), "dfactor");
    run_succeeds(run, ops->scale_backward(run->device, run->arena, tensor_absent(), false, dfactor.tensor, dy.tensor, x.tensor,
                                          factor.tensor));
    sum += sum - dfactor.host[0];
    run_expect(run, dfactor, &sum, of_sum(DTYPE_F32, 2 * (double)n, 1), "dfactor alone");
    run_succeeds(run, ops->scale_forward(run->device, x.tensor, x.tensor, factor.tensor));
    run_expect(run, x, expected, one_rounding(act), "y in place");
    free(expected);
    free(gradient);
}

const OpCase memory_cases[] = {
    {"rows of a batch", rows_of_batch, true},
    {"rows of a few vectors", rows_of_few, true},
    {"cross_attention", cross_attention, true},
    {"cross_attention gradient", cross_attention_gradient, true},
    {"cross_attention of one layout", cross_attention_of_one_layout, false},
    {"film", film, true},
    {"film of zeros", film_of_zeros, true},
    {"segment_mean", segment_mean, true},
    {"scale", scale, true},
    {NULL, NULL, false},
};
