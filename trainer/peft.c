#include "trainer/peft.h"

#include "io/file.h"
#include "model/lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static JsonValue *json_string(const char *text) { return json_value_new_string(text, strlen(text)); }

/* The seven linears by name: PEFT knows "all-linear" only outside lists. */
static Status set_targets(JsonValue *json, const ConfigStringList *list) {
    bool targets[LINEAR_KINDS];
    JsonValue *array;
    TRY(lora_targets((const char *const *)list->items, list->count, targets));
    TRY_ALLOC(array = json_value_new_array());
    TRY(json_value_set(json, "target_modules", array)); /* owned by json from here on */
    for (int kind = 0; kind < LINEAR_KINDS; ++kind)
        if (targets[kind]) TRY(json_value_append(array, json_string(linear_kind_names[kind])));
    return STATUS_OK;
}

/* rank_pattern and alpha_pattern: {pattern: number}. */
static Status set_patterns(JsonValue *json, const LoraOptions *lora) {
    JsonValue *ranks, *alphas;
    TRY_ALLOC(ranks = json_value_new_object());
    TRY(json_value_set(json, "rank_pattern", ranks)); /* owned by json from here on */
    TRY_ALLOC(alphas = json_value_new_object());
    TRY(json_value_set(json, "alpha_pattern", alphas));
    const RankPattern *patterns = lora->rank_pattern.items;
    for (int64_t i = 0; i < lora->rank_pattern.count; ++i) {
        TRY(json_value_set(ranks, patterns[i].pattern, json_value_new_integer(patterns[i].r)));
        TRY(json_value_set(alphas, patterns[i].pattern, json_value_new_number(patterns[i].lora_alpha)));
    }
    return STATUS_OK;
}

static Status set_null(JsonValue *json, const char *key) { return json_value_set(json, key, json_value_new_null()); }

static Status fill_config(const Options *options, JsonValue *json) {
    const LoraOptions *lora = &options->lora;
    TRY(json_value_set(json, "base_model_name_or_path", json_string(options->model.path)));
    TRY(json_value_set(json, "bias", json_string("none")));
    TRY(json_value_set(json, "fan_in_fan_out", json_value_new_boolean(false)));
    TRY(json_value_set(json, "inference_mode", json_value_new_boolean(true)));
    TRY(json_value_set(json, "init_lora_weights", json_value_new_boolean(true)));
    TRY(set_null(json, "layers_pattern"));
    TRY(set_null(json, "layers_to_transform"));
    TRY(json_value_set(json, "lora_alpha", json_value_new_number(lora->lora_alpha)));
    TRY(json_value_set(json, "lora_dropout", json_value_new_number(lora->lora_dropout)));
    TRY(set_null(json, "modules_to_save"));
    TRY(json_value_set(json, "peft_type", json_string("LORA")));
    TRY(json_value_set(json, "r", json_value_new_integer(lora->r)));
    TRY(set_patterns(json, lora));
    TRY(set_targets(json, &lora->target_modules));
    TRY(json_value_set(json, "task_type", json_string("CAUSAL_LM")));
    TRY(json_value_set(json, "use_dora", json_value_new_boolean(false)));
    return json_value_set(json, "use_rslora", json_value_new_boolean(lora->use_rslora));
}

Status peft_config_json(const Options *options, JsonValue **out) {
    JsonValue *json;
    TRY_ALLOC(json = json_value_new_object());
    Status status = fill_config(options, json);
    if (status)
        json_value_free(json);
    else
        *out = json;
    return status;
}

/* Keys that would change what the adapter computes; absent, null, false, "none" and empty mean "not used". */
static Status refuse_unsupported(const JsonValue *json) {
    static const char *const keys[] = {"bias",
                                       "fan_in_fan_out",
                                       "modules_to_save",
                                       "layers_to_transform",
                                       "use_dora",
                                       "lora_bias",
                                       "trainable_token_indices",
                                       "megatron_config",
                                       "exclude_modules",
                                       "target_parameters",
                                       "alora_invocation_tokens",
                                       "layer_replication",
                                       "use_qalora",
                                       "use_bdlora",
                                       "kasa_config",
                                       "velora_config",
                                       "monteclora_config",
                                       "arrow_config"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; ++i) {
        const JsonValue *v = json_value_get(json, keys[i]);
        const char *text = v ? json_value_string(v, NULL) : NULL;
        bool unused = !v || json_value_is_null(v) || (json_value_is_boolean(v) && !json_value_boolean(v)) ||
                      (text && strcmp(text, "none") == 0) ||
                      ((json_value_is_array(v) || json_value_is_object(v)) && json_value_size(v) == 0);
        if (!unused) INVALID("%s is set; this program does not compute it", keys[i]);
    }
    const char *type;
    TRY(json_value_get_string(json, "peft_type", &type, NULL));
    if (strcmp(type, "LORA") != 0) INVALID("peft_type is \"%s\"; only LORA is supported", type);
    return STATUS_OK;
}

static Status quoted(Text *out, const char *text) {
    TRY(text_append(out, "\"", 1));
    for (; *text; ++text) {
        if (*text == '"' || *text == '\\') TRY(text_append(out, "\\", 1));
        TRY(text_append(out, text, 1));
    }
    return text_append(out, "\"", 1);
}

/* PEFT looks a module up in rank_pattern and in alpha_pattern separately, and takes the first match of each; our rules hold
 * both numbers. They mean the same when both objects have the same patterns in the same order (or there are no alphas). */
static Status check_alpha_pattern(const JsonValue *ranks, const JsonValue *alphas) {
    bool same = json_value_size(alphas) == json_value_size(ranks);
    for (size_t i = 0; same && i < json_value_size(alphas); ++i)
        same = strcmp(json_value_key_at(ranks, i, NULL), json_value_key_at(alphas, i, NULL)) == 0;
    if (json_value_size(alphas) && !same)
        INVALID("alpha_pattern has other patterns than rank_pattern, or another order; that is not supported");
    return STATUS_OK;
}

/* The lora group as configuration text, so that the option table checks types and ranges. */
static Status adapter_text(const char *directory, const JsonValue *json, Text *out) {
    int64_t r;
    double alpha, dropout = 0;
    TRY(refuse_unsupported(json));
    TRY(json_value_get_integer(json, "r", &r));
    TRY(json_value_get_number(json, "lora_alpha", &alpha));
    if (json_value_get(json, "lora_dropout")) TRY(json_value_get_number(json, "lora_dropout", &dropout));
    bool rslora = json_value_boolean(json_value_get(json, "use_rslora"));
    TRY(text_append_format(out, "lora = { r = %lld; lora_alpha = %.17g; lora_dropout = %.17g; use_rslora = %s; init_from = ",
                           (long long)r, alpha, dropout, rslora ? "true" : "false"));
    TRY(quoted(out, directory));
    TRY(text_append_string(out, "; target_modules = [ "));
    const JsonValue *targets = json_value_get(json, "target_modules");
    if (json_value_is_string(targets)) TRY(quoted(out, json_value_string(targets, NULL)));
    for (size_t i = 0; i < json_value_size(targets); ++i) {
        const char *name = json_value_string(json_value_at(targets, i), NULL);
        if (!name) INVALID("target_modules must be a list of names");
        if (i) TRY(text_append_string(out, ", "));
        TRY(quoted(out, name));
    }
    TRY(text_append_string(out, " ]; rank_pattern = ( "));
    const JsonValue *ranks = json_value_get(json, "rank_pattern"), *alphas = json_value_get(json, "alpha_pattern");
    TRY(check_alpha_pattern(ranks, alphas));
    for (size_t i = 0; i < json_value_size(ranks); ++i) {
        JsonValue *rank;
        const char *pattern = json_value_key_at(ranks, i, &rank);
        const JsonValue *own = json_value_get(alphas, pattern);
        if (!json_value_is_integer(rank)) INVALID("rank_pattern \"%s\" must be an integer", pattern);
        TRY(text_append_string(out, i ? ", { pattern = " : "{ pattern = "));
        TRY(quoted(out, pattern));
        TRY(text_append_format(out, "; r = %lld; lora_alpha = %.17g; }", (long long)json_value_integer(rank),
                               own ? json_value_number(own) : alpha));
    }
    return text_append_string(out, " ); };\n");
}

static Status read_options(const char *directory, Options *out) {
    char *path;
    JsonValue *json = NULL;
    Text text = {0};
    TRY(path_join(directory, "adapter_config.json", &path));
    Status status = json_value_read_file(path, &json);
    if (!status) {
        status = adapter_text(directory, json, &text);
        if (!status) status = options_load_text("lora", text.data, out);
        status = status_prefix(status, "%s", path);
    }
    text_free(&text);
    json_value_free(json);
    free(path);
    return status;
}

Status peft_read_config(const char *directory, Options *options) {
    Options adapter;
    TRY(read_options(directory, &adapter));
    LoraOptions lora = options->lora; /* swap, so that options_free frees the old group */
    options->lora = adapter.lora;
    adapter.lora = lora;
    options_free(&adapter);
    return STATUS_OK;
}

static bool same_targets(const ConfigStringList *a, const ConfigStringList *b) {
    bool left[LINEAR_KINDS], right[LINEAR_KINDS];
    Status status = lora_targets((const char *const *)a->items, a->count, left);
    if (!status) status = lora_targets((const char *const *)b->items, b->count, right);
    bool same = !status && memcmp(left, right, sizeof left) == 0;
    status_free(status);
    return same;
}

static bool same_patterns(const ConfigRecordList *a, const ConfigRecordList *b) {
    const RankPattern *left = a->items, *right = b->items;
    if (a->count != b->count) return false;
    for (int64_t i = 0; i < a->count; ++i)
        if (strcmp(left[i].pattern, right[i].pattern) != 0 || left[i].r != right[i].r ||
            left[i].lora_alpha != right[i].lora_alpha)
            return false;
    return true;
}

Status peft_check_config(const char *directory, const Options *options) {
    Options adapter;
    TRY(read_options(directory, &adapter));
    const LoraOptions *a = &adapter.lora, *b = &options->lora;
    const char *key = NULL;
    if (a->r != b->r)
        key = "r";
    else if (a->lora_alpha != b->lora_alpha)
        key = "lora_alpha";
    else if (a->use_rslora != b->use_rslora)
        key = "use_rslora";
    else if (!same_targets(&a->target_modules, &b->target_modules))
        key = "target_modules";
    else if (!same_patterns(&a->rank_pattern, &b->rank_pattern))
        key = "rank_pattern";
    options_free(&adapter);
    if (key) INVALID("%s/adapter_config.json: %s differs from the configuration's lora.%s", directory, key, key);
    return STATUS_OK;
}
