/* The encoder's tensors, by the names that Hugging Face gives them in the model of each family, alone or under a task head. */
#include "model/encoder.h"

#include "io/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 192 };

typedef struct LayerNames {
    const char *query, *key, *value, *output, *attention_norm, *up, *down, *output_norm;
} LayerNames;

typedef struct Names {
    const char *words[2], *positions, *types, *embedding_norm, *layer;
    LayerNames layers;
} Names;

static const Names bert_names = {{"embeddings.word_embeddings", NULL},
                                 "embeddings.position_embeddings",
                                 "embeddings.token_type_embeddings",
                                 "embeddings.LayerNorm",
                                 "encoder.layer",
                                 {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
                                  "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"}};
/* The word embeddings are shared with the decoder and stored under either name. */
static const Names bart_names = {{"embed_tokens", "shared"},
                                 "embed_positions",
                                 NULL,
                                 "layernorm_embedding",
                                 "layers",
                                 {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
                                  "self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"}};
/* What may stand in front of all names, by EncoderFamily; the first that fits is taken. */
static const char *const prefixes[][4] = {{"bert.", "", NULL}, {"roberta.", "", NULL}, {"model.encoder.", "encoder.", "", NULL}};

typedef struct Loader {
    Encoder *encoder;
    const Names *names;
    const char *directory, *prefix;
} Loader;

static const SafetensorsEntry *find(const Loader *l, const char *module, const char *kind) {
    char name[NAME_BYTES + 64];
    snprintf(name, sizeof name, "%s%s.%s", l->prefix, module, kind);
    return safetensors_find(l->encoder->weights, name);
}

static Status check_shape(const Loader *l, const SafetensorsEntry *entry, int dimensions, const int64_t shape[2]) {
    bool same = entry->dimensions == dimensions;
    for (int i = 0; i < dimensions && same; ++i) same = entry->shape[i] == shape[i];
    if (same) return STATUS_OK;
    char found[96] = "", wanted[64] = "";
    size_t length = 0;
    for (int i = 0; i < entry->dimensions && length < sizeof found - 24; ++i)
        length += (size_t)snprintf(found + length, sizeof found - length, "%s%lld", i ? ", " : "", (long long)entry->shape[i]);
    snprintf(wanted, sizeof wanted, dimensions == 2 ? "%lld, %lld" : "%lld", (long long)shape[0], (long long)shape[1]);
    INVALID("%s: tensor %s has shape [%s], config.json says [%s]", l->directory, entry->name, found, wanted);
}

/* columns 0: a vector. */
static Status add(Loader *l, const SafetensorsEntry *entry, const char *module, const char *kind, int64_t rows, int64_t columns,
                  Parameter **out) {
    const int64_t shape[2] = {rows, columns};
    if (!entry) INVALID("%s: tensor %s%s.%s is missing", l->directory, l->prefix, module, kind);
    TRY(check_shape(l, entry, columns ? 2 : 1, shape));
    TRY(parameters_add(l->encoder->parameters, entry->name, columns ? 2 : 1, shape, false, false, out));
    return status_prefix(parameter_load(l->encoder->parameters, *out, entry->dtype, entry->data), "%s: tensor %s", l->directory,
                         entry->name);
}

static Status add_linear(Loader *l, const char *layer, const char *module, int64_t rows, int64_t columns, EncoderLinear *out) {
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", layer, module);
    TRY(add(l, find(l, name, "weight"), name, "weight", rows, columns, &out->weight));
    return add(l, find(l, name, "bias"), name, "bias", rows, 0, &out->bias);
}

/* Older files, bert-base-uncased among them, write gamma and beta. */
static Status add_norm(Loader *l, const char *layer, const char *module, EncoderNorm *out) {
    char name[NAME_BYTES];
    int64_t width = l->encoder->config.hidden_size;
    snprintf(name, sizeof name, "%s%s%s", layer, *layer ? "." : "", module);
    const SafetensorsEntry *weight = find(l, name, "weight"), *bias = find(l, name, "bias");
    if (!weight) weight = find(l, name, "gamma");
    if (!bias) bias = find(l, name, "beta");
    TRY(add(l, weight, name, "weight", width, 0, &out->weight));
    return add(l, bias, name, "bias", width, 0, &out->bias);
}

static Status add_layer(Loader *l, int64_t index) {
    EncoderLayer *layer = &l->encoder->layers[index];
    const LayerNames *names = &l->names->layers;
    int64_t d = l->encoder->config.hidden_size, f = l->encoder->config.intermediate_size;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.%lld", l->names->layer, (long long)index);
    TRY(add_linear(l, prefix, names->query, d, d, &layer->query));
    TRY(add_linear(l, prefix, names->key, d, d, &layer->key));
    TRY(add_linear(l, prefix, names->value, d, d, &layer->value));
    TRY(add_linear(l, prefix, names->output, d, d, &layer->output));
    TRY(add_norm(l, prefix, names->attention_norm, &layer->attention_norm));
    TRY(add_linear(l, prefix, names->up, f, d, &layer->up));
    TRY(add_linear(l, prefix, names->down, d, f, &layer->down));
    return add_norm(l, prefix, names->output_norm, &layer->output_norm);
}

/* The word table under one of its names; for BART also one level above the encoder. */
static const SafetensorsEntry *find_words(const Loader *l) {
    const SafetensorsEntry *entry = NULL;
    for (int i = 0; i < 2 && !entry && l->names->words[i]; ++i) entry = find(l, l->names->words[i], "weight");
    if (entry || l->encoder->config.family != ENCODER_BART) return entry;
    entry = safetensors_find(l->encoder->weights, "model.shared.weight");
    return entry ? entry : safetensors_find(l->encoder->weights, "shared.weight");
}

static void scale_values(float *values, int64_t count, float factor) {
    for (int64_t i = 0; i < count; ++i) values[i] *= factor;
}

/* Tables that are not used as they are stored: a copy is changed and put in their place. */
static Status change_table(Loader *l, Parameter *table, const SafetensorsEntry *types, float factor) {
    int64_t count = parameter_elements(table), width = table->shape[1];
    float *values = malloc((size_t)count * sizeof *values), *type = malloc((size_t)width * sizeof *type);
    Status status = values && type ? STATUS_OK : FAILURE("out of memory: %s", table->name);
    if (status) goto done;
    TRY_GOTO(parameter_get(l->encoder->parameters, table, values), done);
    scale_values(values, count, factor);
    if (types && !convert_to_float(types->dtype, types->data, width, type)) {
        status = INVALID_INPUT("%s: tensor %s: dtype %s is not supported", l->directory, types->name, types->dtype);
        goto done;
    }
    for (int64_t i = 0; types && i < count; ++i) values[i] += type[i % width];
    TRY_GOTO(parameter_set(l->encoder->parameters, table, values), done);
done:
    free(values);
    free(type);
    return status;
}

static Status add_embeddings(Loader *l) {
    Encoder *e = l->encoder;
    const EncoderConfig *c = &e->config;
    const Names *n = l->names;
    TRY(add(l, find_words(l), n->words[0], "weight", c->vocab_size, c->hidden_size, &e->words));
    TRY(add(l, find(l, n->positions, "weight"), n->positions, "weight", c->position_rows, c->hidden_size, &e->positions));
    TRY(add_norm(l, "", n->embedding_norm, &e->embedding_norm));
    if (c->scale_embedding) TRY(change_table(l, e->words, NULL, sqrtf((float)c->hidden_size)));
    if (!c->type_vocab_size) return STATUS_OK;
    const SafetensorsEntry *types = find(l, n->types, "weight");
    if (!types) INVALID("%s: tensor %s%s.weight is missing", l->directory, l->prefix, n->types);
    TRY(check_shape(l, types, 2, (int64_t[]){c->type_vocab_size, c->hidden_size}));
    return change_table(l, e->positions, types, 1.0f);
}

static Status open_file(Loader *l) {
    bool torch_only = false, found = false;
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"};
    for (int i = 0; i < 3 && !found; ++i) {
        char *path;
        TRY(path_join(l->directory, names[i], &path));
        found = file_exists(path);
        torch_only = found && i == 2;
        free(path);
    }
    if (torch_only)
        INVALID("%s: holds pytorch_model.bin but no model.safetensors; convert it once with Transformers: python3 -c \"from "
                "transformers import AutoModel; AutoModel.from_pretrained('%s').save_pretrained('%s')\"",
                l->directory, l->directory, l->directory);
    if (!found) INVALID("%s: holds no model.safetensors", l->directory);
    return safetensors_open(l->directory, &l->encoder->weights);
}

Status encoder_load_weights(Encoder *encoder, const char *directory) {
    EncoderFamily family = encoder->config.family;
    Loader l = {.encoder = encoder, .names = family == ENCODER_BART ? &bart_names : &bert_names, .directory = directory};
    TRY(open_file(&l));
    for (const char *const *p = prefixes[family]; *p; ++p) {
        l.prefix = *p;
        if (find(&l, l.names->positions, "weight")) break;
    }
    TRY(add_embeddings(&l));
    for (int64_t i = 0; i < encoder->count; ++i) TRY(add_layer(&l, i));
    return STATUS_OK;
}
