/* adamem init-model: a model directory with random weights, for tests, benches and training from nothing. */
#include "trainer/commands/commands.h"

#include "io/file.h"
#include "io/log.h"
#include "io/tokenizer.h"
#include "model/decoder.h"
#include "trainer/commands/command_line.h"
#include "trainer/directory.h"
#include "trainer/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: adamem init-model --preset NAME --output DIR [--tokenizer DIR] [--seed N] [--set KEY=VALUE]...\n"
    "\n"
    "  --preset NAME     qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-3b, qwen2.5-7b, or tiny\n"
    "  --output DIR      must not exist yet\n"
    "  --tokenizer DIR   its files are copied, its EOS becomes the model's; preset tiny takes its vocabulary size\n"
    "  --seed N          of the random weights (default 42)\n"
    "  --set KEY=VALUE   changes a key of config.json, e.g. num_hidden_layers=2; torch_dtype is bfloat16 (default) or\n"
    "                    float32\n"
    "  --help            this text\n";

typedef struct Arguments {
    const char *preset, *output, *tokenizer;
    long long seed;
    ConfigArguments config; /* sets only */
    bool help;
} Arguments;

static Status parse_arguments(int argc, char **argv, Arguments *out) {
    static const struct option options[] = {{"preset", required_argument, NULL, 'p'},
                                            {"output", required_argument, NULL, 'o'},
                                            {"tokenizer", required_argument, NULL, 't'},
                                            {"seed", required_argument, NULL, 'S'},
                                            {"set", required_argument, NULL, 's'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    *out = (Arguments){.seed = 42};
    TRY(config_arguments_create(argc, &out->config));
    optind = 0;
    for (int character = 0;;) {
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        switch (character) {
        case 'p': out->preset = optarg; break;
        case 'o': out->output = optarg; break;
        case 't': out->tokenizer = optarg; break;
        case 'S': TRY(command_line_count("init-model", "seed", optarg, INT64_MAX, &out->seed)); break;
        case 's': out->config.sets[out->config.count++] = optarg; break;
        default: out->help = true; return STATUS_OK;
        }
    }
    if (!out->preset) INVALID("init-model: --preset NAME is missing");
    if (!out->output) INVALID("init-model: --output DIR is missing");
    return STATUS_OK;
}

/* KEY=VALUE into the JSON of config.json; a value that is no JSON is a string. Only keys that config.json has. */
static Status apply_set(JsonValue *json, const char *set) {
    const char *equals = strchr(set, '=');
    char key[64];
    if (!equals || equals == set || equals - set >= (long)sizeof key) INVALID("init-model: --set %s: expected KEY=VALUE", set);
    snprintf(key, sizeof key, "%.*s", (int)(equals - set), set);
    if (!json_value_get(json, key)) INVALID("init-model: --set %s: config.json has no key \"%s\"", set, key);
    JsonValue *value;
    Status status = json_value_parse(equals + 1, strlen(equals + 1), &value);
    if (status) value = json_value_new_string(equals + 1, strlen(equals + 1));
    status_free(status);
    return json_value_set(json, key, value);
}

typedef struct Shape {
    ModelConfig config;
    char dtype[16]; /* torch name */
    JsonValue *json;
} Shape;

static Status use_tokenizer(const Arguments *arguments, ModelConfig *config) {
    if (!arguments->tokenizer) return STATUS_OK;
    Tokenizer *tokenizer;
    TRY(tokenizer_load(arguments->tokenizer, &tokenizer));
    int64_t size = tokenizer_size(tokenizer), eos = tokenizer_eos_id(tokenizer);
    tokenizer_free(tokenizer);
    if (strcmp(arguments->preset, "tiny") == 0) config->vocab_size = (size + 63) / 64 * 64;
    if (size > config->vocab_size)
        INVALID("init-model: the tokenizer has %lld ids, preset %s has room for %lld", (long long)size, arguments->preset,
                (long long)config->vocab_size);
    if (eos >= 0) config->eos_token_id = eos;
    return STATUS_OK;
}

static Status make_shape(const Arguments *arguments, Shape *out) {
    TRY(model_config_preset(arguments->preset, &out->config));
    TRY(use_tokenizer(arguments, &out->config));
    TRY(model_config_to_json(&out->config, "bfloat16", &out->json));
    for (size_t i = 0; i < arguments->config.count; ++i) TRY(apply_set(out->json, arguments->config.sets[i]));
    const char *dtype;
    TRY(json_value_get_string(out->json, "torch_dtype", &dtype, NULL));
    if (!safetensors_dtype_of(dtype) || strlen(dtype) >= sizeof out->dtype)
        INVALID("init-model: torch_dtype \"%s\" is not float32, bfloat16 or float16", dtype);
    snprintf(out->dtype, sizeof out->dtype, "%s", dtype);
    return status_prefix(model_config_parse(out->json, &out->config), "init-model: --set");
}

typedef struct Fill {
    const Shape *shape;
    const Parameters *names;
    uint64_t seed;
} Fill;

static Status fill_tensor(void *context, size_t index, void *buffer) {
    const Fill *fill = context;
    const Parameter *parameter = fill->names->items[index];
    int64_t n = parameter_elements(parameter);
    float *values;
    TRY_ALLOC(values = malloc((size_t)n * sizeof *values));
    decoder_initial_values(&fill->shape->config, parameter->name, n, fill->seed, values);
    Status status = convert_from_float(values, n, safetensors_dtype_of(fill->shape->dtype), buffer);
    free(values);
    return status;
}

static Status write_tensors(const Fill *fill, const char *directory) {
    const char *dtype = safetensors_dtype_of(fill->shape->dtype);
    SafetensorsEntry *entries;
    char *path = NULL;
    TRY_ALLOC(entries = calloc((size_t)fill->names->count, sizeof *entries));
    for (int64_t i = 0; i < fill->names->count; ++i) {
        const Parameter *parameter = fill->names->items[i];
        entries[i] = (SafetensorsEntry){.name = parameter->name,
                                        .dtype = dtype,
                                        .dimensions = parameter->dimensions,
                                        .shape = {parameter->shape[0], parameter->shape[1]},
                                        .bytes = parameter_elements(parameter) * (int64_t)safetensors_dtype_bytes(dtype)};
    }
    Status status = path_join(directory, "model.safetensors", &path);
    if (!status) status = safetensors_write(path, entries, (size_t)fill->names->count, fill_tensor, (void *)(uintptr_t)fill);
    free(path);
    free(entries);
    return status;
}

/* The planned decoder gives names and shapes. */
static Status write_weights(const Shape *shape, uint64_t seed, const char *directory) {
    PlannedDecoder planned;
    Status status = planned_decoder_open(NULL, &shape->config, plan_target_cpu, &planned);
    if (!status) status = write_tensors(&(Fill){shape, planned.parameters, seed}, directory);
    planned_decoder_close(&planned);
    return status;
}

static Status write_generation_config(const ModelConfig *config, const char *directory) {
    JsonValue *json;
    TRY_ALLOC(json = json_value_new_object());
    Status status = STATUS_OK;
    if (config->bos_token_id >= 0) status = json_value_set(json, "bos_token_id", json_value_new_integer(config->bos_token_id));
    if (!status && config->eos_token_id >= 0)
        status = json_value_set(json, "eos_token_id", json_value_new_integer(config->eos_token_id));
    if (!status) status = directory_write_json(directory, "generation_config.json", json);
    json_value_free(json);
    return status;
}

static Status write_directory(const Arguments *arguments, const Shape *shape, const char *directory) {
    TRY(directory_write_json(directory, "config.json", shape->json));
    TRY(write_generation_config(&shape->config, directory));
    TRY(write_weights(shape, (uint64_t)arguments->seed, directory));
    return arguments->tokenizer ? copy_tokenizer_files(arguments->tokenizer, directory) : STATUS_OK;
}

static Status run(const Arguments *arguments) {
    Shape shape = {0};
    NewDirectory directory;
    Status status = make_shape(arguments, &shape);
    if (!status) status = new_directory_begin(arguments->output, &directory);
    if (!status) status = new_directory_end(&directory, write_directory(arguments, &shape, directory.temporary));
    if (!status)
        log_info("%s: %lld parameters, %s", arguments->output, (long long)model_config_parameters(&shape.config), shape.dtype);
    json_value_free(shape.json);
    return status;
}

Status command_init_model(int argc, char **argv) {
    Arguments arguments;
    Status status = parse_arguments(argc, argv, &arguments);
    if (!status && arguments.help)
        fputs(usage, stdout);
    else if (!status)
        status = run(&arguments);
    config_arguments_free(&arguments.config);
    return status;
}
