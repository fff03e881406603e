#include "io/file.h"
#include "io/json_value.h"
#include "io/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int compare_strings(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static Status check_unique(const SafetensorsEntry *entries, size_t count) {
    const char **names;
    TRY_ALLOC(names = malloc((count + 1) * sizeof *names));
    for (size_t i = 0; i < count; ++i) names[i] = entries[i].name;
    qsort(names, count, sizeof *names, compare_strings);
    Status status = STATUS_OK;
    for (size_t i = 1; i < count && !status; ++i)
        if (!strcmp(names[i - 1], names[i])) status = INVALID_INPUT("tensor \"%s\" is given twice", names[i]);
    free(names);
    return status;
}

static Status check_entry(const SafetensorsEntry *entry) {
    int64_t bytes = (int64_t)safetensors_dtype_bytes(entry->dtype);
    if (!bytes) INVALID("tensor \"%s\": unknown dtype \"%s\"", entry->name, entry->dtype);
    if (entry->dimensions < 0 || entry->dimensions > SAFETENSORS_MAX_DIMENSIONS || !strcmp(entry->name, "__metadata__"))
        INVALID("tensor \"%s\": cannot be stored", entry->name);
    for (int i = 0; i < entry->dimensions; ++i)
        if (entry->shape[i] < 0 || __builtin_mul_overflow(bytes, entry->shape[i], &bytes))
            INVALID("tensor \"%s\": negative or too large shape", entry->name);
    if (bytes != entry->bytes)
        INVALID("tensor \"%s\": %lld bytes given, shape and dtype need %lld", entry->name, (long long)entry->bytes,
                (long long)bytes);
    return STATUS_OK;
}

static Status integers(const int64_t *values, int count, JsonValue **out) {
    JsonValue *array = json_value_new_array();
    Status status = STATUS_OK;
    for (int i = 0; i < count && !status; ++i) status = json_value_append(array, json_value_new_integer(values[i]));
    if (status) {
        json_value_free(array);
        array = NULL;
    }
    *out = array;
    return status;
}

static Status describe(const SafetensorsEntry *entry, int64_t *offset, JsonValue *info) {
    int64_t span[2] = {*offset, *offset + entry->bytes};
    *offset = span[1];
    JsonValue *shape, *offsets;
    TRY(json_value_set(info, "dtype", json_value_new_string(entry->dtype, strlen(entry->dtype))));
    TRY(integers(entry->shape, entry->dimensions, &shape));
    TRY(json_value_set(info, "shape", shape));
    TRY(integers(span, 2, &offsets));
    return json_value_set(info, "data_offsets", offsets);
}

/* Length, JSON, and spaces so that the tensor bytes start at a multiple of 8. */
static Status build_header(const SafetensorsEntry *entries, size_t count, Text *out) {
    JsonValue *header = json_value_new_object(), *metadata = json_value_new_object();
    Status status;
    TRY_GOTO(json_value_set(header, "__metadata__", metadata), done);
    TRY_GOTO(json_value_set(metadata, "format", json_value_new_string("pt", 2)), done);
    int64_t offset = 0;
    for (size_t i = 0; i < count; ++i) {
        TRY_GOTO(check_entry(&entries[i]), done);
        JsonValue *info = json_value_new_object();
        TRY_GOTO(json_value_set(header, entries[i].name, info), done);
        TRY_GOTO(describe(&entries[i], &offset, info), done);
    }
    TRY_GOTO(text_append(out, "\0\0\0\0\0\0\0\0", 8), done);
    TRY_GOTO(json_value_write(header, 0, out), done);
    while (out->length % 8) TRY_GOTO(text_append(out, " ", 1), done);
    uint64_t length = out->length - 8;
    memcpy(out->data, &length, sizeof length);
done:
    json_value_free(header);
    return status;
}

static Status write_bytes(FILE *stream, const char *path, const void *bytes, size_t length) {
    if (length && fwrite(bytes, 1, length, stream) != length) FAIL("%s: cannot write: %s", path, strerror(errno));
    return STATUS_OK;
}

static Status write_tensors(FILE *stream, const char *path, const SafetensorsEntry *entries, size_t count,
                            Status (*fill)(void *context, size_t index, void *buffer), void *context) {
    void *buffer = NULL;
    size_t capacity = 0;
    Status status = STATUS_OK;
    for (size_t i = 0; i < count; ++i) {
        size_t bytes = (size_t)entries[i].bytes;
        const void *data = entries[i].data;
        if (!data && bytes) {
            if (!fill) {
                status = INVALID_INPUT("tensor \"%s\" has no bytes", entries[i].name);
                break;
            }
            if (bytes > capacity) {
                free(buffer);
                buffer = malloc(bytes);
                capacity = buffer ? bytes : 0;
            }
            if (!buffer) {
                status = FAILURE("out of memory: tensor \"%s\" needs %zu bytes", entries[i].name, bytes);
                break;
            }
            TRY_GOTO(status_prefix(fill(context, i, buffer), "tensor \"%s\"", entries[i].name), done);
            data = buffer;
        }
        TRY_GOTO(write_bytes(stream, path, data, bytes), done);
    }
done:
    free(buffer);
    return status;
}

/* A new file beside path; the process number keeps two writers apart. */
static Status create_temporary(const char *path, Text *name, FILE **stream) {
    TRY(text_append_format(name, "%s.tmp-%ld", path, (long)getpid()));
    int descriptor = open(name->data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor < 0) INVALID("%s: cannot create a file there: %s", path, strerror(errno));
    *stream = fdopen(descriptor, "wb");
    if (*stream) return STATUS_OK;
    close(descriptor);
    unlink(name->data);
    FAIL("%s: cannot write: %s", path, strerror(errno));
}

Status safetensors_write(const char *path, const SafetensorsEntry *entries, size_t count,
                         Status (*fill)(void *context, size_t index, void *buffer), void *context) {
    Text header = {0}, temporary = {0};
    FILE *stream = NULL;
    Status status;
    TRY_GOTO(status_prefix(check_unique(entries, count), "%s", path), done);
    TRY_GOTO(status_prefix(build_header(entries, count, &header), "%s", path), done);
    TRY_GOTO(create_temporary(path, &temporary, &stream), done);
    status = write_bytes(stream, path, header.data, header.length);
    if (!status) status = write_tensors(stream, path, entries, count, fill, context);
    if (fclose(stream) && !status) status = FAILURE("%s: cannot write: %s", path, strerror(errno));
    if (status)
        unlink(temporary.data);
    else
        status = file_commit(temporary.data, path);
done:
    text_free(&header);
    text_free(&temporary);
    return status;
}
