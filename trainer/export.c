#include "trainer/export.h"

#include "io/file.h"
#include "io/safetensors.h"
#include "model/decoder.h"
#include "trainer/directory.h"
#include "trainer/memory_export.h"
#include "trainer/peft.h"
#include "trainer/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_adapter(const char *name) { return strstr(name, ".lora_A.") || strstr(name, ".lora_B."); }

static Status fill_adapter(void *context, size_t index, void *buffer) {
    const CheckpointTensor *tensor = checkpoint_at(((void **)context)[0], (int64_t)index);
    return convert_from_float(tensor->parameter, tensor->shape[0] * tensor->shape[1], ((void **)context)[1], buffer);
}

static Status write_adapter(const Checkpoint *checkpoint, const char *dtype, const char *directory) {
    int64_t count = checkpoint_count(checkpoint);
    const char *format = safetensors_dtype_of(dtype);
    SafetensorsEntry *entries;
    char *path = NULL;
    TRY_ALLOC(entries = calloc((size_t)count + 1, sizeof *entries));
    for (int64_t i = 0; i < count; ++i) {
        const CheckpointTensor *tensor = checkpoint_at(checkpoint, i);
        entries[i] = (SafetensorsEntry){.name = tensor->name,
                                        .dtype = format,
                                        .dimensions = 2,
                                        .shape = {tensor->shape[0], tensor->shape[1]},
                                        .bytes = tensor->shape[0] * tensor->shape[1] * (int64_t)safetensors_dtype_bytes(format)};
    }
    void *context[2] = {(void *)(uintptr_t)checkpoint, (void *)(uintptr_t)format};
    Status status = path_join(directory, "adapter_model.safetensors", &path);
    if (!status) status = safetensors_write(path, entries, (size_t)count, fill_adapter, context);
    free(path);
    free(entries);
    return status;
}

static bool is_memory(const char *name) { return strncmp(name, "memory.", 7) == 0; }

/* Beside a latent memory there is no adapter. */
static Status write_peft(const Checkpoint *checkpoint, const Options *options, const char *dtype, const char *directory) {
    JsonValue *json = NULL;
    if (options_have_memory(options)) return export_memory(checkpoint, options, dtype, directory);
    TRY(peft_config_json(options, &json));
    Status status = directory_write_json(directory, "adapter_config.json", json);
    if (!status) status = write_adapter(checkpoint, dtype, directory);
    json_value_free(json);
    return status;
}

Status export_peft(const Checkpoint *checkpoint, const Options *options, const char *dtype, const char *output) {
    for (int64_t i = 0; i < checkpoint_count(checkpoint); ++i)
        if (!is_adapter(checkpoint_at(checkpoint, i)->name) && !is_memory(checkpoint_at(checkpoint, i)->name))
            INVALID("%s was trained in full; a PEFT directory cannot carry it: use --format merged",
                    checkpoint_at(checkpoint, i)->name);
    NewDirectory directory;
    TRY(new_directory_begin(output, &directory));
    return new_directory_end(&directory, write_peft(checkpoint, options, dtype, directory.temporary));
}

typedef struct Merge {
    const Checkpoint *checkpoint;
    const Safetensors *base;
    const Parameters *names; /* the decoder's tensors, base first */
    LoraSettings lora;
    const char *dtype; /* of safetensors */
} Merge;

/* w[N,K] += scale * b[N,R] a[R,K] */
static void add_product(float *w, const CheckpointTensor *b, const CheckpointTensor *a, float scale) {
    int64_t n = b->shape[0], r = b->shape[1], k = a->shape[1];
#pragma omp parallel for
    for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < r; ++j) {
            float factor = scale * b->parameter[i * r + j];
            for (int64_t c = 0; c < k; ++c) w[i * k + c] += factor * a->parameter[j * k + c];
        }
}

static Status apply_lora(const Merge *merge, const char *name, float *values) {
    char module[160], path[256];
    size_t length = strlen(name), suffix = strlen(".weight");
    if (length <= suffix || length - suffix >= sizeof module || strcmp(name + length - suffix, ".weight") != 0) return STATUS_OK;
    snprintf(module, sizeof module, "%.*s", (int)(length - suffix), name);
    snprintf(path, sizeof path, "base_model.model.%s.lora_A.weight", module);
    const CheckpointTensor *a = checkpoint_find(merge->checkpoint, path);
    snprintf(path, sizeof path, "base_model.model.%s.lora_B.weight", module);
    const CheckpointTensor *b = checkpoint_find(merge->checkpoint, path);
    if (!a || !b) return STATUS_OK;
    int64_t r;
    double alpha;
    TRY(lora_rank(&merge->lora, module, &r, &alpha));
    add_product(values, b, a, lora_scale(&merge->lora, r, alpha));
    return STATUS_OK;
}

static Status merged_values(const Merge *merge, const char *name, int64_t n, float *values) {
    const CheckpointTensor *trained = checkpoint_find(merge->checkpoint, name);
    if (trained) {
        memcpy(values, trained->parameter, (size_t)n * sizeof *values);
    } else {
        const SafetensorsEntry *entry = safetensors_find(merge->base, name);
        if (!entry) INVALID("tensor %s is missing in the base model", name);
        if (entry->bytes != n * (int64_t)safetensors_dtype_bytes(entry->dtype))
            INVALID("tensor %s of the base model has another size", name);
        if (!convert_to_float(entry->dtype, entry->data, n, values))
            INVALID("tensor %s has dtype %s; F32, BF16 and F16 can be read", name, entry->dtype);
    }
    return apply_lora(merge, name, values);
}

static Status fill_merged(void *context, size_t index, void *buffer) {
    const Merge *merge = context;
    const Parameter *parameter = merge->names->items[index];
    int64_t n = parameter_elements(parameter);
    float *values;
    TRY_ALLOC(values = malloc((size_t)n * sizeof *values));
    Status status = merged_values(merge, parameter->name, n, values);
    if (!status) status = convert_from_float(values, n, merge->dtype, buffer);
    free(values);
    return status;
}

static Status write_merged(Merge *merge, const Decoder *decoder, const char *directory) {
    size_t count = decoder->base_count;
    SafetensorsEntry *entries;
    char *path = NULL;
    TRY_ALLOC(entries = calloc(count, sizeof *entries));
    for (size_t i = 0; i < count; ++i) {
        const Parameter *parameter = decoder->parameters->items[i];
        entries[i] = (SafetensorsEntry){.name = parameter->name,
                                        .dtype = merge->dtype,
                                        .dimensions = parameter->dimensions,
                                        .shape = {parameter->shape[0], parameter->shape[1]},
                                        .bytes = parameter_elements(parameter) * (int64_t)safetensors_dtype_bytes(merge->dtype)};
    }
    Status status = path_join(directory, "model.safetensors", &path);
    if (!status) status = safetensors_write(path, entries, count, fill_merged, merge);
    free(path);
    free(entries);
    return status;
}

/* The planned decoder gives names and shapes. */
static Status merge_with_names(Merge *merge, const ModelConfig *config, const Options *options, const char *directory) {
    PlannedDecoder planned;
    Status status = planned_decoder_open(options, config, plan_target_cpu, &planned);
    if (!status) {
        merge->names = planned.parameters;
        merge->lora = planned.decoder->lora;
        status = write_merged(merge, planned.decoder, directory);
    }
    planned_decoder_close(&planned);
    return status;
}

static Status check_fingerprint(const Checkpoint *checkpoint, const Safetensors *base, const char *model) {
    char fingerprint[65];
    TRY(safetensors_fingerprint(base, fingerprint));
    if (strcmp(fingerprint, checkpoint_meta(checkpoint)->base_fingerprint) != 0)
        INVALID("%s is not the base model that the checkpoint was trained on (fingerprint %.12s..., wanted %.12s...)", model,
                fingerprint, checkpoint_meta(checkpoint)->base_fingerprint);
    return STATUS_OK;
}

static Status write_merged_directory(Merge *merge, const Options *options, const char *dtype, const char *directory) {
    ModelConfig config;
    JsonValue *json = NULL;
    TRY(model_config_read(options->model.path, &config));
    TRY(merge_with_names(merge, &config, options, directory));
    Status status = model_config_to_json(&config, dtype, &json);
    if (!status) status = directory_write_json(directory, "config.json", json);
    json_value_free(json);
    TRY(status);
    if (options_have_memory(options)) TRY(export_memory(merge->checkpoint, options, dtype, directory));
    return copy_model_files(options->model.path, directory);
}

Status export_merged(const Checkpoint *checkpoint, const Options *options, const char *dtype, const char *output) {
    Safetensors *base;
    NewDirectory directory;
    TRY(safetensors_open(options->model.path, &base));
    Merge merge = {.checkpoint = checkpoint, .base = base, .dtype = safetensors_dtype_of(dtype)};
    Status status = check_fingerprint(checkpoint, base, options->model.path);
    if (!status) status = new_directory_begin(output, &directory);
    if (!status) status = new_directory_end(&directory, write_merged_directory(&merge, options, dtype, directory.temporary));
    safetensors_close(base);
    return status;
}
