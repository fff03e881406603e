/* Exports: a PEFT directory that is the adapter bit for bit, a merged model that computes the same, and refusals that leave
 * nothing behind. run_export_check.sh loads both with PEFT and Transformers. */
#include "tests/parity/rig.h"

#include "io/checkpoint.h"
#include "io/file.h"
#include "trainer/export.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double logits_limit = 1e-5; /* the tolerance */

typedef struct Subject {
    World *world;
    const char *name;      /* of the case */
    const char *trainable; /* of the base, beside the adapter; "" none */
} Subject;

/* A short run that starts from the case's adapter and moves every matrix; its final checkpoint and the options in it. */
typedef struct Trained {
    Rig rig;
    Samples samples;
    float *logits; /* of the trained model, unmerged */
    int64_t logits_count;
    Checkpoint *checkpoint;
    Options options;
} Trained;

static void train(Trained *t, const Subject *subject) {
    const char *output = world_path(subject->world, "run-%s-%s", subject->name, subject->trainable[0] ? "base" : "adapter");
    char final[300];
    snprintf(final, sizeof final, "%s/final.h5", output);
    rig_open(&t->rig, subject->world, golden_path(subject->name, "adapter"), true,
             "run = { backend = \"" PARITY_BACKEND "\"; threads = 2; output_dir = \"%s\"; };"
             "model = { path = \"%s\"; dtype = \"float32\"; trainable = [ %s ]; };"
             "data = { train = ( { path = \"%s\"; format = \"tokens\"; } ); max_zero_label_fraction = 1.0; };"
             "training = { max_steps = 6; per_device_train_batch_size = 2; learning_rate = 2e-3; };",
             output, golden_path(subject->name, ""), subject->trainable, golden_path(subject->name, "batch.jsonl"));
    expect_ok(rig_train(&t->rig, subject->world, NULL));
    t->samples = samples_read(golden_path(subject->name, "batch.jsonl"));
    t->logits = rig_logits(&t->rig, &t->samples, (Pass){0});
    t->logits_count = t->samples.ends[t->samples.count - 1] * t->rig.session.config.vocab_size;
    expect_ok(checkpoint_open(final, &t->checkpoint));
    expect_ok(options_load_text(final, checkpoint_meta(t->checkpoint)->config, &t->options));
}

static void forget(Trained *t) {
    options_free(&t->options);
    checkpoint_close(t->checkpoint);
    free(t->logits);
    samples_free(&t->samples);
    rig_close(&t->rig);
}

/* Exactly these entries, space separated in alphabetical order. */
static void expect_files(const char *directory, const char *wanted) {
    struct dirent **entries;
    char found[512] = "";
    int count = scandir(directory, &entries, NULL, alphasort);
    assert_true(count >= 0);
    for (int i = 0; i < count; ++i) {
        const char *name = entries[i]->d_name;
        size_t length = strlen(found);
        if (name[0] != '.') snprintf(found + length, sizeof found - length, "%s%s", length ? " " : "", name);
        free(entries[i]);
    }
    free(entries);
    assert_string_equal(found, wanted);
}

/* The same JSON value, numbers by value; lists of names in any order, as PEFT keeps a set. */
static bool same_json(const JsonValue *a, const JsonValue *b) {
    if (json_value_is_number(a)) return json_value_is_number(b) && json_value_number(a) == json_value_number(b);
    if (json_value_is_string(a))
        return json_value_is_string(b) && strcmp(json_value_string(a, NULL), json_value_string(b, NULL)) == 0;
    if (json_value_is_boolean(a)) return json_value_is_boolean(b) && json_value_boolean(a) == json_value_boolean(b);
    if (json_value_is_null(a)) return json_value_is_null(b);
    if (json_value_size(a) != json_value_size(b)) return false;
    if (json_value_is_object(a)) {
        for (JsonMember m = {0}; json_value_next_member(a, &m);) {
            const JsonValue *other = json_value_get(b, m.key);
            if (!other || !same_json(m.value, other)) return false;
        }
        return json_value_is_object(b);
    }
    for (size_t i = 0; i < json_value_size(a); ++i) {
        bool found = false;
        for (size_t k = 0; k < json_value_size(b); ++k) found |= same_json(json_value_at(a, i), json_value_at(b, k));
        if (!found) return false;
    }
    return json_value_is_array(b);
}

/* Every field we write is one that PEFT writes, with the value PEFT wrote for the adapter that training started from. */
static void expect_fields_of_peft(const Subject *subject, const char *directory) {
    static const char *const needed[] = {
        "peft_type",    "task_type",     "r",        "lora_alpha",   "target_modules", "bias",           "use_rslora",
        "rank_pattern", "alpha_pattern", "use_dora", "lora_dropout", "inference_mode", "fan_in_fan_out", "modules_to_save"};
    char path[300];
    JsonValue *ours, *peft;
    snprintf(path, sizeof path, "%s/adapter_config.json", directory);
    expect_ok(json_value_read_file(path, &ours));
    expect_ok(json_value_read_file(golden_path(subject->name, "adapter/adapter_config.json"), &peft));
    for (JsonMember m = {0}; json_value_next_member(ours, &m);) {
        const JsonValue *other = json_value_get(peft, m.key);
        if (!other) fail_msg("PEFT has no field %s", m.key);
        if (strcmp(m.key, "base_model_name_or_path") == 0)
            assert_string_equal(json_value_string(m.value, NULL), golden_path(subject->name, ""));
        else if (!same_json(m.value, other))
            fail_msg("%s differs from what PEFT writes", m.key);
    }
    for (size_t i = 0; i < sizeof needed / sizeof *needed; ++i)
        if (!json_value_get(ours, needed[i])) fail_msg("adapter_config.json lacks %s", needed[i]);
    json_value_free(ours);
    json_value_free(peft);
}

/* PEFT's tensor names and shapes, the checkpoint's bits. */
static void expect_tensors(const Subject *subject, const char *directory, const Checkpoint *checkpoint) {
    Safetensors *ours, *peft = golden_open(subject->name, "adapter");
    expect_ok(safetensors_open(directory, &ours));
    assert_int_equal(safetensors_count(ours), safetensors_count(peft));
    for (size_t i = 0; i < safetensors_count(peft); ++i) {
        const SafetensorsEntry *golden = safetensors_at(peft, i), *entry = safetensors_find(ours, golden->name);
        const CheckpointTensor *tensor = checkpoint_find(checkpoint, golden->name);
        assert_true(entry && tensor);
        assert_string_equal(entry->dtype, "F32");
        assert_int_equal(entry->dimensions, 2);
        assert_memory_equal(entry->shape, golden->shape, 2 * sizeof *entry->shape);
        assert_memory_equal(entry->data, tensor->parameter, entry->bytes);
        assert_memory_not_equal(entry->data, golden->data, entry->bytes); /* training has moved it */
    }
    assert_string_equal(safetensors_metadata(ours, "format"), "pt");
    safetensors_close(ours);
    safetensors_close(peft);
}

static void test_peft_round_trip(void **state) {
    const Subject *subject = *state;
    const char *output = world_path(subject->world, "peft-%s", subject->name);
    Trained t;
    Rig loaded;
    train(&t, subject);
    expect_ok(export_peft(t.checkpoint, &t.options, "float32", output));
    expect_files(output, "adapter_config.json adapter_model.safetensors");
    expect_fields_of_peft(subject, output);
    expect_tensors(subject, output, t.checkpoint);
    rig_open(&loaded, subject->world, output, false,
             "run = { backend = \"" PARITY_BACKEND "\"; threads = 2; }; model = { path = \"%s\"; dtype = \"float32\"; };",
             golden_path(subject->name, ""));
    float *logits = rig_logits(&loaded, &t.samples, (Pass){0});
    assert_memory_equal(logits, t.logits, (size_t)t.logits_count * sizeof *logits);
    free(logits);
    rig_close(&loaded);
    forget(&t);
}

/* A bfloat16 adapter holds each value rounded to nearest even, once. */
static void test_peft_in_bfloat16(void **state) {
    const Subject *subject = *state;
    const char *output = world_path(subject->world, "peft-bf16-%s", subject->name);
    Trained t;
    Safetensors *file;
    train(&t, subject);
    expect_ok(export_peft(t.checkpoint, &t.options, "bfloat16", output));
    expect_ok(safetensors_open(output, &file));
    for (size_t i = 0; i < safetensors_count(file); ++i) {
        const SafetensorsEntry *entry = safetensors_at(file, i);
        const CheckpointTensor *tensor = checkpoint_find(t.checkpoint, entry->name);
        assert_string_equal(entry->dtype, "BF16");
        for (int64_t k = 0; k < entry->bytes / 2; ++k) {
            uint32_t word;
            uint16_t bits;
            memcpy(&word, &tensor->parameter[k], 4);
            memcpy(&bits, (const char *)entry->data + 2 * k, 2);
            assert_int_equal(bits, (word + 0x7FFFu + (word >> 16 & 1u)) >> 16);
        }
    }
    safetensors_close(file);
    forget(&t);
}

static void compare_merged(const Subject *subject, const Trained *t, const char *directory) {
    Rig merged;
    Worst worst = {0};
    double *unmerged = malloc((size_t)t->logits_count * sizeof *unmerged);
    assert_non_null(unmerged);
    for (int64_t i = 0; i < t->logits_count; ++i) unmerged[i] = t->logits[i];
    rig_open(&merged, subject->world, NULL, false,
             "run = { backend = \"" PARITY_BACKEND "\"; threads = 2; }; model = { path = \"%s\"; dtype = \"float32\"; };",
             directory);
    float *logits = rig_logits(&merged, &t->samples, (Pass){0});
    expect_below(&worst, largest_difference(logits, unmerged, t->logits_count), logits_limit, "logits");
    show_worst(&worst, logits_limit, "merged against unmerged");
    free(logits);
    free(unmerged);
    rig_close(&merged);
}

static void test_merged_computes_the_same(void **state) {
    const Subject *subject = *state;
    const char *output = world_path(subject->world, "merged-%s", subject->name);
    ModelConfig base, merged;
    Trained t;
    train(&t, subject);
    expect_ok(export_merged(t.checkpoint, &t.options, "float32", output));
    expect_files(output, "config.json model.safetensors");
    expect_ok(model_config_read(golden_path(subject->name, ""), &base));
    expect_ok(model_config_read(output, &merged));
    assert_int_equal(base.vocab_size, merged.vocab_size);
    assert_int_equal(base.tie_word_embeddings, merged.tie_word_embeddings);
    assert_true(base.rope_theta == merged.rope_theta && base.rms_norm_eps == merged.rms_norm_eps);
    assert_int_equal(base.eos_token_id, merged.eos_token_id);
    compare_merged(subject, &t, output);
    forget(&t);
}

/* bfloat16 and float16 are the float32 merge rounded once. */
static void test_merged_is_rounded_once(void **state) {
    const Subject *subject = *state;
    static const char *const dtypes[][2] = {{"bfloat16", "BF16"}, {"float16", "F16"}};
    char path[300];
    Trained t;
    Safetensors *exact, *rounded;
    train(&t, subject);
    snprintf(path, sizeof path, "%s", world_path(subject->world, "exact-%s", subject->name));
    expect_ok(export_merged(t.checkpoint, &t.options, "float32", path));
    expect_ok(safetensors_open(path, &exact));
    for (int d = 0; d < 2; ++d) {
        snprintf(path, sizeof path, "%s", world_path(subject->world, "%s-%s", dtypes[d][0], subject->name));
        expect_ok(export_merged(t.checkpoint, &t.options, dtypes[d][0], path));
        expect_ok(safetensors_open(path, &rounded));
        assert_int_equal(safetensors_count(rounded), safetensors_count(exact));
        for (size_t i = 0; i < safetensors_count(rounded); ++i) {
            const SafetensorsEntry *entry = safetensors_at(rounded, i), *wide = safetensors_find(exact, entry->name);
            assert_string_equal(entry->dtype, dtypes[d][1]);
            assert_int_equal(entry->bytes * 2, wide->bytes);
            void *wanted = malloc((size_t)entry->bytes);
            float *values = malloc((size_t)wide->bytes);
            assert_true(wanted && values);
            memcpy(values, wide->data, (size_t)wide->bytes);
            expect_ok(convert_from_float(values, wide->bytes / 4, dtypes[d][1], wanted));
            assert_memory_equal(entry->data, wanted, entry->bytes);
            free(wanted);
            free(values);
        }
        safetensors_close(rounded);
    }
    safetensors_close(exact);
    forget(&t);
}

/* Base tensors that were trained beside the adapter: PEFT cannot carry them, the merged model does. */
static void test_trained_base_tensors(void **state) {
    const Subject *subject = *state;
    const char *output = world_path(subject->world, "merged-base-%s", subject->name);
    const char *refused = world_path(subject->world, "refused-%s", subject->name);
    Trained t;
    Safetensors *file;
    train(&t, subject);
    expect_error(export_peft(t.checkpoint, &t.options, "float32", refused), STATUS_INVALID, "was trained in full");
    assert_false(file_exists(refused));
    expect_ok(export_merged(t.checkpoint, &t.options, "float32", output));
    expect_ok(safetensors_open(output, &file));
    int64_t found = 0;
    for (int64_t i = 0; i < checkpoint_count(t.checkpoint); ++i) {
        const CheckpointTensor *tensor = checkpoint_at(t.checkpoint, i);
        if (strstr(tensor->name, ".lora_")) continue;
        const SafetensorsEntry *entry = safetensors_find(file, tensor->name);
        assert_non_null(entry);
        bool adapted = strstr(tensor->name, "down_proj") != NULL; /* B A is added to it */
        if (!adapted) assert_memory_equal(entry->data, tensor->parameter, entry->bytes);
        ++found;
    }
    assert_true(found >= 3);
    safetensors_close(file);
    compare_merged(subject, &t, output);
    forget(&t);
}

static void test_refusals(void **state) {
    const Subject *subject = *state;
    const char *taken = world_path(subject->world, "taken"), *absent = world_path(subject->world, "absent");
    Trained t;
    train(&t, subject);
    expect_ok(file_make_directories(taken));
    expect_ok(file_write_atomic(world_path(subject->world, "taken/precious"), "1", 1));
    expect_error(export_peft(t.checkpoint, &t.options, "float32", taken), STATUS_INVALID, "already exists");
    expect_error(export_merged(t.checkpoint, &t.options, "float32", taken), STATUS_INVALID, "already exists");
    expect_files(taken, "precious");
    free(t.options.model.path);
    t.options.model.path = strdup(golden_path("untied_h64", ""));
    expect_error(export_merged(t.checkpoint, &t.options, "float32", absent), STATUS_INVALID, "is not the base model");
    assert_false(file_exists(absent));
    forget(&t);
}

int main(void) {
    World world;
    world_start(&world);
    Subject tied = {&world, "tied_h64", ""}, untied = {&world, "untied_h128", ""};
    Subject with_base = {&world, "tied_h64", "\"norm\", \"embed_tokens\", \"1.mlp.down_proj\""};
    const struct CMUnitTest tests[] = {
        {"test_peft_round_trip(tied_h64)", test_peft_round_trip, NULL, NULL, &tied},
        {"test_peft_round_trip(untied_h128)", test_peft_round_trip, NULL, NULL, &untied},
        {"test_peft_in_bfloat16", test_peft_in_bfloat16, NULL, NULL, &untied},
        {"test_merged_computes_the_same(tied_h64)", test_merged_computes_the_same, NULL, NULL, &tied},
        {"test_merged_computes_the_same(untied_h128)", test_merged_computes_the_same, NULL, NULL, &untied},
        {"test_merged_is_rounded_once(untied_h128)", test_merged_is_rounded_once, NULL, NULL, &untied},
        {"test_trained_base_tensors(tied_h64)", test_trained_base_tensors, NULL, NULL, &with_base},
        {"test_refusals", test_refusals, NULL, NULL, &tied},
    };
    return world_end(&world, cmocka_run_group_tests(tests, NULL, NULL));
}
