#include "io/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Status text_reserve(Text *text, size_t capacity) {
    if (capacity < text->capacity) return STATUS_OK;
    size_t grown = text->capacity * 2 > capacity + 1 ? text->capacity * 2 : capacity + 1;
    if (grown < 64) grown = 64;
    char *data;
    TRY_ALLOC(data = realloc(text->data, grown));
    if (!text->data) data[0] = 0;
    text->data = data;
    text->capacity = grown;
    return STATUS_OK;
}

Status text_append(Text *text, const char *bytes, size_t length) {
    TRY(text_reserve(text, text->length + length));
    if (length) memcpy(text->data + text->length, bytes, length);
    text->length += length;
    text->data[text->length] = 0;
    return STATUS_OK;
}

Status text_append_string(Text *text, const char *string) { return text_append(text, string, strlen(string)); }

Status text_append_format(Text *text, const char *format, ...) {
    va_list arguments, copy;
    va_start(arguments, format);
    va_copy(copy, arguments);
    int length = vsnprintf(NULL, 0, format, copy);
    va_end(copy);
    Status status = length < 0 ? FAILURE("cannot format \"%s\"", format) : text_reserve(text, text->length + (size_t)length);
    if (!status) {
        vsnprintf(text->data + text->length, (size_t)length + 1, format, arguments);
        text->length += (size_t)length;
    }
    va_end(arguments);
    return status;
}

void text_clear(Text *text) {
    text->length = 0;
    if (text->data) text->data[0] = 0;
}

void text_free(Text *text) {
    free(text->data);
    *text = (Text){0};
}

Status token_list_reserve(TokenList *list, size_t capacity) {
    if (capacity <= list->capacity) return STATUS_OK;
    size_t grown = list->capacity * 2 > capacity ? list->capacity * 2 : capacity;
    if (grown < 64) grown = 64;
    int32_t *ids;
    TRY_ALLOC(ids = realloc(list->ids, grown * sizeof *ids));
    list->ids = ids;
    list->capacity = grown;
    return STATUS_OK;
}

Status token_list_append(TokenList *list, const int32_t *ids, size_t count) {
    TRY(token_list_reserve(list, list->count + count));
    if (count) memcpy(list->ids + list->count, ids, count * sizeof *ids);
    list->count += count;
    return STATUS_OK;
}

Status token_list_push(TokenList *list, int32_t id) { return token_list_append(list, &id, 1); }
void token_list_clear(TokenList *list) { list->count = 0; }

void token_list_free(TokenList *list) {
    free(list->ids);
    *list = (TokenList){0};
}
