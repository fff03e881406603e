#include "model/model_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const linear_kind_names[LINEAR_KINDS] = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
const char *const linear_kind_modules[LINEAR_KINDS] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                       "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                       "mlp.down_proj"};

typedef struct Preset {
    const char *name;
    int64_t hidden, intermediate, layers, heads, key_heads, head_dim, vocabulary;
    bool tied;
} Preset;

static const Preset presets[] = {
    {"qwen2.5-0.5b", 896, 4864, 24, 14, 2, 64, 151936, true},
    {"qwen2.5-1.5b", 1536, 8960, 28, 12, 2, 128, 151936, true},
    {"qwen2.5-3b", 2048, 11008, 36, 16, 2, 128, 151936, true},
    {"qwen2.5-7b", 3584, 18944, 28, 28, 4, 128, 152064, false},
    {"tiny", 192, 512, 4, 3, 1, 64, 4352, true},
};

Status model_config_preset(const char *name, ModelConfig *out) {
    for (size_t i = 0; i < sizeof presets / sizeof *presets; ++i) {
        const Preset *p = &presets[i];
        if (strcmp(p->name, name) != 0) continue;
        *out = (ModelConfig){.hidden_size = p->hidden,
                             .intermediate_size = p->intermediate,
                             .num_hidden_layers = p->layers,
                             .num_attention_heads = p->heads,
                             .num_key_value_heads = p->key_heads,
                             .head_dim = p->head_dim,
                             .vocab_size = p->vocabulary,
                             .max_position_embeddings = 32768,
                             .rms_norm_eps = 1e-6,
                             .rope_theta = 1e6,
                             .initializer_range = 0.02,
                             .tie_word_embeddings = p->tied,
                             .bos_token_id = 151643,
                             .eos_token_id = 151643};
        if (p->vocabulary < 151643) out->bos_token_id = out->eos_token_id = -1;
        return STATUS_OK;
    }
    Text names = {0};
    for (size_t i = 0; i < sizeof presets / sizeof *presets; ++i)
        status_free(text_append_format(&names, "%s%s", i ? ", " : "", presets[i].name));
    Status status = INVALID_INPUT("no preset \"%s\"; there are %s", name, names.data ? names.data : "");
    text_free(&names);
    return status;
}

void model_config_linear(const ModelConfig *c, LinearKind kind, int64_t *out_features, int64_t *in_features) {
    int64_t q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
    int64_t h = c->hidden_size, i = c->intermediate_size;
    const int64_t shapes[LINEAR_KINDS][2] = {{q, h}, {kv, h}, {kv, h}, {h, q}, {i, h}, {i, h}, {h, i}};
    *out_features = shapes[kind][0];
    *in_features = shapes[kind][1];
}

int64_t model_config_parameters(const ModelConfig *c) {
    int64_t layer = 2 * c->hidden_size;
    for (int kind = 0; kind < LINEAR_KINDS; ++kind) {
        int64_t out, in;
        model_config_linear(c, (LinearKind)kind, &out, &in);
        layer += out * in + (linear_kind_has_bias((LinearKind)kind) ? out : 0);
    }
    int64_t embedding = c->vocab_size * c->hidden_size;
    return embedding * (c->tie_word_embeddings ? 1 : 2) + c->num_hidden_layers * layer + c->hidden_size;
}

static Status positive(int64_t value, int64_t limit, const char *key) {
    if (value < 1 || value > limit) INVALID("%s = %lld is out of range 1..%lld", key, (long long)value, (long long)limit);
    return STATUS_OK;
}

Status model_config_check(const ModelConfig *c) {
    TRY(positive(c->hidden_size, 1 << 20, "hidden_size"));
    TRY(positive(c->intermediate_size, 1 << 24, "intermediate_size"));
    TRY(positive(c->num_hidden_layers, 1 << 14, "num_hidden_layers"));
    TRY(positive(c->num_attention_heads, 1 << 14, "num_attention_heads"));
    TRY(positive(c->num_key_value_heads, c->num_attention_heads, "num_key_value_heads"));
    TRY(positive(c->head_dim, 256, "head_dim"));
    TRY(positive(c->vocab_size, 1 << 24, "vocab_size"));
    TRY(positive(c->max_position_embeddings, 1 << 30, "max_position_embeddings"));
    if (c->num_attention_heads % c->num_key_value_heads)
        INVALID("num_attention_heads = %lld is not a multiple of num_key_value_heads = %lld", (long long)c->num_attention_heads,
                (long long)c->num_key_value_heads);
    if (c->head_dim % 2) INVALID("head_dim = %lld is odd", (long long)c->head_dim);
    if (!(c->rms_norm_eps > 0 && c->rms_norm_eps < 1)) INVALID("rms_norm_eps = %g is out of range", c->rms_norm_eps);
    if (!(c->rope_theta >= 1 && c->rope_theta < 1e30)) INVALID("rope_theta = %g is out of range", c->rope_theta);
    if (!(c->initializer_range >= 0 && c->initializer_range < 100))
        INVALID("initializer_range = %g is out of range", c->initializer_range);
    return STATUS_OK;
}

static Status optional_integer(const JsonValue *json, const char *key, int64_t fallback, int64_t *out) {
    const JsonValue *v = json_value_get(json, key);
    *out = fallback;
    if (!v || json_value_is_null(v)) return STATUS_OK;
    if (json_value_is_array(v) && json_value_size(v) > 0) v = json_value_at(v, 0); /* eos_token_id may be a list */
    if (!json_value_is_integer(v)) INVALID("%s must be an integer, not %s", key, json_value_type_name(v));
    *out = json_value_integer(v);
    return STATUS_OK;
}

static Status optional_number(const JsonValue *json, const char *key, double fallback, double *out) {
    const JsonValue *v = json_value_get(json, key);
    *out = fallback;
    if (!v || json_value_is_null(v)) return STATUS_OK;
    if (!json_value_is_number(v)) INVALID("%s must be a number, not %s", key, json_value_type_name(v));
    *out = json_value_number(v);
    return STATUS_OK;
}

/* What would silently compute something else is refused. */
static Status refuse_unsupported(const JsonValue *json) {
    const JsonValue *type = json_value_get(json, "model_type");
    const char *name = type ? json_value_string(type, NULL) : NULL;
    const JsonValue *architecture = json_value_at(json_value_get(json, "architectures"), 0);
    const char *architecture_name = architecture ? json_value_string(architecture, NULL) : NULL;
    if (!name || strcmp(name, "qwen2") != 0)
        INVALID("model_type is \"%s\"; this program trains Qwen2 models (model_type \"qwen2\")", name ? name : "missing");
    if (architecture_name && strcmp(architecture_name, "Qwen2ForCausalLM") != 0)
        INVALID("architecture \"%s\" is not Qwen2ForCausalLM", architecture_name);
    const JsonValue *activation = json_value_get(json, "hidden_act");
    const char *activation_name = activation ? json_value_string(activation, NULL) : "silu";
    if (!activation_name || strcmp(activation_name, "silu") != 0)
        INVALID("hidden_act is \"%s\"; only \"silu\" is supported", activation_name ? activation_name : "not a string");
    const JsonValue *scaling = json_value_get(json, "rope_scaling");
    if (scaling && !json_value_is_null(scaling)) INVALID("rope_scaling is set; RoPE scaling is not supported");
    if (json_value_boolean(json_value_get(json, "use_sliding_window")))
        INVALID("use_sliding_window is true; sliding windows are not supported");
    return STATUS_OK;
}

/* Transformers 5 keeps rope_theta inside rope_parameters. */
static Status parse_rope(const JsonValue *json, double *theta) {
    const JsonValue *parameters = json_value_get(json, "rope_parameters");
    if (!parameters || json_value_is_null(parameters)) return optional_number(json, "rope_theta", 10000.0, theta);
    const JsonValue *type = json_value_get(parameters, "rope_type");
    const char *name = type ? json_value_string(type, NULL) : "default";
    if (!name || strcmp(name, "default") != 0)
        INVALID("rope_parameters.rope_type is \"%s\"; only \"default\" is supported", name ? name : "not a string");
    return optional_number(parameters, "rope_theta", 10000.0, theta);
}

Status model_config_parse(const JsonValue *json, ModelConfig *c) {
    *c = (ModelConfig){0};
    if (!json_value_is_object(json)) INVALID("not a JSON object");
    TRY(refuse_unsupported(json));
    TRY(json_value_get_integer(json, "hidden_size", &c->hidden_size));
    TRY(json_value_get_integer(json, "intermediate_size", &c->intermediate_size));
    TRY(json_value_get_integer(json, "num_hidden_layers", &c->num_hidden_layers));
    TRY(json_value_get_integer(json, "num_attention_heads", &c->num_attention_heads));
    TRY(json_value_get_integer(json, "vocab_size", &c->vocab_size));
    TRY(optional_integer(json, "num_key_value_heads", c->num_attention_heads, &c->num_key_value_heads));
    int64_t head_dim = c->num_attention_heads > 0 ? c->hidden_size / c->num_attention_heads : 0;
    TRY(optional_integer(json, "head_dim", head_dim, &c->head_dim));
    TRY(optional_integer(json, "max_position_embeddings", 32768, &c->max_position_embeddings));
    TRY(optional_integer(json, "bos_token_id", -1, &c->bos_token_id));
    TRY(optional_integer(json, "eos_token_id", -1, &c->eos_token_id));
    TRY(optional_number(json, "rms_norm_eps", 1e-6, &c->rms_norm_eps));
    TRY(optional_number(json, "initializer_range", 0.02, &c->initializer_range));
    TRY(parse_rope(json, &c->rope_theta));
    const JsonValue *tied = json_value_get(json, "tie_word_embeddings");
    if (tied && !json_value_is_boolean(tied)) INVALID("tie_word_embeddings must be true or false");
    c->tie_word_embeddings = tied && json_value_boolean(tied);
    return model_config_check(c);
}

Status model_config_read(const char *directory, ModelConfig *out) {
    size_t size = strlen(directory) + sizeof "/config.json";
    char *path;
    TRY_ALLOC(path = malloc(size));
    snprintf(path, size, "%s/config.json", directory);
    JsonValue *json = NULL;
    Status status = json_value_read_file(path, &json);
    if (!status) status = status_prefix(model_config_parse(json, out), "%s", path);
    json_value_free(json);
    free(path);
    return status;
}

static Status fill_json(const ModelConfig *c, const char *torch_dtype, JsonValue *json) {
    JsonValue *architectures;
    TRY_ALLOC(architectures = json_value_new_array());
    Status status = json_value_append(architectures, json_value_new_string("Qwen2ForCausalLM", 16));
    if (status) {
        json_value_free(architectures);
        return status;
    }
    TRY(json_value_set(json, "architectures", architectures));
    TRY(json_value_set_number(json, "attention_dropout", 0.0));
    if (c->bos_token_id >= 0) TRY(json_value_set_integer(json, "bos_token_id", c->bos_token_id));
    if (c->eos_token_id >= 0) TRY(json_value_set_integer(json, "eos_token_id", c->eos_token_id));
    TRY(json_value_set_integer(json, "head_dim", c->head_dim));
    TRY(json_value_set_string(json, "hidden_act", "silu"));
    TRY(json_value_set_integer(json, "hidden_size", c->hidden_size));
    TRY(json_value_set_number(json, "initializer_range", c->initializer_range));
    TRY(json_value_set_integer(json, "intermediate_size", c->intermediate_size));
    TRY(json_value_set_integer(json, "max_position_embeddings", c->max_position_embeddings));
    TRY(json_value_set_integer(json, "max_window_layers", c->num_hidden_layers));
    TRY(json_value_set_string(json, "model_type", "qwen2"));
    TRY(json_value_set_integer(json, "num_attention_heads", c->num_attention_heads));
    TRY(json_value_set_integer(json, "num_hidden_layers", c->num_hidden_layers));
    TRY(json_value_set_integer(json, "num_key_value_heads", c->num_key_value_heads));
    TRY(json_value_set_number(json, "rms_norm_eps", c->rms_norm_eps));
    TRY(json_value_set_number(json, "rope_theta", c->rope_theta));
    TRY(json_value_set_boolean(json, "tie_word_embeddings", c->tie_word_embeddings));
    TRY(json_value_set_string(json, "torch_dtype", torch_dtype));
    TRY(json_value_set_boolean(json, "use_cache", true));
    TRY(json_value_set_boolean(json, "use_sliding_window", false));
    return json_value_set_integer(json, "vocab_size", c->vocab_size);
}

Status model_config_to_json(const ModelConfig *c, const char *torch_dtype, JsonValue **out) {
    JsonValue *json;
    TRY_ALLOC(json = json_value_new_object());
    Status status = fill_json(c, torch_dtype, json);
    if (status)
        json_value_free(json);
    else
        *out = json;
    return status;
}
