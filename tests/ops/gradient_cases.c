/* Every backward op of the network against central differences (differences.h). */
#include "tests/ops/differences.h"
#include "tests/ops/op_cases.h"
#include "tests/ops/reference.h"

#include <stdlib.h>

typedef struct NormContext {
    Value x, weight, dy;
    double *y, *rstd;
    int64_t rows, width;
} NormContext;

static double norm_objective(const void *context) {
    const NormContext *c = context;
    reference_rms_norm_forward(c->y, c->rstd, c->x.host, c->weight.host, 1e-6, c->rows, c->width);
    return dot_product(c->y, c->dy.host, c->rows * c->width);
}

static void rms_norm_differences(Run *run, const Shape *s, DType act) {
    if (!small_enough_for_differences(s)) return;
    int64_t t = shape_tokens(s), w = s->width;
    NormContext c = {run_random(run, act, SHAPE2(t, w), 1.0),
                     run_random(run, act, SHAPE1(w), 1.0),
                     run_random(run, act, SHAPE2(t, w), 1.0),
                     calloc((size_t)(t * w), 8),
                     calloc((size_t)t, 8),
                     t,
                     w};
    double *zeros = calloc((size_t)w, 8);
    Value dx = run_poisoned(run, act, SHAPE2(t, w)), dweight = run_values(run, DTYPE_F32, SHAPE1(w), zeros);
    norm_objective(&c);
    Value rstd = run_values(run, DTYPE_F32, SHAPE1(t), c.rstd);
    run_succeeds(run, run->device->ops->rms_norm_backward(run->device, run->arena, dx.tensor, false, dweight.tensor, c.dy.tensor,
                                                          c.x.tensor, c.weight.tensor, rstd.tensor));
    check_gradient(run, norm_objective, &c, c.x, dx.tensor, "dx");
    check_gradient(run, norm_objective, &c, c.weight, dweight.tensor, "dweight");
    free(c.y);
    free(c.rstd);
    free(zeros);
}

typedef struct AttentionContext {
    Value q, k, v, dout;
    double *out, *lse;
    const SequenceLayout *layout;
    AttentionShape shape;
} AttentionContext;

static double attention_objective(const void *context) {
    const AttentionContext *c = context;
    reference_attention_forward(c->out, c->lse, c->q.host, c->k.host, c->v.host, c->layout, c->shape);
    return dot_product(c->out, c->dout.host, tensor_elements(c->q.tensor));
}

static void attention_differences(Run *run, const Shape *s, DType act) {
    if (!small_enough_for_differences(s)) return;
    int64_t t = shape_tokens(s), h = s->query_heads, g = s->key_heads, e = s->head_dimension;
    for (int causal = 0; causal < 2; ++causal) {
        AttentionContext c = {run_random(run, act, SHAPE3(t, h, e), 1.0),
                              run_random(run, act, SHAPE3(t, g, e), 1.0),
                              run_random(run, act, SHAPE3(t, g, e), 1.0),
                              run_random(run, act, SHAPE3(t, h, e), 1.0),
                              calloc((size_t)(t * h * e), 8),
                              calloc((size_t)(t * h), 8),
                              &run->layout,
                              {h, g, e, 0.3f, causal}};
        Value out = run_poisoned(run, act, SHAPE3(t, h, e)), lse = run_poisoned(run, DTYPE_F32, SHAPE2(h, t));
        Value dq = run_poisoned(run, act, SHAPE3(t, h, e)), dk = run_poisoned(run, act, SHAPE3(t, g, e));
        Value dv = run_poisoned(run, act, SHAPE3(t, g, e));
        const Ops *ops = run->device->ops;
        run_succeeds(run, ops->attention_forward(run->device, run->arena, out.tensor, lse.tensor, c.q.tensor, c.k.tensor,
                                                 c.v.tensor, &run->layout, c.shape));
        run_succeeds(run,
                     ops->attention_backward(run->device, run->arena, dq.tensor, dk.tensor, dv.tensor, c.dout.tensor, out.tensor,
                                             lse.tensor, c.q.tensor, c.k.tensor, c.v.tensor, &run->layout, c.shape));
        check_gradient(run, attention_objective, &c, c.q, dq.tensor, "dq");
        check_gradient(run, attention_objective, &c, c.k, dk.tensor, "dk");
        check_gradient(run, attention_objective, &c, c.v, dv.tensor, "dv");
        free(c.out);
        free(c.lse);
    }
}

typedef struct SwigluContext {
    Value gate, up, dy;
    double *y;
} SwigluContext;

static double swiglu_objective(const void *context) {
    const SwigluContext *c = context;
    int64_t count = tensor_elements(c->gate.tensor);
    reference_swiglu_forward(c->y, c->gate.host, c->up.host, count);
    return dot_product(c->y, c->dy.host, count);
}

static void swiglu_differences(Run *run, const Shape *s, DType act) {
    if (!small_enough_for_differences(s)) return;
    int64_t n = shape_tokens(s) * s->hidden;
    SwigluContext c = {run_random(run, act, SHAPE1(n), 2.0), run_random(run, act, SHAPE1(n), 1.0),
                       run_random(run, act, SHAPE1(n), 1.0), calloc((size_t)n, 8)};
    Value dgate = run_poisoned(run, act, SHAPE1(n)), dup = run_poisoned(run, act, SHAPE1(n));
    run_succeeds(
        run, run->device->ops->swiglu_backward(run->device, dgate.tensor, dup.tensor, c.dy.tensor, c.gate.tensor, c.up.tensor));
    check_gradient(run, swiglu_objective, &c, c.gate, dgate.tensor, "dgate");
    check_gradient(run, swiglu_objective, &c, c.up, dup.tensor, "dup");
    free(c.y);
}

typedef struct GeluContext {
    Value x, dy;
    double *y;
} GeluContext;

static double gelu_objective(const void *context) {
    const GeluContext *c = context;
    int64_t count = tensor_elements(c->x.tensor);
    reference_gelu_forward(c->y, c->x.host, count);
    return dot_product(c->y, c->dy.host, count);
}

static void gelu_differences(Run *run, const Shape *s, DType act) {
    if (!small_enough_for_differences(s)) return;
    int64_t n = shape_tokens(s) * s->hidden;
    GeluContext c = {run_random(run, act, SHAPE1(n), 2.0), run_random(run, act, SHAPE1(n), 1.0), calloc((size_t)n, 8)};
    Value dx = run_poisoned(run, act, SHAPE1(n));
    run_succeeds(run, run->device->ops->gelu_backward(run->device, dx.tensor, c.dy.tensor, c.x.tensor));
    check_gradient(run, gelu_objective, &c, c.x, dx.tensor, "dx");
    free(c.y);
}

typedef struct LossContext {
    Value hidden, weight;
    const int32_t *rows, *labels;
    double *nll;
    int64_t count, tokens, width, vocabulary;
} LossContext;

static const float loss_smoothing = 0.1f, loss_scale = 0.25f;

static double loss_objective(const void *context) {
    const LossContext *c = context;
    reference_linear_cross_entropy(c->nll, NULL, NULL, c->hidden.host, c->weight.host, c->rows, c->labels, (double)loss_smoothing,
                                   1, c->count, c->tokens, c->width, c->vocabulary, (ReferenceLossTerms){0});
    double sum = 0;
    for (int64_t i = 0; i < c->count; ++i) sum += c->nll[i];
    return sum * (double)loss_scale;
}

static void loss_differences(Run *run, const Shape *s, DType act) {
    if (!small_enough_for_differences(s)) return;
    int64_t t = shape_tokens(s), w = s->width, v = s->vocabulary;
    int32_t rows[9], labels[9];
    int64_t count = (t + 1) / 2; /* every other row has a label */
    for (int64_t i = 0; i < count; ++i) rows[i] = (int32_t)(2 * i), labels[i] = (int32_t)((5 * i + 3) % v);
    LossContext c = {run_random(run, act, SHAPE2(t, w), 1.0),
                     run_random(run, act, SHAPE2(v, w), 0.5),
                     rows,
                     labels,
                     calloc((size_t)count, 8),
                     count,
                     t,
                     w,
                     v};
    double *zeros = calloc((size_t)(v * w), 8);
    Value nll = run_poisoned(run, DTYPE_F32, SHAPE1(count)), dhidden = run_poisoned(run, act, SHAPE2(t, w));
    Value dweight = run_values(run, DTYPE_F32, SHAPE2(v, w), zeros);
    run_succeeds(run, run->device->ops->linear_cross_entropy(
                          run->device, run->arena, nll.tensor, dhidden.tensor, dweight.tensor, c.hidden.tensor, c.weight.tensor,
                          run_indices(run, rows, count), run_indices(run, labels, count),
                          &(CrossEntropySettings){.label_smoothing = loss_smoothing, .scale = loss_scale}));
    check_gradient(run, loss_objective, &c, c.hidden, dhidden.tensor, "dhidden");
    check_gradient(run, loss_objective, &c, c.weight, dweight.tensor, "dweight");
    free(c.nll);
    free(zeros);
}

typedef struct LossTermsContext {
    LossContext loss;
    Value row_weight, direction;
    int32_t offsets[6], tokens[10];
    double *log_p;
} LossTermsContext;

/* The weighted cross-entropy, and a further term of the pairs' log-probabilities: sum direction log_p + log_p^2. */
static double loss_terms_objective(const void *context) {
    const LossTermsContext *c = context;
    const LossContext *l = &c->loss;
    double sum = 0;
    reference_linear_cross_entropy(l->nll, NULL, NULL, l->hidden.host, l->weight.host, l->rows, l->labels, (double)loss_smoothing,
                                   1, l->count, l->tokens, l->width, l->vocabulary, (ReferenceLossTerms){0});
    reference_token_log_probabilities(c->log_p, l->hidden.host, l->weight.host, l->rows, c->offsets, c->tokens, l->count,
                                      l->width, l->vocabulary);
    for (int64_t i = 0; i < l->count; ++i) sum += (double)loss_scale * c->row_weight.host[i] * l->nll[i];
    for (int64_t k = 0; k < 2 * l->count; ++k) sum += (c->direction.host[k] + c->log_p[k]) * c->log_p[k];
    return sum;
}

/* Both ops as an objective uses them: log-probabilities, derivatives by them on the host, and back. */
static void loss_terms_differences(Run *run, const Shape *s, DType act) {
    if (!small_enough_for_differences(s)) return;
    int64_t t = shape_tokens(s), w = s->width, v = s->vocabulary, count = (t + 1) / 2;
    const Ops *ops = run->device->ops;
    int32_t rows[9], labels[9];
    for (int64_t i = 0; i < count; ++i) rows[i] = (int32_t)(2 * i), labels[i] = (int32_t)((5 * i + 3) % v);
    LossTermsContext c = {.loss = {run_random(run, act, SHAPE2(t, w), 1.0), run_random(run, act, SHAPE2(v, w), 0.5), rows, labels,
                                   calloc((size_t)count, 8), count, t, w, v},
                          .row_weight = run_random(run, DTYPE_F32, SHAPE1(count), 1.0),
                          .direction = run_random(run, DTYPE_F32, SHAPE1(2 * count), 1.0),
                          .log_p = calloc((size_t)(2 * count), 8)};
    for (int64_t i = 0; i < count; ++i) {
        c.offsets[i + 1] = (int32_t)(2 * i + 2);
        c.tokens[2 * i] = labels[i];
        c.tokens[2 * i + 1] = (int32_t)((labels[i] + 1) % v);
    }
    double *zeros = calloc((size_t)(v * w), 8);
    Value nll = run_poisoned(run, DTYPE_F32, SHAPE1(count)), dhidden = run_poisoned(run, act, SHAPE2(t, w));
    Value dweight = run_values(run, DTYPE_F32, SHAPE2(v, w), zeros), log_p = run_poisoned(run, DTYPE_F32, SHAPE1(2 * count));
    CrossEntropySettings settings = {.label_smoothing = loss_smoothing, .scale = loss_scale, .row_weight = c.row_weight.tensor};
    settings.pairs = (TokenPairs){run_indices(run, c.offsets, count + 1), run_indices(run, c.tokens, 2 * count)};
    Tensor index = run_indices(run, rows, count);
    run_succeeds(run, ops->token_log_probabilities(run->device, run->arena, log_p.tensor, c.loss.hidden.tensor,
                                                   c.loss.weight.tensor, index, settings.pairs));
    double *got = run_read(run, log_p.tensor);
    for (int64_t k = 0; k < 2 * count; ++k) got[k] = c.direction.host[k] + 2 * got[k];
    settings.pair_log_probability = log_p.tensor;
    settings.pair_derivative = run_values(run, DTYPE_F32, SHAPE1(2 * count), got).tensor;
    run_succeeds(run, ops->linear_cross_entropy(run->device, run->arena, nll.tensor, dhidden.tensor, dweight.tensor,
                                                c.loss.hidden.tensor, c.loss.weight.tensor, index,
                                                run_indices(run, labels, count), &settings));
    check_gradient(run, loss_terms_objective, &c, c.loss.hidden, dhidden.tensor, "dhidden");
    check_gradient(run, loss_terms_objective, &c, c.loss.weight, dweight.tensor, "dweight");
    free(got);
    free(zeros);
    free(c.log_p);
    free(c.loss.nll);
}

typedef struct RopeContext {
    Value x, dy;
    double *y, *cos_sin;
    int64_t tokens, heads, width;
} RopeContext;

static double rope_objective(const void *context) {
    const RopeContext *c = context;
    reference_rope(c->y, c->x.host, c->cos_sin, false, c->tokens, c->heads, c->width);
    return dot_product(c->y, c->dy.host, tensor_elements(c->x.tensor));
}

/* The backward pass of a rotation is the inverse rotation. */
static void rope_differences(Run *run, const Shape *s, DType act) {
    if (!small_enough_for_differences(s)) return;
    int64_t t = shape_tokens(s), h = s->query_heads, e = s->head_dimension;
    RopeContext c = {run_random(run, act, SHAPE3(t, h, e), 1.0),
                     run_random(run, act, SHAPE3(t, h, e), 1.0),
                     calloc((size_t)(t * h * e), 8),
                     calloc((size_t)(t * e), 8),
                     t,
                     h,
                     e};
    reference_rope_table(c.cos_sin, run->host_indices[1], 10000, t, e);
    Value table = run_values(run, DTYPE_F32, SHAPE2(t, e), c.cos_sin);
    Value gradient = run_values(run, act, SHAPE3(t, h, e), c.dy.host);
    run_succeeds(run, run->device->ops->rope(run->device, gradient.tensor, table.tensor, true));
    check_gradient(run, rope_objective, &c, c.x, gradient.tensor, "dx");
    free(c.y);
    free(c.cos_sin);
}

typedef struct LoraContext {
    Value x, a, q;
    double *p;
    LoraStack stack;
    const SequenceLayout *layout;
    Dropout dropout;
    int64_t width;
} LoraContext;

static double lora_objective(const void *context) {
    const LoraContext *c = context;
    reference_lora_down(c->p, c->x.host, c->a.host, c->stack, c->layout, c->dropout, c->width);
    return dot_product(c->p, c->q.host, tensor_elements(c->q.tensor));
}

static void lora_differences(Run *run, const Shape *s, DType act) {
    if (!small_enough_for_differences(s)) return;
    int64_t t = shape_tokens(s), w = s->width, rank = 2 * s->rank + 3;
    LoraContext c = {run_random(run, act, SHAPE2(t, w), 1.0),
                     run_random(run, act, SHAPE2(rank, w), 1.0),
                     run_random(run, act, SHAPE2(t, rank), 1.0),
                     calloc((size_t)(t * rank), 8),
                     {3, {s->rank, 3, s->rank}},
                     &run->layout,
                     {.p = 0.2f, .seed = 5, .step = 1, .input_id = 2},
                     w};
    double *zeros = calloc((size_t)(rank * w), 8);
    Value dx = run_poisoned(run, act, SHAPE2(t, w)), da = run_values(run, DTYPE_F32, SHAPE2(rank, w), zeros);
    run_succeeds(run, run->device->ops->lora_down_backward(run->device, run->arena, da.tensor, dx.tensor, false, c.q.tensor,
                                                           c.x.tensor, c.a.tensor, c.stack, c.layout, c.dropout));
    check_gradient(run, lora_objective, &c, c.x, dx.tensor, "dx");
    check_gradient(run, lora_objective, &c, c.a, da.tensor, "da");
    free(c.p);
    free(zeros);
}

const OpCase gradient_cases[] = {
    {"rms_norm by differences", rms_norm_differences, false},
    {"attention by differences", attention_differences, false},
    {"swiglu by differences", swiglu_differences, false},
    {"linear_cross_entropy by differences", loss_differences, false},
    {"linear_cross_entropy with all terms by differences", loss_terms_differences, false},
    {"rope by differences", rope_differences, false},
    {"lora_down_backward by differences", lora_differences, false},
    {"gelu by differences", gelu_differences, false},
    {NULL, NULL, false},
};
