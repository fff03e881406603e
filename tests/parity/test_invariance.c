/* What a gradient must not depend on: what it is packed with, recomputation, threads, the size of micro-batches; and what
 * must not reach it: masked tokens, an adapter with B = 0. */
#include "tests/parity/rig.h"

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
static const double loss_limit = 5e-6, gradient_limit = 1e-5;
static const double bfloat16_limit = 2e-3; /* of packing */

typedef struct Subject {
    World *world;
    const char *dtype;
    double dropout;
    bool full; /* every base tensor is trained, beside the adapter */
} Subject;

/* tied_h64 with PEFT's adapter on all seven linears; A and B are not zero. */
static void open_subject(Rig *rig, const Subject *subject, int threads) {
    rig_open(rig, subject->world, golden_path("train20", "adapter"), true,
             "run = { backend = \"" PARITY_BACKEND "\"; threads = %d; seed = 11; };"
             "model = { path = \"%s\"; dtype = \"%s\"; trainable = [ %s ]; };",
             threads, golden_path("tied_h64", ""), subject->dtype, subject->full ? "\".\"" : "");
    rig->options.lora.lora_dropout = subject->dropout;
}

/* 24 samples of text, some 900 tokens: more than one block of any sum over tokens. */
static Samples text_samples(void) {
    Samples samples = samples_read(golden_path("train20", "train.jsonl"));
    samples.count = PARITY_SLOW ? 3 : 24;
    assert_true(samples.ends[samples.count - 1] > 25 * samples.count);
    return samples;
}

static void expect_same_gradient(const Rig *rig, const float *expected) {
    expect_same_bits(rig->session.device, rig->session.parameters->gradient, expected);
}

static void compare_gradients(const Rig *rig, const float *a, const float *b, double limit, Worst *worst) {
    for (int64_t i = 0; i < rig->session.parameters->count; ++i) {
        const Parameter *parameter = rig->session.parameters->items[i];
        if (!parameter->trainable) continue;
        double difference = relative_difference_f32(a + parameter->offset, b + parameter->offset, parameter_elements(parameter));
        expect_below(worst, difference, limit, parameter->name);
    }
}

/* Samples one by one, their gradients added up, each divided by the label tokens of all: what packing must equal. */
static void test_no_contamination(void **state) {
    const Subject *subject = *state;
    Rig rig;
    Samples samples = text_samples();
    open_subject(&rig, subject, 2);
    double packed = rig_gradients(&rig, &samples, (Pass){.step = 3}), single = 0;
    float *gradient = rig_copy_gradient(&rig);
    for (int64_t s = 0; s < samples.count; ++s)
        single += rig_gradients(&rig, &samples, (Pass){.first = s, .count = 1, .step = 3, .keep_gradient = s > 0});
    bool rounded = strcmp(subject->dtype, "bfloat16") == 0;
    double loss_difference = rounded ? bfloat16_limit : loss_limit, difference = rounded ? bfloat16_limit : gradient_limit;
    Worst loss = {0}, worst = {0};
    expect_below(&loss, fabs(packed - single), loss_difference, "training loss");
    float *summed = rig_copy_gradient(&rig);
    compare_gradients(&rig, gradient, summed, difference, &worst);
    show_worst(&loss, loss_difference, "absolute difference");
    show_worst(&worst, difference, "relative difference");
    free(gradient);
    free(summed);
    samples_free(&samples);
    rig_close(&rig);
}

/* Without boundaries between sequences the same comparison fails by far. */
static void test_contamination_shows(void **state) {
    const Subject *subject = *state;
    Rig rig;
    Samples samples = text_samples();
    open_subject(&rig, subject, 2);
    double right = rig_gradients(&rig, &samples, (Pass){0});
    float *gradient = rig_copy_gradient(&rig);
    double wrong = rig_gradients(&rig, &samples, (Pass){.joined = true});
    expect_control_fails(fabs(wrong - right), loss_limit, "loss of joined sequences");
    float *joined = rig_copy_gradient(&rig);
    expect_control_fails(relative_difference_f32(joined, gradient, rig.session.parameters->flat_elements), gradient_limit,
                         "gradient of joined sequences");
    free(gradient);
    free(joined);
    samples_free(&samples);
    rig_close(&rig);
}

static void test_recomputation_same_bits(void **state) {
    const Subject *subject = *state;
    Rig rig;
    Samples samples = text_samples();
    open_subject(&rig, subject, 2);
    double kept = rig_gradients(&rig, &samples, (Pass){.step = 1});
    size_t kept_peak = arena_peak(rig.session.arena);
    float *gradient = rig_copy_gradient(&rig);
    /* Each level keeps less than the one before. */
    static const unsigned levels[] = {RECOMPUTE_SWIGLU, RECOMPUTE_SWIGLU | RECOMPUTE_NORMS, RECOMPUTE_LAYERS};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; ++i) {
        arena_reset_peak(rig.session.arena);
        double recomputed = rig_gradients(&rig, &samples, (Pass){.step = 1, .recompute = levels[i]});
        assert_true(kept == recomputed);
        expect_same_gradient(&rig, gradient);
        assert_true(arena_peak(rig.session.arena) < kept_peak);
        kept_peak = arena_peak(rig.session.arena);
    }
    free(gradient);
    samples_free(&samples);
    rig_close(&rig);
}

static void test_threads_same_bits(void **state) {
    const Subject *subject = *state;
    Samples samples = text_samples();
    float *first = NULL;
    double first_loss = 0;
    for (int threads = 1; threads <= 4; threads *= 2) {
        Rig rig;
        open_subject(&rig, subject, threads);
        if (device_is_host(rig.session.device)) assert_int_equal(rig.session.device->threads, threads);
        double loss = rig_gradients(&rig, &samples, (Pass){.step = 2});
        if (first) {
            assert_true(loss == first_loss);
            expect_same_gradient(&rig, first);
        } else {
            first = rig_copy_gradient(&rig);
            first_loss = loss;
        }
        rig_close(&rig);
    }
    free(first);
    samples_free(&samples);
}

/* Dropout is keyed by the step: another step, another mask; p = 0 ignores it. */
static void test_dropout_follows_step(void **state) {
    const Subject *subject = *state;
    Rig rig;
    Samples samples = text_samples();
    open_subject(&rig, subject, 2);
    double first = rig_gradients(&rig, &samples, (Pass){.step = 1}), second = rig_gradients(&rig, &samples, (Pass){.step = 2});
    if (subject->dropout > 0)
        assert_true(fabs(first - second) > 1e-4);
    else
        assert_true(first == second);
    samples_free(&samples);
    rig_close(&rig);
}

/* A new adapter (B = 0) on every linear changes no bit of the base model's logits. */
static void test_zero_b_is_the_base_model(void **state) {
    const Subject *subject = *state;
    float *logits[2];
    Samples samples = samples_read(golden_path("tied_h64", "batch.jsonl"));
    size_t bytes = 0;
    for (int lora = 0; lora < 2; ++lora) {
        Rig rig;
        rig_open(&rig, subject->world, NULL, false,
                 "run = { backend = \"" PARITY_BACKEND "\"; threads = 2; }; model = { path = \"%s\"; dtype = \"%s\"; };"
                 "lora = { r = 4; lora_alpha = 64; target_modules = [ %s ]; };",
                 golden_path("tied_h64", ""), subject->dtype, lora ? "\"all-linear\"" : "");
        assert_int_equal(rig.session.parameters->trainable_elements > 0, lora);
        logits[lora] = rig_logits(&rig, &samples, (Pass){0});
        bytes = (size_t)(samples.ends[samples.count - 1] * rig.session.config.vocab_size) * sizeof(float);
        rig_close(&rig);
    }
    assert_memory_equal(logits[0], logits[1], bytes);
    free(logits[0]);
    free(logits[1]);
    samples_free(&samples);
}

/* The gradient that reaches the decoder's output: exactly the rows that predict a label have one. */
static void test_masked_rows_have_no_gradient(void **state) {
    const Subject *subject = *state;
    Rig rig;
    Samples samples = samples_read(golden_path("tied_h64", "batch.jsonl"));
    open_subject(&rig, subject, 2);
    Session *s = &rig.session;
    PackedBatch packed = rig_pack(&samples, (Pass){0});
    DecoderRun run = {.layout = &s->batch.layout};
    Value *hidden;
    expect_ok(device_batch_set(&s->batch, s->device, &packed));
    expect_ok(tape_begin(s->tape, true, false));
    expect_ok(decoder_forward(s->decoder, s->tape, &run, s->batch.ids, &hidden));
    expect_ok(layer_linear_cross_entropy(s->tape, hidden, s->decoder->head, s->batch.rows, s->batch.labels,
                                         &(CrossEntropySettings){.scale = 1.0f}, s->batch.nll));
    assert_non_null(hidden->gradient);
    float *gradient = device_copy_of(s->device, hidden->gradient->tensor);
    int64_t width = s->config.hidden_size, label = 0, silent = 0;
    for (int64_t t = 0; t < packed.tokens; ++t) {
        bool predicts = label < packed.label_count && packed.label_rows[label] == t, any = false;
        for (int64_t c = 0; c < width; ++c) any |= gradient[t * width + c] != 0;
        assert_int_equal(any, predicts);
        label += predicts;
        silent += !predicts;
    }
    assert_int_equal(label, packed.label_count);
    assert_true(silent > 20);
    free(gradient);
    packed_batch_free(&packed);
    samples_free(&samples);
    rig_close(&rig);
}

/* Lines 3 and 6 of the batch have a label at position 0: masking it must change neither counts nor bits. */
static void test_label_at_position_0_never_counts(void **state) {
    const Subject *subject = *state;
    Rig rig;
    Samples samples = samples_read(golden_path("tied_h64", "batch.jsonl"));
    open_subject(&rig, subject, 2);
    double loss = rig_gradients(&rig, &samples, (Pass){0});
    float *gradient = rig_copy_gradient(&rig);
    int64_t labels = samples_label_tokens(&samples), removed = 0;
    PackedBatch packed = rig_pack(&samples, (Pass){0});
    assert_int_equal(packed.label_count, labels);
    packed_batch_free(&packed);
    for (int64_t s = 0; s < samples.count; ++s) {
        int32_t *first = &samples.labels[samples_first_token(&samples, s)];
        removed += *first != -100;
        *first = -100;
    }
    assert_int_equal(removed, 2);
    assert_true(rig_gradients(&rig, &samples, (Pass){0}) == loss);
    expect_same_gradient(&rig, gradient);
    free(gradient);
    samples_free(&samples);
    rig_close(&rig);
}

static void open_run(Rig *rig, const Subject *subject, int micro) {
    rig_open(rig, subject->world, golden_path("train20", "adapter"), true,
             "run = { backend = \"" PARITY_BACKEND "\"; threads = 2; output_dir = \"%s\"; seed = 5; };"
             "model = { path = \"%s\"; dtype = \"float32\"; };"
             "data = { train = ( { path = \"%s\"; format = \"tokens\"; } ); cache_dir = \"%s\"; };"
             "training = { max_steps = 20; global_batch_size = 8; per_device_train_batch_size = %d; learning_rate = 1e-3;"
             " warmup_steps = 4; };",
             world_path(subject->world, "micro-%d", micro), golden_path("tied_h64", ""), golden_path("train20", "train.jsonl"),
             world_path(subject->world, "cache"), micro);
    rig->options.lora.lora_dropout = subject->dropout;
}

/* The same twenty steps with micro-batches of 1, 2 and 4 samples: the updates agree. */
static void test_other_micro_batch_size(void **state) {
    const Subject *subject = *state;
    float *updates[3];
    Worst worst = {0};
    for (int k = 0; k < 3; ++k) {
        Rig rig;
        open_run(&rig, subject, 1 << k);
        float *start = rig_copy_master(&rig);
        expect_ok(rig_train(&rig, subject->world, NULL));
        updates[k] = rig_copy_master(&rig);
        for (int64_t i = 0; i < rig.session.parameters->flat_elements; ++i) updates[k][i] -= start[i];
        if (k > 0) compare_gradients(&rig, updates[k], updates[0], gradient_limit, &worst);
        free(start);
        rig_close(&rig);
    }
    show_worst(&worst, gradient_limit, "update after 20 steps, relative difference");
    for (int k = 0; k < 3; ++k) free(updates[k]);
}

#define SAME_BITS(test)                                                                                                          \
    {#test "(float32, dropout 0)", test, NULL, NULL, &subjects[0]},                                                              \
        {#test "(float32, dropout 0.5)", test, NULL, NULL, &subjects[1]},                                                        \
        {#test "(bfloat16, dropout 0)", test, NULL, NULL, &subjects[2]},                                                         \
        {#test "(bfloat16, dropout 0.5)", test, NULL, NULL, &subjects[3]},                                                       \
        {#test "(float32, dropout 0.5, all trained)", test, NULL, NULL, &subjects[4]}, {                                         \
#test "(bfloat16, dropout 0.5, all trained)", test, NULL, NULL, &subjects[5]                                             \
    }

int main(void) {
    World world;
    world_start(&world);
    Subject subjects[] = {{&world, "float32", 0.0, false},  {&world, "float32", 0.5, false}, {&world, "bfloat16", 0.0, false},
                          {&world, "bfloat16", 0.5, false}, {&world, "float32", 0.5, true},  {&world, "bfloat16", 0.5, true}};
    if (PARITY_SLOW) { /* the goldens run there too */
        const struct CMUnitTest some[] = {SAME_BITS(test_recomputation_same_bits)};
        return world_end(&world, cmocka_run_group_tests(some, NULL, NULL));
    }
    const struct CMUnitTest tests[] = {
        {"test_no_contamination(dropout 0)", test_no_contamination, NULL, NULL, &subjects[0]},
        {"test_no_contamination(dropout 0.5)", test_no_contamination, NULL, NULL, &subjects[1]},
        {"test_no_contamination(dropout 0.5, all trained)", test_no_contamination, NULL, NULL, &subjects[4]},
        {"test_no_contamination(bfloat16, dropout 0)", test_no_contamination, NULL, NULL, &subjects[2]},
        {"test_no_contamination(bfloat16, dropout 0.5, all trained)", test_no_contamination, NULL, NULL, &subjects[5]},
        cmocka_unit_test_prestate(test_contamination_shows, &subjects[0]),
        SAME_BITS(test_recomputation_same_bits),
        SAME_BITS(test_threads_same_bits),
        {"test_dropout_follows_step(0)", test_dropout_follows_step, NULL, NULL, &subjects[0]},
        {"test_dropout_follows_step(0.5)", test_dropout_follows_step, NULL, NULL, &subjects[1]},
        {"test_zero_b_is_the_base_model(float32)", test_zero_b_is_the_base_model, NULL, NULL, &subjects[0]},
        {"test_zero_b_is_the_base_model(bfloat16)", test_zero_b_is_the_base_model, NULL, NULL, &subjects[2]},
        cmocka_unit_test_prestate(test_masked_rows_have_no_gradient, &subjects[0]),
        cmocka_unit_test_prestate(test_label_at_position_0_never_counts, &subjects[0]),
        {"test_other_micro_batch_size(dropout 0)", test_other_micro_batch_size, NULL, NULL, &subjects[0]},
        {"test_other_micro_batch_size(dropout 0.5)", test_other_micro_batch_size, NULL, NULL, &subjects[1]},
    };
    return world_end(&world, cmocka_run_group_tests(tests, NULL, NULL));
}
