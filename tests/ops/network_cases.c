/* Ops of the network: norm, rotary positions, attention, gated unit, loss. */
#include "tests/ops/op_cases.h"
#include "tests/ops/reference.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double *new_doubles(int64_t count) { return calloc((size_t)count + 1, sizeof(double)); }

static void rms_norm(Run *run, const Shape *s, DType act) {
    int64_t t = shape_tokens(s), width = s->width;
    const float epsilon = 1e-6f;
    Value x = run_random(run, act, SHAPE2(t, width), 1.5), delta = run_random(run, act, SHAPE2(t, width), 0.5);
    Value weight = run_random(run, act, SHAPE1(width), 1.0), y = run_poisoned(run, act, SHAPE2(t, width));
    Value rstd = run_poisoned(run, DTYPE_F32, SHAPE1(t)), sum = run_poisoned(run, act, SHAPE2(t, width));
    double *expected = new_doubles(t * width), *expected_rstd = new_doubles(t), *expected_sum = new_doubles(t * width);
    const Ops *ops = run->device->ops;
    run_succeeds(run, ops->rms_norm_forward(run->device, y.tensor, rstd.tensor, tensor_absent(), x.tensor, tensor_absent(),
                                            weight.tensor, epsilon));
    reference_rms_norm_forward(expected, expected_rstd, x.host, weight.host, (double)epsilon, t, width);
    run_expect(run, y, expected, one_rounding(act), "y");
    run_expect(run, rstd, expected_rstd, one_rounding(DTYPE_F32), "rstd");
    run_succeeds(run, ops->rms_norm_forward(run->device, y.tensor, rstd.tensor, sum.tensor, x.tensor, delta.tensor, weight.tensor,
                                            epsilon));
    for (int64_t i = 0; i < t * width; ++i) expected_sum[i] = round_to(act, round_to(DTYPE_F32, x.host[i] + delta.host[i]));
    reference_rms_norm_forward(expected, expected_rstd, expected_sum, weight.host, (double)epsilon, t, width);
    run_expect(run, sum, expected_sum, (Tolerance){0, 0, 0}, "sum");
    run_expect(run, y, expected, one_rounding(act), "y of sum");
    run_expect(run, rstd, expected_rstd, one_rounding(DTYPE_F32), "rstd of sum");
    free(expected);
    free(expected_rstd);
    free(expected_sum);
}

static void rms_norm_gradient(Run *run, const Shape *s, DType act) {
    int64_t t = shape_tokens(s), width = s->width;
    const float epsilon = 1e-5f;
    Value x = run_random(run, act, SHAPE2(t, width), 1.5), dy = run_random(run, act, SHAPE2(t, width), 1.0);
    Value weight = run_random(run, act, SHAPE1(width), 1.0), dx = run_poisoned(run, act, SHAPE2(t, width));
    Value added = run_random(run, act, SHAPE2(t, width), 1.0), dweight = run_random(run, DTYPE_F32, SHAPE1(width), 1.0);
    double *expected = new_doubles(t * width), *expected_dweight = new_doubles(width), *rstd_host = new_doubles(t);
    reference_rms_norm_forward(expected, rstd_host, x.host, weight.host, (double)epsilon, t, width);
    Value rstd = run_values(run, DTYPE_F32, SHAPE1(t), rstd_host);
    const Ops *ops = run->device->ops;
    run_succeeds(run, ops->rms_norm_backward(run->device, run->arena, dx.tensor, false, tensor_absent(), dy.tensor, x.tensor,
                                             weight.tensor, rstd.tensor));
    run_succeeds(run, ops->rms_norm_backward(run->device, run->arena, added.tensor, true, dweight.tensor, dy.tensor, x.tensor,
                                             weight.tensor, rstd.tensor));
    reference_rms_norm_backward(expected, expected_dweight, dy.host, x.host, weight.host, (double)epsilon, t, width);
    for (int64_t i = 0; i < width; ++i) expected_dweight[i] += dweight.host[i];
    for (int64_t i = 0; i < t * width; ++i) added.host[i] += expected[i];
    run_expect(run, dx, expected, one_rounding(act), "dx");
    run_expect(run, added, added.host, one_rounding(act), "accumulated dx");
    run_expect(run, dweight, expected_dweight, one_rounding(DTYPE_F32), "dweight");
    free(expected);
    free(expected_dweight);
    free(rstd_host);
}

static void rope(Run *run, const Shape *s, DType act) {
    int64_t t = shape_tokens(s), heads = s->query_heads, width = s->head_dimension;
    Value table = run_poisoned(run, DTYPE_F32, SHAPE2(t, width)), x = run_random(run, act, SHAPE3(t, heads, width), 1.0);
    const Ops *ops = run->device->ops;
    run_succeeds(run, ops->rope_table(run->device, table.tensor, run->layout.positions, 1e6f));
    double *cos_sin = new_doubles(t * width), *turned = new_doubles(t * heads * width), *back = new_doubles(t * heads * width);
    int32_t *positions = run->host_indices[1];
    reference_rope_table(cos_sin, positions, 1e6, t, width);
    run_expect(run, table, cos_sin, (Tolerance){0, 0, 1e-6}, "table");
    double *stored = run_read(run, table.tensor);
    run_succeeds(run, ops->rope(run->device, x.tensor, table.tensor, false));
    reference_rope(turned, x.host, stored, false, t, heads, width);
    run_expect(run, x, turned, one_rounding(act), "x");
    for (int64_t i = 0; i < t * heads * width; ++i) turned[i] = round_to(act, turned[i]);
    run_succeeds(run, ops->rope(run->device, x.tensor, table.tensor, true));
    reference_rope(back, turned, stored, true, t, heads, width);
    run_expect(run, x, back, stored_in(act, 4.0), "rotated back"); /* turned may be off by a unit in the last place */
    free(cos_sin);
    free(turned);
    free(back);
    free(stored);
}

typedef struct AttentionOperands {
    Value q, k, v, out, lse, dout;
    AttentionShape shape;
    double *expected_out, *expected_lse;
} AttentionOperands;

static AttentionOperands attention_forward_part(Run *run, const Shape *s, DType act, bool causal) {
    int64_t t = shape_tokens(s), h = s->query_heads, g = s->key_heads, e = s->head_dimension;
    AttentionOperands a = {
        .q = run_random(run, act, SHAPE3(t, h, e), 1.5),
        .k = run_random(run, act, SHAPE3(t, g, e), 1.5),
        .v = run_random(run, act, SHAPE3(t, g, e), 1.0),
        .out = run_poisoned(run, act, SHAPE3(t, h, e)),
        .lse = run_poisoned(run, DTYPE_F32, SHAPE2(h, t)),
        .dout = run_random(run, act, SHAPE3(t, h, e), 1.0),
        .shape = {.query_heads = h, .key_heads = g, .head_dimension = e, .scale = 1.0f / sqrtf((float)e), .causal = causal},
        .expected_out = new_doubles(t * h * e),
        .expected_lse = new_doubles(h * t)};
    run_succeeds(run, run->device->ops->attention_forward(run->device, run->arena, a.out.tensor, a.lse.tensor, a.q.tensor,
                                                          a.k.tensor, a.v.tensor, &run->layout, a.shape));
    if (run->compare)
        reference_attention_forward(a.expected_out, a.expected_lse, a.q.host, a.k.host, a.v.host, &run->layout, a.shape);
    return a;
}

/* On the CPU nothing is stored in between; tensor cores store the softmax weights in BF16. */
static Tolerance attention_tolerance(const Run *run, DType act) {
    return run->device->kind == BACKEND_CPU ? one_rounding(act) : stored_in(act, 2.0);
}

static void attention(Run *run, const Shape *s, DType act) {
    for (int causal = 0; causal < 2; ++causal) {
        AttentionOperands a = attention_forward_part(run, s, act, causal);
        run_expect(run, a.out, a.expected_out, attention_tolerance(run, act), causal ? "causal out" : "out");
        run_expect(run, a.lse, a.expected_lse, (Tolerance){0, 1e-5, 1e-6}, causal ? "causal lse" : "lse");
        free(a.expected_out);
        free(a.expected_lse);
    }
}

static void attention_gradient(Run *run, const Shape *s, DType act) {
    int64_t t = shape_tokens(s), h = s->query_heads, g = s->key_heads, e = s->head_dimension;
    for (int causal = 0; causal < 2; ++causal) {
        AttentionOperands a = attention_forward_part(run, s, act, causal);
        Value dq = run_poisoned(run, act, SHAPE3(t, h, e)), dk = run_poisoned(run, act, SHAPE3(t, g, e));
        Value dv = run_poisoned(run, act, SHAPE3(t, g, e));
        run_succeeds(run, run->device->ops->attention_backward(run->device, run->arena, dq.tensor, dk.tensor, dv.tensor,
                                                               a.dout.tensor, a.out.tensor, a.lse.tensor, a.q.tensor, a.k.tensor,
                                                               a.v.tensor, &run->layout, a.shape));
        double *expected_q = new_doubles(t * h * e), *expected_k = new_doubles(t * g * e), *expected_v = new_doubles(t * g * e);
        double *stored_out = run_read(run, a.out.tensor);
        if (run->compare || run->recording)
            reference_attention_backward(expected_q, expected_k, expected_v, a.dout.host, stored_out, a.q.host, a.k.host,
                                         a.v.host, &run->layout, a.shape);
        Tolerance score = attention_tolerance(run, act);
        score.absolute = 4e-7 * sqrt((double)e); /* the first query's exact gradient is zero, a difference of numbers near one */
        run->from_own = act == DTYPE_BF16;       /* dout * out is a sum of E products, each with out's rounding */
        run_expect(run, dq, expected_q, score, causal ? "causal dq" : "dq");
        run_expect(run, dk, expected_k, score, causal ? "causal dk" : "dk");
        run->from_own = false;
        run_expect(run, dv, expected_v, attention_tolerance(run, act), causal ? "causal dv" : "dv");
        free(stored_out);
        free(expected_q);
        free(expected_k);
        free(expected_v);
        free(a.expected_out);
        free(a.expected_lse);
    }
}

/* A cache whose blocks lie in reversed order with holes of NaN between them; of sequence 0, 1, 2, ... one key, all keys, half of
 * the keys are new, and again. */
typedef struct CacheOperands {
    CacheLayout layout;
    int32_t *offsets, *lengths, *table, *slots;
    int64_t slot_count;
} CacheOperands;

static CacheOperands cache_operands(Run *run, const Shape *s) {
    const SequenceLayout *all = &run->layout;
    int64_t t = shape_tokens(s), width = (all->longest + CACHE_BLOCK - 1) / CACHE_BLOCK, block = 2 * width * all->sequences;
    size_t count = (size_t)all->sequences;
    CacheOperands c = {.offsets = calloc(count + 1, 4),
                       .lengths = calloc(count + 1, 4),
                       .table = calloc((size_t)width * count + 1, 4),
                       .slots = calloc((size_t)t + 1, 4),
                       .slot_count = (block + 1) * CACHE_BLOCK};
    int32_t rows = 0;
    for (int64_t i = 0; i < all->sequences; ++i) {
        int32_t length = all->host_offsets[i + 1] - all->host_offsets[i];
        int32_t added = i % 3 == 0 ? 1 : i % 3 == 1 ? length : (length + 1) / 2;
        for (int64_t b = 0; b * CACHE_BLOCK < length; ++b, block -= 2) c.table[i * width + b] = (int32_t)block;
        for (int32_t p = 0; p < length; ++p) {
            int32_t slot = c.table[i * width + p / CACHE_BLOCK] * CACHE_BLOCK + p % CACHE_BLOCK;
            c.slots[all->host_offsets[i] + p] = slot;
        }
        c.lengths[i] = length;
        c.offsets[i + 1] = rows += added;
    }
    c.layout = (CacheLayout){.tokens = rows,
                             .sequences = all->sequences,
                             .longest = all->longest,
                             .table_width = width,
                             .host_offsets = c.offsets,
                             .host_lengths = c.lengths,
                             .host_block_table = c.table};
    c.layout.offsets = run_indices(run, c.offsets, all->sequences + 1).data;
    c.layout.lengths = run_indices(run, c.lengths, all->sequences).data;
    c.layout.block_table = run_indices(run, c.table, width * all->sequences).data;
    c.layout.slots = run_indices(run, c.slots, t).data;
    return c;
}

static void cache_operands_free(CacheOperands *c) {
    free(c->offsets);
    free(c->lengths);
    free(c->table);
    free(c->slots);
}

/* Rows of x [tokens, width] whose number in the whole batch is that of new row i. */
static double *new_rows(const Run *run, const CacheOperands *c, const double *x, int64_t width) {
    double *out = new_doubles(c->layout.tokens * width);
    for (int64_t i = 0; i < run->layout.sequences; ++i) {
        int64_t count = c->offsets[i + 1] - c->offsets[i], first = run->layout.host_offsets[i + 1] - count;
        memcpy(out + c->offsets[i] * width, x + first * width, (size_t)(count * width) * sizeof *out);
    }
    return out;
}

/* All keys and values are appended; then the attention of the new rows is theirs in a pass over the whole sequences. */
static void attention_cached(Run *run, const Shape *s, DType act) {
    int64_t t = shape_tokens(s), h = s->query_heads, g = s->key_heads, e = s->head_dimension;
    CacheOperands c = cache_operands(run, s);
    AttentionShape shape = {h, g, e, 1.0f / sqrtf((float)e), true};
    Value q = run_random(run, act, SHAPE3(t, h, e), 1.5), kv[2], cache[2];
    const Ops *ops = run->device->ops;
    for (int i = 0; i < 2; ++i) {
        kv[i] = run_random(run, act, SHAPE3(t, g, e), i ? 1.0 : 1.5);
        cache[i] = run_poisoned(run, act, SHAPE3(c.slot_count, g, e));
        run_succeeds(run, ops->cache_append(run->device, cache[i].tensor, kv[i].tensor, c.layout.slots));
        double *got = run_read(run, cache[i].tensor);
        for (int64_t row = 0; row < t; ++row)
            for (int64_t j = 0; j < g * e; ++j) assert_true(got[c.slots[row] * g * e + j] == kv[i].host[row * g * e + j]);
        free(got);
    }
    double *expected = new_doubles(t * h * e), *lse = new_doubles(t * h), *new_q = new_rows(run, &c, q.host, h * e);
    Value queries = run_values(run, act, SHAPE3(c.layout.tokens, h, e), new_q);
    Value out = run_poisoned(run, act, SHAPE3(c.layout.tokens, h, e));
    run_succeeds(run, ops->attention_cached(run->device, run->arena, out.tensor, queries.tensor, cache[0].tensor, cache[1].tensor,
                                            &c.layout, shape));
    if (run->compare) reference_attention_forward(expected, lse, q.host, kv[0].host, kv[1].host, &run->layout, shape);
    double *new_expected = new_rows(run, &c, expected, h * e);
    run_expect(run, out, new_expected, one_rounding(act), "out");
    free(expected);
    free(lse);
    free(new_q);
    free(new_expected);
    cache_operands_free(&c);
}

static void swiglu(Run *run, const Shape *s, DType act) {
    int64_t t = shape_tokens(s), n = t * s->hidden;
    Value gate = run_random(run, act, SHAPE2(t, s->hidden), 4.0), up = run_random(run, act, SHAPE2(t, s->hidden), 1.0);
    Value dy = run_random(run, act, SHAPE2(t, s->hidden), 1.0), y = run_poisoned(run, act, SHAPE2(t, s->hidden));
    Value dgate = run_poisoned(run, act, SHAPE2(t, s->hidden)), dup = run_poisoned(run, act, SHAPE2(t, s->hidden));
    double *expected = new_doubles(n), *expected_gate = new_doubles(n), *expected_up = new_doubles(n);
    const Ops *ops = run->device->ops;
    run_succeeds(run, ops->swiglu_forward(run->device, y.tensor, gate.tensor, up.tensor));
    run_succeeds(run, ops->swiglu_backward(run->device, dgate.tensor, dup.tensor, dy.tensor, gate.tensor, up.tensor));
    reference_swiglu_forward(expected, gate.host, up.host, n);
    reference_swiglu_backward(expected_gate, expected_up, dy.host, gate.host, up.host, n);
    run_expect(run, y, expected, one_rounding(act), "y");
    run_expect(run, dgate, expected_gate, one_rounding(act), "dgate");
    run_expect(run, dup, expected_up, one_rounding(act), "dup");
    run_succeeds(run, ops->swiglu_backward(run->device, gate.tensor, up.tensor, dy.tensor, gate.tensor, up.tensor));
    run_expect(run, gate, expected_gate, one_rounding(act), "dgate in place");
    run_expect(run, up, expected_up, one_rounding(act), "dup in place");
    free(expected);
    free(expected_gate);
    free(expected_up);
}

/* Far out on both sides silu is 0 or the identity, and nothing overflows. */
static void swiglu_extremes(Run *run, const Shape *s, DType act) {
    (void)s;
    const double gate_values[] = {-1e30, -300, -100, -88, 0, 88, 100, 300, 1e30}, ones[] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    Value gate = run_values(run, act, SHAPE1(9), gate_values), up = run_values(run, act, SHAPE1(9), ones);
    Value y = run_poisoned(run, act, SHAPE1(9));
    run_succeeds(run, run->device->ops->swiglu_forward(run->device, y.tensor, gate.tensor, up.tensor));
    double *got = run_read(run, y.tensor);
    for (int i = 1; i < 4; ++i) assert_true(fabs(got[i]) < 1e-30);
    assert_true(fabs(got[0]) < 1e-6); /* -1e30 times something below 1e-37 */
    assert_true(got[4] == 0);
    for (int i = 5; i < 9; ++i) assert_true(got[i] == gate.host[i]);
    free(got);
}

static void gelu(Run *run, const Shape *s, DType act) {
    int64_t n = shape_tokens(s) * s->hidden;
    Value x = run_random(run, act, SHAPE1(n), 2.0), dy = run_random(run, act, SHAPE1(n), 1.0);
    Value y = run_poisoned(run, act, SHAPE1(n)), dx = run_poisoned(run, act, SHAPE1(n));
    double *expected = new_doubles(n), *gradient = new_doubles(n);
    const Ops *ops = run->device->ops;
    run_succeeds(run, ops->gelu_forward(run->device, y.tensor, x.tensor));
    run_succeeds(run, ops->gelu_backward(run->device, dx.tensor, dy.tensor, x.tensor));
    reference_gelu_forward(expected, x.host, n);
    reference_gelu_backward(gradient, dy.host, x.host, n);
    run_expect(run, y, expected, one_rounding(act), "y");
    run_expect(run, dx, gradient, one_rounding(act), "dx");
    /* In place: the gradient over its upstream, then the values over their input. */
    run_succeeds(run, ops->gelu_backward(run->device, dy.tensor, dy.tensor, x.tensor));
    run_succeeds(run, ops->gelu_forward(run->device, x.tensor, x.tensor));
    run_expect(run, dy, gradient, one_rounding(act), "dx in place");
    run_expect(run, x, expected, one_rounding(act), "y in place");
    free(expected);
    free(gradient);
}

/* Digits of the lower tail, where 1 + erf would have lost them all; and nothing overflows far out. */
static void gelu_extremes(Run *run, const Shape *s, DType act) {
    (void)s;
    const double values[] = {-1e18, -100, -12, -10, -7.5, -5, -3, -1, -0.125, 0, 0.125, 1, 8, 100, 1e18}, one = 1;
    enum { COUNT = sizeof values / sizeof *values };
    for (int i = 0; i < COUNT; ++i) { /* one row each: the tolerance is relative to a row's largest value */
        Value x = run_values(run, act, SHAPE1(1), &values[i]), y = run_poisoned(run, act, SHAPE1(1));
        Value dy = run_values(run, act, SHAPE1(1), &one);
        double expected, gradient;
        run_succeeds(run, run->device->ops->gelu_forward(run->device, y.tensor, x.tensor));
        run_succeeds(run, run->device->ops->gelu_backward(run->device, dy.tensor, dy.tensor, x.tensor));
        reference_gelu_forward(&expected, x.host, 1);
        reference_gelu_backward(&gradient, &one, x.host, 1);
        run_expect(run, y, &expected, one_rounding(act), "y");
        run_expect(run, dy, &gradient, one_rounding(act), "dx");
    }
}

static void layer_norm(Run *run, const Shape *s, DType act) {
    int64_t t = shape_tokens(s), width = s->width;
    const float epsilon = 1e-5f;
    Value x = run_random(run, act, SHAPE2(t, width), 1.5), delta = run_random(run, act, SHAPE2(t, width), 0.5);
    Value weight = run_random(run, act, SHAPE1(width), 1.0), bias = run_random(run, act, SHAPE1(width), 1.0);
    Value y = run_poisoned(run, act, SHAPE2(t, width));
    double *expected = new_doubles(t * width), *sum = new_doubles(t * width);
    const Ops *ops = run->device->ops;
    run_succeeds(run,
                 ops->layer_norm_forward(run->device, y.tensor, x.tensor, tensor_absent(), weight.tensor, bias.tensor, epsilon));
    reference_layer_norm_forward(expected, x.host, weight.host, bias.host, (double)epsilon, t, width);
    Tolerance tolerance = stored_in(act, 1.0); /* the sum is stored before it is normalised */
    run_expect(run, y, expected, tolerance, "y");
    for (int64_t i = 0; i < t * width; ++i) sum[i] = round_to(act, round_to(DTYPE_F32, x.host[i] + delta.host[i]));
    reference_layer_norm_forward(expected, sum, weight.host, bias.host, (double)epsilon, t, width);
    run_succeeds(run,
                 ops->layer_norm_forward(run->device, delta.tensor, x.tensor, delta.tensor, weight.tensor, bias.tensor, epsilon));
    run_expect(run, delta, expected, tolerance, "y of sum over delta");
    free(expected);
    free(sum);
}

/* Values around 1000 with deviations around 1: the variance must not be taken as a difference of large squares. */
static void layer_norm_far_mean(Run *run, const Shape *s, DType act) {
    int64_t t = shape_tokens(s), width = s->width;
    Value x = run_random(run, act, SHAPE2(t, width), 1.0), weight = run_random(run, act, SHAPE1(width), 1.0);
    Value bias = run_random(run, act, SHAPE1(width), 1.0);
    for (int64_t i = 0; i < t * width; ++i) x.host[i] = round_to(act, x.host[i] + 1000);
    Value far = run_values(run, act, SHAPE2(t, width), x.host);
    double *expected = new_doubles(t * width);
    reference_layer_norm_forward(expected, far.host, weight.host, bias.host, 1e-12, t, width);
    run_succeeds(run, run->device->ops->layer_norm_forward(run->device, far.tensor, far.tensor, tensor_absent(), weight.tensor,
                                                           bias.tensor, 1e-12f));
    run_expect(run, far, expected, (Tolerance){0, 3e-4, 1e-30}, "y"); /* a unit in the last place of 1000 is 6e-5 */
    free(expected);
}

typedef struct LossOperands {
    Value hidden, weight, nll, dhidden, dweight;
    Tensor rows, labels;
    int32_t *host_rows, *host_labels;
    int64_t count;
} LossOperands;

/* About two thirds of the tokens have a label. */
static LossOperands loss_operands(Run *run, const Shape *s, DType act) {
    int64_t t = shape_tokens(s);
    LossOperands l = {.host_rows = calloc((size_t)t + 1, 4), .host_labels = calloc((size_t)t + 1, 4)};
    for (int64_t i = 0; i < t; ++i)
        if (run_uniform(run) < 0.67 || t == 1) {
            l.host_rows[l.count] = (int32_t)i;
            l.host_labels[l.count++] = (int32_t)(run_uniform(run) * (double)s->vocabulary);
        }
    l.rows = run_indices(run, l.host_rows, l.count);
    l.labels = run_indices(run, l.host_labels, l.count);
    l.hidden = run_random(run, act, SHAPE2(t, s->width), 1.0);
    l.weight = run_random(run, act, SHAPE2(s->vocabulary, s->width), 2.0 / sqrt((double)s->width));
    l.nll = run_poisoned(run, DTYPE_F32, SHAPE1(l.count));
    l.dhidden = run_poisoned(run, act, SHAPE2(t, s->width));
    l.dweight = run_random(run, DTYPE_F32, SHAPE2(s->vocabulary, s->width), 0.1);
    return l;
}

static void check_loss(Run *run, const Shape *s, DType act, float smoothing) {
    int64_t t = shape_tokens(s), weights = s->vocabulary * s->width;
    const float scale = 0.03125f;
    LossOperands l = loss_operands(run, s, act);
    double *nll = new_doubles(l.count), *dhidden = new_doubles(t * s->width), *dweight = new_doubles(weights);
    run_succeeds(run,
                 run->device->ops->linear_cross_entropy(run->device, run->arena, l.nll.tensor, l.dhidden.tensor, l.dweight.tensor,
                                                        l.hidden.tensor, l.weight.tensor, l.rows, l.labels,
                                                        &(CrossEntropySettings){.label_smoothing = smoothing, .scale = scale}));
    if (run->compare)
        reference_linear_cross_entropy(nll, dhidden, dweight, l.hidden.host, l.weight.host, l.host_rows, l.host_labels,
                                       (double)smoothing, (double)scale, l.count, t, s->width, s->vocabulary,
                                       (ReferenceLossTerms){0});
    for (int64_t i = 0; i < weights; ++i) dweight[i] += l.dweight.host[i];
    run_expect(run, l.nll, nll, (Tolerance){0, 1e-5, 1e-6}, "nll");
    run_expect(run, l.dhidden, dhidden, stored_in(act, 1.0), "dhidden"); /* softmax - target is stored */
    run_expect(run, l.dweight, dweight, act == DTYPE_BF16 ? (Tolerance){0, 0x1p-7, 0} : one_rounding(DTYPE_F32), "dweight");
    free(nll);
    free(dhidden);
    free(dweight);
    free(l.host_rows);
    free(l.host_labels);
}

static void linear_cross_entropy(Run *run, const Shape *s, DType act) { check_loss(run, s, act, 0.0f); }
static void linear_cross_entropy_smoothed(Run *run, const Shape *s, DType act) { check_loss(run, s, act, 0.1f); }

/* Evaluation: no gradients, the same losses. */
static void linear_cross_entropy_evaluation(Run *run, const Shape *s, DType act) {
    LossOperands l = loss_operands(run, s, act);
    double *nll = new_doubles(l.count);
    run_succeeds(run, run->device->ops->linear_cross_entropy(run->device, run->arena, l.nll.tensor, tensor_absent(),
                                                             tensor_absent(), l.hidden.tensor, l.weight.tensor, l.rows, l.labels,
                                                             &(CrossEntropySettings){.scale = 1.0f}));
    if (run->compare)
        reference_linear_cross_entropy(nll, NULL, NULL, l.hidden.host, l.weight.host, l.host_rows, l.host_labels, 0, 1, l.count,
                                       shape_tokens(s), s->width, s->vocabulary, (ReferenceLossTerms){0});
    run_expect(run, l.nll, nll, (Tolerance){0, 1e-5, 1e-6}, "nll");
    free(nll);
    free(l.host_rows);
    free(l.host_labels);
}

enum { PAIRS_PER_ROW = 3 };

/* None to three tokens for every row, the label often among them. */
typedef struct PairOperands {
    TokenPairs pairs;
    int32_t *offsets, *tokens;
    int64_t count;
    Value log_p, derivative; /* log_p: what it must be, in fp32 */
} PairOperands;

static PairOperands pair_operands(Run *run, const Shape *s, const LossOperands *l) {
    PairOperands p = {.offsets = calloc((size_t)l->count + 1, 4), .tokens = calloc((size_t)(PAIRS_PER_ROW * l->count) + 1, 4)};
    for (int64_t i = 0; i < l->count; ++i) {
        int64_t n = (int64_t)(run_uniform(run) * (PAIRS_PER_ROW + 1)), first = run_uniform(run) < 0.5 ? l->host_labels[i] : i;
        for (int64_t k = 0; k < n && k < s->vocabulary; ++k) p.tokens[p.count++] = (int32_t)((first + k) % s->vocabulary);
        p.offsets[i + 1] = (int32_t)p.count;
    }
    double *log_p = new_doubles(p.count);
    p.pairs = (TokenPairs){run_indices(run, p.offsets, l->count + 1), run_indices(run, p.tokens, p.count)};
    reference_token_log_probabilities(log_p, l->hidden.host, l->weight.host, l->host_rows, p.offsets, p.tokens, l->count,
                                      s->width, s->vocabulary);
    p.log_p = run_values(run, DTYPE_F32, SHAPE1(p.count), log_p);
    p.derivative = run_random(run, DTYPE_F32, SHAPE1(p.count), 0.05);
    free(log_p);
    return p;
}

static void pair_operands_free(PairOperands *p, LossOperands *l) {
    free(p->offsets);
    free(p->tokens);
    free(l->host_rows);
    free(l->host_labels);
}

static void token_log_probabilities(Run *run, const Shape *s, DType act) {
    LossOperands l = loss_operands(run, s, act);
    PairOperands p = pair_operands(run, s, &l);
    Value log_p = run_poisoned(run, DTYPE_F32, SHAPE1(p.count));
    run_succeeds(run, run->device->ops->token_log_probabilities(run->device, run->arena, log_p.tensor, l.hidden.tensor,
                                                                l.weight.tensor, l.rows, p.pairs));
    run_expect(run, log_p, p.log_p.host, (Tolerance){0, 1e-5, 1e-6}, "log_p");
    pair_operands_free(&p, &l);
}

/* Rows of different weight, and further terms that hang on single tokens. */
static void check_loss_terms(Run *run, const Shape *s, DType act, bool weighted, bool paired) {
    int64_t t = shape_tokens(s), weights = s->vocabulary * s->width;
    LossOperands l = loss_operands(run, s, act);
    PairOperands p = pair_operands(run, s, &l);
    Value row_weight = run_random(run, DTYPE_F32, SHAPE1(l.count), 1.0);
    CrossEntropySettings settings = {.label_smoothing = 0.1f, .scale = 0.03125f};
    ReferenceLossTerms terms = {0};
    if (weighted) settings.row_weight = row_weight.tensor, terms.row_weight = row_weight.host;
    if (paired) {
        settings.pairs = p.pairs, settings.pair_log_probability = p.log_p.tensor;
        settings.pair_derivative = p.derivative.tensor;
        terms.offsets = p.offsets, terms.tokens = p.tokens, terms.derivative = p.derivative.host;
    }
    double *nll = new_doubles(l.count), *dhidden = new_doubles(t * s->width), *dweight = new_doubles(weights);
    run_succeeds(run,
                 run->device->ops->linear_cross_entropy(run->device, run->arena, l.nll.tensor, l.dhidden.tensor, l.dweight.tensor,
                                                        l.hidden.tensor, l.weight.tensor, l.rows, l.labels, &settings));
    if (run->compare)
        reference_linear_cross_entropy(nll, dhidden, dweight, l.hidden.host, l.weight.host, l.host_rows, l.host_labels,
                                       (double)settings.label_smoothing, (double)settings.scale, l.count, t, s->width,
                                       s->vocabulary, terms);
    for (int64_t i = 0; i < weights; ++i) dweight[i] += l.dweight.host[i];
    run_expect(run, l.nll, nll, (Tolerance){0, 1e-5, 1e-6}, "nll"); /* weighs nothing */
    run_expect(run, l.dhidden, dhidden, stored_in(act, 1.0), "dhidden");
    run_expect(run, l.dweight, dweight, act == DTYPE_BF16 ? (Tolerance){0, 0x1p-7, 0} : one_rounding(DTYPE_F32), "dweight");
    free(nll);
    free(dhidden);
    free(dweight);
    pair_operands_free(&p, &l);
}

static void linear_cross_entropy_weighted(Run *run, const Shape *s, DType act) { check_loss_terms(run, s, act, true, false); }
static void linear_cross_entropy_paired(Run *run, const Shape *s, DType act) { check_loss_terms(run, s, act, false, true); }
static void linear_cross_entropy_all_terms(Run *run, const Shape *s, DType act) { check_loss_terms(run, s, act, true, true); }

const OpCase network_cases[] = {
    {"rms_norm", rms_norm, true},
    {"rms_norm gradient", rms_norm_gradient, true},
    {"rope", rope, true},
    {"attention", attention, true},
    {"attention gradient", attention_gradient, true},
    {"attention_cached", attention_cached, true},
    {"swiglu", swiglu, true},
    {"swiglu extremes", swiglu_extremes, true},
    {"gelu", gelu, true},
    {"gelu extremes", gelu_extremes, true},
    {"layer_norm", layer_norm, true},
    {"layer_norm far from zero", layer_norm_far_mean, false},
    {"linear_cross_entropy", linear_cross_entropy, true},
    {"linear_cross_entropy smoothed", linear_cross_entropy_smoothed, true},
    {"linear_cross_entropy evaluation", linear_cross_entropy_evaluation, true},
    {"linear_cross_entropy weighted", linear_cross_entropy_weighted, true},
    {"linear_cross_entropy with pairs", linear_cross_entropy_paired, true},
    {"linear_cross_entropy with all terms", linear_cross_entropy_all_terms, true},
    {"token_log_probabilities", token_log_probabilities, true},
    {NULL, NULL, false},
};
