#include "trainer/session.h"

#include "dist/communicator_device.h"
#include "io/file.h"
#include "io/log.h"
#include "trainer/peft.h"
#include "trainer/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Status session_device(const Options *options, const Launch *launch, Device **out) {
    const char *backend = options->run.backend, *why = "";
    BackendKind kind = BACKEND_CPU;
    if (strcmp(backend, "cuda") == 0)
        kind = BACKEND_CUDA;
    else if (strcmp(backend, "auto") == 0 && device_cuda_available(&why))
        kind = BACKEND_CUDA;
    else if (strcmp(backend, "auto") == 0)
        log_info("CUDA is not used: %s", why);
    TRY(device_open(kind, launch->local_rank, (int)options->run.threads, out));
    log_info("device: %s", (*out)->name);
    return STATUS_OK;
}

/* The CPU arena is address space, bounded by the machine's memory; pages are used when touched. */
static Status create_arena(Session *session) {
    size_t capacity = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGE_SIZE);
    TRY(arena_create(session->device, capacity, &session->arena));
    return tape_create(session->arena, &session->tape);
}

static Status load_adapter(Session *session, const char *directory) {
    Safetensors *adapter;
    TRY(peft_check_config(directory, session->options));
    TRY(safetensors_open(directory, &adapter));
    Status status = status_prefix(decoder_load_lora(session->decoder, adapter), "%s", directory);
    safetensors_close(adapter); /* trainable tensors are copied; frozen adapters point into the map */
    return status;
}

static Status load_weights(Session *session, SessionSettings settings) {
    const Options *options = session->options;
    if (settings.random_weights) {
        TRY(decoder_initialise(session->decoder, (uint64_t)options->run.seed));
    } else {
        TRY(safetensors_open(options->model.path, &session->weights));
        TRY(safetensors_fingerprint(session->weights, session->base_fingerprint));
        TRY(status_prefix(decoder_load(session->decoder, session->weights), "%s", options->model.path));
    }
    TRY(decoder_initialise_lora(session->decoder, (uint64_t)options->run.seed));
    const char *adapter = settings.adapter ? settings.adapter : options->lora.init_from;
    return adapter[0] ? load_adapter(session, adapter) : STATUS_OK;
}

static Status open_parts(Session *session, SessionSettings settings) {
    const Options *options = session->options;
    DecoderSettings decoder;
    TRY(model_config_read(options->model.path, &session->config));
    TRY(session_device(options, session->launch, &session->device));
    TRY(create_arena(session));
    TRY(parameters_create(session->device, plan_dtype(options), &session->parameters));
    TRY(plan_decoder_settings(options, &decoder, &session->rules));
    TRY(decoder_create(&session->config, &decoder, session->parameters, settings.training, &session->decoder));
    return load_weights(session, settings);
}

/* Collective. How the gradients of several GPUs come together. */
static Status connect_devices(Session *session) {
    char why[DEVICE_COMMUNICATOR_WHY_BYTES];
    TRY(communicator_device_create(session->communicator, session->device, &device_communicator_settings,
                                   &session->device_communicator, why));
    if (session->device_communicator)
        log_info("gradients are summed between GPUs by NCCL");
    else if (session->launch->world > 1 && !device_is_host(session->device))
        log_info("gradients are summed through host memory: %s", why);
    return STATUS_OK;
}

Status session_open(const Options *options, const Launch *launch, Communicator *communicator, SessionSettings settings,
                    Session *out) {
    *out = (Session){.options = options, .launch = launch, .communicator = communicator};
    Status status = communicator_agree(communicator, open_parts(out, settings));
    if (!status && settings.training) status = connect_devices(out);
    if (status) session_close(out);
    return status;
}

void session_close(Session *session) {
    communicator_destroy(session->device_communicator);
    device_batch_free(&session->batch);
    decoder_destroy(session->decoder);
    parameters_destroy(session->parameters);
    safetensors_close(session->weights);
    tape_destroy(session->tape);
    arena_destroy(session->arena);
    device_close(session->device);
    free(session->rules);
    *session = (Session){0};
}

static bool has_file(const char *directory, const char *name) {
    char *path;
    Status status = path_join(directory, name, &path);
    bool exists = !status && file_exists(path);
    if (!status) free(path);
    status_free(status);
    return exists;
}

Status session_tokenizer(const Options *options, bool optional, Tokenizer **out) {
    const char *directory = options->model.path;
    *out = NULL;
    bool present =
        has_file(directory, "tokenizer.json") || has_file(directory, "tokenizer.json.gz") || has_file(directory, "vocab.json");
    if (!present && optional) return STATUS_OK;
    return tokenizer_load(directory, out);
}
