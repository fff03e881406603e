#include "model/lora.h"

#include "io/pattern.h"
#include "io/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Status lora_targets(const char *const *names, int64_t count, bool targets[LINEAR_KINDS]) {
    memset(targets, 0, LINEAR_KINDS * sizeof *targets);
    for (int64_t i = 0; i < count; ++i) {
        bool found = strcmp(names[i], "all-linear") == 0;
        for (int kind = 0; kind < LINEAR_KINDS; ++kind) {
            if (!found && strcmp(names[i], linear_kind_names[kind]) != 0) continue;
            targets[kind] = true;
            if (!found) {
                found = true;
                break;
            }
        }
        if (!found)
            INVALID("lora.target_modules: \"%s\" is not one of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
                    "down_proj, all-linear",
                    names[i]);
    }
    return STATUS_OK;
}

Status lora_rank(const LoraSettings *settings, const char *module, int64_t *r, double *alpha) {
    *r = settings->r;
    *alpha = settings->lora_alpha;
    for (int64_t i = 0; i < settings->rule_count; ++i) {
        Pattern *pattern;
        TRY(pattern_compile(settings->rules[i].pattern, PATTERN_SUFFIX, "lora.rank_pattern", &pattern));
        bool matches = pattern_matches(pattern, module);
        pattern_free(pattern);
        if (!matches) continue;
        *r = settings->rules[i].r;
        *alpha = settings->rules[i].lora_alpha;
        break;
    }
    return STATUS_OK;
}

float lora_scale(const LoraSettings *settings, int64_t r, double alpha) {
    return (float)(settings->use_rslora ? alpha / sqrt((double)r) : alpha / (double)r);
}

Status lora_parameter_count(const ModelConfig *config, const LoraSettings *settings, int64_t *out) {
    *out = 0;
    for (int64_t layer = 0; layer < config->num_hidden_layers; ++layer) {
        for (int kind = 0; kind < LINEAR_KINDS; ++kind) {
            if (!settings->targets[kind]) continue;
            char module[128];
            int64_t r, out_features, in_features;
            double alpha;
            snprintf(module, sizeof module, "model.layers.%lld.%s", (long long)layer, linear_kind_modules[kind]);
            TRY(lora_rank(settings, module, &r, &alpha));
            model_config_linear(config, (LinearKind)kind, &out_features, &in_features);
            *out += r * (out_features + in_features);
        }
    }
    return STATUS_OK;
}

static Status add_matrix(Parameters *parameters, const char *module, const char *which, int64_t rows, int64_t columns,
                         bool joined, Parameter **out) {
    char name[256];
    snprintf(name, sizeof name, "base_model.model.%s.%s.weight", module, which);
    return joined ? parameters_add_joined(parameters, name, rows, columns, true, out)
                  : parameters_add(parameters, name, 2, (int64_t[]){rows, columns}, true, true, out);
}

Status lora_add(Parameters *parameters, const LoraSettings *settings, const LoraTarget *targets, int count, int64_t in_features) {
    for (int i = 0; i < count; ++i) {
        int64_t r;
        double alpha;
        Lora *lora = targets[i].lora;
        TRY(lora_rank(settings, targets[i].module, &r, &alpha));
        lora->scale = lora_scale(settings, r, alpha);
        TRY(add_matrix(parameters, targets[i].module, "lora_A", r, in_features, i > 0, &lora->a));
    }
    for (int i = 0; i < count; ++i) {
        Lora *lora = targets[i].lora;
        TRY(add_matrix(parameters, targets[i].module, "lora_B", targets[i].out_features, lora->a->shape[0], false, &lora->b));
    }
    return STATUS_OK;
}

Status lora_initialise(Parameters *parameters, const Lora *lora, uint64_t seed) {
    int64_t n = parameter_elements(lora->a), zeros = parameter_elements(lora->b);
    float *values;
    TRY_ALLOC(values = calloc((size_t)(n > zeros ? n : zeros), sizeof *values));
    Status status = parameter_set(parameters, lora->b, values);
    double bound = 1.0 / sqrt((double)lora->a->shape[1]);
    RandomStream random = random_stream(seed, random_stream_of_name(lora->a->name));
    for (int64_t i = 0; i < n; ++i) values[i] = (float)(bound * (2.0 * random_uniform(&random) - 1.0));
    if (!status) status = parameter_set(parameters, lora->a, values);
    free(values);
    return status;
}
