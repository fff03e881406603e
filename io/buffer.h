/* Growable arrays that io/ hands out: bytes (always followed by a NUL that length does not count) and token ids.
 * Zero-initialise with {0}; free with the matching function, which leaves them empty and reusable. */
#ifndef IO_BUFFER_H
#define IO_BUFFER_H

#include "io/status.h"

#include <stdint.h>

typedef struct Text {
    char *data; /* NULL only while nothing was ever appended */
    size_t length, capacity;
} Text;

typedef struct TokenList {
    int32_t *ids;
    size_t count, capacity;
} TokenList;

Status text_reserve(Text *text, size_t capacity);
Status text_append(Text *text, const char *bytes, size_t length);
Status text_append_string(Text *text, const char *string);
Status text_append_format(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_clear(Text *text); /* length = 0, memory kept */
void text_free(Text *text);

Status token_list_reserve(TokenList *list, size_t capacity);
Status token_list_append(TokenList *list, const int32_t *ids, size_t count);
Status token_list_push(TokenList *list, int32_t id);
void token_list_clear(TokenList *list);
void token_list_free(TokenList *list);

#endif
