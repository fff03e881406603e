/* Steps in float32 against float64: AdamW alone, and twenty whole steps of the training loop on text. */
#include "tests/parity/rig.h"

#include "io/checkpoint.h"
#include "io/json_lines.h"
#include "trainer/optimizer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The tolerances. */
static const double adamw_limit = 1e-6, update_limit = 1e-4, loss_limit = 5e-6;
/* Ours: what a norm of gradients within 1e-5 can differ by. */
static const double norm_limit = 1e-5;

typedef struct AdamW {
    Device *device;
    Arena *arena;
    Parameters *parameters;
    Options options;
    Optimizer *optimizer;
} AdamW;

/* The three tensors of the golden in one store; "wide" has a parameter group of its own, "bias" is no matrix. */
static void open_adamw(AdamW *a, const Safetensors *inputs, double max_grad_norm) {
    static const struct {
        const char *name;
        int dimensions;
        int64_t shape[2];
    } tensors[] = {{"matrix", 2, {7, 5}}, {"wide", 2, {3, 70}}, {"bias", 1, {11, 1}}};
    char text[512];
    snprintf(text, sizeof text,
             "training = { learning_rate = 1.0; weight_decay = 0.1; adam_beta1 = 0.9; adam_beta2 = 0.999; adam_epsilon = 1e-8;"
             " max_grad_norm = %g; parameter_groups = ( { pattern = \"wide\"; learning_rate = 1.0; weight_decay = 0.01; } ); };",
             max_grad_norm);
    expect_ok(options_load_text("test", text, &a->options));
    expect_ok(device_open(strcmp(PARITY_BACKEND, "cuda") == 0 ? BACKEND_CUDA : BACKEND_CPU, 0, 2, &a->device));
    expect_ok(arena_create(a->device, 1 << 24, &a->arena));
    expect_ok(parameters_create(a->device, DTYPE_F32, &a->parameters));
    for (int i = 0; i < 3; ++i) {
        Parameter *parameter;
        expect_ok(parameters_add(a->parameters, tensors[i].name, tensors[i].dimensions, tensors[i].shape, true,
                                 tensors[i].dimensions == 2, &parameter));
    }
    expect_ok(parameters_allocate(a->parameters, true));
    for (int i = 0; i < 3; ++i) {
        char name[32];
        snprintf(name, sizeof name, "param.%s", tensors[i].name);
        expect_ok(parameter_set(a->parameters, a->parameters->items[i], safetensors_find(inputs, name)->data));
    }
    expect_ok(optimizer_create(&a->options, a->parameters, a->arena, &a->optimizer));
}

static void close_adamw(AdamW *a) {
    optimizer_destroy(a->optimizer);
    parameters_destroy(a->parameters);
    arena_destroy(a->arena);
    device_close(a->device);
    options_free(&a->options);
}

static void set_gradients(AdamW *a, const Safetensors *inputs, int step) {
    for (int64_t i = 0; i < a->parameters->count; ++i) {
        Parameter *parameter = a->parameters->items[i];
        char name[48];
        snprintf(name, sizeof name, "grad.%d.%s", step, parameter->name);
        const SafetensorsEntry *entry = safetensors_find(inputs, name);
        assert_non_null(entry);
        expect_ok(device_upload(a->device, parameter->gradient.data, entry->data, (size_t)entry->bytes));
    }
}

/* Parameters and moments after one step: each element within the limit, and each array norm-wise. */
static void compare_state(const AdamW *a, const Safetensors *expected, int step, Worst *worst) {
    for (int64_t i = 0; i < a->parameters->count; ++i) {
        const Parameter *parameter = a->parameters->items[i];
        const struct {
            const char *what;
            Tensor tensor;
        } arrays[] = {{"param", parameter->master}, {"exp_avg", parameter->exp_avg}, {"exp_avg_sq", parameter->exp_avg_sq}};
        for (int k = 0; k < 3; ++k) {
            char name[64];
            int64_t n = parameter_elements(parameter);
            snprintf(name, sizeof name, "%s.%d.%s", arrays[k].what, step, parameter->name);
            double *golden = golden_values(expected, name, n);
            float *got = device_copy_of(a->device, arrays[k].tensor);
            expect_below(worst, largest_difference(got, golden, n), adamw_limit, name);
            expect_below(worst, relative_difference(got, golden, n), adamw_limit, name);
            free(golden);
            free(got);
        }
    }
}

static void test_adamw(void **state) {
    (void)state;
    Safetensors *inputs = golden_open("adamw", "inputs.safetensors"), *expected = golden_open("adamw", "expected.safetensors");
    JsonValue *meta = golden_meta("adamw");
    const JsonValue *rates = json_value_get(json_value_get(meta, "settings"), "learning_rates");
    AdamW a;
    Worst worst = {0};
    open_adamw(&a, inputs, 0.0);
    assert_int_equal(json_value_size(rates), 5);
    for (int step = 0; step < 5; ++step) {
        set_gradients(&a, inputs, step);
        expect_ok(optimizer_step(a.optimizer, step + 1, json_value_number(json_value_at(rates, (size_t)step)), 1e9));
        compare_state(&a, expected, step, &worst);
    }
    show_worst(&worst, adamw_limit, "absolute and relative difference");
    close_adamw(&a);
    json_value_free(meta);
    safetensors_close(inputs);
    safetensors_close(expected);
}

static void expect_close(const AdamW *a, Tensor of_a, const AdamW *b, Tensor of_b) {
    float *one = device_copy_of(a->device, of_a), *other = device_copy_of(b->device, of_b);
    assert_true(relative_difference_f32(one, other, tensor_elements(of_a)) < 1e-7);
    free(one);
    free(other);
}

/* The norm is over all tensors; clipping gives the same step as gradients scaled beforehand. */
static void test_clipping(void **state) {
    (void)state;
    Safetensors *inputs = golden_open("adamw", "inputs.safetensors");
    AdamW clipped, scaled;
    open_adamw(&clipped, inputs, 0.5);
    open_adamw(&scaled, inputs, 0.0);
    set_gradients(&clipped, inputs, 0);
    set_gradients(&scaled, inputs, 0);
    double norm, sum = 0;
    expect_ok(optimizer_grad_norm(clipped.optimizer, &norm));
    const Tensor flat = scaled.parameters->gradient;
    float *gradient = device_copy_of(scaled.device, flat);
    for (int64_t i = 0; i < scaled.parameters->flat_elements; ++i) sum += (double)gradient[i] * gradient[i];
    assert_true(fabs(norm - sqrt(sum)) < 1e-12 * norm && norm > 0.5);
    for (int64_t i = 0; i < scaled.parameters->flat_elements; ++i) gradient[i] *= (float)(0.5 / (norm + 1e-6));
    expect_ok(device_upload(scaled.device, flat.data, gradient, tensor_bytes(flat)));
    free(gradient);
    expect_ok(optimizer_step(clipped.optimizer, 1, 1e-3, norm));
    expect_ok(optimizer_step(scaled.optimizer, 1, 1e-3, norm));
    for (int64_t i = 0; i < 3; ++i) {
        const Parameter *a = clipped.parameters->items[i], *b = scaled.parameters->items[i];
        expect_close(&clipped, a->exp_avg, &scaled, b->exp_avg);
        expect_close(&clipped, a->master, &scaled, b->master);
    }
    close_adamw(&clipped);
    close_adamw(&scaled);
    safetensors_close(inputs);
}

static void open_train20(Rig *rig, World *world, const char *output) {
    rig_open(rig, world, golden_path("train20", "adapter"), true,
             "run = { backend = \"" PARITY_BACKEND
             "\"; threads = 2; output_dir = \"%s\"; seed = 3001; }; model = { path = \"%s\"; dtype = "
             "\"float32\"; };"
             "data = { train = ( { path = \"%s\"; format = \"tokens\"; } ); shuffle = false; cache_dir = \"%s\"; };"
             "training = { max_steps = 20; global_batch_size = 4; per_device_train_batch_size = 2; learning_rate = 1e-3;"
             " lr_scheduler_type = \"cosine\"; warmup_steps = 4; weight_decay = 0.01; max_grad_norm = 1.0; logging_steps = 1; };",
             output, golden_path("tied_h64", ""), golden_path("train20", "train.jsonl"), world_path(world, "cache"));
}

/* ||(w20 - w0) - (w20 - w0)*|| / ||(w20 - w0)*|| of each matrix. */
static Worst update_differences(const Rig *rig, double limit) {
    Safetensors *expected = golden_open("train20", "expected.safetensors"), *start = golden_open("train20", "adapter");
    Worst worst = {0};
    int64_t compared = 0;
    for (int64_t i = 0; i < rig->session.parameters->count; ++i) {
        const Parameter *parameter = rig->session.parameters->items[i];
        char name[256];
        if (!parameter->trainable) continue;
        int64_t n = parameter_elements(parameter);
        snprintf(name, sizeof name, "final.%s", parameter->name);
        double *final = golden_values(expected, name, n), *first = golden_values(start, parameter->name, n);
        float *master = device_copy_of(rig->session.device, parameter->master);
        double difference = 0, norm = 0;
        for (int64_t k = 0; k < n; ++k) {
            double error = master[k] - final[k];
            difference += error * error;
            norm += (final[k] - first[k]) * (final[k] - first[k]);
        }
        expect_below(&worst, sqrt(difference / norm), limit, parameter->name);
        free(final);
        free(first);
        free(master);
        ++compared;
    }
    assert_int_equal(compared, safetensors_count(expected));
    safetensors_close(expected);
    safetensors_close(start);
    return worst;
}

/* metrics.jsonl, one line per step; its learning_rate is the one that the next update uses. */
static void compare_metrics(const char *output) {
    JsonValue *meta = golden_meta("train20"), *line;
    const JsonValue *steps = json_value_get(meta, "steps");
    JsonLines *reader;
    char path[300];
    Worst loss = {0}, norm = {0};
    snprintf(path, sizeof path, "%s/metrics.jsonl", output);
    expect_ok(json_lines_open(path, &reader));
    for (size_t i = 0; i < 20; ++i) {
        const JsonValue *golden = json_value_at(steps, i);
        char name[16];
        snprintf(name, sizeof name, "step %zu", i + 1);
        expect_ok(json_lines_next_object(reader, &line));
        assert_int_equal(golden_number(line, "step"), i + 1);
        assert_int_equal(golden_number(line, "updates"), i + 1);
        assert_int_equal(golden_number(line, "label_tokens"), golden_number(golden, "label_tokens"));
        expect_below(&loss, fabs(golden_number(line, "loss") - golden_number(golden, "loss")), loss_limit, name);
        double wanted = golden_number(golden, "grad_norm");
        expect_below(&norm, fabs(golden_number(line, "grad_norm") - wanted) / wanted, norm_limit, name);
        double next = i < 19 ? golden_number(json_value_at(steps, i + 1), "lr_used") : 0.0;
        assert_true(fabs(golden_number(line, "learning_rate") - next) <= 1e-15);
        json_value_free(line);
    }
    show_worst(&loss, loss_limit, "loss, absolute difference");
    show_worst(&norm, norm_limit, "gradient norm, relative difference");
    json_lines_close(reader);
    json_value_free(meta);
}

/* What export will read is what training left in memory. */
static void compare_checkpoint(const Rig *rig, const char *output) {
    Checkpoint *checkpoint;
    char path[300];
    snprintf(path, sizeof path, "%s/final.h5", output);
    expect_ok(checkpoint_open(path, &checkpoint));
    assert_int_equal(checkpoint_meta(checkpoint)->step, 20);
    assert_int_equal(checkpoint_meta(checkpoint)->updates, 20);
    for (int64_t i = 0; i < checkpoint_count(checkpoint); ++i) {
        const CheckpointTensor *tensor = checkpoint_at(checkpoint, i);
        const Parameter *parameter = parameters_find(rig->session.parameters, tensor->name);
        assert_non_null(parameter);
        expect_same_bits(rig->session.device, parameter->master, tensor->parameter);
        expect_same_bits(rig->session.device, parameter->exp_avg, tensor->exp_avg);
        expect_same_bits(rig->session.device, parameter->exp_avg_sq, tensor->exp_avg_sq);
    }
    checkpoint_close(checkpoint);
}

static void test_twenty_steps(void **state) {
    World *world = *state;
    Rig rig;
    const char *output = world_path(world, "train20");
    open_train20(&rig, world, output);
    expect_ok(rig_train(&rig, world, NULL));
    Worst worst = update_differences(&rig, update_limit);
    show_worst(&worst, update_limit, "update, relative difference");
    compare_metrics(output);
    compare_checkpoint(&rig, output);
    rig_close(&rig);
}

/* Trained wrongly in the same way, the program is as wrong as the reference: the update test would notice. */
static void test_wrong_training(void **state) {
    static const char *const controls[] = {"no_clipping", "no_weight_decay", "adam_epsilon_x100"};
    World *world = *state;
    if (PARITY_SLOW) skip(); /* it tests the test, for three times twenty steps */
    JsonValue *meta = golden_meta("train20");
    for (size_t i = 0; i < 3; ++i) {
        Rig rig;
        char path[96];
        open_train20(&rig, world, world_path(world, "wrong-%zu", i));
        if (i == 0) rig.options.training.max_grad_norm = 1e9;
        if (i == 1) rig.options.training.weight_decay = 0;
        if (i == 2) rig.options.training.adam_epsilon = 1e-6;
        expect_ok(rig_train(&rig, world, NULL));
        Worst worst = update_differences(&rig, 1.0);
        snprintf(path, sizeof path, "controls/%s/update_max_relative", controls[i]);
        double wanted = golden_number(meta, path);
        print_message("           %s: %.3g, the wrong reference %.3g\n", controls[i], worst.figure, wanted);
        assert_true(fabs(worst.figure - wanted) <= update_limit && worst.figure > 10 * update_limit);
        rig_close(&rig);
    }
    json_value_free(meta);
}

int main(void) {
    World world;
    world_start(&world);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_clipping),
        cmocka_unit_test_prestate(test_twenty_steps, &world),
        cmocka_unit_test_prestate(test_wrong_training, &world),
    };
    return world_end(&world, cmocka_run_group_tests(tests, NULL, NULL));
}
