/* Format memory: previous memory, recent turns and an active document in, a short narrative out.
 * Prompt and system message are those of the session-memory recipe, byte for byte, so that training sees what inference
 * sends; both are files of configs/prompts, and both can be replaced by data.prompt_template and data.system. */
#include "io/data_format_family.h"

#include "io/memory_prompt.h"
#include "io/prompt_files.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MEMORY_PREVIOUS, MEMORY_TURNS, MEMORY_DOCUMENT, MEMORY_SUMMARY };

/* Absent and null mean empty; anything else must be an object. */
static Status dump_object(const JsonValue *record, const char *key, Text *out) {
    const JsonValue *member = json_value_get(record, key);
    if (!member || json_value_is_null(member)) return text_append(out, "{}", 2);
    if (!json_value_is_object(member)) INVALID("\"%s\" must be an object, found %s", key, json_value_type_name(member));
    return json_value_write(member, 2, out);
}

static Status render_turn(const JsonValue *turn, Text *out) {
    const char *role, *text;
    size_t length;
    TRY(json_value_get_string(turn, "role", &role, NULL));
    if (strcmp(role, "user") && strcmp(role, "assistant")) INVALID("\"role\" must be user or assistant, found \"%s\"", role);
    TRY(json_value_get_string(turn, "text", &text, &length));
    TRY(text_append_format(out, "%c%s: ", toupper((unsigned char)role[0]), role + 1));
    return text_append(out, text, length);
}

/* Line breaks belong to the turn before them, so that dropping a turn leaves no empty line. */
static Status render_turns(const JsonValue *turns, Text *out, size_t *ends) {
    size_t count = json_value_size(turns);
    for (size_t i = 0; i < count; ++i) {
        Status status = render_turn(json_value_at(turns, i), out);
        if (status) return status_prefix(status, "recent_turns[%zu]", i);
        if (i + 1 < count) TRY(text_append(out, "\n", 1));
        ends[i] = out->length;
    }
    return STATUS_OK;
}

typedef struct MemoryTexts {
    Text previous, turns, document;
    size_t *turn_ends;
} MemoryTexts;

static FieldValue field_of(const Text *text) {
    return (FieldValue){.data = text->data ? text->data : "", .length = text->length};
}

/* All fields but the summary. values refer to texts. */
static Status render_fields(const JsonValue *record, MemoryTexts *t, FieldValue *values) {
    JsonValue *turns;
    TRY(json_value_get_array(record, "recent_turns", &turns));
    TRY_ALLOC(t->turn_ends = calloc(json_value_size(turns) + 1, sizeof *t->turn_ends));
    TRY(dump_object(record, "previous_memory", &t->previous));
    TRY(render_turns(turns, &t->turns, t->turn_ends));
    TRY(dump_object(record, "active_document", &t->document));
    values[MEMORY_PREVIOUS] = field_of(&t->previous);
    values[MEMORY_TURNS] = field_of(&t->turns);
    values[MEMORY_TURNS].turn_ends = t->turn_ends;
    values[MEMORY_TURNS].turns = json_value_size(turns);
    values[MEMORY_DOCUMENT] = field_of(&t->document);
    return STATUS_OK;
}

static void memory_texts_free(MemoryTexts *t) {
    text_free(&t->previous);
    text_free(&t->turns);
    text_free(&t->document);
    free(t->turn_ends);
}

static Status convert_memory(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record,
                             const SampleSink *out) {
    MemoryTexts texts = {.turn_ends = NULL};
    FieldValue values[MAXIMUM_FIELDS] = {{0}};
    FieldValue *summary = &values[MEMORY_SUMMARY];
    TRY(json_value_get_string(record, "summary", &summary->data, &summary->length));
    Status status = render_fields(record, &texts, values);
    if (!status) status = data_format_add(format, scratch, values, out);
    memory_texts_free(&texts);
    return status;
}

Status memory_prompt_encode(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record, MemoryPrompt *out) {
    *out = (MemoryPrompt){.shortened = false};
    if (format->family != &data_format_memory) INVALID("a memory prompt needs format memory, not %s", format->family->name);
    MemoryTexts texts = {.turn_ends = NULL};
    FieldValue values[MAXIMUM_FIELDS] = {{0}};
    values[MEMORY_SUMMARY].data = "";
    Status status = render_fields(record, &texts, values);
    if (!status) status = data_format_prompt(format, scratch, values, &out->text, &out->ids, &out->shortened);
    memory_texts_free(&texts);
    if (status) memory_prompt_free(out);
    return status;
}

void memory_prompt_free(MemoryPrompt *prompt) {
    text_free(&prompt->text);
    token_list_free(&prompt->ids);
}

/* Given up in this order: turns, oldest first; the document's end; the previous memory's end; the newest turn's end. */
const DataFormatFamily data_format_memory = {
    .name = "memory",
    .fields = {"previous_memory", "recent_turns", "active_document", "summary"},
    .cut_order = {2, 1, 1, 0},
    .prompt = prompt_memory_summary,
    .completion = "{summary}",
    .answer = MEMORY_SUMMARY,
    .system = prompt_memory_summary_system,
    .convert = convert_memory,
};
