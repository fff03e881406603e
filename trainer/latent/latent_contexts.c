#include "trainer/latent/latent_contexts.h"

#include "io/json_lines.h"
#include "trainer/clock.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNKS_PER_PASS = 64 };

Status latent_id(const JsonValue *record, const char *key, char **out) {
    const JsonValue *id = json_value_get(record, key);
    Text text = {0};
    if (!id) INVALID("\"%s\" is missing", key);
    if (!json_value_is_string(id) && !json_value_is_integer(id))
        INVALID("\"%s\" is of type %s, not string or integer", key, json_value_type_name(id));
    Status status = json_value_write(id, 0, &text);
    if (status)
        text_free(&text);
    else
        *out = text.data;
    return status;
}

const LatentContext *latent_contexts_find(const LatentContexts *contexts, const char *id) {
    for (int64_t i = 0; i < contexts->count; ++i)
        if (strcmp(contexts->items[i].id, id) == 0) return &contexts->items[i];
    return NULL;
}

static Status new_item(LatentContexts *contexts, LatentContext **out) {
    if (contexts->count == contexts->capacity) {
        int64_t capacity = contexts->capacity ? 2 * contexts->capacity : 16;
        LatentContext *items = realloc(contexts->items, (size_t)capacity * sizeof *items);
        TRY_ALLOC(items);
        contexts->items = items;
        contexts->capacity = capacity;
    }
    *out = &contexts->items[contexts->count];
    **out = (LatentContext){.id = NULL};
    return STATUS_OK;
}

static Status fill_item(const TextModel *model, const LatentContexts *contexts, const JsonValue *record, LatentContext *item) {
    const char *text;
    size_t length;
    TRY(latent_id(record, "id", &item->id));
    if (latent_contexts_find(contexts, item->id)) INVALID("a context with the id %s came before", item->id);
    TRY(json_value_get_string(record, "context", &text, &length));
    TRY(tokenizer_encode(model->tokenizer, model->scratch, text, length, &item->ids));
    return adamem_keep(model->session.adamem, model->session.tape, item->ids.ids, (int64_t)item->ids.count, 0, NULL,
                       CHUNKS_PER_PASS, DTYPE_BF16, &item->kept);
}

static void free_item(LatentContext *item) {
    free(item->id);
    adamem_kept_free(&item->kept);
    token_list_free(&item->ids);
}

static Status add_record(const TextModel *model, const JsonValue *record, LatentContexts *contexts) {
    LatentContext *item;
    TRY(new_item(contexts, &item));
    Status status = fill_item(model, contexts, record, item);
    if (status)
        free_item(item);
    else
        ++contexts->count;
    return status;
}

static Status read_lines(const TextModel *model, JsonLines *lines, LatentContexts *out) {
    for (;;) {
        JsonValue *record;
        TRY(json_lines_next_object(lines, &record));
        if (!record) return STATUS_OK;
        Status status = add_record(model, record, out);
        json_value_free(record);
        if (status) return status_prefix(status, "%s:%lld", json_lines_path(lines), (long long)json_lines_number(lines));
    }
}

Status latent_contexts_read(const TextModel *model, const char *path, LatentContexts *out) {
    JsonLines *lines;
    const double start = clock_seconds();
    *out = (LatentContexts){0};
    TRY(json_lines_open(path, &lines));
    Status status = read_lines(model, lines, out);
    if (!status && out->count == 0) status = INVALID_INPUT("%s: holds no context", json_lines_path(lines));
    json_lines_close(lines);
    out->seconds = clock_seconds() - start;
    if (status) latent_contexts_free(out);
    return status;
}

void latent_contexts_free(LatentContexts *contexts) {
    for (int64_t i = 0; i < contexts->count; ++i) free_item(&contexts->items[i]);
    free(contexts->items);
    *contexts = (LatentContexts){0};
}
