#include "trainer/metrics/score_input.h"

#include "io/json_lines.h"

#include <stdlib.h>
#include <string.h>

/* Empty texts too must have an address. */
static MetricText text_of(const JsonValue *string) {
    MetricText text = {0};
    text.bytes = json_value_string(string, &text.length);
    return text;
}

static Status read_text(const JsonValue *line, const char *key, MetricText *out) {
    return json_value_get_string(line, key, &out->bytes, &out->length);
}

static Status read_texts(const JsonValue *line, const char *key, bool needed, const MetricText **out, int64_t *count) {
    JsonValue *list = json_value_get(line, key);
    MetricText *texts;
    if (!list && !needed) return STATUS_OK;
    TRY(json_value_get_array(line, key, &list));
    size_t size = json_value_size(list);
    if (size == 0 && needed)
        INVALID("\"%s\" is empty%s", key,
                strcmp(key, "references") ? "" : "; a question without an answer has one reference, the empty text");
    for (size_t i = 0; i < size; ++i)
        if (!json_value_is_string(json_value_at(list, i)))
            INVALID("\"%s\"[%zu] is of type %s, expected a string", key, i, json_value_type_name(json_value_at(list, i)));
    TRY_ALLOC(texts = calloc(size ? size : 1, sizeof *texts));
    for (size_t i = 0; i < size; ++i) texts[i] = text_of(json_value_at(list, i));
    *out = texts;
    *count = (int64_t)size;
    return STATUS_OK;
}

static Status read_example(const JsonValue *line, unsigned needs, MetricExample *out) {
    if (needs & METRIC_NEEDS_PREDICTION) {
        TRY(read_text(line, "prediction", &out->prediction));
        TRY(read_texts(line, "references", needs & METRIC_NEEDS_REFERENCES, &out->references, &out->reference_count));
    }
    if (needs & METRIC_NEEDS_CONSTRAINTS) TRY(read_texts(line, "constraints", true, &out->constraints, &out->constraint_count));
    if (needs & METRIC_NEEDS_COMPRESSION) {
        TRY(read_text(line, "original", &out->original));
        TRY(read_text(line, "compressed", &out->compressed));
    }
    return STATUS_OK;
}

static Status grow(ScoreInput *input) {
    if (input->count < input->capacity) return STATUS_OK;
    int64_t capacity = input->capacity ? 2 * input->capacity : 1024;
    MetricExample *examples;
    JsonValue **lines;
    TRY_ALLOC(examples = realloc(input->examples, (size_t)capacity * sizeof *examples));
    input->examples = examples;
    TRY_ALLOC(lines = realloc(input->lines, (size_t)capacity * sizeof *lines));
    input->lines = lines;
    input->capacity = capacity;
    return STATUS_OK;
}

static Status read_lines(JsonLines *reader, unsigned needs, ScoreInput *out) {
    for (;;) {
        TRY(grow(out));
        JsonValue **line = &out->lines[out->count];
        MetricExample *example = &out->examples[out->count];
        TRY(json_lines_next_object(reader, line));
        if (!*line) break;
        *example = (MetricExample){.line = json_lines_number(reader)};
        ++out->count;
        TRY(status_prefix(read_example(*line, needs, example), "%s:%lld", json_lines_path(reader), (long long)example->line));
    }
    if (out->count == 0) INVALID("%s: there is no line to score", json_lines_path(reader));
    return STATUS_OK;
}

Status score_input_read(const char *path, unsigned needs, ScoreInput *out) {
    JsonLines *reader;
    *out = (ScoreInput){0};
    TRY(json_lines_open(path, &reader));
    Status status = read_lines(reader, needs, out);
    json_lines_close(reader);
    if (status) score_input_free(out);
    return status;
}

void score_input_free(ScoreInput *input) {
    for (int64_t i = 0; i < input->count; ++i) {
        free((void *)input->examples[i].references);
        free((void *)input->examples[i].constraints);
        json_value_free(input->lines[i]);
    }
    free(input->examples);
    free(input->lines);
    *input = (ScoreInput){0};
}

static bool same_text(MetricText a, MetricText b) {
    return a.length == b.length && (a.length == 0 || !memcmp(a.bytes, b.bytes, a.length));
}

static bool same_texts(const MetricText *a, int64_t a_count, const MetricText *b, int64_t b_count) {
    if (a_count != b_count) return false;
    for (int64_t i = 0; i < a_count; ++i)
        if (!same_text(a[i], b[i])) return false;
    return true;
}

/* Compared as JSON: an id may be a string or a number. */
static Status same_id(const JsonValue *a, const JsonValue *b, bool *same) {
    Text texts[2] = {{0}, {0}};
    const JsonValue *ids[] = {json_value_get(a, "id"), json_value_get(b, "id")};
    *same = true;
    if (!ids[0] || !ids[1]) return STATUS_OK;
    Status status = json_value_write(ids[0], 0, &texts[0]);
    if (!status) status = json_value_write(ids[1], 0, &texts[1]);
    if (!status) *same = same_text((MetricText){texts[0].data, texts[0].length}, (MetricText){texts[1].data, texts[1].length});
    text_free(&texts[0]);
    text_free(&texts[1]);
    return status;
}

Status score_input_check_pair(const char *path, const ScoreInput *input, const char *other_path, const ScoreInput *other) {
    if (input->count != other->count)
        INVALID("%s has %lld lines and %s has %lld: they cannot be compared line by line", path, (long long)input->count,
                other_path, (long long)other->count);
    for (int64_t i = 0; i < input->count; ++i) {
        const MetricExample *a = &input->examples[i], *b = &other->examples[i];
        const char *what = NULL;
        bool same = true;
        TRY(same_id(input->lines[i], other->lines[i], &same));
        if (!same) what = "id";
        if (!same_texts(a->references, a->reference_count, b->references, b->reference_count)) what = "references";
        if (!same_texts(a->constraints, a->constraint_count, b->constraints, b->constraint_count)) what = "constraints";
        if (!same_text(a->original, b->original)) what = "original";
        if (what)
            INVALID("%s:%lld and %s:%lld have different \"%s\": the files must hold the same examples in the same order", path,
                    (long long)a->line, other_path, (long long)b->line, what);
    }
    return STATUS_OK;
}
