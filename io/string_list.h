/* A growable list of owned, NUL-terminated strings. Zero-initialise with {0}. */
#ifndef IO_STRING_LIST_H
#define IO_STRING_LIST_H

#include "io/status.h"

typedef struct StringList {
    char **items; /* [count] */
    size_t count, capacity;
} StringList;

/* Appends a copy of length bytes. */
Status string_list_append(StringList *list, const char *bytes, size_t length);
void string_list_remove(StringList *list, size_t index); /* keeps the order of the others */
void string_list_clear(StringList *list);
void string_list_free(StringList *list);

#endif
