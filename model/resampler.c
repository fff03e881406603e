#include "model/resampler.h"

#include "model/indices.h"

#include <stdlib.h>
#include <string.h>

#define PREFIX "memory.resampler"

/* Places of FiLM in a layer. */
enum { FILM_CROSS, FILM_SELF, FILM_MLP, FILM_PLACES };

static Status add_layer(const AdamemConfig *config, const MemoryStore *store, int64_t index, ResamplerLayer *layer) {
    int64_t width = config->hidden_size;
    char prefix[64], part[96];
    snprintf(prefix, sizeof prefix, PREFIX ".layers.%lld", (long long)index);
    if (config->conditioning == ADAMEM_FILM) {
        TRY(memory_add(store, prefix, "film.weight", 2 * FILM_PLACES * width, width, &layer->film.weight));
        TRY(memory_add(store, prefix, "film.bias", 0, 2 * FILM_PLACES * width, &layer->film.bias));
    }
    TRY(memory_add(store, prefix, "cross_attn_layernorm.weight", 0, width, &layer->cross_norm));
    TRY(memory_add(store, prefix, "memory_layernorm.weight", 0, width, &layer->memory_norm));
    snprintf(part, sizeof part, "%s.cross_attn", prefix);
    TRY(memory_attention_add(store, part, width, &layer->cross));
    TRY(memory_add(store, prefix, "self_attn_layernorm.weight", 0, width, &layer->self_norm));
    snprintf(part, sizeof part, "%s.self_attn", prefix);
    TRY(memory_attention_add(store, part, width, &layer->self));
    TRY(memory_add(store, prefix, "mlp_layernorm.weight", 0, width, &layer->mlp_norm));
    snprintf(part, sizeof part, "%s.mlp", prefix);
    return memory_mlp_add(store, part, width, &layer->mlp);
}

Status resampler_add(const AdamemConfig *config, const MemoryStore *store, Resampler *out) {
    *out = (Resampler){.config = *config};
    TRY_ALLOC(out->layers = calloc((size_t)config->resampler_layers, sizeof *out->layers));
    TRY(memory_add(store, PREFIX, "latents", config->n_latents, config->hidden_size, &out->latents));
    out->latents->decay = false; /* inputs, not maps */
    for (int64_t i = 0; i < config->resampler_layers; ++i) TRY(add_layer(config, store, i, &out->layers[i]));
    return memory_add(store, PREFIX, "norm.weight", 0, config->hidden_size, &out->norm);
}

void resampler_free(Resampler *resampler) { free(resampler->layers); }

typedef struct Pass {
    const Resampler *resampler;
    const SequenceLayout *latents, *keys; /* keys: [rows of H ; latents] of a query */
    Tensor latent_of_row, query_of_row;   /* [sum K] */
    Tensor memory_of_key, latent_of_key;  /* [rows of keys] for layer_assemble */
} Pass;

/* inputs of a layer's segment: z, H, and, where there are such, what is to be added to z and the query's code. */
typedef struct LayerRun {
    const Pass *pass;
    int64_t layer;
    bool has_delta;
} LayerRun;

enum { INPUT_Z, INPUT_MEMORY, INPUT_REST, INPUTS_MAX = 4 };

static Status make_pass(const Resampler *resampler, Tape *tape, const ResamplerQueries *queries, Pass **out) {
    int64_t latents = 0, keys = 0, count = queries->count;
    for (int64_t b = 0; b < count; ++b) {
        latents += queries->latents[b];
        keys += queries->latents[b] + queries->memory_length[b];
    }
    if (keys > INT32_MAX) INVALID("%lld rows of memory in one pass of the resampler", (long long)keys);
    int32_t *latent_offsets, *key_offsets, *latent_of_row, *query_of_row, *memory_of_key, *latent_of_key;
    TRY(indices_allocate(tape, count + 1, &latent_offsets));
    TRY(indices_allocate(tape, count + 1, &key_offsets));
    TRY(indices_allocate(tape, latents, &latent_of_row));
    TRY(indices_allocate(tape, latents, &query_of_row));
    TRY(indices_allocate(tape, keys, &memory_of_key));
    TRY(indices_allocate(tape, keys, &latent_of_key));
    int32_t row = 0, key = 0;
    for (int64_t b = 0; b < count; ++b) {
        latent_offsets[b] = row;
        key_offsets[b] = key;
        for (int64_t m = 0; m < queries->memory_length[b]; ++m, ++key) {
            memory_of_key[key] = (int32_t)(queries->memory_begin[b] + m);
            latent_of_key[key] = -1;
        }
        for (int64_t k = 0; k < queries->latents[b]; ++k, ++row, ++key) {
            memory_of_key[key] = -1;
            latent_of_key[key] = row;
            latent_of_row[row] = (int32_t)k;
            query_of_row[row] = (int32_t)b;
        }
    }
    latent_offsets[count] = row;
    key_offsets[count] = key;
    void *memory;
    TRY(tape_host_allocate(tape, sizeof(Pass), &memory));
    Pass *pass = memory;
    pass->resampler = resampler;
    TRY(layout_upload(tape, count, latent_offsets, NULL, &pass->latents));
    TRY(layout_upload(tape, count, key_offsets, NULL, &pass->keys));
    TRY(indices_upload(tape, latent_of_row, latents, &pass->latent_of_row));
    TRY(indices_upload(tape, query_of_row, latents, &pass->query_of_row));
    TRY(indices_upload(tape, memory_of_key, keys, &pass->memory_of_key));
    TRY(indices_upload(tape, latent_of_key, keys, &pass->latent_of_key));
    *out = pass;
    return STATUS_OK;
}

/* sum = x + delta; u = FiLM(RMSNorm(sum)). */
static Status modulated_norm(Tape *tape, const Pass *pass, Value *x, Value *delta, const Parameter *weight, Value *modulation,
                             int place, Value **sum, Value **u) {
    Value *normed;
    TRY(layer_residual_rms_norm(tape, x, delta, weight, MEMORY_NORM_EPSILON, sum, &normed));
    *u = normed;
    if (!modulation) return STATUS_OK;
    TRY(layer_film(tape, normed, modulation, place, pass->latents, u));
    tape_done(tape, normed);
    return STATUS_OK;
}

static Status cross_block(Tape *tape, const Pass *pass, const ResamplerLayer *layer, Value *memory, Value *u, Value **delta) {
    const AdamemConfig *config = &pass->resampler->config;
    Value *same, *normed, *keys, *q, *kv[2], *mixed;
    TRY(layer_residual_rms_norm(tape, memory, NULL, layer->memory_norm, MEMORY_NORM_EPSILON, &same, &normed));
    RowSource sources[2] = {{.value = normed, .index = pass->memory_of_key}, {.value = u, .index = pass->latent_of_key}};
    TRY(layer_assemble(tape, sources, 2, &keys));
    tape_done(tape, normed);
    TRY(memory_linear(tape, u, &layer->cross.q, &q));
    tape_done(tape, u);
    TRY(layer_linear_group(tape, keys, (const Linear *[]){&layer->cross.k, &layer->cross.v}, 2, pass->keys, (Dropout){0}, kv));
    tape_done(tape, keys);
    AttentionShape shape = memory_attention_shape(config->hidden_size, config->num_heads, config->nested_latents);
    TRY(layer_cross_attention(tape, q, kv[0], kv[1], pass->latents, pass->keys, shape, &mixed));
    tape_done(tape, q);
    tape_done(tape, kv[0]);
    tape_done(tape, kv[1]);
    TRY(memory_linear(tape, mixed, &layer->cross.o, delta));
    tape_done(tape, mixed);
    return STATUS_OK;
}

static Status self_block(Tape *tape, const Pass *pass, const ResamplerLayer *layer, Value *u, Value **delta) {
    const AdamemConfig *config = &pass->resampler->config;
    const Linear *qkv[3] = {&layer->self.q, &layer->self.k, &layer->self.v};
    Value *heads[3], *mixed;
    TRY(layer_linear_group(tape, u, qkv, 3, pass->latents, (Dropout){0}, heads));
    tape_done(tape, u);
    AttentionShape shape = memory_attention_shape(config->hidden_size, config->num_heads, config->nested_latents);
    TRY(layer_attention(tape, heads[0], heads[1], heads[2], pass->latents, shape, &mixed));
    for (int i = 0; i < 3; ++i) tape_done(tape, heads[i]);
    TRY(memory_linear(tape, mixed, &layer->self.o, delta));
    tape_done(tape, mixed);
    return STATUS_OK;
}

/* outputs: z and what is to be added to it. */
static Status layer_forward(Tape *tape, void *context, Value *const *inputs, Value **outputs) {
    const LayerRun *run = context;
    const Pass *pass = run->pass;
    const ResamplerLayer *layer = &pass->resampler->layers[run->layer];
    Value *modulation = NULL, *u, *delta = run->has_delta ? inputs[INPUT_REST] : NULL, *after_cross, *z;
    if (layer->film.weight) TRY(memory_linear(tape, inputs[INPUT_REST + run->has_delta], &layer->film, &modulation));
    TRY(modulated_norm(tape, pass, inputs[INPUT_Z], delta, layer->cross_norm, modulation, FILM_CROSS, &z, &u));
    TRY(cross_block(tape, pass, layer, inputs[INPUT_MEMORY], u, &delta));
    TRY(modulated_norm(tape, pass, z, delta, layer->self_norm, modulation, FILM_SELF, &after_cross, &u));
    tape_done(tape, delta);
    if (run->has_delta) tape_done(tape, z);
    TRY(self_block(tape, pass, layer, u, &delta));
    TRY(modulated_norm(tape, pass, after_cross, delta, layer->mlp_norm, modulation, FILM_MLP, &outputs[0], &u));
    tape_done(tape, delta);
    tape_done(tape, after_cross);
    tape_done(tape, modulation);
    return memory_mlp(tape, u, &layer->mlp, &outputs[1]);
}

/* Latents, and what is added to them in front of the first layer. */
static Status start(const Pass *pass, Tape *tape, Value *code, Value **stream) {
    RowSource latents = {.parameter = pass->resampler->latents, .index = pass->latent_of_row};
    TRY(layer_assemble(tape, &latents, 1, &stream[0]));
    if (pass->resampler->config.conditioning == ADAMEM_ADD) TRY(layer_gather(tape, code, pass->query_of_row, &stream[1]));
    return STATUS_OK;
}

Status resampler_forward(const Resampler *resampler, Tape *tape, Value *memory, Value *code, const ResamplerQueries *queries,
                         Value **z, const SequenceLayout **layout) {
    Pass *pass;
    void *block;
    Value *stream[2] = {NULL, NULL}, *sum;
    TRY(make_pass(resampler, tape, queries, &pass));
    TRY(start(pass, tape, code, stream));
    TRY(tape_host_allocate(tape, (size_t)resampler->config.resampler_layers * sizeof(LayerRun), &block));
    LayerRun *layers = block;
    for (int64_t i = 0; i < resampler->config.resampler_layers; ++i) {
        Value *inputs[INPUTS_MAX] = {[INPUT_Z] = stream[0], [INPUT_MEMORY] = memory}, *next[2];
        int count = INPUT_REST;
        layers[i] = (LayerRun){pass, i, stream[1] != NULL};
        if (stream[1]) inputs[count++] = stream[1];
        if (resampler->config.conditioning == ADAMEM_FILM) inputs[count++] = code;
        TRY(tape_segment(tape, layer_forward, &layers[i], inputs, count, next, 2));
        for (int k = 0; k < 2; ++k) {
            tape_done(tape, stream[k]);
            stream[k] = next[k];
        }
    }
    TRY(layer_residual_rms_norm(tape, stream[0], stream[1], resampler->norm, MEMORY_NORM_EPSILON, &sum, z));
    for (int k = 0; k < 2; ++k) tape_done(tape, stream[k]);
    tape_done(tape, sum);
    *layout = pass->latents;
    return STATUS_OK;
}
