#include "tests/generation/model.h"

#include "io/json_lines.h"
#include "io/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void succeeds(Status status) {
    if (status) fail_msg("%s (%s)", status_message(status), status_positions(status));
}

void fails(Status status, int exit_code, const char *word) {
    assert_int_equal(status_exit_code(status), exit_code);
    if (!strstr(status_message(status), word)) fail_msg("\"%s\" is not in \"%s\"", word, status_message(status));
    status_free(status);
}

static void fill_lora(Model *model) {
    for (int64_t i = 0; i < model->parameters->count; ++i) {
        Parameter *p = model->parameters->items[i];
        if (!strstr(p->name, "lora_")) continue;
        float *values = calloc((size_t)parameter_elements(p), sizeof *values);
        RandomStream stream = random_stream(5, random_stream_of_name(p->name));
        for (int64_t k = 0; k < parameter_elements(p); ++k) values[k] = (float)(0.2 * random_normal(&stream));
        succeeds(parameter_set(model->parameters, p, values));
        free(values);
    }
}

void model_open_on(Model *model, BackendKind backend, const char *name, DType dtype, bool lora) {
    char directory[512];
    snprintf(directory, sizeof directory, "%s/%s", GENERATION_DATA, name);
    *model = (Model){0};
    DecoderSettings settings = {0};
    if (lora) {
        settings.lora = (LoraSettings){.r = 4, .lora_alpha = 8};
        for (int i = 0; i < LINEAR_KINDS; ++i) settings.lora.targets[i] = true;
    }
    succeeds(model_config_read(directory, &model->config));
    succeeds(device_open(backend, 0, 2, &model->device));
    succeeds(arena_create(model->device, (size_t)1 << 30, &model->arena));
    succeeds(tape_create(model->arena, &model->tape));
    succeeds(parameters_create(model->device, dtype, &model->parameters));
    succeeds(decoder_create(&model->config, &settings, model->parameters, false, &model->decoder));
    succeeds(safetensors_open(directory, &model->weights));
    succeeds(decoder_load(model->decoder, model->weights));
    if (lora) fill_lora(model);
    succeeds(generation_eos_ids(directory, NULL, &model->eos, &model->eos_count));
}

void model_open(Model *model, const char *name, DType dtype, bool lora) { model_open_on(model, BACKEND_CPU, name, dtype, lora); }

void model_close(Model *model) {
    decoder_destroy(model->decoder);
    parameters_destroy(model->parameters);
    safetensors_close(model->weights);
    tape_destroy(model->tape);
    arena_destroy(model->arena);
    device_close(model->device);
    free(model->eos);
}

static int32_t *read_ids(const JsonValue *record, const char *key, int64_t *count) {
    JsonValue *array;
    succeeds(json_value_get_array(record, key, &array));
    *count = (int64_t)json_value_size(array);
    int32_t *ids = calloc((size_t)*count + 1, sizeof *ids);
    for (int64_t i = 0; i < *count; ++i) ids[i] = (int32_t)json_value_integer(json_value_at(array, (size_t)i));
    return ids;
}

enum { MOST_PROMPTS = 32 };

void prompts_open(Prompts *prompts, const char *name) {
    char path[512];
    JsonLines *reader;
    JsonValue *record;
    snprintf(path, sizeof path, "%s/%s/greedy.jsonl", GENERATION_DATA, name);
    prompts->requests = calloc(MOST_PROMPTS, sizeof *prompts->requests);
    prompts->expected = calloc(MOST_PROMPTS, sizeof *prompts->expected);
    prompts->expected_count = calloc(MOST_PROMPTS, sizeof *prompts->expected_count);
    prompts->close = calloc(MOST_PROMPTS, sizeof *prompts->close);
    prompts->count = 0;
    succeeds(json_lines_open(path, &reader));
    for (;;) {
        succeeds(json_lines_next_object(reader, &record));
        if (!record) break;
        int64_t i = prompts->count++;
        assert_true(i < MOST_PROMPTS);
        GenerationRequest *request = &prompts->requests[i];
        request->prompt = read_ids(record, "input_ids", &request->prompt_tokens);
        request->sample = (uint64_t)i;
        prompts->expected[i] = read_ids(record, "ids", &prompts->expected_count[i]);
        const JsonValue *close = json_value_get(record, "close");
        assert_true(json_value_size(close) < 8);
        for (size_t k = 0; k < json_value_size(close); ++k)
            for (size_t j = 0; j < 2; ++j) prompts->close[i][k][j] = json_value_number(json_value_at(json_value_at(close, k), j));
        prompts->close[i][json_value_size(close)][0] = -1;
        json_value_free(record);
    }
    json_lines_close(reader);
    assert_true(prompts->count >= 24);
}

void prompts_close(Prompts *prompts) {
    for (int64_t i = 0; i < prompts->count; ++i) {
        free((void *)(uintptr_t)prompts->requests[i].prompt);
        free(prompts->expected[i]);
    }
    free(prompts->requests);
    free(prompts->expected);
    free(prompts->expected_count);
    free(prompts->close);
}

typedef struct Collector {
    Results *results;
    const Generation *generation;
    const Tokenizer *tokenizer;
} Collector;

static Status collect(void *context, int64_t index, const GenerationResult *result) {
    Collector *collector = context;
    Results *results = collector->results;
    assert_null(results->ids[index]);
    results->ids[index] = calloc((size_t)result->count + 1, sizeof(int32_t));
    if (result->count > 0) memcpy(results->ids[index], result->ids, (size_t)result->count * sizeof(int32_t));
    results->counts[index] = result->count;
    results->finishes[index] = result->finish;
    results->window_ends[index] = result->window_end;
    ++results->calls;
    assert_true((result->finish == GENERATION_REFUSED) == (result->refusal != NULL));
    if (result->refusal) snprintf(results->refusal, sizeof results->refusal, "%s", result->refusal);
    if (result->finish == GENERATION_STOP) {
        text_clear(&results->text);
        TRY(generation_text(collector->generation, collector->tokenizer, result, &results->text));
    }
    return STATUS_OK;
}

Status run_generation(const Model *model, const GenerationSettings *settings, const GenerationRequest *requests, int64_t count,
                      Results *out) {
    Generation *generation;
    *out = (Results){.ids = calloc((size_t)count, sizeof *out->ids),
                     .counts = calloc((size_t)count, sizeof *out->counts),
                     .finishes = calloc((size_t)count, sizeof *out->finishes),
                     .window_ends = calloc((size_t)count, sizeof *out->window_ends),
                     .count = count};
    TRY(generation_create(model->decoder, model->tape, settings, &generation));
    Collector collector = {out, generation, settings->tokenizer};
    Status status = generation_run(generation, requests, count, collect, &collector);
    if (!status) assert_int_equal(out->calls, count);
    generation_destroy(generation);
    return status;
}

void results_free(Results *results) {
    for (int64_t i = 0; i < results->count; ++i) free(results->ids[i]);
    free(results->ids);
    free(results->counts);
    free(results->finishes);
    free(results->window_ends);
    text_free(&results->text);
}

void expect_same_results(const Results *a, const Results *b) {
    assert_int_equal(a->count, b->count);
    for (int64_t i = 0; i < a->count; ++i) {
        if (a->counts[i] != b->counts[i] || memcmp(a->ids[i], b->ids[i], (size_t)a->counts[i] * sizeof(int32_t)) != 0)
            fail_msg("continuation %lld differs", (long long)i);
        assert_int_equal(a->finishes[i], b->finishes[i]);
    }
}

GenerationSettings model_settings(const Model *model) {
    GenerationSettings settings = generation_defaults();
    settings.max_new_tokens = 64;
    settings.eos = model->eos;
    settings.eos_count = model->eos_count;
    return settings;
}
