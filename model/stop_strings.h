/* Stop strings: does the text of a continuation hold one of a few strings? The text may cut a string anywhere between tokens,
 * and a token may hold more than the rest of it. */
#ifndef MODEL_STOP_STRINGS_H
#define MODEL_STOP_STRINGS_H

#include "io/tokenizer.h"

/* Where the first of the strings begins in text[length]; NULL when none is there. */
const char *stop_strings_find(const char *const *strings, int64_t count, const char *text, size_t length);

/* Whether the text of ids[count], special tokens included, ends in a token that completes one of the strings, given that the
 * ids before it did not. scratch is overwritten. */
Status stop_strings_match(const char *const *strings, int64_t count, const Tokenizer *tokenizer, const int32_t *ids,
                          int64_t id_count, Text *scratch, bool *matched);

#endif
