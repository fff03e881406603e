/* adapter_config.json: what we write, what PEFT writes, and what must be refused. */
#include "trainer/peft.h"

#include "io/file.h"
#include "model/decoder.h"
#include "trainer/directory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDENS TEST_DATA "/../parity/data"

static void expect_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

static void expect_invalid(Status status, const char *word, const char *what) {
    if (status_exit_code(status) != STATUS_INVALID) fail_msg("%s was accepted", what);
    if (!strstr(status_message(status), word)) fail_msg("%s: \"%s\" lacks \"%s\"", what, status_message(status), word);
    status_free(status);
}

static int make_directory(void **state) {
    static char directory[64];
    strcpy(directory, "/tmp/adamem-peft-XXXXXX");
    *state = mkdtemp(directory);
    return *state ? 0 : -1;
}

static int remove_directory(void **state) {
    directory_remove(*state);
    return 0;
}

static void write_config(const char *directory, const char *json) {
    char path[128];
    snprintf(path, sizeof path, "%s/adapter_config.json", directory);
    expect_ok(file_write_atomic(path, json, strlen(json)));
}

static void load(const char *text, Options *options) { expect_ok(options_load_text("test", text, options)); }

static const char full[] =
    "model = { path = \"the/base\"; };"
    "lora = { r = 16; lora_alpha = 24.0; lora_dropout = 0.125; use_rslora = true; target_modules = [ \"v_proj\", \"q_proj\" ];"
    " rank_pattern = ( { pattern = \"layers.0.self_attn.q_proj\"; r = 4; lora_alpha = 8.0; },"
    " { pattern = \"layers\\\\.[1-3]\\\\..*v_proj\"; r = 2; } ); };";

static void test_written_fields(void **state) {
    (void)state;
    Options options;
    JsonValue *json;
    load(full, &options);
    expect_ok(peft_config_json(&options, &json));
    assert_string_equal(json_value_string(json_value_get(json, "peft_type"), NULL), "LORA");
    assert_string_equal(json_value_string(json_value_get(json, "task_type"), NULL), "CAUSAL_LM");
    assert_string_equal(json_value_string(json_value_get(json, "base_model_name_or_path"), NULL), "the/base");
    assert_string_equal(json_value_string(json_value_get(json, "bias"), NULL), "none");
    assert_int_equal(json_value_integer(json_value_get(json, "r")), 16);
    assert_true(json_value_number(json_value_get(json, "lora_alpha")) == 24.0);
    assert_true(json_value_number(json_value_get(json, "lora_dropout")) == 0.125);
    assert_true(json_value_boolean(json_value_get(json, "use_rslora")));
    const JsonValue *targets = json_value_get(json, "target_modules");
    assert_int_equal(json_value_size(targets), 2);
    assert_string_equal(json_value_string(json_value_at(targets, 0), NULL), "q_proj");
    assert_string_equal(json_value_string(json_value_at(targets, 1), NULL), "v_proj");
    const JsonValue *ranks = json_value_get(json, "rank_pattern"), *alphas = json_value_get(json, "alpha_pattern");
    assert_int_equal(json_value_size(ranks), 2);
    assert_int_equal(json_value_integer(json_value_get(ranks, "layers.0.self_attn.q_proj")), 4);
    assert_int_equal(json_value_integer(json_value_get(ranks, "layers\\.[1-3]\\..*v_proj")), 2);
    assert_true(json_value_number(json_value_get(alphas, "layers.0.self_attn.q_proj")) == 8.0);
    assert_true(json_value_number(json_value_get(alphas, "layers\\.[1-3]\\..*v_proj")) == 24.0); /* the default alpha */
    json_value_free(json);
    options_free(&options);
}

static void test_round_trip(void **state) {
    const char *directory = *state;
    Options before, after;
    JsonValue *json;
    load(full, &before);
    load("model = { path = \"kept\"; }; lora = { r = 3; };", &after);
    expect_ok(peft_config_json(&before, &json));
    expect_ok(directory_write_json(directory, "adapter_config.json", json));
    json_value_free(json);
    expect_ok(peft_read_config(directory, &after));
    assert_int_equal(after.lora.r, 16);
    assert_true(after.lora.lora_alpha == 24.0 && after.lora.lora_dropout == 0.125 && after.lora.use_rslora);
    assert_int_equal(after.lora.target_modules.count, 2);
    const RankPattern *patterns = after.lora.rank_pattern.items;
    assert_int_equal(after.lora.rank_pattern.count, 2);
    assert_string_equal(patterns[1].pattern, "layers\\.[1-3]\\..*v_proj");
    assert_int_equal(patterns[1].r, 2);
    assert_true(patterns[0].lora_alpha == 8.0 && patterns[1].lora_alpha == 24.0);
    assert_string_equal(after.lora.init_from, directory);
    assert_string_equal(after.model.path, "kept");
    expect_ok(peft_check_config(directory, &before));
    expect_ok(peft_check_config(directory, &after));
    options_free(&before);
    options_free(&after);
}

/* The files that PEFT itself wrote for the parity goldens. */
static void test_files_of_peft(void **state) {
    (void)state;
    Options options;
    load("", &options);
    expect_ok(peft_read_config(GOLDENS "/tied_h64/adapter", &options));
    assert_int_equal(options.lora.r, 4);
    assert_true(options.lora.lora_alpha == 8.0 && !options.lora.use_rslora);
    assert_int_equal(options.lora.target_modules.count, 7);
    assert_int_equal(options.lora.rank_pattern.count, 0);
    expect_ok(peft_read_config(GOLDENS "/untied_h128/adapter", &options));
    assert_int_equal(options.lora.r, 8);
    assert_true(options.lora.lora_alpha == 16.0 && options.lora.use_rslora);
    const RankPattern *patterns = options.lora.rank_pattern.items;
    assert_int_equal(options.lora.rank_pattern.count, 2);
    assert_string_equal(patterns[1].pattern, "layers.1.mlp.(up|down)_proj");
    assert_int_equal(patterns[1].r, 5);
    assert_true(patterns[1].lora_alpha == 7.0);
    options_free(&options);
}

#define BASE "\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"target_modules\": [\"q_proj\"]"

static void test_accepted(void **state) {
    const char *directory = *state;
    static const char *const rows[] = {
        "{" BASE "}",
        "{" BASE ", \"bias\": \"none\", \"modules_to_save\": null, \"layers_to_transform\": [], \"use_dora\": false}",
        "{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16.5, \"target_modules\": \"all-linear\"}",
        "{" BASE ", \"rank_pattern\": {\"q_proj\": 4}, \"alpha_pattern\": {}}",
        "{" BASE ", \"rank_pattern\": {\"0.self_attn.q_proj\": 4, \"q_proj\": 2}, "
        "\"alpha_pattern\": {\"0.self_attn.q_proj\": 1, \"q_proj\": 2}}",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        Options options;
        load("", &options);
        write_config(directory, rows[i]);
        Status status = peft_read_config(directory, &options);
        if (status) fail_msg("%s: %s", rows[i], status_message(status));
        options_free(&options);
    }
}

/* What would compute something else, or cannot be read, names the file and the key; the options stay as they were. */
static void test_refused(void **state) {
    const char *directory = *state;
    static const char *const rows[][2] = {
        {"{\"r\": 8", "adapter_config.json:1"},
        {"[]", "peft_type"},
        {"{\"r\": 8, \"lora_alpha\": 16, \"target_modules\": [\"q_proj\"]}", "peft_type"},
        {"{\"peft_type\": \"IA3\", \"r\": 8, \"lora_alpha\": 16, \"target_modules\": [\"q_proj\"]}", "IA3"},
        {"{\"peft_type\": \"LORA\", \"lora_alpha\": 16, \"target_modules\": [\"q_proj\"]}", "\"r\""},
        {"{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 16, \"target_modules\": [\"q_proj\"]}", "lora.r"},
        {"{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": \"16\", \"target_modules\": [\"q_proj\"]}", "lora_alpha"},
        {"{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"target_modules\": [7]}", "target_modules"},
        {"{" BASE ", \"lora_dropout\": 1.5}", "lora_dropout"},
        {"{" BASE ", \"bias\": \"all\"}", "bias"},
        {"{" BASE ", \"fan_in_fan_out\": true}", "fan_in_fan_out"},
        {"{" BASE ", \"modules_to_save\": [\"lm_head\"]}", "modules_to_save"},
        {"{" BASE ", \"layers_to_transform\": [0, 1]}", "layers_to_transform"},
        {"{" BASE ", \"layers_to_transform\": 0}", "layers_to_transform"},
        {"{" BASE ", \"use_dora\": true}", "use_dora"},
        {"{" BASE ", \"lora_bias\": true}", "lora_bias"},
        {"{" BASE ", \"trainable_token_indices\": [5]}", "trainable_token_indices"},
        {"{" BASE ", \"exclude_modules\": \"layers.0\"}", "exclude_modules"},
        {"{" BASE ", \"target_parameters\": [\"x\"]}", "target_parameters"},
        {"{" BASE ", \"alora_invocation_tokens\": [1]}", "alora_invocation_tokens"},
        {"{" BASE ", \"layer_replication\": [[0, 1]]}", "layer_replication"},
        {"{" BASE ", \"use_qalora\": true}", "use_qalora"},
        {"{" BASE ", \"alpha_pattern\": {\"q_proj\": 4}}", "alpha_pattern"},
        {"{" BASE ", \"rank_pattern\": {\"q_proj\": 4, \"0.self_attn.q_proj\": 2}, \"alpha_pattern\": {\"q_proj\": 4}}",
         "alpha_pattern"},
        {"{" BASE ", \"rank_pattern\": {\"q_proj\": 4, \"0.self_attn.q_proj\": 2}, "
         "\"alpha_pattern\": {\"0.self_attn.q_proj\": 2, \"q_proj\": 4}}",
         "alpha_pattern"},
        {"{" BASE ", \"rank_pattern\": {\"q_proj\": \"four\"}}", "rank_pattern"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        Options options;
        load("lora = { r = 3; };", &options);
        write_config(directory, rows[i][0]);
        Status status = peft_read_config(directory, &options);
        if (status && !strstr(status_message(status), "adapter_config.json"))
            fail_msg("\"%s\" does not name the file", status_message(status));
        expect_invalid(status, rows[i][1], rows[i][0]);
        assert_int_equal(options.lora.r, 3);
        options_free(&options);
    }
    Options options;
    load("", &options);
    expect_invalid(peft_read_config("/nonexistent", &options), "/nonexistent/adapter_config.json", "a missing directory");
    options_free(&options);
}

/* lora.init_from with another adapter than the configuration's: the differing key is named. */
static void test_differences(void **state) {
    const char *directory = *state;
    static const char *const rows[][2] = {
        {"r = 4; lora_alpha = 16; target_modules = [ \"q_proj\" ];", ": r "},
        {"r = 8; lora_alpha = 8; target_modules = [ \"q_proj\" ];", ": lora_alpha "},
        {"r = 8; lora_alpha = 16; use_rslora = true; target_modules = [ \"q_proj\" ];", ": use_rslora "},
        {"r = 8; lora_alpha = 16; target_modules = [ \"q_proj\", \"k_proj\" ];", ": target_modules "},
        {"r = 8; lora_alpha = 16; target_modules = [ \"q_proj\" ]; rank_pattern = ( { pattern = \"q_proj\"; r = 2; } );",
         ": rank_pattern "},
    };
    write_config(directory, "{" BASE ", \"lora_dropout\": 0.25}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        Options options;
        char text[256];
        snprintf(text, sizeof text, "lora = { %s };", rows[i][0]);
        load(text, &options);
        expect_invalid(peft_check_config(directory, &options), rows[i][1], rows[i][0]);
        options_free(&options);
    }
    Options same; /* dropout may change */
    load("lora = { r = 8; lora_alpha = 16; lora_dropout = 0.5; target_modules = [ \"q_proj\" ]; };", &same);
    expect_ok(peft_check_config(directory, &same));
    options_free(&same);
}

/* Tensors of an adapter file that are missing, misshapen or too many. */
static void load_tensors(const char *adapter, LoraSettings lora, const char *word) {
    Device *device;
    Parameters *parameters;
    Decoder *decoder;
    ModelConfig config;
    Safetensors *file;
    expect_ok(model_config_read(GOLDENS "/tied_h64", &config));
    expect_ok(device_open(BACKEND_CPU, 0, 1, &device));
    expect_ok(parameters_create(device, DTYPE_F32, &parameters));
    expect_ok(decoder_create(&config, &(DecoderSettings){.lora = lora}, parameters, false, &decoder));
    expect_ok(safetensors_open(adapter, &file));
    if (word)
        expect_invalid(decoder_load_lora(decoder, file), word, adapter);
    else
        expect_ok(decoder_load_lora(decoder, file));
    safetensors_close(file);
    decoder_destroy(decoder);
    parameters_destroy(parameters);
    device_close(device);
}

static void test_tensors_must_fit(void **state) {
    (void)state;
    LoraSettings all = {.r = 4, .lora_alpha = 8}, some, other;
    for (int kind = 0; kind < LINEAR_KINDS; ++kind) all.targets[kind] = true;
    some = other = all;
    some.targets[UP_PROJ] = false;
    other.r = 5;
    load_tensors(GOLDENS "/tied_h64/adapter", all, NULL);
    load_tensors(GOLDENS "/tied_h64/adapter", some, "up_proj.lora_A.weight does not belong");
    load_tensors(GOLDENS "/tied_h64/adapter", other, "expected [5, 128]");
    load_tensors(GOLDENS "/tied_h64", all, "lora_A.weight is missing");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_fields),   cmocka_unit_test(test_round_trip), cmocka_unit_test(test_files_of_peft),
        cmocka_unit_test(test_accepted),         cmocka_unit_test(test_refused),    cmocka_unit_test(test_differences),
        cmocka_unit_test(test_tensors_must_fit),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
