/* Shapes of the Qwen2.5 family, LoRA counts, and what config.json may say. */
#include "model/lora.h"

#include "io/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MODELS = 4 };
static const char *const models[MODELS] = {"qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b"};

static ModelConfig preset(const char *name) {
    ModelConfig config;
    Status status = model_config_preset(name, &config);
    if (status) fail_msg("%s", status_message(status));
    return config;
}

static void expect_invalid(Status status, const char *word, const char *what) {
    if (status_exit_code(status) != STATUS_INVALID) fail_msg("%s was accepted", what);
    if (!strstr(status_message(status), word)) fail_msg("%s: \"%s\" lacks \"%s\"", what, status_message(status), word);
    status_free(status);
}

static void test_presets(void **state) {
    (void)state;
    static const int64_t shapes[MODELS][8] = {/* hidden, layers, heads, key heads, head dim, intermediate, vocabulary, tied */
                                              {896, 24, 14, 2, 64, 4864, 151936, 1},
                                              {1536, 28, 12, 2, 128, 8960, 151936, 1},
                                              {2048, 36, 16, 2, 128, 11008, 151936, 1},
                                              {3584, 28, 28, 4, 128, 18944, 152064, 0}};
    for (int i = 0; i < MODELS; ++i) {
        ModelConfig c = preset(models[i]);
        const int64_t is[8] = {c.hidden_size, c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads,
                               c.head_dim,    c.intermediate_size, c.vocab_size,          c.tie_word_embeddings};
        assert_memory_equal(is, shapes[i], sizeof is);
        assert_true(c.rope_theta == 1e6 && c.rms_norm_eps == 1e-6 && c.initializer_range == 0.02);
        assert_int_equal(c.max_position_embeddings, 32768);
        assert_int_equal(c.bos_token_id, 151643);
        assert_int_equal(c.eos_token_id, 151643);
        assert_null(model_config_check(&c));
    }
    ModelConfig tiny = preset("tiny");
    assert_null(model_config_check(&tiny));
    assert_true(model_config_parameters(&tiny) < 4000000);
    expect_invalid(model_config_preset("qwen2.5-4b", &tiny), "qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-3b, qwen2.5-7b, tiny",
                   "an unknown preset");
}

static void test_parameter_counts(void **state) {
    (void)state;
    static const int64_t totals[MODELS] = {494032768, 1543714304, 3085938688, 7615616512};
    static const int64_t embeddings[MODELS] = {136134656, 233373696, 311164928, 544997376};
    static const int64_t layers[MODELS] = {14912384, 46797824, 77076992, 233057792};
    for (int i = 0; i < MODELS; ++i) {
        ModelConfig c = preset(models[i]);
        assert_int_equal(model_config_parameters(&c), totals[i]);
        assert_int_equal(c.vocab_size * c.hidden_size, embeddings[i]);
        ModelConfig one_more = c;
        ++one_more.num_hidden_layers;
        assert_int_equal(model_config_parameters(&one_more) - model_config_parameters(&c), layers[i]);
    }
}

static int64_t lora_count(const char *model, int64_t r, const char *const *names, int64_t count) {
    ModelConfig config = preset(model);
    LoraSettings settings = {.r = r, .lora_alpha = 16};
    int64_t parameters;
    assert_null(lora_targets(names, count, settings.targets));
    assert_null(lora_parameter_count(&config, &settings, &parameters));
    return parameters;
}

static void test_lora_counts(void **state) {
    (void)state;
    static const char *const four[] = {"q_proj", "v_proj", "up_proj", "down_proj"}, *const all[] = {"all-linear"};
    static const char *const two[] = {"q_proj", "v_proj"}, *const attention[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
    /* rank; q,v,up,down of 0.5B, 1.5B, 3B, 7B; 3B all seven, q,v, and q,k,v,o */
    static const int64_t counts[][8] = {{4, 1376256, 2895872, 4681728, 6307840, 7483392, 921600, 1843200},
                                        {8, 2752512, 5791744, 9363456, 12615680, 14966784, 1843200, 3686400},
                                        {16, 5505024, 11583488, 18726912, 25231360, 29933568, 3686400, 7372800},
                                        {32, 11010048, 23166976, 37453824, 50462720, 59867136, 7372800, 14745600},
                                        {64, 22020096, 46333952, 74907648, 100925440, 119734272, 14745600, 29491200}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i) {
        int64_t r = counts[i][0];
        for (int m = 0; m < MODELS; ++m) assert_int_equal(lora_count(models[m], r, four, 4), counts[i][1 + m]);
        assert_int_equal(lora_count("qwen2.5-3b", r, all, 1), counts[i][5]);
        assert_int_equal(lora_count("qwen2.5-3b", r, two, 2), counts[i][6]);
        assert_int_equal(lora_count("qwen2.5-3b", r, attention, 4), counts[i][7]);
    }
    assert_int_equal(lora_count("qwen2.5-0.5b", 16, all, 1), 8798208);
    assert_int_equal(lora_count("qwen2.5-1.5b", 16, all, 1), 18464768);
    assert_int_equal(lora_count("qwen2.5-7b", 16, all, 1), 40370176);
}

/* PEFT's rule: the first pattern that matches the end of the module name, at a dot or the start. */
static void test_rank_pattern(void **state) {
    (void)state;
    ModelConfig config = preset("qwen2.5-3b");
    const LoraRankRule rules[] = {{"layers.0.self_attn.q_proj", 4, 8}, {"1[0-9].mlp.(up|down)_proj", 2, 32}, {"q_proj", 8, 4}};
    LoraSettings settings = {.r = 16, .lora_alpha = 32, .rules = rules, .rule_count = 3};
    static const struct {
        const char *module;
        int64_t r;
        double alpha;
    } rows[] = {{"model.layers.0.self_attn.q_proj", 4, 8},  {"model.layers.10.self_attn.q_proj", 8, 4},
                {"model.layers.10.mlp.up_proj", 2, 32},     {"model.layers.1.mlp.up_proj", 16, 32},
                {"model.layers.10.mlp.gate_proj", 16, 32},  {"model.layers.3.self_attn.xq_proj", 16, 32},
                {"model.layers.110.mlp.down_proj", 16, 32}, {"model.layers.19.mlp.down_proj", 2, 32}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        int64_t r;
        double alpha;
        assert_null(lora_rank(&settings, rows[i].module, &r, &alpha));
        if (r != rows[i].r || alpha != rows[i].alpha) fail_msg("%s: r %lld, alpha %g", rows[i].module, (long long)r, alpha);
    }
    const char *const targets[] = {"q_proj", "up_proj"};
    int64_t parameters, q = 2048 + 2048, up = 2048 + 11008;
    assert_null(lora_targets(targets, 2, settings.targets));
    assert_null(lora_parameter_count(&config, &settings, &parameters));
    assert_int_equal(parameters, 4 * q + 35 * 8 * q + 10 * 2 * up + 26 * 16 * up);
    assert_true(lora_scale(&settings, 4, 8) == 2.0f);
    settings.use_rslora = true;
    assert_true(lora_scale(&settings, 4, 8) == 4.0f);
}

static void test_wrong_targets(void **state) {
    (void)state;
    bool targets[LINEAR_KINDS];
    const char *const names[] = {"q_proj", "query"};
    expect_invalid(lora_targets(names, 2, targets), "\"query\"", "an unknown target");
}

/* Our config.json reads back to the same shape. */
static void test_json_round_trip(void **state) {
    (void)state;
    static const char *const names[] = {"qwen2.5-0.5b", "qwen2.5-7b", "tiny"};
    for (int i = 0; i < 3; ++i) {
        ModelConfig before = preset(names[i]), after;
        JsonValue *json;
        memset(&after, 0, sizeof after);
        assert_null(model_config_to_json(&before, "bfloat16", &json));
        assert_string_equal(json_value_string(json_value_get(json, "torch_dtype"), NULL), "bfloat16");
        assert_null(model_config_parse(json, &after));
        json_value_free(json);
        assert_int_equal(before.head_dim, after.head_dim);
        assert_int_equal(before.eos_token_id, after.eos_token_id);
        assert_int_equal(before.tie_word_embeddings, after.tie_word_embeddings);
        assert_int_equal(model_config_parameters(&before), model_config_parameters(&after));
        assert_true(before.rope_theta == after.rope_theta && before.rms_norm_eps == after.rms_norm_eps);
    }
}

#define GOOD_HEAD "\"model_type\": \"qwen2\", "
#define GOOD_SIZES                                                                                                               \
    "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"vocab_size\": 100"
#define GOOD GOOD_HEAD GOOD_SIZES

static void test_defaults(void **state) {
    (void)state;
    JsonValue *json;
    ModelConfig c;
    const char text[] = "{" GOOD ", \"eos_token_id\": [7, 8]}";
    assert_null(json_value_parse(text, sizeof text - 1, &json));
    assert_null(model_config_parse(json, &c));
    json_value_free(json);
    assert_int_equal(c.num_key_value_heads, 4);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.max_position_embeddings, 32768);
    assert_int_equal(c.eos_token_id, 7);
    assert_int_equal(c.bos_token_id, -1);
    assert_false(c.tie_word_embeddings);
    assert_true(c.rope_theta == 10000.0 && c.rms_norm_eps == 1e-6);
}

/* A bad config.json and what its error must mention. */
static void test_bad_config(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"[]", "not a JSON object"},
        {"{" GOOD_SIZES "}", "model_type"},
        {"{\"model_type\": \"llama\", " GOOD_SIZES "}", "llama"},
        {"{\"model_type\": 7, " GOOD_SIZES "}", "model_type"},
        {"{" GOOD ", \"architectures\": [\"Qwen2ForSequenceClassification\"]}", "Qwen2ForSequenceClassification"},
        {"{" GOOD ", \"hidden_act\": \"gelu\"}", "gelu"},
        {"{" GOOD ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0}}", "rope_scaling"},
        {"{" GOOD ", \"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 1e6}}", "yarn"},
        {"{" GOOD ", \"use_sliding_window\": true}", "use_sliding_window"},
        {"{" GOOD ", \"num_key_value_heads\": 3}", "num_key_value_heads"},
        {"{" GOOD ", \"num_key_value_heads\": 8}", "num_key_value_heads"},
        {"{" GOOD ", \"num_key_value_heads\": 0}", "num_key_value_heads"},
        {"{" GOOD ", \"num_key_value_heads\": \"2\"}", "num_key_value_heads"},
        {"{" GOOD ", \"head_dim\": 15}", "head_dim"},
        {"{" GOOD ", \"head_dim\": 512}", "head_dim"},
        {"{" GOOD ", \"rms_norm_eps\": 0}", "rms_norm_eps"},
        {"{" GOOD ", \"rms_norm_eps\": \"1e-6\"}", "rms_norm_eps"},
        {"{" GOOD ", \"rope_theta\": 0.5}", "rope_theta"},
        {"{" GOOD ", \"initializer_range\": -1}", "initializer_range"},
        {"{" GOOD ", \"max_position_embeddings\": 0}", "max_position_embeddings"},
        {"{" GOOD ", \"tie_word_embeddings\": 1}", "tie_word_embeddings"},
        {"{" GOOD ", \"eos_token_id\": 1.5}", "eos_token_id"},
        {"{" GOOD_HEAD "\"intermediate_size\": 96, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"vocab_size\": 9}",
         "hidden_size"},
        {"{" GOOD_HEAD "\"hidden_size\": 64.5, \"intermediate_size\": 96, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "
         "\"vocab_size\": 9}",
         "hidden_size"},
        {"{" GOOD_HEAD "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": -2, \"num_attention_heads\": 4, "
         "\"vocab_size\": 9}",
         "num_hidden_layers"},
        {"{" GOOD_HEAD "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2, \"num_attention_heads\": 0, "
         "\"vocab_size\": 9}",
         "num_attention_heads"},
        {"{" GOOD_HEAD "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "
         "\"vocab_size\": 99999999999}",
         "vocab_size"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        JsonValue *json;
        ModelConfig config;
        assert_null(json_value_parse(rows[i][0], strlen(rows[i][0]), &json));
        expect_invalid(model_config_parse(json, &config), rows[i][1], rows[i][0]);
        json_value_free(json);
    }
}

/* Errors of a directory name the file. */
static void test_read_names_the_file(void **state) {
    (void)state;
    char directory[] = "/tmp/adamem-config-XXXXXX", path[64];
    ModelConfig config;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/config.json", directory);
    expect_invalid(model_config_read(directory, &config), path, "a directory without config.json");
    assert_null(file_write_atomic(path, "{\"model_type\": \"qwen2\"", 22));
    expect_invalid(model_config_read(directory, &config), path, "a cut config.json");
    assert_null(file_write_atomic(path, "{\"model_type\": \"gpt2\"}", 22));
    expect_invalid(model_config_read(directory, &config), path, "another model");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets),      cmocka_unit_test(test_parameter_counts), cmocka_unit_test(test_lora_counts),
        cmocka_unit_test(test_rank_pattern), cmocka_unit_test(test_wrong_targets),    cmocka_unit_test(test_json_round_trip),
        cmocka_unit_test(test_defaults),     cmocka_unit_test(test_bad_config),       cmocka_unit_test(test_read_names_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
