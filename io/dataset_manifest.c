/* manifest.json: written last, it makes part files one data set. */
#include "io/dataset_writer.h"

#include "io/file.h"

#include <stdlib.h>
#include <string.h>

Status sample_counts_to_json(const SampleCounts *c, JsonValue *object) {
    TRY(json_value_set(object, "records", json_value_new_integer(c->records)));
    TRY(json_value_set(object, "samples", json_value_new_integer(c->samples)));
    TRY(json_value_set(object, "dropped", json_value_new_object()));
    for (int i = 0; i < DROP_REASONS; ++i)
        TRY(json_value_set(json_value_get(object, "dropped"), drop_reason_name((DropReason)i),
                           json_value_new_integer(c->dropped[i])));
    TRY(json_value_set(object, "truncated", json_value_new_integer(c->truncated)));
    TRY(json_value_set(object, "tokens", json_value_new_integer(c->tokens)));
    TRY(json_value_set(object, "label_tokens", json_value_new_integer(c->label_tokens)));
    return json_value_set(object, "longest", json_value_new_integer(c->longest));
}

Status sample_counts_from_json(const JsonValue *object, SampleCounts *c) {
    TRY(json_value_get_integer(object, "records", &c->records));
    TRY(json_value_get_integer(object, "samples", &c->samples));
    for (int i = 0; i < DROP_REASONS; ++i)
        TRY(json_value_get_integer(json_value_get(object, "dropped"), drop_reason_name((DropReason)i), &c->dropped[i]));
    TRY(json_value_get_integer(object, "truncated", &c->truncated));
    TRY(json_value_get_integer(object, "tokens", &c->tokens));
    TRY(json_value_get_integer(object, "label_tokens", &c->label_tokens));
    return json_value_get_integer(object, "longest", &c->longest);
}

static JsonValue *new_string(const char *string) { return json_value_new_string(string, strlen(string)); }

/* Appends a new object to array; it is borrowed from it. */
static Status append_object(JsonValue *array, JsonValue **object) {
    *object = json_value_new_object();
    return json_value_append(array, *object);
}

static Status describe_source(const DatasetSource *source, int64_t index, JsonValue *object, SampleCounts *total,
                              int64_t *first_no_label_line) {
    SampleCounts counts = {0};
    *first_no_label_line = 0;
    TRY(json_value_set(object, "path", new_string(source->path)));
    TRY(json_value_set(object, "format", new_string(source->format)));
    TRY(json_value_set(object, "parts", json_value_new_array()));
    for (int64_t i = 0; i < source->part_count; ++i) {
        const DatasetPart *part = &source->parts[i];
        JsonValue *entry;
        char *name;
        TRY(append_object(json_value_get(object, "parts"), &entry));
        TRY(dataset_part_name(index, i, &name));
        Status status = json_value_set(entry, "file", new_string(name));
        free(name);
        TRY(status);
        TRY(json_value_set(entry, "samples", json_value_new_integer(part->counts.samples)));
        TRY(json_value_set(entry, "tokens", json_value_new_integer(part->counts.tokens)));
        sample_counts_add(&counts, &part->counts);
        if (!*first_no_label_line) *first_no_label_line = part->first_no_label_line;
    }
    sample_counts_add(total, &counts);
    TRY(json_value_set(object, "counts", json_value_new_object()));
    return sample_counts_to_json(&counts, json_value_get(object, "counts"));
}

static Status describe(const char *key, const DatasetSource *sources, int64_t source_count, JsonValue *root) {
    SampleCounts total = {0};
    Text first = {0};
    TRY(json_value_set(root, "format_version", json_value_new_integer(DATASET_FORMAT_VERSION)));
    TRY(json_value_set(root, "key", new_string(key)));
    TRY(json_value_set(root, "counts", json_value_new_object()));
    TRY(json_value_set(root, "sources", json_value_new_array()));
    for (int64_t i = 0; i < source_count; ++i) {
        JsonValue *object;
        int64_t line;
        TRY(append_object(json_value_get(root, "sources"), &object));
        TRY(describe_source(&sources[i], i, object, &total, &line));
        if (line && !first.length) TRY(text_append_format(&first, "%s:%lld", sources[i].path, (long long)line));
    }
    TRY(sample_counts_to_json(&total, json_value_get(root, "counts")));
    Status status = json_value_set(root, "first_no_label", json_value_new_string(first.data ? first.data : "", first.length));
    text_free(&first);
    return status;
}

Status dataset_manifest_write(const char *directory, const char *key, const DatasetSource *sources, int64_t source_count) {
    Text text = {0};
    char *path = NULL;
    JsonValue *root = json_value_new_object();
    TRY_ALLOC(root);
    Status status;
    TRY_GOTO(describe(key, sources, source_count, root), done);
    TRY_GOTO(json_value_write(root, 2, &text), done);
    TRY_GOTO(text_append(&text, "\n", 1), done);
    TRY_GOTO(path_join(directory, "manifest.json", &path), done);
    TRY_GOTO(file_write_atomic(path, text.data, text.length), done);
done:
    json_value_free(root);
    text_free(&text);
    free(path);
    return status;
}
