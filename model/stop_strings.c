#define _GNU_SOURCE /* memmem */
#include "model/stop_strings.h"

#include <string.h>

const char *stop_strings_find(const char *const *strings, int64_t count, const char *text, size_t length) {
    const char *first = NULL;
    for (int64_t i = 0; i < count && length > 0; ++i) {
        const char *found = memmem(text, length, strings[i], strlen(strings[i]));
        if (found && (!first || found < first)) first = found;
    }
    return first;
}

/* A few tokens may be parts of one character: a window cut there begins with a replacement character. */
enum { TOKENS_PER_CHARACTER = 4 };

Status stop_strings_match(const char *const *strings, int64_t count, const Tokenizer *tokenizer, const int32_t *ids,
                          int64_t id_count, Text *scratch, bool *matched) {
    int64_t window = TOKENS_PER_CHARACTER; /* every token adds at least a byte */
    *matched = false;
    for (int64_t i = 0; i < count; ++i) {
        int64_t length = (int64_t)strlen(strings[i]) + TOKENS_PER_CHARACTER;
        if (length > window) window = length;
    }
    if (count == 0) return STATUS_OK;
    if (window > id_count) window = id_count;
    text_clear(scratch);
    TRY(tokenizer_decode(tokenizer, ids + id_count - window, (size_t)window, false, scratch));
    *matched = stop_strings_find(strings, count, scratch->data, scratch->length) != NULL;
    return STATUS_OK;
}
