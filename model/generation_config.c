/* Which ids end a continuation, from the files of a model directory. */
#include "model/generation.h"

#include "io/file.h"

#include <stdlib.h>

static Status add_id(int32_t **ids, int64_t *count, int64_t id) {
    for (int64_t i = 0; i < *count; ++i)
        if ((*ids)[i] == id) return STATUS_OK;
    int32_t *grown = realloc(*ids, (size_t)(*count + 1) * sizeof *grown);
    TRY_ALLOC(grown);
    grown[(*count)++] = (int32_t)id;
    *ids = grown;
    return STATUS_OK;
}

static Status add_value(const JsonValue *value, int32_t **ids, int64_t *count) {
    int64_t id = json_value_integer(value);
    if (!json_value_is_integer(value) || id < 0 || id > INT32_MAX)
        INVALID("eos_token_id is neither a token id nor a list of them");
    return add_id(ids, count, id);
}

/* A file that is not there says nothing. */
static Status add_file(const char *directory, const char *name, int32_t **ids, int64_t *count) {
    char *path;
    JsonValue *json = NULL;
    TRY(path_join(directory, name, &path));
    Status status = file_exists(path) ? json_value_read_file(path, &json) : STATUS_OK;
    const JsonValue *value = json_value_get(json, "eos_token_id");
    if (!status && json_value_is_array(value)) {
        for (size_t i = 0; i < json_value_size(value) && !status; ++i) status = add_value(json_value_at(value, i), ids, count);
    } else if (!status && value && !json_value_is_null(value)) {
        status = add_value(value, ids, count);
    }
    if (json) status = status_prefix(status, "%s", path);
    json_value_free(json);
    free(path);
    return status;
}

Status generation_eos_ids(const char *directory, const Tokenizer *tokenizer, int32_t **ids, int64_t *count) {
    *ids = NULL;
    *count = 0;
    Status status = add_file(directory, "generation_config.json", ids, count);
    if (!status) status = add_file(directory, "config.json", ids, count);
    int32_t own = tokenizer ? tokenizer_eos_id(tokenizer) : -1;
    if (!status && own >= 0) status = add_id(ids, count, own);
    if (!status) return STATUS_OK;
    free(*ids);
    *ids = NULL;
    *count = 0;
    return status;
}
