/* LoRA (Hu et al. 2021): y = W x + s B (A dropout(x)), with PEFT's conventions: A [R,K] Kaiming-uniform (a = sqrt 5),
 * B [N,R] zero, s = alpha / r, or alpha / sqrt(r) with rsLoRA (Kalajdzievski 2023). */
#ifndef MODEL_LORA_H
#define MODEL_LORA_H

#include "model/model_config.h"
#include "model/parameters.h"

typedef struct Lora {
    Parameter *a, *b; /* NULL: this linear has no adapter */
    float scale;
} Lora;

/* As PEFT's LoraConfig. Strings are borrowed and must outlive the use. */
typedef struct LoraRankRule {
    const char *pattern; /* PEFT: matches the end of the module name, regular expression */
    int64_t r;
    double lora_alpha;
} LoraRankRule;

typedef struct LoraSettings {
    int64_t r;
    double lora_alpha, lora_dropout;
    bool use_rslora;
    bool targets[LINEAR_KINDS];
    const LoraRankRule *rules;
    int64_t rule_count;
} LoraSettings;

/* Rank and alpha of one module ("model.layers.0.self_attn.q_proj"): the first rule that matches, else the defaults. */
Status lora_rank(const LoraSettings *settings, const char *module, int64_t *r, double *alpha);
float lora_scale(const LoraSettings *settings, int64_t r, double alpha);
/* Sum over targets and layers of r (in + out). */
Status lora_parameter_count(const ModelConfig *config, const LoraSettings *settings, int64_t *out);
/* One linear that gets an adapter. */
typedef struct LoraTarget {
    char module[128]; /* "model.layers.0.self_attn.q_proj" */
    int64_t out_features;
    Lora *lora; /* filled */
} LoraTarget;
/* Adds base_model.model.MODULE.lora_A.weight [R,K] and .lora_B.weight [N,R], trainable, of linears that read the same input of
 * in_features = K. Their A lie side by side in the parameters' flat arrays: layer_linear_group takes them as one matrix. */
Status lora_add(Parameters *parameters, const LoraSettings *settings, const LoraTarget *targets, int count, int64_t in_features);
/* A: uniform(-1/sqrt(K), 1/sqrt(K)) from (seed, name), independent of the order of modules; B: zero. */
Status lora_initialise(Parameters *parameters, const Lora *lora, uint64_t seed);
/* LoRA targets: "all-linear" or names of the seven linears. STATUS_INVALID names the wrong one. */
Status lora_targets(const char *const *names, int64_t count, bool targets[LINEAR_KINDS]);

#endif
