#include "trainer/judge/judge_input.h"

#include "io/json_lines.h"

#include <stdlib.h>
#include <string.h>

static Status where(Status status, const JsonLines *reader) {
    return status_prefix(status, "%s:%lld", json_lines_path(reader), (long long)json_lines_number(reader));
}

static Status grow(JudgeInput *input) {
    if (input->count < input->capacity) return STATUS_OK;
    int64_t capacity = input->capacity ? 2 * input->capacity : 64;
    JudgeItem *items;
    TRY_ALLOC(items = realloc(input->items, (size_t)capacity * sizeof *items));
    input->items = items;
    input->capacity = capacity;
    return STATUS_OK;
}

/* The reply of a line of the second file. */
static Status find_reply(const JsonValue *generated, const JsonValue *record, const char **out) {
    const char *key = json_value_get(generated, "hypothesis") ? "hypothesis" : "text";
    const char *expected = json_value_string(json_value_get(record, "question_id"), NULL), *id;
    size_t length;
    TRY(json_value_get_string(generated, key, out, &length));
    if (memchr(*out, 0, length)) INVALID("\"%s\" holds a NUL character", key);
    if (!json_value_get(generated, "question_id")) return STATUS_OK;
    TRY(json_value_get_string(generated, "question_id", &id, NULL));
    if (expected && strcmp(expected, id)) INVALID("\"question_id\" is \"%.60s\", but \"%.60s\" in the input", id, expected);
    return STATUS_OK;
}

/* Takes over record and generated, also on failure. */
static Status add_item(JudgeTask task, JsonValue *record, JsonValue *generated, JsonLines *reader, JsonLines *second,
                       JudgeInput *out) {
    const char *reply = NULL;
    Status status = grow(out);
    if (!status && generated) status = where(find_reply(generated, record, &reply), second);
    JudgeItem item = {.record = record, .generated = generated, .line = json_lines_number(reader)};
    if (!status) status = where(judge_question_read(task, record, reply, &item.question), reader);
    if (status) {
        json_value_free(record);
        json_value_free(generated);
        return status;
    }
    out->items[out->count++] = item;
    return STATUS_OK;
}

static Status read_items(JudgeTask task, JsonLines *reader, JsonLines *second, JudgeInput *out) {
    for (;;) {
        JsonValue *record, *generated = NULL;
        TRY(json_lines_next_object(reader, &record));
        Status status = second ? json_lines_next_object(second, &generated) : STATUS_OK;
        if (!status && second && !record != !generated)
            status = INVALID_INPUT("%s ends after %lld lines, %s goes on", json_lines_path(record ? second : reader),
                                   (long long)out->count, json_lines_path(record ? reader : second));
        if (status || !record) {
            json_value_free(record);
            json_value_free(generated);
            return status;
        }
        TRY(add_item(task, record, generated, reader, second, out));
    }
}

static int compare_ids(const void *a, const void *b) {
    const JudgeItem *const *left = a, *const *right = b;
    int order = strcmp((*left)->question.id, (*right)->question.id);
    return order ? order : ((*left)->line > (*right)->line) - ((*left)->line < (*right)->line);
}

static Status check_ids(const JudgeInput *input, const char *path) {
    if (!input->count) INVALID("%s: no line", path);
    const JudgeItem **sorted = malloc((size_t)input->count * sizeof *sorted);
    TRY_ALLOC(sorted);
    for (int64_t i = 0; i < input->count; ++i) sorted[i] = &input->items[i];
    qsort(sorted, (size_t)input->count, sizeof *sorted, compare_ids);
    Status status = STATUS_OK;
    for (int64_t i = 1; i < input->count && !status; ++i)
        if (!strcmp(sorted[i - 1]->question.id, sorted[i]->question.id))
            status = INVALID_INPUT("%s:%lld: \"question_id\" \"%.60s\" stands in line %lld too", path, (long long)sorted[i]->line,
                                   sorted[i]->question.id, (long long)sorted[i - 1]->line);
    free(sorted);
    return status;
}

static Status open_and_read(JudgeTask task, const char *path, const char *generated, JudgeInput *out) {
    JsonLines *reader, *second = NULL;
    TRY(json_lines_open(path, &reader));
    Status status = generated ? json_lines_open(generated, &second) : STATUS_OK;
    if (!status) status = read_items(task, reader, second, out);
    if (!status) status = check_ids(out, json_lines_path(reader));
    json_lines_close(second);
    json_lines_close(reader);
    return status;
}

Status judge_input_read(JudgeTask task, const char *path, const char *generated, JudgeInput *out) {
    *out = (JudgeInput){.items = NULL};
    Status status = open_and_read(task, path, generated, out);
    if (status) judge_input_free(out);
    return status;
}

void judge_input_free(JudgeInput *input) {
    for (int64_t i = 0; i < input->count; ++i) {
        judge_question_free(&input->items[i].question);
        json_value_free(input->items[i].record);
        json_value_free(input->items[i].generated);
    }
    free(input->items);
    *input = (JudgeInput){.items = NULL};
}

static Status append_hypothesis(const JudgeQuestion *question, Text *out) {
    JsonValue *object = json_value_new_object();
    TRY_ALLOC(object);
    Status status = json_value_set_string(object, "question_id", question->id);
    if (!status)
        status = json_value_set(object, "hypothesis", json_value_new_string(question->hypothesis, question->hypothesis_length));
    if (!status) status = json_value_write(object, 0, out);
    if (!status) status = text_append(out, "\n", 1);
    json_value_free(object);
    return status;
}

Status judge_input_hypotheses(const JudgeInput *input, Text *out) {
    for (int64_t i = 0; i < input->count; ++i) TRY(append_hypothesis(&input->items[i].question, out));
    return STATUS_OK;
}
