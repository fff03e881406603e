/* The shape of a Qwen2 model: config.json of a Hugging Face directory, the named presets, and the sizes that follow. */
#ifndef MODEL_MODEL_CONFIG_H
#define MODEL_MODEL_CONFIG_H

#include "io/json_value.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct ModelConfig {
    int64_t hidden_size, intermediate_size, num_hidden_layers;
    int64_t num_attention_heads, num_key_value_heads, head_dim;
    int64_t vocab_size, max_position_embeddings;
    double rms_norm_eps, rope_theta, initializer_range;
    bool tie_word_embeddings;
    int64_t bos_token_id, eos_token_id; /* -1 when absent */
} ModelConfig;

/* Reads DIRECTORY/config.json. Another architecture, an activation, RoPE scaling or sliding window that this program does
 * not compute, and missing or impossible sizes are STATUS_INVALID naming file and key. */
Status model_config_read(const char *directory, ModelConfig *out);
Status model_config_parse(const JsonValue *json, ModelConfig *out);
/* "qwen2.5-0.5b", "-1.5b", "-3b", "-7b", "tiny". STATUS_INVALID lists the names. */
Status model_config_preset(const char *name, ModelConfig *out);
/* The Hugging Face config.json of this shape; caller frees. torch_dtype: "float32" or "bfloat16". */
Status model_config_to_json(const ModelConfig *config, const char *torch_dtype, JsonValue **out);
Status model_config_check(const ModelConfig *config);

/* The seven linears of a decoder layer, in the order of the forward pass. */
typedef enum LinearKind { Q_PROJ, K_PROJ, V_PROJ, O_PROJ, GATE_PROJ, UP_PROJ, DOWN_PROJ, LINEAR_KINDS } LinearKind;
extern const char *const linear_kind_names[LINEAR_KINDS]; /* "q_proj" ... */
/* "self_attn.q_proj" ... "mlp.down_proj": the module path inside a layer. */
extern const char *const linear_kind_modules[LINEAR_KINDS];
void model_config_linear(const ModelConfig *config, LinearKind kind, int64_t *out_features, int64_t *in_features);
static inline bool linear_kind_has_bias(LinearKind kind) { return kind <= V_PROJ; }

/* Number of values in all tensors: V h (1 or 2) + L (h q + 2 h kv + q h + 3 h i + q + 2 kv + 2 h) + h. */
int64_t model_config_parameters(const ModelConfig *config);

#endif
