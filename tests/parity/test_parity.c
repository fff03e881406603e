/* The network in float32 against Transformers and PEFT in float64: logits, loss, gradients, and that a wrong network fails. */
#include "tests/parity/rig.h"

#include "trainer/logits.h"

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
static const double logits_limit = 1e-5, loss_limit = 5e-6, gradient_limit = 1e-5;

typedef struct Subject {
    World *world;
    const char *name;    /* of the case */
    const char *section; /* of meta.json: "lora" or "full" */
} Subject;

static bool has_adapter(const Subject *subject) { return strcmp(subject->section, "lora") == 0; }

static Samples batch_of(const Subject *subject) { return samples_read(golden_path(subject->name, "batch.jsonl")); }

static Safetensors *expected_of(const Subject *subject) {
    return golden_open(subject->name, has_adapter(subject) ? "expected.safetensors" : "expected_full.safetensors");
}

/* lora: the case's PEFT adapter is trained; full: every base tensor is. */
static void open_subject_in(Rig *rig, const Subject *subject, const char *dtype) {
    rig_open(rig, subject->world, has_adapter(subject) ? golden_path(subject->name, "adapter") : NULL, true,
             "run = { backend = \"" PARITY_BACKEND
             "\"; threads = 2; }; model = { path = \"%s\"; dtype = \"%s\"; trainable = [ %s ]; };"
             "data = { validation = ( { path = \"%s\"; format = \"tokens\"; } ); };",
             golden_path(subject->name, ""), dtype, has_adapter(subject) ? "" : "\".\"",
             golden_path(subject->name, "batch.jsonl"));
}

static void open_subject(Rig *rig, const Subject *subject) { open_subject_in(rig, subject, "float32"); }

/* Largest difference of packed logits [T,V] from the golden's logits.N. */
static double logits_difference(const float *logits, int64_t vocabulary, const Samples *samples, const Safetensors *expected) {
    double largest = 0;
    for (int64_t s = 0; s < samples->count; ++s) {
        char name[32];
        int64_t first = samples_first_token(samples, s), n = (samples->ends[s] - first) * vocabulary;
        snprintf(name, sizeof name, "logits.%lld", (long long)s);
        double *golden = golden_values(expected, name, n);
        double difference = largest_difference(logits + first * vocabulary, golden, n);
        if (!(difference <= largest)) largest = difference;
        free(golden);
    }
    return largest;
}

/* What `adamem evaluate --logits` writes: each sequence alone. */
static void test_logits_one_by_one(void **state) {
    const Subject *subject = *state;
    const char *path = world_path(subject->world, "logits-%s-%s.safetensors", subject->name, subject->section);
    Rig rig;
    Samples samples = batch_of(subject);
    Safetensors *expected = expected_of(subject), *written;
    open_subject(&rig, subject);
    expect_ok(logits_write(&rig.session, NULL, path));
    expect_ok(safetensors_open(path, &written));
    assert_int_equal(safetensors_count(written), samples.count);
    Worst worst = {0};
    for (int64_t s = 0; s < samples.count; ++s) {
        char name[32];
        snprintf(name, sizeof name, "logits.%lld", (long long)s);
        int64_t n = (samples.ends[s] - samples_first_token(&samples, s)) * rig.session.config.vocab_size;
        double *golden = golden_values(expected, name, n);
        const SafetensorsEntry *entry = safetensors_find(written, name);
        assert_non_null(entry);
        assert_string_equal(entry->dtype, "F32");
        assert_int_equal(entry->bytes, n * 4);
        expect_below(&worst, largest_difference(entry->data, golden, n), logits_limit, name);
        free(golden);
    }
    show_worst(&worst, logits_limit, "absolute difference");
    safetensors_close(written);
    safetensors_close(expected);
    samples_free(&samples);
    rig_close(&rig);
}

static void test_logits_packed(void **state) {
    const Subject *subject = *state;
    Rig rig;
    Samples samples = batch_of(subject);
    Safetensors *expected = expected_of(subject);
    open_subject(&rig, subject);
    float *logits = rig_logits(&rig, &samples, (Pass){0});
    Worst worst = {0};
    expect_below(&worst, logits_difference(logits, rig.session.config.vocab_size, &samples, expected), logits_limit, "all");
    show_worst(&worst, logits_limit, "absolute difference");
    free(logits);
    safetensors_close(expected);
    samples_free(&samples);
    rig_close(&rig);
}

static int64_t largest_of(const double *values, int64_t count) {
    int64_t largest = 0;
    for (int64_t i = 1; i < count; ++i)
        if (values[i] > values[largest]) largest = i;
    return largest;
}

/* Whether two logits of this distance are different numbers in bfloat16. */
static bool told_apart(double larger, double smaller) { return larger - smaller > 0x1p-7 * fabs(larger); }

typedef struct TopTokens {
    int64_t total, agree, decided, decided_agree; /* decided: bfloat16 tells the reference's first from its second */
} TopTokens;

static void compare_top_token(TopTokens *tokens, const float *logits, double *golden, int64_t vocabulary) {
    int64_t wanted = largest_of(golden, vocabulary), got = 0;
    for (int64_t i = 1; i < vocabulary; ++i)
        if (logits[i] > logits[got]) got = i;
    double first = golden[wanted];
    golden[wanted] = -INFINITY;
    bool decided = told_apart(first, golden[largest_of(golden, vocabulary)]);
    golden[wanted] = first;
    ++tokens->total;
    tokens->agree += got == wanted;
    tokens->decided += decided;
    tokens->decided_agree += decided && got == wanted;
}

/* The most likely next token of the network in bfloat16 is that of the reference for 99.5 % of the tokens. Random networks
 * have many close calls; where the reference's best two are one number in bfloat16, their order says nothing. */
static void test_top_token_in_bfloat16(void **state) {
    const Subject *subject = *state;
    Rig rig;
    TopTokens tokens = {0};
    Samples samples = batch_of(subject);
    Safetensors *expected = expected_of(subject);
    open_subject_in(&rig, subject, "bfloat16");
    float *logits = rig_logits(&rig, &samples, (Pass){0});
    int64_t vocabulary = rig.session.config.vocab_size;
    for (int64_t s = 0; s < samples.count; ++s) {
        char name[32];
        int64_t first = samples_first_token(&samples, s), count = samples.ends[s] - first;
        snprintf(name, sizeof name, "logits.%lld", (long long)s);
        double *golden = golden_values(expected, name, count * vocabulary);
        for (int64_t t = 0; t < count; ++t)
            compare_top_token(&tokens, logits + (first + t) * vocabulary, golden + t * vocabulary, vocabulary);
        free(golden);
    }
    print_message("           top token in bfloat16: %lld of %lld agree, %lld of %lld that bfloat16 tells apart\n",
                  (long long)tokens.agree, (long long)tokens.total, (long long)tokens.decided_agree, (long long)tokens.decided);
    assert_true(tokens.decided >= 0.8 * (double)tokens.total);
    assert_true(tokens.decided_agree >= 0.995 * (double)tokens.decided);
    free(logits);
    safetensors_close(expected);
    samples_free(&samples);
    rig_close(&rig);
}

static void test_loss(void **state) {
    const Subject *subject = *state;
    Rig rig;
    Samples samples = batch_of(subject);
    Safetensors *expected = expected_of(subject);
    JsonValue *meta = golden_meta(subject->name);
    char path[64];
    snprintf(path, sizeof path, "%s/label_tokens", subject->section);
    assert_int_equal(samples_label_tokens(&samples), golden_number(meta, path));
    open_subject(&rig, subject);
    double evaluation = rig_loss(&rig, &samples, (Pass){0}), training = rig_gradients(&rig, &samples, (Pass){0});
    Worst worst = {0};
    expect_below(&worst, fabs(evaluation - golden_scalar(expected, "loss")), loss_limit, "evaluation");
    expect_below(&worst, fabs(training - golden_scalar(expected, "loss")), loss_limit, "training");
    rig.options.training.label_smoothing_factor = 0.1;
    double smoothed = rig_gradients(&rig, &samples, (Pass){0});
    expect_below(&worst, fabs(smoothed - golden_scalar(expected, "loss_label_smoothing_0.1")), loss_limit, "label smoothing");
    show_worst(&worst, loss_limit, "absolute difference");
    assert_true(fabs(smoothed - training) > 100 * loss_limit);
    json_value_free(meta);
    safetensors_close(expected);
    samples_free(&samples);
    rig_close(&rig);
}

static void test_gradients(void **state) {
    const Subject *subject = *state;
    Rig rig;
    Samples samples = batch_of(subject);
    Safetensors *expected = expected_of(subject);
    open_subject(&rig, subject);
    rig_gradients(&rig, &samples, (Pass){0});
    int64_t compared = 0, given = 0;
    Worst worst = {0};
    for (size_t i = 0; i < safetensors_count(expected); ++i) given += strncmp(safetensors_at(expected, i)->name, "grad.", 5) == 0;
    for (int64_t i = 0; i < rig.session.parameters->count; ++i) {
        const Parameter *parameter = rig.session.parameters->items[i];
        char name[256];
        if (!parameter->trainable) continue;
        snprintf(name, sizeof name, "grad.%s", parameter->name);
        int64_t n = parameter_elements(parameter);
        double *golden = golden_values(expected, name, n);
        float *gradient = device_copy_of(rig.session.device, parameter->gradient);
        expect_below(&worst, relative_difference(gradient, golden, n), gradient_limit, name);
        free(golden);
        free(gradient);
        ++compared;
    }
    show_worst(&worst, gradient_limit, "relative difference");
    assert_int_equal(compared, given); /* every gradient of the golden has been compared */
    safetensors_close(expected);
    samples_free(&samples);
    rig_close(&rig);
}

/* A wrong program must be as wrong as the wrong reference, which lies far outside the tolerances. */
typedef struct Wrong {
    double logits, loss;
} Wrong;

static Wrong difference_of(Rig *rig, const Samples *samples, const Samples *right, const Safetensors *expected, Pass pass) {
    float *logits = rig_logits(rig, right, pass);
    Wrong wrong = {logits_difference(logits, rig->session.config.vocab_size, right, expected),
                   fabs(rig_loss(rig, samples, pass) - golden_scalar(expected, "loss"))};
    free(logits);
    return wrong;
}

static void expect_as_wrong(const Subject *subject, const JsonValue *meta, const char *control, Wrong wrong) {
    char path[128], what[96];
    snprintf(path, sizeof path, "%s/controls/%s/loss_abs", subject->section, control);
    double loss = golden_number(meta, path);
    snprintf(path, sizeof path, "%s/controls/%s/logits_max_abs", subject->section, control);
    double logits = golden_number(meta, path);
    snprintf(what, sizeof what, "%s, loss", control);
    expect_control_fails(wrong.loss, loss_limit, what);
    if (fabs(wrong.loss - loss) > 2 * loss_limit) fail_msg("%s: %g, the wrong reference %g", what, wrong.loss, loss);
    if (logits == 0) return; /* labels do not reach the logits */
    snprintf(what, sizeof what, "%s, logits", control);
    expect_control_fails(wrong.logits, logits_limit, what);
    if (fabs(wrong.logits - logits) > 2 * logits_limit) fail_msg("%s: %g, the wrong reference %g", what, wrong.logits, logits);
}

static void shift_labels(Samples *samples) {
    for (int64_t s = 0; s < samples->count; ++s) {
        int64_t last = samples->ends[s] - 1;
        for (int64_t t = samples_first_token(samples, s); t < last; ++t) samples->labels[t] = samples->labels[t + 1];
        samples->labels[last] = -100;
    }
}

static void test_negative_controls(void **state) {
    const Subject *subject = *state;
    Rig rig;
    Samples samples = batch_of(subject), shifted = batch_of(subject);
    Safetensors *expected = expected_of(subject);
    JsonValue *meta = golden_meta(subject->name);
    open_subject(&rig, subject);
    ModelConfig *config = &rig.session.decoder->config, right = *config;
    config->rope_theta *= 10;
    expect_as_wrong(subject, meta, "rope_theta_x10", difference_of(&rig, &samples, &samples, expected, (Pass){0}));
    *config = right;
    config->rms_norm_eps *= 100;
    expect_as_wrong(subject, meta, "rms_norm_eps_x100", difference_of(&rig, &samples, &samples, expected, (Pass){0}));
    *config = right;
    shift_labels(&shifted);
    expect_as_wrong(subject, meta, "labels_shifted_by_one", difference_of(&rig, &shifted, &samples, expected, (Pass){0}));
    expect_as_wrong(subject, meta, "sequences_not_separated",
                    difference_of(&rig, &samples, &samples, expected, (Pass){.joined = true}));
    json_value_free(meta);
    safetensors_close(expected);
    samples_free(&samples);
    samples_free(&shifted);
    rig_close(&rig);
}

/* Transformers 5 writes rope_parameters and dtype where Transformers 4 writes rope_theta and torch_dtype. */
static void test_config_of_transformers_5(void **state) {
    const Subject *subject = *state;
    ModelConfig four, five;
    JsonValue *json;
    expect_ok(model_config_read(golden_path(subject->name, ""), &four));
    expect_ok(json_value_read_file(golden_path(subject->name, "config_transformers5.json"), &json));
    expect_ok(model_config_parse(json, &five));
    json_value_free(json);
    assert_int_equal(four.hidden_size, five.hidden_size);
    assert_int_equal(four.intermediate_size, five.intermediate_size);
    assert_int_equal(four.num_hidden_layers, five.num_hidden_layers);
    assert_int_equal(four.num_attention_heads, five.num_attention_heads);
    assert_int_equal(four.num_key_value_heads, five.num_key_value_heads);
    assert_int_equal(four.head_dim, five.head_dim);
    assert_int_equal(four.vocab_size, five.vocab_size);
    assert_int_equal(four.max_position_embeddings, five.max_position_embeddings);
    assert_true(four.rms_norm_eps == five.rms_norm_eps && four.rope_theta == five.rope_theta && four.rope_theta == 1e6);
    assert_true(four.initializer_range == five.initializer_range);
    assert_int_equal(four.tie_word_embeddings, five.tie_word_embeddings);
    assert_int_equal(four.bos_token_id, five.bos_token_id);
    assert_int_equal(four.eos_token_id, five.eos_token_id);
}

#define EACH(test)                                                                                                               \
    {#test "(tied_h64, LoRA)", test, NULL, NULL, &subjects[0]}, {#test "(untied_h128, LoRA)", test, NULL, NULL, &subjects[1]},   \
        {#test "(tied_h64, all trained)", test, NULL, NULL, &subjects[2]}, {                                                     \
#test "(untied_h64, all trained)", test, NULL, NULL, &subjects[3]                                                        \
    }

int main(void) {
    World world;
    world_start(&world);
    Subject subjects[] = {{&world, "tied_h64", "lora"},
                          {&world, "untied_h128", "lora"},
                          {&world, "tied_h64", "full"},
                          {&world, "untied_h64", "full"}};
    const struct CMUnitTest tests[] = {
        EACH(test_logits_one_by_one), EACH(test_logits_packed),     EACH(test_top_token_in_bfloat16),    EACH(test_loss),
        EACH(test_gradients),         EACH(test_negative_controls), EACH(test_config_of_transformers_5),
    };
    return world_end(&world, cmocka_run_group_tests(tests, NULL, NULL));
}
