#include "io/tokenizer_internal.h"

#include "io/utf8.h"

#include <stdlib.h>
#include <string.h>

Status tokenizer_scratch_new(const Tokenizer *tokenizer, TokenizerScratch **out) {
    TokenizerScratch *scratch;
    TRY_ALLOC(scratch = calloc(1, sizeof *scratch));
    Status status = splitter_scratch_init(&tokenizer->splitter, &scratch->splitter);
    if (!status) status = bpe_scratch_init(&scratch->bpe);
    if (status) {
        tokenizer_scratch_free(scratch);
        return status;
    }
    *out = scratch;
    return STATUS_OK;
}

void tokenizer_scratch_free(TokenizerScratch *scratch) {
    if (!scratch) return;
    normalizer_scratch_free(&scratch->normalizer);
    splitter_scratch_free(&scratch->splitter);
    bpe_scratch_free(&scratch->bpe);
    free(scratch);
}

void tokenizer_free(Tokenizer *tokenizer) {
    if (!tokenizer) return;
    vocabulary_free(&tokenizer->vocabulary);
    merge_table_free(&tokenizer->merges);
    added_tokens_free(&tokenizer->raw);
    added_tokens_free(&tokenizer->normalized);
    splitter_free(&tokenizer->splitter);
    free(tokenizer->special);
    free(tokenizer->chat_template);
    free(tokenizer);
}

/* Text without added tokens, normalised. */
static Status encode_words(const Tokenizer *t, TokenizerScratch *scratch, const char *text, size_t length, TokenList *out) {
    for (size_t start = 0, end; start < length; start = end) {
        TRY(splitter_next(&t->splitter, &scratch->splitter, text, length, start, &end));
        TRY(bpe_encode_word(t, &scratch->bpe, text + start, end - start, out));
    }
    return STATUS_OK;
}

/* Text between added tokens of the raw kind. */
static Status encode_piece(const Tokenizer *t, TokenizerScratch *scratch, const char *text, size_t length, TokenList *out) {
    if (t->normalize) TRY(normalizer_run(&t->normalizer, &scratch->normalizer, &text, &length));
    for (size_t from = 0; from < length;) {
        size_t start = length;
        const AddedToken *token = added_tokens_find(&t->normalized, text, length, from, &start);
        TRY(encode_words(t, scratch, text + from, start - from, out));
        if (token) TRY(token_list_push(out, token->id));
        from = token ? start + token->length : length;
    }
    return STATUS_OK;
}

Status tokenizer_encode(const Tokenizer *t, TokenizerScratch *scratch, const char *text, size_t length, TokenList *out) {
    size_t valid = utf8_valid_prefix(text, length);
    if (valid != length) INVALID("invalid UTF-8 at byte %zu", valid);
    TRY(token_list_reserve(out, out->count + length / 4 + 16));
    for (size_t from = 0; from < length;) {
        size_t start = length;
        const AddedToken *token = added_tokens_find(&t->raw, text, length, from, &start);
        TRY(encode_piece(t, scratch, text + from, start - from, out));
        if (token) TRY(token_list_push(out, token->id));
        from = token ? start + token->length : length;
    }
    return STATUS_OK;
}

static Status append_bytes(const Tokenizer *t, int32_t id, size_t position, Text *out) {
    if (id < 0 || id >= t->vocabulary.size || t->vocabulary.entries[id].name == SIZE_MAX)
        INVALID("id %d at position %zu is not in the vocabulary", id, position);
    const TokenEntry *entry = &t->vocabulary.entries[id];
    return text_append(out, t->vocabulary.bytes.data + entry->bytes, entry->byte_length);
}

Status tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t count, bool skip_special_tokens, Text *out) {
    Text bytes = {0};
    Status status = STATUS_OK;
    for (size_t i = 0; i < count; ++i) {
        bool skip = skip_special_tokens && ids[i] >= 0 && ids[i] < t->vocabulary.size && t->special[ids[i]];
        if (!skip) TRY_GOTO(append_bytes(t, ids[i], i, &bytes), done);
    }
    TRY_GOTO(utf8_append_repaired(out, bytes.data, bytes.length), done);
done:
    text_free(&bytes);
    return status;
}

Status tokenizer_token_bytes(const Tokenizer *t, const int32_t *ids, size_t count, Text *bytes, int64_t *ends) {
    for (size_t i = 0; i < count; ++i) {
        TRY(append_bytes(t, ids[i], i, bytes));
        ends[i] = (int64_t)bytes->length;
    }
    return STATUS_OK;
}

int32_t tokenizer_size(const Tokenizer *t) { return t->vocabulary.size; }
int32_t tokenizer_token_id(const Tokenizer *t, const char *token) {
    return vocabulary_find(&t->vocabulary, token, strlen(token));
}
int32_t tokenizer_eos_id(const Tokenizer *t) { return t->eos_id; }
const char *tokenizer_chat_template(const Tokenizer *t) { return t->chat_template; }
const char *tokenizer_fingerprint(const Tokenizer *t) { return t->fingerprint; }
