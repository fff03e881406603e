/* Finding added tokens in text. The contents are sorted; a match narrows the range of contents that agree with the text byte
 * by byte, so that thousands of added tokens cost no more than a few. */
#include "io/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

Status added_tokens_add(AddedTokens *set, const char *content, size_t length, int32_t id, bool special, bool normalized) {
    if (set->count == set->capacity) {
        size_t capacity = set->capacity ? set->capacity * 2 : 32;
        AddedToken *tokens;
        TRY_ALLOC(tokens = realloc(set->tokens, capacity * sizeof *tokens));
        set->tokens = tokens;
        set->capacity = capacity;
    }
    char *copy;
    TRY_ALLOC(copy = malloc(length + 1));
    memcpy(copy, content, length);
    copy[length] = 0;
    set->tokens[set->count++] = (AddedToken){copy, length, id, special, normalized};
    return STATUS_OK;
}

static int compare_content(const void *a, const void *b) {
    const AddedToken *x = a, *y = b;
    size_t common = x->length < y->length ? x->length : y->length;
    int order = memcmp(x->content, y->content, common);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

void added_tokens_index(AddedTokens *set) {
    if (set->count) qsort(set->tokens, set->count, sizeof *set->tokens, compare_content);
    memset(set->starts, 0, sizeof set->starts);
    for (size_t i = 0; i < set->count; ++i) set->starts[(unsigned char)set->tokens[i].content[0]] = true;
    bool alike = set->count && set->tokens[0].content[0] == set->tokens[set->count - 1].content[0];
    set->only_start = alike ? (unsigned char)set->tokens[0].content[0] : -1;
}

/* First index in [low, high) whose byte at depth is at least byte. All there share their first depth bytes; one that ends
 * at depth comes first. */
static size_t lower_bound(const AddedTokens *set, size_t low, size_t high, size_t depth, int byte) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const AddedToken *token = &set->tokens[middle];
        int at = token->length > depth ? (unsigned char)token->content[depth] : -1;
        if (at < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const AddedToken *longest_at(const AddedTokens *set, const unsigned char *p, const unsigned char *end) {
    const AddedToken *found = NULL;
    size_t low = 0, high = set->count;
    for (size_t depth = 0; p + depth < end && low < high; ++depth) {
        low = lower_bound(set, low, high, depth, p[depth]);
        high = lower_bound(set, low, high, depth, p[depth] + 1);
        if (low < high && set->tokens[low].length == depth + 1) found = &set->tokens[low];
    }
    return found;
}

const AddedToken *added_tokens_find(const AddedTokens *set, const char *text, size_t length, size_t from, size_t *start) {
    if (!set->count) return NULL;
    const unsigned char *begin = (const unsigned char *)text, *end = begin + length, *p = begin + from;
    for (; p < end; ++p) {
        if (set->only_start >= 0) {
            p = memchr(p, set->only_start, (size_t)(end - p));
            if (!p) return NULL;
        } else if (!set->starts[*p])
            continue;
        const AddedToken *token = longest_at(set, p, end);
        if (token) return *start = (size_t)(p - begin), token;
    }
    return NULL;
}

void added_tokens_free(AddedTokens *set) {
    for (size_t i = 0; i < set->count; ++i) free(set->tokens[i].content);
    free(set->tokens);
    *set = (AddedTokens){0};
}
