#include "trainer/memory/narrative.h"

#include "io/memory_prompt.h"

typedef struct Writer {
    TextModel *model;
    Generation *generation;
    MemoryPrompt prompt;
    Narrative *out;
} Writer;

static Status create_format(const TextModel *model, int64_t max_length, DataFormat **out) {
    const DataOptions *data = &model->options.data;
    DataFormatSettings settings = {.format = "memory",
                                   .prompt_template = data->prompt_template,
                                   .completion_template = "",
                                   .chat_template = "",
                                   .system = data->system,
                                   .max_length = max_length,
                                   .truncate = true,
                                   .vocabulary_size = model->session.config.vocab_size,
                                   .tokenizer = model->tokenizer};
    return data_format_create(&settings, out);
}

static Status make_prompt(Writer *w, const JsonValue *record, NarrativeSettings settings) {
    DataFormat *format;
    int64_t room = generation_longest_prompt(w->generation) + 1 - settings.max_new_tokens;
    int64_t max_length = settings.max_length < room ? settings.max_length : room;
    if (max_length < 2)
        INVALID("the model's window leaves no room for a prompt before %lld new tokens", (long long)settings.max_new_tokens);
    TRY(create_format(w->model, max_length, &format));
    Status status = memory_prompt_encode(format, w->model->scratch, record, &w->prompt);
    data_format_destroy(format);
    return status;
}

static Status take_result(void *context, int64_t index, const GenerationResult *result) {
    Writer *w = context;
    (void)index; /* there is one request */
    if (result->finish == GENERATION_REFUSED) INVALID("%s", result->refusal);
    TRY(text_model_reply(w->model, w->generation, result, &w->out->text));
    w->out->unfinished = result->finish == GENERATION_LENGTH;
    w->out->new_tokens = result->count;
    return STATUS_OK;
}

static Status write_narrative(Writer *w, const JsonValue *record, NarrativeSettings settings) {
    GenerationSettings generation;
    TRY(text_model_settings(w->model, &generation));
    generation.max_new_tokens = settings.max_new_tokens;
    generation.batch_size = 1;
    TRY(generation_create(w->model->session.decoder, w->model->session.tape, &generation, &w->generation));
    TRY(make_prompt(w, record, settings));
    GenerationRequest request = {.prompt = w->prompt.ids.ids, .prompt_tokens = (int64_t)w->prompt.ids.count};
    TRY(generation_run(w->generation, &request, 1, take_result, w));
    w->out->shortened = w->prompt.shortened;
    w->out->seconds = generation_statistics(w->generation)->seconds;
    return STATUS_OK;
}

Status narrative_write(TextModel *model, const JsonValue *record, NarrativeSettings settings, Narrative *out) {
    *out = (Narrative){.shortened = false};
    if (!model->tokenizer) INVALID("%s: holds no tokenizer", model->options.model.path);
    Writer writer = {.model = model, .out = out};
    Status status = write_narrative(&writer, record, settings);
    generation_destroy(writer.generation);
    memory_prompt_free(&writer.prompt);
    if (status) narrative_free(out);
    return status;
}

void narrative_free(Narrative *narrative) { text_free(&narrative->text); }
