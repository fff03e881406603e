/* The numbers of a run: batches, steps, warm-up, and what contradicts itself. */
#include "trainer/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

typedef struct Row {
    const char *training; /* configuration */
    int64_t samples;
    int world;
    int64_t global_batch, accumulation, steps_per_epoch, total_steps, warmup_steps;
} Row;

static const Row rows[] = {
    /* CNN/DailyMail as it was trained: 65,001 = 3 ceil(260,000 / 12) */
    {"num_train_epochs = 3; per_device_train_batch_size = 1; gradient_accumulation_steps = 4; warmup_steps = 100;", 260000, 3, 12,
     4, 21667, 65001, 100},
    /* the same by global_batch_size, on other numbers of ranks */
    {"num_train_epochs = 3; per_device_train_batch_size = 1; global_batch_size = 12;", 260000, 1, 12, 12, 21667, 65001, 0},
    {"num_train_epochs = 3; per_device_train_batch_size = 1; global_batch_size = 12;", 260000, 8, 12, 2, 21667, 65001, 0},
    {"num_train_epochs = 3; per_device_train_batch_size = 1; global_batch_size = 12;", 260000, 64, 12, 1, 21667, 65001, 0},
    /* accumulation given as well, and right */
    {"num_train_epochs = 1; per_device_train_batch_size = 2; gradient_accumulation_steps = 3; global_batch_size = 12;", 24, 2, 12,
     3, 2, 2, 0},
    /* the last batch of an epoch is smaller, never dropped */
    {"num_train_epochs = 1; per_device_train_batch_size = 4;", 8, 1, 4, 1, 2, 2, 0},
    {"num_train_epochs = 1; per_device_train_batch_size = 4;", 9, 1, 4, 1, 3, 3, 0},
    {"num_train_epochs = 1; per_device_train_batch_size = 4;", 1, 1, 4, 1, 1, 1, 0},
    {"num_train_epochs = 3; per_device_train_batch_size = 4;", 1, 16, 64, 1, 1, 3, 0},
    /* epochs in fractions: rounded up once, at the end */
    {"num_train_epochs = 0.5; per_device_train_batch_size = 1;", 5, 1, 1, 1, 5, 3, 0},
    {"num_train_epochs = 2.5; per_device_train_batch_size = 2;", 6, 1, 2, 1, 3, 8, 0},
    {"num_train_epochs = 0.01; per_device_train_batch_size = 1;", 5, 1, 1, 1, 5, 1, 0},
    /* max_steps rules over epochs */
    {"num_train_epochs = 3; max_steps = 7; per_device_train_batch_size = 1;", 5, 1, 1, 1, 5, 7, 0},
    /* warm-up: steps rule over the ratio, which rounds up */
    {"max_steps = 100; per_device_train_batch_size = 1; warmup_ratio = 0.03;", 5, 1, 1, 1, 5, 100, 3},
    {"max_steps = 101; per_device_train_batch_size = 1; warmup_ratio = 0.03;", 5, 1, 1, 1, 5, 101, 4},
    {"max_steps = 100; per_device_train_batch_size = 1; warmup_ratio = 0.03; warmup_steps = 9;", 5, 1, 1, 1, 5, 100, 9},
    /* sizes beyond 32 bits */
    {"num_train_epochs = 1000; per_device_train_batch_size = 1;", 9000000000, 1, 1, 1, 9000000000, 9000000000000, 0},
    {"max_steps = 1; per_device_train_batch_size = 1048576; gradient_accumulation_steps = 1048576;", 5, 1048576, INT64_C(1) << 60,
     1048576, 1, 1, 0},
};

static void load(const char *training, Options *options) {
    char text[512];
    snprintf(text, sizeof text, "training = { %s };", training);
    Status status = options_load_text("test", text, options);
    if (status) fail_msg("%s", status_message(status));
}

static void test_numbers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        const Row *row = &rows[i];
        Options options;
        Plan plan;
        load(row->training, &options);
        Status status = plan_compute(&options, row->samples, row->world, &plan);
        if (status) fail_msg("%s: %s", row->training, status_message(status));
        if (plan.global_batch_size != row->global_batch || plan.accumulation != row->accumulation ||
            plan.steps_per_epoch != row->steps_per_epoch || plan.total_steps != row->total_steps ||
            plan.schedule.warmup_steps != row->warmup_steps)
            fail_msg("%s, %lld samples, %d ranks: global batch %lld, accumulation %lld, steps per epoch %lld, total %lld, "
                     "warm-up %lld",
                     row->training, (long long)row->samples, row->world, (long long)plan.global_batch_size,
                     (long long)plan.accumulation, (long long)plan.steps_per_epoch, (long long)plan.total_steps,
                     (long long)plan.schedule.warmup_steps);
        assert_int_equal(plan.samples, row->samples);
        assert_int_equal(plan.world_size, row->world);
        assert_int_equal(plan.schedule.total_steps, row->total_steps);
        options_free(&options);
    }
}

static void expect_invalid(const char *training, int64_t samples, int world, const char *word) {
    Options options;
    Plan plan;
    load(training, &options);
    Status status = plan_compute(&options, samples, world, &plan);
    if (status_exit_code(status) != STATUS_INVALID) fail_msg("%s was accepted", training);
    if (!strstr(status_message(status), word)) fail_msg("\"%s\" lacks \"%s\"", status_message(status), word);
    status_free(status);
    options_free(&options);
}

static void test_contradictions(void **state) {
    (void)state;
    expect_invalid("per_device_train_batch_size = 2; gradient_accumulation_steps = 4; global_batch_size = 12;", 100, 1,
                   "global_batch_size = 12 contradicts");
    expect_invalid("per_device_train_batch_size = 1; gradient_accumulation_steps = 4; global_batch_size = 12;", 100, 2, "= 8");
    expect_invalid("per_device_train_batch_size = 1;", 0, 1, "no sample");
    expect_invalid("num_train_epochs = 0;", 5, 1, "num_train_epochs");
    expect_invalid("num_train_epochs = 1e6; per_device_train_batch_size = 1;", INT64_C(1) << 40, 1, "too many steps");
}

/* One step of the real code on the planning device: what is trained, and that recomputation saves memory. */
static void test_memory(void **state) {
    (void)state;
    Options options;
    ModelConfig config;
    PlanMemory kept, recomputed;
    Status status = options_load_text("test",
                                      "model = { dtype = \"bfloat16\"; }; lora = { r = 16; target_modules = "
                                      "[ \"q_proj\", \"v_proj\", \"up_proj\", \"down_proj\" ]; };",
                                      &options);
    assert_null(status);
    assert_null(model_config_preset("qwen2.5-3b", &config));
    assert_null(plan_memory(&options, &config, plan_target_cpu, (WorstBatch){1, 2048, 100, 0}, false, &kept));
    assert_null(plan_memory(&options, &config, plan_target_cpu, (WorstBatch){1, 2048, 100, 0}, true, &recomputed));
    assert_int_equal(kept.weights, 2 * INT64_C(3085938688));
    assert_int_equal(kept.master, 4 * INT64_C(18726912)); /* all sizes are multiples of the views' alignment */
    assert_int_equal(kept.gradient, kept.master);
    assert_int_equal(kept.optimizer, 2 * kept.master);
    assert_int_equal(kept.trainable_weights, kept.master / 2);
    assert_int_equal(kept.reduction, 2 * kept.master);
    assert_int_equal(kept.total, kept.weights + kept.trainable_weights + kept.master + kept.gradient + kept.optimizer +
                                     kept.reduction + kept.activations);
    assert_true(recomputed.activations < kept.activations / 4);
    assert_true(recomputed.activations > 36 * 2048 * 2048 * 2); /* the residual stream of every layer */
    options_free(&options);
}

/* As many tokens as the sampler can put together: batches of shorter sequences fill the limit. */
static void test_worst_batch(void **state) {
    (void)state;
    static const struct {
        int64_t batch, limit, longest;
        WorstBatch worst;
    } cases[] = {{4, 0, 100, {4, 100, 99, 0}},    {4, 400, 100, {4, 100, 99, 0}}, {4, 399, 100, {3, 100, 99, 99}},
                 {4, 150, 100, {1, 100, 99, 50}}, {4, 99, 100, {1, 100, 99, 0}},  {1, 150, 100, {1, 100, 99, 0}},
                 {2, 0, 1, {2, 1, 1, 0}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        TrainingOptions training = {.per_device_train_batch_size = cases[i].batch, .max_tokens_per_micro_batch = cases[i].limit};
        WorstBatch worst = plan_worst_batch(&training, cases[i].longest), expected = cases[i].worst;
        if (worst.sequences != expected.sequences || worst.longest != expected.longest || worst.rest != expected.rest ||
            worst.labels_per_sequence != expected.labels_per_sequence)
            fail_msg("case %d: %lld x %lld and %lld", (int)i, (long long)worst.sequences, (long long)worst.longest,
                     (long long)worst.rest);
    }
}

/* 32 prompts of 3,072 tokens with 160 new ones, of which the cache keeps keys and values of 2 heads in 36 layers, in
 * whole blocks: 3,264 instead of 3,232. */
static void test_generation_memory(void **state) {
    (void)state;
    static const char *const text = "model = { dtype = \"bfloat16\"; }; lora = { r = 16; target_modules = [ \"q_proj\" ]; }; "
                                    "evaluation = { input_max_length = 3072; max_new_tokens = 160; batch_size = 32; }; "
                                    "training = { predict_with_generate = %s; };";
    ModelConfig config;
    PlanMemory plans[2];
    assert_null(model_config_preset("qwen2.5-3b", &config));
    for (int i = 0; i < 2; ++i) {
        Options options;
        Text whole = {0};
        assert_null(text_append_format(&whole, text, i ? "true" : "false"));
        assert_null(options_load_text("test", whole.data, &options));
        assert_null(plan_memory(&options, &config, plan_target_cpu, (WorstBatch){1, 512, 100, 0}, RECOMPUTE_NONE, &plans[i]));
        options_free(&options);
        text_free(&whole);
    }
    assert_int_equal(plans[0].generation, 0);
    assert_int_equal(plans[1].generation, INT64_C(32) * 3264 * 36 * 2 * 2 * 128 * 2);
    assert_int_equal(plans[1].activations - plans[0].activations, INT64_C(32) * 151936 * 4);
    assert_int_equal(plans[1].total - plans[0].total, plans[1].generation + plans[1].activations - plans[0].activations);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_numbers), cmocka_unit_test(test_contradictions),
                                       cmocka_unit_test(test_worst_batch), cmocka_unit_test(test_generation_memory),
                                       cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
