/* Rules of a training run: what is frozen stays, decay and parameter groups do what they say, and steps without a finite
 * gradient are skipped without a trace until there are too many of them. */
#include "tests/parity/rig.h"

#include "io/checkpoint.h"
#include "io/file.h"
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

/* The tensor's values in the model's file, as floats. */
static float *file_values(const Rig *rig, const Parameter *parameter) {
    const SafetensorsEntry *entry = safetensors_find(rig->session.weights, parameter->name);
    float *values = malloc((size_t)parameter_elements(parameter) * sizeof *values);
    assert_true(entry && values);
    assert_true(convert_to_float(entry->dtype, entry->data, parameter_elements(parameter), values));
    return values;
}

static void train_some_base_tensors(World *world, const char *dtype) {
    Rig rig;
    rig_open(&rig, world, NULL, true,
             "run = { backend = \"" PARITY_BACKEND "\"; threads = 2; output_dir = \"%s\"; };"
             "model = { path = \"%s\"; dtype = \"%s\"; trainable = [ \"mlp.down_proj.weight\", \"v_proj.bias\", "
             "\"1.input_layer\" ]; };"
             "data = { train = ( { path = \"%s\"; format = \"tokens\"; } ); };"
             "training = { max_steps = 4; per_device_train_batch_size = 4; learning_rate = 1e-2; weight_decay = 0.1; };",
             world_path(world, "frozen-%s", dtype), golden_path("tied_h64", ""), dtype, golden_path("train20", "train.jsonl"));
    expect_ok(rig_train(&rig, world, NULL));
    int64_t trained = 0;
    for (int64_t i = 0; i < rig.session.parameters->count; ++i) {
        const Parameter *parameter = rig.session.parameters->items[i];
        float *before = file_values(&rig, parameter), *after = malloc((size_t)parameter_elements(parameter) * sizeof *after);
        size_t bytes = (size_t)parameter_elements(parameter) * sizeof *after;
        assert_non_null(after);
        expect_ok(parameter_get(rig.session.parameters, parameter, after));
        bool same = memcmp(before, after, bytes) == 0;
        if (same == parameter->trainable) fail_msg("%s %s", parameter->name, same ? "has not moved" : "is frozen but has moved");
        trained += parameter->trainable;
        free(before);
        free(after);
    }
    assert_int_equal(trained, 2 + 2 + 1);
    rig_close(&rig);
}

static void test_frozen_tensors_stay(void **state) {
    train_some_base_tensors(*state, "float32");
    train_some_base_tensors(*state, "bfloat16");
}

static void open_full(Rig *rig, World *world) {
    rig_open(rig, world, NULL, true,
             "run = { backend = \"" PARITY_BACKEND
             "\"; threads = 2; }; model = { path = \"%s\"; dtype = \"float32\"; trainable = [ \".\" ]; };"
             "training = { learning_rate = 1e-3; weight_decay = 0.1; max_grad_norm = 0.0; parameter_groups = ("
             " { pattern = \"norm\"; learning_rate = 4e-3; weight_decay = 0.5; },"
             " { pattern = \"layers\\\\.0\\\\.mlp\"; learning_rate = 2e-3; weight_decay = 0.2; },"
             " { pattern = \"mlp\"; learning_rate = 3e-3; } ); };",
             golden_path("tied_h64", ""));
}

/* What the configuration above says, rule by rule, the first match first. */
static void rates_of(const char *name, double *learning_rate, double *weight_decay) {
    *learning_rate = 1e-3;
    *weight_decay = 0.1;
    if (strstr(name, "norm"))
        *learning_rate = 4e-3, *weight_decay = 0.5;
    else if (strstr(name, "layers.0.mlp"))
        *learning_rate = 2e-3, *weight_decay = 0.2;
    else if (strstr(name, "mlp"))
        *learning_rate = 3e-3, *weight_decay = 0.0;
    if (strstr(name, "norm") || strstr(name, ".bias")) *weight_decay = 0.0; /* neither biases nor norms decay */
}

/* First update of AdamW with decoupled decay, by the formula: m^ = g, v^ = g^2. */
static double updated(double p, double g, double learning_rate, double weight_decay) {
    return p - learning_rate * weight_decay * p - learning_rate * g / (fabs(g) + 1e-8);
}

static void test_decay_and_groups(void **state) {
    Rig rig;
    Optimizer *optimizer;
    double norm;
    Samples samples = samples_read(golden_path("tied_h64", "batch.jsonl"));
    open_full(&rig, *state);
    expect_ok(optimizer_create(&rig.options, rig.session.parameters, rig.session.arena, &optimizer));
    rig_gradients(&rig, &samples, (Pass){0});
    float *before = rig_copy_master(&rig), *gradient = rig_copy_gradient(&rig);
    expect_ok(optimizer_grad_norm(optimizer, &norm));
    expect_ok(optimizer_step(optimizer, 1, 0.5, norm)); /* half way down a schedule */
    for (int64_t i = 0; i < rig.session.parameters->count; ++i) {
        const Parameter *parameter = rig.session.parameters->items[i];
        double learning_rate, weight_decay;
        rates_of(parameter->name, &learning_rate, &weight_decay);
        float *master = device_copy_of(rig.session.device, parameter->master);
        for (int64_t k = 0; k < parameter_elements(parameter); ++k) {
            double p = before[parameter->offset + k], g = gradient[parameter->offset + k];
            double wanted = updated(p, g, 0.5 * learning_rate, weight_decay), got = master[k];
            if (fabs(got - wanted) > 1.5e-7 * fabs(p) + 1e-6 * learning_rate)
                fail_msg("%s[%lld]: %.9g, the formula gives %.9g", parameter->name, (long long)k, got, wanted);
        }
        free(master);
    }
    free(before);
    free(gradient);
    optimizer_destroy(optimizer);
    samples_free(&samples);
    rig_close(&rig);
}

/* Without a gradient only decay moves anything: matrices shrink, biases and norms keep their bits. */
static void test_only_matrices_decay(void **state) {
    Rig rig;
    Optimizer *optimizer;
    open_full(&rig, *state);
    expect_ok(optimizer_create(&rig.options, rig.session.parameters, rig.session.arena, &optimizer));
    float *before = rig_copy_master(&rig);
    expect_ok(optimizer_step(optimizer, 1, 1.0, 0.0));
    int64_t vectors = 0;
    for (int64_t i = 0; i < rig.session.parameters->count; ++i) {
        const Parameter *parameter = rig.session.parameters->items[i];
        double learning_rate, weight_decay;
        rates_of(parameter->name, &learning_rate, &weight_decay);
        const float *was = before + parameter->offset;
        float *is = device_copy_of(rig.session.device, parameter->master);
        if (parameter->dimensions == 1) {
            assert_memory_equal(was, is, tensor_bytes(parameter->master));
            ++vectors;
        }
        for (int64_t k = 0; k < parameter_elements(parameter); ++k)
            assert_true(fabs(is[k] - was[k] * (1 - learning_rate * weight_decay)) <= 1.2e-7 * fabs(was[k]));
        free(is);
    }
    assert_int_equal(vectors, 2 * (2 + 3) + 1);
    free(before);
    optimizer_destroy(optimizer);
    rig_close(&rig);
}

static void test_group_without_tensor(void **state) {
    Rig rig;
    Optimizer *optimizer;
    rig_open(&rig, *state, NULL, true,
             "run = { backend = \"" PARITY_BACKEND "\"; threads = 2; }; model = { path = \"%s\"; trainable = [ \"norm\" ]; };"
             "training = { parameter_groups = ( { pattern = \"q_proj\"; learning_rate = 1e-3; } ); };",
             golden_path("tied_h64", ""));
    expect_error(optimizer_create(&rig.options, rig.session.parameters, rig.session.arena, &optimizer), STATUS_INVALID,
                 "\"q_proj\" matches no trainable tensor");
    rig_close(&rig);
}

enum { POISON = 95, BATCH = 2 };

static void copy_file(const char *from, const char *to) {
    Text bytes = {0};
    expect_ok(file_read(from, &bytes));
    expect_ok(file_write_atomic(to, bytes.data, bytes.length));
    text_free(&bytes);
}

/* untied_h64 with one token whose embedding is not a number: every batch that holds it has no finite gradient. */
static void make_poisoned_model(World *world) {
    const char *directory = world_path(world, "poisoned");
    if (file_exists(directory)) return;
    expect_ok(file_make_directories(directory));
    copy_file(golden_path("untied_h64", "config.json"), world_path(world, "poisoned/config.json"));
    Safetensors *model = golden_open("untied_h64", "model.safetensors");
    SafetensorsEntry entries[64];
    size_t count = safetensors_count(model);
    uint16_t *embedding = NULL;
    assert_in_range(count, 1, 64);
    for (size_t i = 0; i < count; ++i) {
        entries[i] = *safetensors_at(model, i);
        if (strcmp(entries[i].name, "model.embed_tokens.weight") != 0) continue;
        embedding = malloc((size_t)entries[i].bytes);
        assert_non_null(embedding);
        memcpy(embedding, entries[i].data, (size_t)entries[i].bytes);
        for (int64_t c = 0; c < entries[i].shape[1]; ++c) embedding[POISON * entries[i].shape[1] + c] = 0x7FC0;
        entries[i].data = embedding;
    }
    assert_non_null(embedding);
    expect_ok(safetensors_write(world_path(world, "poisoned/model.safetensors"), entries, count, NULL, NULL));
    free(embedding);
    safetensors_close(model);
}

/* One letter per global batch: g a good one, p one with the poisoned token; the good ones are numbered and all different. */
static void write_batches(const char *path, const char *batches) {
    Text text = {0};
    int good = 0;
    for (const char *b = batches; *b; ++b) {
        good += *b == 'g';
        for (int line = 0; line < BATCH; ++line) {
            int base = 7 * good + 29 * line, last = *b == 'p' && line == 1 ? POISON : (base + 41) % 90;
            expect_ok(text_append_format(&text, "{\"input_ids\":[%d,%d,%d,%d],\"labels\":[-100,%d,%d,%d]}\n", base % 90,
                                         (base + 11) % 90, (base + 31) % 90, last, (base + 11) % 90, (base + 31) % 90, last));
        }
    }
    expect_ok(file_write_atomic(path, text.data, text.length));
    text_free(&text);
}

static void open_batches(Rig *rig, World *world, const char *batches) {
    make_poisoned_model(world);
    write_batches(world_path(world, "%s.jsonl", batches), batches);
    rig_open(rig, world, NULL, true,
             "run = { backend = \"" PARITY_BACKEND "\"; threads = 2; output_dir = \"%s\"; };"
             "model = { path = \"%s\"; dtype = \"float32\"; }; lora = { r = 4; target_modules = [ \"all-linear\" ]; };"
             "data = { train = ( { path = \"%s\"; format = \"tokens\"; } ); shuffle = false; };"
             "training = { num_train_epochs = 1.0; global_batch_size = %d; per_device_train_batch_size = 1;"
             " learning_rate = 1e-2; lr_scheduler_type = \"constant_with_warmup\"; warmup_steps = 3; weight_decay = 0.1;"
             " logging_steps = 1; save_steps = 1; };",
             world_path(world, "%s", batches), world_path(world, "poisoned"), world_path(world, "%s.jsonl", batches), BATCH);
}

/* Events named "skipped" in metrics.jsonl; every step with one has neither loss nor norm, and the rate of the step before. */
static int64_t count_skips(const World *world, const char *batches) {
    JsonLines *reader;
    JsonValue *line;
    int64_t skips = 0;
    double rate = 0;
    expect_ok(json_lines_open(world_path(world, "%s/metrics.jsonl", batches), &reader));
    for (expect_ok(json_lines_next_object(reader, &line)); line; expect_ok(json_lines_next_object(reader, &line))) {
        const char *event = json_value_string(json_value_get(line, "event"), NULL);
        skips += event && strcmp(event, "skipped") == 0;
        if (json_value_get(line, "learning_rate")) {
            bool poisoned = batches[(size_t)golden_number(line, "step") - 1] == 'p';
            assert_int_equal(json_value_is_null(json_value_get(line, "grad_norm")), poisoned);
            assert_int_equal(json_value_is_null(json_value_get(line, "loss")), poisoned);
            if (poisoned) assert_true(golden_number(line, "learning_rate") == rate);
            rate = golden_number(line, "learning_rate");
        }
        json_value_free(line);
    }
    json_lines_close(reader);
    return skips;
}

static void compare_flat_arrays(const Parameters *a, const Parameters *b) {
    const Tensor ours[] = {a->master, a->exp_avg, a->exp_avg_sq}, theirs[] = {b->master, b->exp_avg, b->exp_avg_sq};
    for (int i = 0; i < 3; ++i) {
        float *expected = device_copy_of(b->device, theirs[i]);
        expect_same_bits(a->device, ours[i], expected);
        free(expected);
    }
}

/* Skipped steps, up to four in a row, leave nothing behind: weights, moments, schedule as if the batches were not there. */
static void test_skipped_steps_leave_no_trace(void **state) {
    World *world = *state;
    Rig clean, poisoned;
    open_batches(&clean, world, "gggg");
    open_batches(&poisoned, world, "ggppppgpg");
    expect_ok(rig_train(&clean, world, NULL));
    expect_ok(rig_train(&poisoned, world, NULL));
    compare_flat_arrays(clean.session.parameters, poisoned.session.parameters);
    assert_int_equal(count_skips(world, "gggg"), 0);
    assert_int_equal(count_skips(world, "ggppppgpg"), 5);
    Checkpoint *checkpoint;
    expect_ok(checkpoint_open(world_path(world, "ggppppgpg/final.h5"), &checkpoint));
    assert_int_equal(checkpoint_meta(checkpoint)->step, 9);
    assert_int_equal(checkpoint_meta(checkpoint)->updates, 4);
    checkpoint_close(checkpoint);
    rig_close(&clean);
    rig_close(&poisoned);
}

/* The newest checkpoint is the one of this step, the only one that last.h5 may lead to, and is what the session holds. */
static void expect_last_good(const World *world, const Rig *rig, const char *run, int64_t step) {
    int64_t *steps, count;
    Checkpoint *checkpoint;
    expect_ok(checkpoint_list(world_path(world, "%s", run), &steps, &count));
    assert_true(count > 0);
    assert_int_equal(steps[count - 1], step);
    free(steps);
    expect_ok(checkpoint_open(world_path(world, "%s/last.h5", run), &checkpoint));
    assert_int_equal(checkpoint_meta(checkpoint)->step, step);
    assert_int_equal(checkpoint_meta(checkpoint)->updates, step);
    for (int64_t i = 0; i < checkpoint_count(checkpoint); ++i) {
        const CheckpointTensor *tensor = checkpoint_at(checkpoint, i);
        const Parameter *parameter = parameters_find(rig->session.parameters, tensor->name);
        expect_same_bits(rig->session.device, parameter->master, tensor->parameter);
        expect_same_bits(rig->session.device, parameter->exp_avg, tensor->exp_avg);
        expect_same_bits(rig->session.device, parameter->exp_avg_sq, tensor->exp_avg_sq);
    }
    checkpoint_close(checkpoint);
    assert_false(file_exists(world_path(world, "%s/final.h5", run)));
}

static void test_five_skips_end_the_run(void **state) {
    World *world = *state;
    Rig rig;
    open_batches(&rig, world, "ggpppppg");
    expect_error(rig_train(&rig, world, NULL), STATUS_DIVERGED, "5 steps in a row");
    assert_int_equal(count_skips(world, "ggpppppg"), 5);
    expect_last_good(world, &rig, "ggpppppg", 2);
    rig_close(&rig);
}

/* A learning rate beyond reason: the first update is still finite, all later gradients are not. */
static void test_divergence_by_learning_rate(void **state) {
    World *world = *state;
    Rig rig;
    open_batches(&rig, world, "gggggggg");
    rig.options.training.learning_rate = 1e30;
    rig.options.training.warmup_steps = 0;
    expect_error(rig_train(&rig, world, NULL), STATUS_DIVERGED, "step 6");
    expect_last_good(world, &rig, "gggggggg", 1);
    rig_close(&rig);
}

int main(void) {
    World world;
    world_start(&world);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_frozen_tensors_stay, &world),
        cmocka_unit_test_prestate(test_decay_and_groups, &world),
        cmocka_unit_test_prestate(test_only_matrices_decay, &world),
        cmocka_unit_test_prestate(test_group_without_tensor, &world),
        cmocka_unit_test_prestate(test_skipped_steps_leave_no_trace, &world),
        cmocka_unit_test_prestate(test_five_skips_end_the_run, &world),
        cmocka_unit_test_prestate(test_divergence_by_learning_rate, &world),
    };
    return world_end(&world, cmocka_run_group_tests(tests, NULL, NULL));
}
