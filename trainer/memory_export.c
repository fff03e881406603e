#include "trainer/memory_export.h"

#include "io/file.h"
#include "trainer/directory.h"
#include "trainer/network.h"
#include "trainer/plan.h"

#include <stdlib.h>
#include <unistd.h>

/* The network of a checkpoint on the CPU, in fp32. */
typedef struct Exported {
    ModelConfig config;
    Device *device;
    Arena *arena;
    Tape *tape;
    Safetensors *base;
    Parameters *parameters;
    Network network;
    const char *dtype; /* of safetensors */
} Exported;

static void close_network(Exported *e) {
    network_destroy(&e->network);
    parameters_destroy(e->parameters);
    safetensors_close(e->base);
    tape_destroy(e->tape);
    arena_destroy(e->arena);
    device_close(e->device);
}

static Status open_network(const Checkpoint *checkpoint, const Options *options, Exported *e) {
    char fingerprint[65];
    TRY(model_config_read(options->model.path, &e->config));
    TRY(device_open(BACKEND_CPU, 0, (int)options->run.threads, &e->device));
    TRY(arena_create(e->device, (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGE_SIZE), &e->arena));
    TRY(tape_create(e->arena, &e->tape));
    TRY(safetensors_open(options->model.path, &e->base));
    TRY(safetensors_fingerprint(e->base, fingerprint));
    TRY(parameters_create(e->device, DTYPE_F32, &e->parameters));
    TRY(network_create(options, &e->config, e->parameters, false, &e->network));
    TRY(status_prefix(decoder_load(e->network.decoder, e->base), "%s", options->model.path));
    TRY(adamem_initialise(e->network.adamem, e->tape, (uint64_t)options->run.seed));
    return network_load_memory(&e->network, checkpoint, fingerprint);
}

static Status fill(void *context, size_t index, void *buffer) {
    const Exported *e = context;
    const Parameter *parameter = e->parameters->items[e->network.adamem->first_parameter + (int64_t)index];
    int64_t n = parameter_elements(parameter);
    float *values;
    TRY_ALLOC(values = malloc((size_t)n * sizeof *values));
    Status status = parameter_get(e->parameters, parameter, values);
    if (!status) status = convert_from_float(values, n, e->dtype, buffer);
    free(values);
    return status;
}

static Status write_tensors(Exported *e, const char *directory) {
    const size_t count = (size_t)e->network.adamem->parameter_count;
    SafetensorsEntry *entries;
    char *path = NULL;
    TRY_ALLOC(entries = calloc(count, sizeof *entries));
    for (size_t i = 0; i < count; ++i) {
        const Parameter *parameter = e->parameters->items[e->network.adamem->first_parameter + (int64_t)i];
        entries[i] = (SafetensorsEntry){.name = parameter->name,
                                        .dtype = e->dtype,
                                        .dimensions = parameter->dimensions,
                                        .shape = {parameter->shape[0], parameter->shape[1]},
                                        .bytes = parameter_elements(parameter) * (int64_t)safetensors_dtype_bytes(e->dtype)};
    }
    Status status = path_join(directory, "memory.safetensors", &path);
    if (!status) status = safetensors_write(path, entries, count, fill, e);
    free(path);
    free(entries);
    return status;
}

Status export_memory(const Checkpoint *checkpoint, const Options *options, const char *dtype, const char *directory) {
    Exported exported = {.dtype = safetensors_dtype_of(dtype)};
    JsonValue *json = NULL;
    Status status = open_network(checkpoint, options, &exported);
    if (!status) status = adamem_config_to_json(&exported.network.adamem->config, &exported.config, &json);
    if (!status) status = directory_write_json(directory, "memory_config.json", json);
    if (!status) status = write_tensors(&exported, directory);
    json_value_free(json);
    close_network(&exported);
    return status;
}
