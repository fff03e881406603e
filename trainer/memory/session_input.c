#include "trainer/memory/session_input.h"

#include "io/json_lines.h"

#include <string.h>

Status session_input_value(const char *path, JsonValue **out) {
    return json_value_read_file(strcmp(path, "-") ? path : "/dev/stdin", out);
}

static bool starts_array(const char *line) { return line[strspn(line, " \t")] == '['; }

/* The rest of an array whose first line is there. */
static Status read_array(JsonLines *reader, const char *line, size_t length, JsonValue **out) {
    Text text = {0};
    Status status = STATUS_OK;
    while (!status && line) {
        status = text_append(&text, line, length);
        if (!status) status = text_append(&text, "\n", 1);
        if (!status) status = json_lines_next(reader, &line, &length);
    }
    if (!status) status = status_prefix(json_value_parse(text.data, text.length, out), "%s", json_lines_path(reader));
    text_free(&text);
    return status;
}

static Status read_lines(JsonLines *reader, const char *line, size_t length, JsonValue **out) {
    TRY_ALLOC(*out = json_value_new_array());
    for (Status status = STATUS_OK; line;) {
        JsonValue *turn;
        status = json_value_parse(line, length, &turn);
        if (!status && !json_value_is_object(turn)) {
            status = INVALID_INPUT("expected an object, found %s", json_value_type_name(turn));
            json_value_free(turn);
        }
        if (status) return status_prefix(status, "%s:%lld", json_lines_path(reader), (long long)json_lines_number(reader));
        TRY(json_value_append(*out, turn));
        TRY(json_lines_next(reader, &line, &length));
    }
    return STATUS_OK;
}

Status session_input_turns(const char *path, JsonValue **out) {
    *out = NULL;
    JsonLines *reader;
    const char *line;
    size_t length;
    TRY(json_lines_open(path, &reader));
    Status status = json_lines_next(reader, &line, &length);
    if (!status && line && starts_array(line))
        status = read_array(reader, line, length, out);
    else if (!status)
        status = read_lines(reader, line, length, out);
    json_lines_close(reader);
    if (status) {
        json_value_free(*out);
        *out = NULL;
    }
    return status;
}
