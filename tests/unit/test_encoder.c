/* Encoders against hidden states of Transformers, layer by layer; and against bad directories. TEST_BACKEND: the CPU, or what
 * tests/encoder/suite.cmake says. */
#include "io/file.h"
#include "model/encoder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA TEST_DATA "/encoder"

#ifndef TEST_BACKEND
#define TEST_BACKEND BACKEND_CPU
#endif

enum { MOST_TOKENS = 512, MOST_SEQUENCES = 8 };

static void succeed(Status status) {
    if (status) fail_msg("%s [%s]", status_message(status), status_positions(status));
}

static void expect_error(Status status, const char *part) {
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    if (!strstr(status_message(status), part)) fail_msg("\"%s\" does not say \"%s\"", status_message(status), part);
    status_free(status);
}

static Device *open_device(int threads) {
    Device *device;
    succeed(device_open(TEST_BACKEND, 0, threads, &device));
    return device;
}

typedef struct Input {
    int32_t ids[MOST_TOKENS], offsets[MOST_SEQUENCES + 1];
    int64_t sequences;
} Input;

/* The texts whose hidden states are kept, as ids of this model's tokenizer. */
static Input golden_input(const char *name) {
    Input input = {0};
    JsonValue *goldens;
    succeed(json_value_read_file(DATA "/goldens.json", &goldens));
    const JsonValue *ids = json_value_get(json_value_get(goldens, "ids"), name), *chosen = json_value_get(goldens, "hidden");
    for (size_t s = 0; s < json_value_size(chosen); ++s) {
        const JsonValue *text = json_value_at(ids, (size_t)json_value_integer(json_value_at(chosen, s)));
        int32_t at = input.offsets[s];
        for (size_t i = 0; i < json_value_size(text); ++i) input.ids[at++] = (int32_t)json_value_integer(json_value_at(text, i));
        input.offsets[s + 1] = at;
        input.sequences = (int64_t)s + 1;
    }
    json_value_free(goldens);
    assert_true(input.sequences >= 3 && input.offsets[input.sequences] > 20);
    return input;
}

static double largest_difference(const float *a, const float *b, int64_t count) {
    double largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
    return largest;
}

static const float *golden_layer(const Safetensors *file, int64_t layer, int64_t *count) {
    char name[32];
    snprintf(name, sizeof name, "layer.%lld", (long long)layer);
    const SafetensorsEntry *entry = safetensors_find(file, name);
    assert_non_null(entry);
    *count = entry->bytes / 4;
    return entry->data;
}

/* Every layer of a model within 1e-5, and another layer's states far away. */
static void check_model(const char *name, int64_t layers) {
    char directory[512], path[600];
    snprintf(directory, sizeof directory, "%s/%s", DATA, name);
    snprintf(path, sizeof path, "%s/hidden.safetensors", directory);
    Safetensors *goldens;
    succeed(safetensors_open(path, &goldens));
    assert_int_equal(safetensors_count(goldens), layers + 1);
    Input input = golden_input(name);
    Device *device = open_device(2);
    double worst = 0;
    for (int64_t layer = 0; layer <= layers; ++layer) {
        Encoder *encoder;
        int64_t count, other_count;
        succeed(encoder_open(directory, layer == layers ? -1 : layer, MOST_TOKENS, device, &encoder));
        assert_int_equal(encoder->count, layer);
        const float *expected = golden_layer(goldens, layer, &count);
        const float *other = golden_layer(goldens, layer ? layer - 1 : 1, &other_count);
        assert_int_equal(count, input.offsets[input.sequences] * encoder->config.hidden_size);
        float *hidden = malloc((size_t)count * sizeof *hidden);
        succeed(encoder_run(encoder, input.ids, input.offsets, input.sequences, hidden));
        double difference = largest_difference(hidden, expected, count);
        if (!(difference <= 1e-5)) fail_msg("%s, layer %lld: off by %g", name, (long long)layer, difference);
        assert_true(largest_difference(hidden, other, count) > 1e-2);
        worst = fmax(worst, difference);
        free(hidden);
        encoder_close(encoder);
    }
    print_message("%s: hidden states within %.2g of Transformers\n", name, worst);
    device_close(device);
    safetensors_close(goldens);
}

static void test_bert(void **state) {
    (void)state;
    check_model("bert", 3);
}
static void test_roberta(void **state) {
    (void)state;
    check_model("roberta", 4);
}
static void test_bart(void **state) {
    (void)state;
    check_model("bart", 3);
}

/* A sequence's states do not depend on what else is in the batch, nor on the number of threads. */
static void test_packing_and_threads(void **state) {
    (void)state;
    Input input = golden_input("roberta");
    float together[MOST_TOKENS * 32], alone[MOST_TOKENS * 32];
    Device *one = open_device(1), *two = open_device(2);
    Encoder *a, *b;
    succeed(encoder_open(DATA "/roberta", -1, MOST_TOKENS, one, &a));
    succeed(encoder_open(DATA "/roberta", -1, MOST_TOKENS, two, &b));
    succeed(encoder_run(a, input.ids, input.offsets, input.sequences, together));
    succeed(encoder_run(b, input.ids, input.offsets, input.sequences, alone));
    assert_memory_equal(together, alone, (size_t)input.offsets[input.sequences] * 32 * sizeof *alone);
    for (int64_t s = 0; s < input.sequences; ++s) {
        int32_t begin = input.offsets[s], offsets[2] = {0, input.offsets[s + 1] - begin};
        succeed(encoder_run(a, input.ids + begin, offsets, 1, alone));
        assert_true(largest_difference(alone, together + begin * 32, offsets[1] * 32) <= 1e-5);
    }
    succeed(encoder_run(a, input.ids, (int32_t[]){0}, 0, alone));
    encoder_close(a);
    encoder_close(b);
    device_close(one);
    device_close(two);
}

static void test_bad_batches(void **state) {
    (void)state;
    Device *device = open_device(1);
    Encoder *encoder;
    int32_t ids[80] = {0};
    float hidden[80 * 32];
    succeed(encoder_open(DATA "/roberta", 1, 70, device, &encoder));
    expect_error(encoder_run(encoder, ids, (int32_t[]){0, 65}, 1, hidden), "a sequence of 65 tokens, the encoder takes 64");
    expect_error(encoder_run(encoder, ids, (int32_t[]){0, 40, 80}, 2, hidden), "a batch of 80 tokens");
    ids[3] = 1 << 20;
    expect_error(encoder_run(encoder, ids, (int32_t[]){0, 5}, 1, hidden), "token id 1048576");
    ids[3] = -1;
    expect_error(encoder_run(encoder, ids, (int32_t[]){0, 5}, 1, hidden), "token id -1");
    encoder_close(encoder);
    device_close(device);
}

/* --- config.json --- */

#define SIZES                                                                                                                    \
    "\"vocab_size\": 10, \"hidden_size\": 8, \"intermediate_size\": 8, \"num_hidden_layers\": 1, \"type_vocab_size\": 1,"        \
    "\"max_position_embeddings\": 16, "

static void expect_config(const char *text, const char *part) {
    JsonValue *json;
    EncoderConfig config;
    succeed(json_value_parse(text, strlen(text), &json));
    Status status = encoder_config_parse(json, &config);
    if (part)
        expect_error(status, part);
    else
        succeed(status);
    json_value_free(json);
}

static void test_config(void **state) {
    (void)state;
    expect_config("{\"model_type\": \"bert\", " SIZES "\"num_attention_heads\": 2, \"hidden_act\": \"gelu\"}", NULL);
    expect_config("{\"model_type\": \"xlm-roberta\"}", "model_type xlm-roberta is not supported");
    expect_config("{\"model_type\": \"qwen2\"}", "model_type qwen2 is not supported");
    expect_config("[]", "must hold an object");
    expect_config("{\"model_type\": \"bert\"}", "vocab_size");
    expect_config("{\"model_type\": \"bert\", " SIZES "\"num_attention_heads\": 3}", "num_attention_heads = 3");
    expect_config("{\"model_type\": \"bert\", " SIZES "\"num_attention_heads\": 2, \"hidden_act\": \"gelu_new\"}",
                  "hidden_act gelu_new");
    expect_config("{\"model_type\": \"bert\", " SIZES
                  "\"num_attention_heads\": 2, \"position_embedding_type\": \"relative_key\"}",
                  "position_embedding_type relative_key");
    expect_config("{\"model_type\": \"bert\", " SIZES "\"num_attention_heads\": 2, \"is_decoder\": true}", "is_decoder");
    expect_config("{\"model_type\": \"roberta\", " SIZES "\"num_attention_heads\": 2, \"pad_token_id\": 15}",
                  "pad_token_id = 15");
    expect_config("{\"model_type\": \"roberta\", " SIZES "\"num_attention_heads\": 2, \"layer_norm_eps\": 0}", "layer_norm_eps");
    expect_config("{\"model_type\": \"bart\", \"vocab_size\": 10, \"d_model\": 8, \"encoder_ffn_dim\": 8, \"encoder_layers\": 1,"
                  "\"encoder_attention_heads\": 1, \"max_position_embeddings\": 16, \"normalize_before\": true}",
                  "normalize_before");
}

/* --- directories --- */

/* A directory that holds the BERT golden's config.json, changed, and its weights as a link. */
typedef struct Copy {
    char directory[64];
} Copy;

static Copy copy_bert(const char *from, const char *to, const char *weights) {
    Copy copy = {"/tmp/encoder-XXXXXX"};
    char path[128];
    Text text = {0}, changed = {0};
    assert_non_null(mkdtemp(copy.directory));
    succeed(file_read(DATA "/bert/config.json", &text));
    char *at = strstr(text.data, from);
    assert_non_null(at);
    succeed(text_append(&changed, text.data, (size_t)(at - text.data)));
    succeed(text_append_string(&changed, to));
    succeed(text_append_string(&changed, at + strlen(from)));
    snprintf(path, sizeof path, "%s/config.json", copy.directory);
    succeed(file_write_atomic(path, changed.data, changed.length));
    snprintf(path, sizeof path, "%s/%s", copy.directory, weights);
    assert_int_equal(symlink(DATA "/bert/model.safetensors", path), 0);
    text_free(&text);
    text_free(&changed);
    return copy;
}

static void remove_copy(const Copy *copy) {
    static const char *const names[] = {"config.json", "model.safetensors", "pytorch_model.bin", "unused"};
    char path[128];
    for (int i = 0; i < 4; ++i) {
        snprintf(path, sizeof path, "%s/%s", copy->directory, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(copy->directory), 0);
}

static void expect_open(const char *from, const char *to, const char *weights, int64_t layers, const char *part) {
    Copy copy = copy_bert(from, to, weights);
    Device *device = open_device(1);
    Encoder *encoder = NULL;
    Status status = encoder_open(copy.directory, layers, 64, device, &encoder);
    if (part)
        expect_error(status, part);
    else
        succeed(status);
    encoder_close(encoder);
    device_close(device);
    remove_copy(&copy);
}

static void test_bad_directories(void **state) {
    (void)state;
    const char *weights = "model.safetensors", *layers = "\"num_hidden_layers\": 3", *width = "\"intermediate_size\": 48";
    expect_open(layers, layers, weights, 3, NULL);
    expect_open(layers, layers, weights, 4, "layer 4 is out of range, the encoder has 3");
    expect_open(layers, layers, weights, -2, "layer -2 is out of range");
    expect_open(layers, layers, "pytorch_model.bin", -1, "holds pytorch_model.bin but no model.safetensors; convert it");
    expect_open(layers, layers, "unused", -1, "holds no model.safetensors");
    expect_open(layers, "\"num_hidden_layers\": 5", weights, -1,
                "tensor bert.encoder.layer.3.attention.self.query.weight is missing");
    expect_open(layers, "\"num_hidden_layers\": 5", weights, 3, NULL); /* layers that are not run need not be there */
    expect_open(width, "\"intermediate_size\": 64", weights, -1, "has shape [48, 32], config.json says [64, 32]");
    expect_open("\"model_type\": \"bert\"", "\"model_type\": \"albert\"", weights, -1, "config.json: model_type albert");
    Device *device = open_device(1);
    Encoder *encoder = NULL;
    expect_error(encoder_open("/nonexistent-encoder", -1, 64, device, &encoder), "/nonexistent-encoder/config.json");
    assert_null(encoder);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bert),
        cmocka_unit_test(test_roberta),
        cmocka_unit_test(test_bart),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_packing_and_threads),
        cmocka_unit_test(test_bad_batches),
        cmocka_unit_test(test_bad_directories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
