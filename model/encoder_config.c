/* config.json of an encoder. What would silently compute something else is refused. */
#include "model/encoder.h"

#include <stdio.h>
#include <string.h>

typedef struct Keys {
    const char *hidden, *intermediate, *layers, *heads, *activation;
} Keys;

static const Keys bert_keys = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"};
static const Keys bart_keys = {"d_model", "encoder_ffn_dim", "encoder_layers", "encoder_attention_heads", "activation_function"};

static Status read_size(const JsonValue *json, const char *key, int64_t limit, int64_t *out) {
    TRY(json_value_get_integer(json, key, out));
    if (*out < 1 || *out > limit) INVALID("%s = %lld is out of range 1..%lld", key, (long long)*out, (long long)limit);
    return STATUS_OK;
}

static Status expect_boolean(const JsonValue *json, const char *key, bool expected) {
    const JsonValue *v = json_value_get(json, key);
    if (!v || json_value_is_null(v)) return STATUS_OK;
    if (!json_value_is_boolean(v) || json_value_boolean(v) != expected)
        INVALID("%s: only %s is supported", key, expected ? "true" : "false");
    return STATUS_OK;
}

static Status expect_string(const JsonValue *json, const char *key, const char *expected) {
    const JsonValue *v = json_value_get(json, key);
    if (!v || json_value_is_null(v)) return STATUS_OK;
    const char *found = json_value_string(v, NULL);
    if (!found || strcmp(found, expected))
        INVALID("%s %s is not supported, only %s is", key, found ? found : json_value_type_name(v), expected);
    return STATUS_OK;
}

static Status read_family(const JsonValue *json, EncoderFamily *out) {
    static const char *const names[] = {"bert", "roberta", "bart"};
    const char *type;
    TRY(json_value_get_string(json, "model_type", &type, NULL));
    for (int i = 0; i < 3; ++i)
        if (!strcmp(type, names[i])) {
            *out = (EncoderFamily)i;
            return STATUS_OK;
        }
    INVALID("model_type %s is not supported, only bert, roberta and bart are", type);
}

static Status read_bert(const JsonValue *json, EncoderConfig *c) {
    TRY(expect_string(json, "position_embedding_type", "absolute"));
    TRY(expect_boolean(json, "is_decoder", false));
    TRY(expect_boolean(json, "add_cross_attention", false));
    TRY(read_size(json, "type_vocab_size", 1 << 16, &c->type_vocab_size));
    TRY(read_size(json, "max_position_embeddings", 1 << 20, &c->position_rows));
    const JsonValue *epsilon = json_value_get(json, "layer_norm_eps"), *pad = json_value_get(json, "pad_token_id");
    if (epsilon) TRY(json_value_get_number(json, "layer_norm_eps", &c->layer_norm_eps));
    c->pad_token_id = c->family == ENCODER_ROBERTA ? 1 : 0;
    if (json_value_is_integer(pad)) c->pad_token_id = json_value_integer(pad);
    if (c->pad_token_id < 0 || c->pad_token_id >= c->vocab_size)
        INVALID("pad_token_id = %lld is not in 0..%lld", (long long)c->pad_token_id, (long long)c->vocab_size - 1);
    c->position_offset = c->family == ENCODER_ROBERTA ? c->pad_token_id + 1 : 0;
    return STATUS_OK;
}

static Status read_bart(const JsonValue *json, EncoderConfig *c) {
    TRY(expect_boolean(json, "normalize_before", false));
    TRY(expect_boolean(json, "normalize_embedding", true));
    TRY(expect_boolean(json, "add_final_layer_norm", false));
    TRY(expect_boolean(json, "static_position_embeddings", false));
    TRY(read_size(json, "max_position_embeddings", 1 << 20, &c->position_rows));
    const JsonValue *scale = json_value_get(json, "scale_embedding");
    c->scale_embedding = json_value_is_boolean(scale) && json_value_boolean(scale);
    c->position_offset = 2; /* of BART's table, which is that much longer than it says */
    c->position_rows += 2;
    c->layer_norm_eps = 1e-5;
    return STATUS_OK;
}

Status encoder_config_parse(const JsonValue *json, EncoderConfig *out) {
    EncoderConfig c = {.layer_norm_eps = 1e-12};
    if (!json_value_is_object(json)) INVALID("must hold an object, found %s", json_value_type_name(json));
    TRY(read_family(json, &c.family));
    const Keys *keys = c.family == ENCODER_BART ? &bart_keys : &bert_keys;
    TRY(read_size(json, "vocab_size", 1 << 24, &c.vocab_size));
    TRY(read_size(json, keys->hidden, 1 << 16, &c.hidden_size));
    TRY(read_size(json, keys->intermediate, 1 << 20, &c.intermediate_size));
    TRY(read_size(json, keys->layers, 1 << 10, &c.num_hidden_layers));
    TRY(read_size(json, keys->heads, 1 << 10, &c.num_attention_heads));
    TRY(expect_string(json, keys->activation, "gelu"));
    TRY(c.family == ENCODER_BART ? read_bart(json, &c) : read_bert(json, &c));
    if (c.hidden_size % c.num_attention_heads || c.hidden_size / c.num_attention_heads > 256)
        INVALID("%s = %lld does not make heads of at most 256 for %s = %lld", keys->hidden, (long long)c.hidden_size, keys->heads,
                (long long)c.num_attention_heads);
    if (!(c.layer_norm_eps > 0 && c.layer_norm_eps < 1)) INVALID("layer_norm_eps = %g is out of range", c.layer_norm_eps);
    if (encoder_config_window(&c) < 2) INVALID("max_position_embeddings leaves no room for a text");
    const char *name = json_value_string(json_value_get(json, "_name_or_path"), NULL);
    snprintf(c.name, sizeof c.name, "%s", name ? name : "");
    *out = c;
    return STATUS_OK;
}

Status encoder_config_read(const char *directory, EncoderConfig *out) {
    Text path = {0};
    JsonValue *json = NULL;
    Status status;
    TRY_GOTO(text_append_format(&path, "%s/config.json", directory), done);
    TRY_GOTO(json_value_read_file(path.data, &json), done);
    status = status_prefix(encoder_config_parse(json, out), "%s", path.data);
done:
    json_value_free(json);
    text_free(&path);
    return status;
}

int64_t encoder_config_window(const EncoderConfig *config) { return config->position_rows - config->position_offset; }
