#include "io/string_list.h"

#include <stdlib.h>
#include <string.h>

Status string_list_append(StringList *list, const char *bytes, size_t length) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 8;
        char **items;
        TRY_ALLOC(items = realloc(list->items, capacity * sizeof *items));
        list->items = items;
        list->capacity = capacity;
    }
    char *copy;
    TRY_ALLOC(copy = malloc(length + 1));
    memcpy(copy, bytes, length);
    copy[length] = 0;
    list->items[list->count++] = copy;
    return STATUS_OK;
}

void string_list_remove(StringList *list, size_t index) {
    free(list->items[index]);
    memmove(&list->items[index], &list->items[index + 1], (--list->count - index) * sizeof *list->items);
}

void string_list_clear(StringList *list) {
    while (list->count) free(list->items[--list->count]);
}

void string_list_free(StringList *list) {
    string_list_clear(list);
    free(list->items);
    *list = (StringList){0};
}
