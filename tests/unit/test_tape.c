/* The tape: exact gradients through shared buffers, segments that are recomputed or dropped, memory that is given back, and
 * finite differences through a small network of real layers. */
#include "model/layers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { N = 4 };

typedef struct Bench {
    Device *device;
    Arena *arena;
    Tape *tape;
    Parameters *parameters;
    Parameter *p; /* [N], 1 2 3 4, trainable */
    int segment_runs;
} Bench;

static int set_up(void **state) {
    Bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    assert_null(device_open(BACKEND_CPU, 0, 1, &b->device));
    assert_null(arena_create(b->device, 1 << 24, &b->arena));
    assert_null(tape_create(b->arena, &b->tape));
    assert_null(parameters_create(b->device, DTYPE_F32, &b->parameters));
    assert_null(parameters_add(b->parameters, "p", 1, (int64_t[]){N}, true, true, &b->p));
    assert_null(parameters_allocate(b->parameters, true));
    assert_null(parameter_set(b->parameters, b->p, (float[]){1, 2, 3, 4}));
    *state = b;
    return 0;
}

static int tear_down(void **state) {
    Bench *b = *state;
    tape_destroy(b->tape);
    parameters_destroy(b->parameters);
    arena_destroy(b->arena);
    device_close(b->device);
    free(b);
    return 0;
}

/* Small ops with exact arithmetic. */
static Status leaf_backward(Tape *tape, Node *node) {
    Parameter *parameter = *(Parameter **)node->state;
    return tape_ops(tape)->add(tape_device(tape), parameter->gradient, node->outputs[0]->gradient->tensor, 1.0f);
}

static Value *leaf(Tape *tape, Parameter *parameter) {
    Value *y;
    Node node = {.backward = leaf_backward, .output_count = 1};
    assert_null(tape_value(tape, DTYPE_F32, 1, (int64_t[]){N}, parameter->trainable, &y));
    assert_null(device_copy(tape_device(tape), y->data.data, parameter->value.data, N * sizeof(float)));
    node.outputs[0] = y;
    assert_null(tape_host_allocate(tape, sizeof parameter, &node.state));
    memcpy(node.state, &parameter, sizeof parameter);
    assert_null(tape_record(tape, node, NULL, 0));
    return y;
}

static Status scale_backward(Tape *tape, Node *node) {
    Tensor dx;
    bool accumulate;
    if (!node->inputs[0]->needs_gradient) return STATUS_OK;
    TRY(tape_gradient(tape, node->inputs[0], &dx, &accumulate));
    if (!accumulate) TRY(device_fill_zero(tape_device(tape), dx.data, tensor_bytes(dx)));
    return tape_ops(tape)->add(tape_device(tape), dx, node->outputs[0]->gradient->tensor, *(float *)node->state);
}

static Value *scale(Tape *tape, Value *x, float factor) {
    Value *y;
    Node node = {.backward = scale_backward, .inputs = {x}, .input_count = 1, .output_count = 1};
    assert_null(tape_value(tape, DTYPE_F32, 1, (int64_t[]){N}, x->needs_gradient, &y));
    for (int i = 0; i < N; ++i) ((float *)y->data.data)[i] = factor * ((float *)x->data.data)[i];
    node.outputs[0] = y;
    assert_null(tape_host_allocate(tape, sizeof factor, &node.state));
    memcpy(node.state, &factor, sizeof factor);
    assert_null(tape_record(tape, node, NULL, 0));
    return y;
}

/* y = a + b; both inputs share the gradient of y. */
static Status sum_backward(Tape *tape, Node *node) {
    for (int i = 0; i < 2; ++i)
        if (node->inputs[i]->needs_gradient) TRY(tape_gradient_pass(tape, node->inputs[i], node->outputs[0]));
    return STATUS_OK;
}

static Value *sum(Tape *tape, Value *a, Value *b) {
    Value *y;
    Node node = {.backward = sum_backward, .inputs = {a, b}, .input_count = 2, .output_count = 1};
    assert_null(tape_value(tape, DTYPE_F32, 1, (int64_t[]){N}, a->needs_gradient || b->needs_gradient, &y));
    for (int i = 0; i < N; ++i) ((float *)y->data.data)[i] = ((float *)a->data.data)[i] + ((float *)b->data.data)[i];
    node.outputs[0] = y;
    assert_null(tape_record(tape, node, NULL, 0));
    return y;
}

/* y = x^2, which needs x again in the backward pass. */
static Status square_backward(Tape *tape, Node *node) {
    Tensor dx;
    bool accumulate;
    const Value *x = node->inputs[0];
    assert_non_null(x->data.data);
    TRY(tape_gradient(tape, node->inputs[0], &dx, &accumulate));
    for (int i = 0; i < N; ++i) {
        float d = 2 * ((float *)x->data.data)[i] * ((float *)node->outputs[0]->gradient->tensor.data)[i];
        ((float *)dx.data)[i] = accumulate ? ((float *)dx.data)[i] + d : d;
    }
    return STATUS_OK;
}

static Value *square(Tape *tape, Value *x) {
    Value *y;
    Node node = {.backward = square_backward, .inputs = {x}, .input_count = 1, .output_count = 1};
    assert_null(tape_value(tape, DTYPE_F32, 1, (int64_t[]){N}, x->needs_gradient, &y));
    for (int i = 0; i < N; ++i) ((float *)y->data.data)[i] = ((float *)x->data.data)[i] * ((float *)x->data.data)[i];
    node.outputs[0] = y;
    assert_null(tape_record(tape, node, &x, 1));
    return y;
}

/* The loss is the sum of y's elements: its gradient is one everywhere. */
static void backward_from(Bench *b, Value *y) {
    Tensor dy;
    bool accumulate;
    assert_null(tape_gradient(b->tape, y, &dy, &accumulate));
    for (int i = 0; i < N; ++i) ((float *)dy.data)[i] = 1;
    assert_null(tape_backward(b->tape));
    assert_int_equal(arena_used(b->arena), 0); /* everything was given back */
}

static void begin(Bench *b, bool recompute) {
    assert_null(tape_begin(b->tape, true, recompute));
    assert_null(device_fill_zero(b->device, b->parameters->gradient.data, tensor_bytes(b->parameters->gradient)));
}

static void expect_gradient(const Bench *b, const float *wanted) {
    const float *gradient = b->p->gradient.data;
    for (int i = 0; i < N; ++i)
        if (gradient[i] != wanted[i]) fail_msg("gradient[%d] = %g, expected %g", i, gradient[i], wanted[i]);
}

/* u = 2p + 3p + 5 (2p): the branch adds to a gradient that three values share by then, or starts before they share it. */
static void test_shared_gradient_is_copied(void **state) {
    Bench *b = *state;
    for (int order = 0; order < 2; ++order) {
        begin(b, false);
        Value *p = leaf(b->tape, b->p), *x = scale(b->tape, p, 2), *y = scale(b->tape, p, 3), *s, *t;
        if (order == 0) {
            t = scale(b->tape, x, 5);
            s = sum(b->tape, x, y); /* its backward comes first and shares; t's must copy */
        } else {
            s = sum(b->tape, x, y);
            t = scale(b->tape, x, 5);
        }
        backward_from(b, sum(b->tape, s, t));
        expect_gradient(b, (float[]){15, 15, 15, 15});
    }
}

/* x + x, and x + (x + x): one value on both sides. */
static void test_value_added_to_itself(void **state) {
    Bench *b = *state;
    begin(b, false);
    Value *x = scale(b->tape, leaf(b->tape, b->p), 3);
    backward_from(b, sum(b->tape, x, sum(b->tape, x, x)));
    expect_gradient(b, (float[]){9, 9, 9, 9});
}

/* A gradient accumulates over passes until somebody clears it. */
static void test_gradients_accumulate(void **state) {
    Bench *b = *state;
    begin(b, false);
    backward_from(b, scale(b->tape, leaf(b->tape, b->p), 2));
    assert_null(tape_begin(b->tape, true, false));
    backward_from(b, square(b->tape, leaf(b->tape, b->p)));
    expect_gradient(b, (float[]){4, 6, 8, 10});
}

/* A branch that leads nowhere gets no gradient and does no harm. */
static void test_unused_branch(void **state) {
    Bench *b = *state;
    begin(b, false);
    Value *p = leaf(b->tape, b->p), *used = scale(b->tape, p, 7);
    square(b->tape, scale(b->tape, p, 100));
    backward_from(b, used);
    expect_gradient(b, (float[]){7, 7, 7, 7});
}

static void test_done_releases_what_nobody_saved(void **state) {
    Bench *b = *state;
    begin(b, false);
    Value *p = leaf(b->tape, b->p), *x = scale(b->tape, p, 2), *y = square(b->tape, x);
    size_t before = arena_used(b->arena);
    tape_done(b->tape, x); /* square needs it */
    assert_int_equal(arena_used(b->arena), before);
    assert_non_null(x->data.data);
    tape_done(b->tape, p);
    assert_true(arena_used(b->arena) < before);
    assert_null(p->data.data);
    tape_done(b->tape, NULL);
    backward_from(b, y);
    expect_gradient(b, (float[]){8, 16, 24, 32});
}

static void test_evaluation_records_nothing(void **state) {
    Bench *b = *state;
    assert_null(tape_begin(b->tape, false, false));
    assert_false(tape_recording(b->tape));
    Value *p = leaf(b->tape, b->p), *x = square(b->tape, p);
    tape_done(b->tape, p);
    assert_null(p->data.data);
    assert_true(((float *)x->data.data)[3] == 16);
    assert_null(tape_begin(b->tape, true, false)); /* releases everything */
    assert_int_equal(arena_used(b->arena), 0);
}

/* (3x)^2 and 3x, with two inner values. */
static Status segment(Tape *tape, void *context, Value *const *inputs, Value **outputs) {
    Bench *b = context;
    ++b->segment_runs;
    Value *x = scale(tape, inputs[0], 3);
    outputs[0] = square(tape, x);
    outputs[1] = x;
    scale(tape, x, 11);
    return STATUS_OK;
}

/* Two segments, one on top of the other, and the sum of their outputs: 9 p^2 + ... */
static void run_segments(Bench *b, bool recompute, float *gradient, size_t *held) {
    Value *first[2], *second[2];
    begin(b, recompute);
    b->segment_runs = 0;
    Value *p = leaf(b->tape, b->p);
    assert_null(tape_segment(b->tape, segment, b, &p, 1, first, 2));
    Value *middle = sum(b->tape, first[0], first[1]);
    assert_null(tape_segment(b->tape, segment, b, &middle, 1, second, 2));
    *held = arena_used(b->arena);
    assert_int_equal(b->segment_runs, 2);
    backward_from(b, sum(b->tape, second[0], second[1]));
    assert_int_equal(b->segment_runs, recompute ? 4 : 2);
    memcpy(gradient, b->p->gradient.data, N * sizeof *gradient);
}

static void test_segments(void **state) {
    Bench *b = *state;
    float kept[N], recomputed[N];
    size_t kept_bytes, recomputed_bytes;
    run_segments(b, false, kept, &kept_bytes);
    run_segments(b, true, recomputed, &recomputed_bytes);
    assert_memory_equal(kept, recomputed, sizeof kept);
    assert_true(recomputed_bytes < kept_bytes);
    for (int i = 0; i < N; ++i) { /* m = 9 p^2 + 3 p; loss = 9 m^2 + 3 m */
        float p = (float)i + 1, m = 9 * p * p + 3 * p;
        assert_true(kept[i] == (18 * m + 3) * (18 * p + 3));
    }
}

/* Nothing trainable inside: run once, inner values gone, nothing recorded. */
static void test_frozen_segment(void **state) {
    Bench *b = *state;
    float data[N] = {1, 2, 3, 4};
    for (int recompute = 0; recompute < 2; ++recompute) {
        Value *x, *out[2];
        begin(b, recompute);
        b->segment_runs = 0;
        assert_null(tape_external(b->tape, tensor_1d(data, DTYPE_F32, N), false, &x));
        assert_null(tape_segment(b->tape, segment, b, &x, 1, out, 2));
        assert_int_equal(arena_used(b->arena), 2 * 256); /* the two outputs, in the arena's granules */
        assert_true(((float *)out[0]->data.data)[1] == 36 && ((float *)out[1]->data.data)[1] == 6);
        assert_null(tape_backward(b->tape));
        assert_int_equal(b->segment_runs, 1);
        assert_int_equal(arena_used(b->arena), 0);
        assert_true(data[0] == 1); /* external memory is not touched */
    }
}

/* A network of real layers: embedding, norm, two linears with bias and LoRA, swiglu, linear, residual norm, head. */
enum { T = 7, D = 16, F = 24, V = 11, RANK = 3, LABELS = 4 };

typedef struct Network {
    Device *device;
    Arena *arena;
    Tape *tape;
    Parameters *parameters;
    Parameter *table, *norm, *final_norm, *head;
    Linear gate, up, down;
    Dropout dropout;
    SequenceLayout layout;
} Network;

static Parameter *add_random(Network *n, const char *name, int dimensions, int64_t rows, int64_t columns) {
    Parameter *parameter;
    assert_null(parameters_add(n->parameters, name, dimensions, (int64_t[]){rows, columns}, true, true, &parameter));
    return parameter;
}

static void fill_random(Network *n) {
    uint64_t seed = 7;
    for (int64_t i = 0; i < n->parameters->count; ++i) {
        const Parameter *parameter = n->parameters->items[i];
        for (int64_t k = 0; k < parameter_elements(parameter); ++k) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            ((float *)parameter->master.data)[k] = 0.6f * ((float)(seed >> 40) / 8388608.0f - 1.0f);
        }
    }
}

static Linear add_linear(Network *n, const char *const names[4], int64_t out, int64_t in) {
    Linear linear = {.weight = add_random(n, names[0], 2, out, in), .bias = add_random(n, names[1], 1, out, 0)};
    linear.lora = (Lora){add_random(n, names[2], 2, RANK, in), add_random(n, names[3], 2, out, RANK), 0.5f};
    return linear;
}

static void open_network(Network *n) {
    *n = (Network){.dropout = {.p = 0.25f, .seed = 3, .step = 5, .input_id = 1}};
    assert_null(device_open(BACKEND_CPU, 0, 1, &n->device));
    assert_null(arena_create(n->device, 1 << 24, &n->arena));
    assert_null(tape_create(n->arena, &n->tape));
    assert_null(parameters_create(n->device, DTYPE_F32, &n->parameters));
    n->table = add_random(n, "table", 2, V, D);
    n->norm = add_random(n, "norm", 1, D, 0);
    n->gate = add_linear(n, (const char *const[]){"gate", "gate.bias", "gate.A", "gate.B"}, F, D);
    n->up = add_linear(n, (const char *const[]){"up", "up.bias", "up.A", "up.B"}, F, D);
    n->down = add_linear(n, (const char *const[]){"down", "down.bias", "down.A", "down.B"}, D, F);
    n->final_norm = add_random(n, "final_norm", 1, D, 0);
    n->head = add_random(n, "head", 2, V, D);
    assert_null(parameters_allocate(n->parameters, true));
    fill_random(n);
}

static void close_network(Network *n) {
    tape_destroy(n->tape);
    parameters_destroy(n->parameters);
    arena_destroy(n->arena);
    device_close(n->device);
}

static Status block(Tape *tape, void *context, Value *const *inputs, Value **outputs) {
    Network *n = context;
    const Linear *pair[2] = {&n->gate, &n->up}, *down = &n->down;
    Value *sum_, *normed, *wide[2], *activated;
    TRY(layer_residual_rms_norm(tape, inputs[0], NULL, n->norm, 1e-6f, &sum_, &normed));
    TRY(layer_linear_group(tape, normed, pair, 2, &n->layout, n->dropout, wide));
    tape_done(tape, normed);
    TRY(layer_swiglu(tape, wide[0], wide[1], &activated));
    tape_done(tape, wide[0]);
    tape_done(tape, wide[1]);
    Dropout second = n->dropout;
    second.input_id = 2;
    TRY(layer_linear_group(tape, activated, &down, 1, &n->layout, second, outputs));
    tape_done(tape, activated);
    return STATUS_OK;
}

/* The block is applied twice with the same weights: their gradients are sums, and the residual stream is shared. */
static double network_loss(Network *n, bool recording, bool recompute) {
    static int32_t ids[T] = {3, 1, 10, 3, 7, 0, 1}, offsets[3] = {0, 4, T}, positions[T] = {0, 1, 2, 3, 0, 1, 2},
                   samples[T] = {5, 5, 5, 5, 9, 9, 9}, rows[LABELS] = {0, 2, 4, 5}, labels[LABELS] = {1, 10, 0, 3};
    float nll[LABELS];
    Value *x, *delta, *stream, *normed, *hidden;
    n->layout = (SequenceLayout){T, 2, 4, offsets, offsets, positions, samples};
    assert_null(tape_begin(n->tape, recording, recompute));
    assert_null(layer_embedding(n->tape, n->table, tensor_1d(ids, DTYPE_I32, T), &x));
    assert_null(tape_segment(n->tape, block, n, &x, 1, &delta, 1));
    assert_null(layer_residual_rms_norm(n->tape, x, delta, n->norm, 1e-6f, &stream, &normed));
    assert_null(tape_segment(n->tape, block, n, &normed, 1, &delta, 1));
    assert_null(layer_residual_rms_norm(n->tape, stream, delta, n->final_norm, 1e-6f, &x, &hidden));
    assert_null(layer_linear_cross_entropy(n->tape, hidden, n->head, tensor_1d(rows, DTYPE_I32, LABELS),
                                           tensor_1d(labels, DTYPE_I32, LABELS), &(CrossEntropySettings){.scale = 1.0f},
                                           tensor_1d(nll, DTYPE_F32, LABELS)));
    double loss = 0;
    for (int i = 0; i < LABELS; ++i) loss += nll[i];
    return loss;
}

static float *network_gradient(Network *n, bool recompute) {
    size_t bytes = tensor_bytes(n->parameters->gradient);
    assert_null(device_fill_zero(n->device, n->parameters->gradient.data, bytes));
    network_loss(n, true, recompute);
    assert_null(tape_backward(n->tape));
    assert_int_equal(arena_used(n->arena), 0);
    float *copy = malloc(bytes);
    assert_non_null(copy);
    memcpy(copy, n->parameters->gradient.data, bytes);
    return copy;
}

/* Central differences along a direction in each tensor: the direction of its gradient, where the slope is its norm, and one
 * across it. */
static void compare_slopes(Network *n, const Parameter *parameter, const float *gradient) {
    int64_t count = parameter_elements(parameter);
    float *master = parameter->master.data, *saved = malloc((size_t)count * sizeof *saved);
    double norm = 0;
    assert_non_null(saved);
    memcpy(saved, master, (size_t)count * sizeof *saved);
    for (int64_t k = 0; k < count; ++k) norm += (double)gradient[k] * gradient[k];
    norm = sqrt(norm);
    assert_true(norm > 1e-3);
    for (int direction = 0; direction < 2; ++direction) {
        double losses[2], slope = 0, step = 4e-3;
        for (int side = 0; side < 2; ++side) {
            for (int64_t k = 0; k < count; ++k) {
                double unit = direction == 0 ? gradient[k] / norm : (k % 3 - 1.0) / sqrt((double)count);
                master[k] = (float)(saved[k] + (side ? step : -step) * unit);
                if (side) slope += gradient[k] * unit;
            }
            losses[side] = network_loss(n, false, false);
        }
        double measured = (losses[1] - losses[0]) / (2 * step);
        if (fabs(measured - slope) > 1e-3 * norm)
            fail_msg("%s, direction %d: slope %g, gradient says %g", parameter->name, direction, measured, slope);
    }
    memcpy(master, saved, (size_t)count * sizeof *saved);
    free(saved);
}

static void test_finite_differences(void **state) {
    (void)state;
    Network n;
    open_network(&n);
    float *gradient = network_gradient(&n, false);
    for (int64_t i = 0; i < n.parameters->count; ++i)
        compare_slopes(&n, n.parameters->items[i], gradient + n.parameters->items[i]->offset);
    free(gradient);
    close_network(&n);
}

static void test_recomputed_network(void **state) {
    (void)state;
    Network n;
    open_network(&n);
    float *kept = network_gradient(&n, false), *recomputed = network_gradient(&n, true);
    assert_memory_equal(kept, recomputed, tensor_bytes(n.parameters->gradient));
    free(kept);
    free(recomputed);
    close_network(&n);
}

#define WITH_BENCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_BENCH(test_shared_gradient_is_copied),
        WITH_BENCH(test_value_added_to_itself),
        WITH_BENCH(test_gradients_accumulate),
        WITH_BENCH(test_unused_branch),
        WITH_BENCH(test_done_releases_what_nobody_saved),
        WITH_BENCH(test_evaluation_records_nothing),
        WITH_BENCH(test_segments),
        WITH_BENCH(test_frozen_segment),
        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_recomputed_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
