#include "trainer/summary/summary_run.h"

#include "io/json_lines.h"
#include "trainer/memory/memory_rules.h"

#include <stdlib.h>

typedef struct Run {
    const SummaryRunSettings *settings;
    TextModel *model;
    Generation *generation;
    SummaryOutput *out;
    /* Rank 0 only: */
    JsonLines *reader;
    bool input_ended;
    SummaryPrompts prompts;
    MemoryRules rules; /* its abbreviations */
    MapReduceSettings map_reduce;
    MapReduce *documents; /* of the group */
    int64_t count, capacity;
} Run;

static void free_group(Run *run) {
    for (int64_t i = 0; i < run->count; ++i) map_reduce_free(&run->documents[i]);
    run->count = 0;
}

/* ---- sizes ---- */

static Status choose_sizes(Run *run) {
    const SummaryRunSettings *settings = run->settings;
    int64_t window = generation_longest_prompt(run->generation) + 1;
    int64_t room = window - run->prompts.tokens - settings->max_new_tokens;
    int64_t chunk = settings->chunk_tokens ? settings->chunk_tokens : room < SUMMARY_CHUNK_TOKENS ? room : SUMMARY_CHUNK_TOKENS;
    if (room < CHUNK_LEAST_TOKENS || chunk > room)
        INVALID("the model's window of %lld tokens has room for chunks of %lld beside the prompt's %lld and %lld new tokens; "
                "wanted: %lld",
                (long long)window, (long long)(room > 0 ? room : 0), (long long)run->prompts.tokens,
                (long long)settings->max_new_tokens,
                (long long)(settings->chunk_tokens ? settings->chunk_tokens : CHUNK_LEAST_TOKENS));
    int64_t overlap = settings->overlap_tokens < 0 ? chunk / 16 : settings->overlap_tokens;
    if (overlap > chunk / 2)
        INVALID("an overlap of %lld tokens is more than half of a chunk of %lld", (long long)overlap, (long long)chunk);
    run->map_reduce = (MapReduceSettings){.prompts = &run->prompts,
                                          .abbreviations = &run->rules.abbreviations,
                                          .chunk_tokens = chunk,
                                          .overlap_tokens = overlap,
                                          .keep_intermediate = settings->keep_intermediate};
    return STATUS_OK;
}

static Status open_input(Run *run) {
    const SummaryRunSettings *settings = run->settings;
    const TextModel *model = run->model;
    if (!model->tokenizer) INVALID("%s: holds no tokenizer", model->options.model.path);
    TRY(memory_rules_load(NULL, &run->rules));
    TRY(summary_prompts_load(settings->style, settings->files, model->tokenizer, model->scratch, model->options.model.path,
                             &run->prompts));
    TRY(choose_sizes(run));
    return json_lines_open(settings->input, &run->reader);
}

static void close_input(Run *run) {
    free_group(run);
    free(run->documents);
    summary_prompts_free(&run->prompts);
    memory_rules_free(&run->rules);
    json_lines_close(run->reader);
}

/* ---- documents ---- */

static Status start_document(Run *run, const JsonValue *record, MapReduce *out) {
    const JsonValue *id = json_value_get(record, "id");
    const char *document;
    size_t length;
    Text id_text = {0};
    if (!id) INVALID("\"id\" is missing");
    if (!json_value_is_string(id) && !json_value_is_integer(id))
        INVALID("\"id\" must be a string or a whole number, found %s", json_value_type_name(id));
    TRY(json_value_get_string(record, "document", &document, &length));
    Status status = json_value_write(id, 0, &id_text);
    if (!status) status = map_reduce_start(&run->map_reduce, id_text.data, document, length, out);
    text_free(&id_text);
    return status;
}

static Status add_document(Run *run, const JsonValue *record) {
    if (run->count == run->capacity) {
        int64_t capacity = run->capacity ? 2 * run->capacity : 16;
        MapReduce *documents;
        TRY_ALLOC(documents = realloc(run->documents, (size_t)capacity * sizeof *documents));
        run->documents = documents;
        run->capacity = capacity;
    }
    long long number = (long long)json_lines_number(run->reader);
    TRY(status_prefix(start_document(run, record, &run->documents[run->count]), "%s:%lld", json_lines_path(run->reader), number));
    run->documents[run->count++].line = number;
    return STATUS_OK;
}

static Status read_group(Run *run) {
    for (int64_t tokens = 0; tokens < run->settings->group_tokens;) {
        JsonValue *record;
        TRY(json_lines_next_object(run->reader, &record));
        run->input_ended = !record;
        if (!record) return STATUS_OK;
        Status status = add_document(run, record);
        json_value_free(record);
        TRY(status);
        tokens += run->documents[run->count - 1].document_tokens + 1;
    }
    return STATUS_OK;
}

/* ---- results ---- */

static Status fill_line(const MapReduce *document, JsonValue *line) {
    JsonValue *id;
    TRY(json_value_parse(document->id.data, document->id.length, &id));
    TRY(json_value_set(line, "id", id));
    TRY(json_value_set(line, "summary", json_value_new_string(document->summary.data, document->summary.length)));
    TRY(json_value_set_integer(line, "levels", document->level));
    TRY(json_value_set_integer(line, "chunks", document->document_chunks));
    TRY(json_value_set_integer(line, "document_tokens", document->document_tokens));
    TRY(json_value_set_integer(line, "summary_tokens", document->summary_tokens));
    TRY(json_value_set_integer(line, "cut_summaries", document->cut));
    return json_value_set_string(line, "finish_reason", document->finish);
}

static Status append_line(const MapReduce *document, Text *out) {
    JsonValue *line = json_value_new_object();
    TRY_ALLOC(line);
    Status status = fill_line(document, line);
    if (!status) status = json_value_write(line, 0, out);
    if (!status) status = text_append(out, "\n", 1);
    json_value_free(line);
    return status;
}

static Status end_group(Run *run) {
    SummaryTotals *totals = &run->out->totals;
    for (int64_t i = 0; i < run->count; ++i) {
        const MapReduce *document = &run->documents[i];
        TRY(append_line(document, &run->out->lines));
        if (document->intermediate.length > 0)
            TRY(text_append(&run->out->intermediate, document->intermediate.data, document->intermediate.length));
        ++totals->documents;
        totals->empty += document->level == 0;
        totals->silent += document->level > 0 && document->summary.length == 0;
        totals->document_tokens += document->document_tokens;
        totals->cut += document->cut;
        if (document->level > totals->levels) totals->levels = document->level;
    }
    free_group(run);
    return STATUS_OK;
}

/* ---- levels ---- */

static Status add_prompts(Run *run, PromptList *prompts) {
    for (int64_t i = 0; i < run->count; ++i) {
        const MapReduce *document = &run->documents[i];
        if (document->done) continue;
        for (int64_t chunk = 0; chunk < document->chunks.count; ++chunk) {
            TRY(map_reduce_prompt(&run->map_reduce, document, chunk, &prompts->ids));
            TRY(prompt_list_end(prompts));
        }
    }
    return STATUS_OK;
}

/* The prompts of the next level; of the next group where this one is done. None: all is done. */
static Status next_prompts(Run *run, PromptList *prompts) {
    for (;;) {
        TRY(add_prompts(run, prompts));
        if (prompts->count > 0) {
            prompts->first_sample = run->out->totals.prompts;
            run->out->totals.prompts += prompts->count;
            return STATUS_OK;
        }
        TRY(end_group(run));
        if (run->input_ended) return STATUS_OK;
        TRY(read_group(run));
    }
}

static Status take_reply(Run *run, MapReduce *document, const GenerationResult *result, Text *text) {
    if (result->finish == GENERATION_REFUSED)
        INVALID("%s:%lld: %s", json_lines_path(run->reader), (long long)document->line, result->refusal);
    text_clear(text);
    TRY(text_model_reply(run->model, run->generation, result, text));
    SummaryReply reply = {.text = text->data,
                          .length = text->length,
                          .new_tokens = result->count,
                          .finish = generation_finish_names[result->finish]};
    run->out->totals.new_tokens += result->count;
    run->out->totals.unfinished += result->finish == GENERATION_LENGTH;
    return map_reduce_reply(&run->map_reduce, document, &reply);
}

/* In the order in which add_prompts asked. */
static Status take_replies(Run *run, const GeneratedList *generated) {
    Text text = {0};
    Status status = STATUS_OK;
    int64_t next = 0;
    for (int64_t i = 0; i < run->count && !status; ++i) {
        MapReduce *document = &run->documents[i];
        if (document->done) continue;
        for (int64_t left = document->chunks.count; left > 0 && !status; --left)
            status = take_reply(run, document, &generated->results[next++], &text);
    }
    run->out->totals.seconds += generated->statistics.seconds;
    text_free(&text);
    return status;
}

/* Collective. *more: there was a level to do. */
static Status do_level(Run *run, bool *more) {
    Communicator *communicator = run->model->session.communicator;
    PromptList prompts = {.count = 0};
    GeneratedList generated = {.count = 0};
    Status status = communicator_agree(communicator, communicator->rank == 0 ? next_prompts(run, &prompts) : STATUS_OK);
    if (!status) status = prompt_list_share(communicator, &prompts);
    *more = prompts.count > 0;
    if (!status && *more) {
        status = ranked_generation(communicator, run->generation, &prompts, 0, "summarized chunks:", &generated);
        if (!status)
            status = communicator_agree(communicator, communicator->rank == 0 ? take_replies(run, &generated) : STATUS_OK);
    }
    generated_list_free(&generated);
    prompt_list_free(&prompts);
    return status;
}

Status summary_run(const SummaryRunSettings *settings, TextModel *model, Generation *generation, SummaryOutput *out) {
    Communicator *communicator = model->session.communicator;
    Run run = {.settings = settings, .model = model, .generation = generation, .out = out};
    *out = (SummaryOutput){.totals = {.documents = 0}};
    Status status = communicator_agree(communicator, communicator->rank == 0 ? open_input(&run) : STATUS_OK);
    for (bool more = true; more && !status;) status = do_level(&run, &more);
    close_input(&run);
    if (status) summary_output_free(out);
    return status;
}

void summary_output_free(SummaryOutput *output) {
    text_free(&output->lines);
    text_free(&output->intermediate);
}
