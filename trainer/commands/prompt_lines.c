#include "trainer/commands/prompt_lines.h"

#include "io/chat_template.h"
#include "io/json_lines.h"

#include <stdlib.h>

void prompt_lines_free(PromptLines *lines) {
    prompt_list_free(&lines->prompts);
    free(lines->numbers);
    *lines = (PromptLines){0};
}

static Status encode(const TextModel *model, const char *text, size_t length, TokenList *ids) {
    if (!model->tokenizer) INVALID("the model directory has no tokenizer: only \"input_ids\" can be continued");
    return tokenizer_encode(model->tokenizer, model->scratch, text, length, ids);
}

static Status add_messages(const TextModel *model, const JsonValue *messages, TokenList *ids) {
    Text text = {0};
    if (model->tokenizer) TRY(chat_template_check(tokenizer_chat_template(model->tokenizer), model->options.model.path));
    Status status = chat_template_render(messages, true, &text, NULL, NULL);
    if (!status) status = encode(model, text.data ? text.data : "", text.length, ids);
    text_free(&text);
    return status;
}

static Status add_ids(const TextModel *model, const JsonValue *values, TokenList *ids) {
    int64_t vocabulary = model->session.config.vocab_size;
    for (size_t i = 0; i < json_value_size(values); ++i) {
        const JsonValue *value = json_value_at(values, i);
        int64_t id = json_value_integer(value);
        if (!json_value_is_integer(value) || id < 0 || id >= vocabulary)
            INVALID("input_ids[%zu] is not an id below the model's vocabulary size %lld", i, (long long)vocabulary);
        TRY(token_list_push(ids, (int32_t)id));
    }
    return STATUS_OK;
}

static Status add_record(const TextModel *model, const JsonValue *record, TokenList *ids) {
    const JsonValue *prompt = json_value_get(record, "prompt"), *messages = json_value_get(record, "messages");
    const JsonValue *input_ids = json_value_get(record, "input_ids");
    size_t length, before = ids->count;
    if (!!prompt + !!messages + !!input_ids != 1) INVALID("expected exactly one of \"prompt\", \"messages\" and \"input_ids\"");
    if (prompt) {
        const char *text = json_value_string(prompt, &length);
        if (!text) INVALID("\"prompt\" is of type %s, not string", json_value_type_name(prompt));
        TRY(encode(model, text, length, ids));
    } else if (messages) {
        if (!json_value_is_array(messages)) INVALID("\"messages\" is of type %s, not array", json_value_type_name(messages));
        TRY(add_messages(model, messages, ids));
    } else {
        if (!json_value_is_array(input_ids)) INVALID("\"input_ids\" is of type %s, not array", json_value_type_name(input_ids));
        TRY(add_ids(model, input_ids, ids));
    }
    if (ids->count == before) INVALID("the prompt is empty");
    return STATUS_OK;
}

static Status end_line(PromptLines *lines, int64_t number) {
    if (lines->prompts.count == lines->capacity) {
        int64_t capacity = lines->capacity ? 2 * lines->capacity : 64, *numbers;
        TRY_ALLOC(numbers = realloc(lines->numbers, (size_t)capacity * sizeof *numbers));
        lines->numbers = numbers;
        lines->capacity = capacity;
    }
    lines->numbers[lines->prompts.count] = number;
    return prompt_list_end(&lines->prompts);
}

static Status check_lengths(const char *path, const PromptLines *lines, int64_t longest) {
    int64_t first = -1, count = 0, begin = 0, first_length = 0;
    for (int64_t i = 0; i < lines->prompts.count; begin = lines->prompts.ends[i++]) {
        int64_t length = lines->prompts.ends[i] - begin;
        if (length <= longest) continue;
        if (count++ == 0) first = i, first_length = length;
    }
    if (count == 0) return STATUS_OK;
    INVALID(
        "%s:%lld: the prompt has %lld tokens, the model's window takes at most %lld and a new one (%lld of %lld prompts are too "
        "long)",
        path, (long long)lines->numbers[first], (long long)first_length, (long long)longest, (long long)count,
        (long long)lines->prompts.count);
}

static Status read_lines(JsonLines *reader, const TextModel *model, PromptLines *out) {
    for (;;) {
        JsonValue *record;
        TRY(json_lines_next_object(reader, &record));
        if (!record) return STATUS_OK;
        long long number = (long long)json_lines_number(reader);
        Status status = status_prefix(add_record(model, record, &out->prompts.ids), "%s:%lld", json_lines_path(reader), number);
        json_value_free(record);
        if (!status) status = end_line(out, number);
        TRY(status);
    }
}

Status prompt_lines_read(const char *path, const TextModel *model, int64_t longest, PromptLines *out) {
    JsonLines *reader;
    TRY(json_lines_open(path, &reader));
    Status status = read_lines(reader, model, out);
    if (!status) status = check_lengths(json_lines_path(reader), out, longest);
    json_lines_close(reader);
    return status;
}
