#include "trainer/summary/chunks.h"

#include "io/unicode.h"
#include "io/utf8.h"
#include "io/words.h"

#include <stdlib.h>

static bool is_space_at(const TokenText *text, int64_t at, int64_t length, int64_t *size) {
    size_t bytes;
    if (at >= length) return false;
    bool space = unicode_is_space(utf8_decode((const unsigned char *)text->bytes.data + at, &bytes));
    *size = (int64_t)bytes;
    return space;
}

/* Between characters, and beside white space. */
static void mark_characters(TokenText *text, int64_t length) {
    int64_t token = 0, size = 0;
    bool after_space = false;
    for (int64_t at = 0; at <= length; at += size) {
        bool space = is_space_at(text, at, length, &size);
        while (token < (int64_t)text->tokens.count && text->starts[token] < at) ++token;
        for (int64_t i = token; i <= (int64_t)text->tokens.count && text->starts[i] == at; ++i)
            text->places[i] = space || after_space ? CUT_SPACE : CUT_CHARACTER;
        after_space = space;
        if (at == length) break;
    }
}

/* Behind a sentence, and behind the white space that follows it. */
static void mark_sentences(TokenText *text, int64_t length, const SentenceEnds *ends) {
    int64_t token = 0, size = 0;
    for (size_t i = 0; i < ends->count; ++i) {
        int64_t at = (int64_t)ends->items[i].at, last = at;
        uint8_t place = ends->items[i].line ? CUT_LINE : CUT_SENTENCE;
        while (is_space_at(text, last, length, &size)) last += size;
        while (token < (int64_t)text->tokens.count && text->starts[token] < at) ++token;
        for (int64_t k = token; k <= (int64_t)text->tokens.count && text->starts[k] <= last; ++k)
            if (text->places[k] != CUT_CHARACTER_INSIDE && text->places[k] < place) text->places[k] = place;
    }
}

static Status mark_places(TokenText *text, const StringList *abbreviations) {
    SentenceEnds ends = {0};
    size_t length = text->bytes.length; /* of well-formed text: all, since tokens only cut it */
    if (length > 0) length = utf8_valid_prefix(text->bytes.data, length);
    mark_characters(text, (int64_t)length);
    Status status = length > 0 ? sentences_find_ends(text->bytes.data, length, abbreviations, &ends) : STATUS_OK;
    if (!status) mark_sentences(text, (int64_t)length, &ends);
    sentence_ends_free(&ends);
    return status;
}

Status token_text_make(const Tokenizer *tokenizer, TokenizerScratch *scratch, const StringList *abbreviations, const char *bytes,
                       size_t length, TokenText *out) {
    *out = (TokenText){.starts = NULL};
    Status status = tokenizer_encode(tokenizer, scratch, bytes, length, &out->tokens);
    size_t count = out->tokens.count;
    if (!status) {
        out->starts = calloc(count + 1, sizeof *out->starts);
        out->places = calloc(count + 1, sizeof *out->places);
        if (!out->starts || !out->places) status = FAILURE("out of memory: %zu tokens", count);
    }
    if (!status) status = tokenizer_token_bytes(tokenizer, out->tokens.ids, count, &out->bytes, out->starts + 1);
    if (!status) status = mark_places(out, abbreviations);
    if (status) token_text_free(out);
    return status;
}

void token_text_free(TokenText *text) {
    text_free(&text->bytes);
    token_list_free(&text->tokens);
    free(text->starts);
    free(text->places);
    *text = (TokenText){.starts = NULL};
}

/* The best place in first..last; of equal ones the last, or the first. */
static int64_t best_place(const TokenText *text, int64_t first, int64_t last, bool take_last) {
    int64_t best = first;
    for (int64_t i = first + 1; i <= last; ++i)
        if (text->places[i] > text->places[best] || (take_last && text->places[i] == text->places[best])) best = i;
    return best;
}

static Status add_chunk(ChunkList *list, Chunk chunk) {
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity ? 2 * list->capacity : 16;
        Chunk *chunks;
        TRY_ALLOC(chunks = realloc(list->chunks, (size_t)capacity * sizeof *chunks));
        list->chunks = chunks;
        list->capacity = capacity;
    }
    list->chunks[list->count++] = chunk;
    return STATUS_OK;
}

Status chunks_cut(const TokenText *text, int64_t chunk_tokens, int64_t overlap_tokens, ChunkList *out) {
    int64_t count = (int64_t)text->tokens.count, begin = 0;
    out->count = 0;
    if (count == 0) return STATUS_OK;
    while (count - begin > chunk_tokens) {
        int64_t last = begin + chunk_tokens, end = best_place(text, last - chunk_tokens / 4, last, true);
        TRY(add_chunk(out, (Chunk){begin, end}));
        /* Never back to begin: the end is at least 3/4 of a chunk ahead, the overlap at most half of one. */
        begin = overlap_tokens > 0 ? best_place(text, end - overlap_tokens, end - 1, false) : end;
        if (text->places[begin] == CUT_CHARACTER_INSIDE) begin = end;
    }
    return add_chunk(out, (Chunk){begin, count});
}

void chunk_list_free(ChunkList *list) {
    free(list->chunks);
    *list = (ChunkList){0};
}
