#include "io/encoder_tokenizer_internal.h"

#include "io/unicode.h"
#include "io/utf8.h"

#include <stdlib.h>
#include <string.h>

/* text[*begin, *end) without white space on the chosen sides. */
static void strip(const char *text, size_t *begin, size_t *end, bool left) {
    size_t size;
    while (left && *begin < *end && unicode_is_space(utf8_decode((const unsigned char *)text + *begin, &size))) *begin += size;
    while (*end > *begin) {
        size_t last = *end - 1;
        while (last > *begin && ((unsigned char)text[last] & 0xC0) == 0x80) --last;
        if (!unicode_is_space(utf8_decode((const unsigned char *)text + last, &size))) break;
        *end = last;
    }
}

static Status encode_words(EncoderTokenizer *t, const char *text, size_t length, TokenList *out) {
    if (t->kind == ENCODER_TOKENIZER_WORDPIECE)
        return wordpiece_encode(&t->wordpiece, &t->bytes.normalizer, &t->wordpiece_scratch, text, length, out);
    for (size_t start = 0, end; start < length; start = end) {
        TRY(splitter_next(&t->bytes.splitter, &t->bytes_scratch.splitter, text, length, start, &end));
        TRY(bpe_encode_word(&t->bytes, &t->bytes_scratch.bpe, text + start, end - start, out));
    }
    return STATUS_OK;
}

/* Text between added tokens, and those. */
static Status encode_text(EncoderTokenizer *t, const char *text, size_t length, TokenList *out) {
    for (size_t from = 0; from < length;) {
        size_t start = length, begin = from;
        const AddedToken *token = added_tokens_find(&t->added, text, length, from, &start);
        size_t end = start;
        if (token && token->id == t->strip_left_id) strip(text, &begin, &end, false);
        TRY(encode_words(t, text + begin, end - begin, out));
        if (token) TRY(token_list_push(out, token->id));
        from = token ? start + token->length : length;
    }
    return STATUS_OK;
}

Status encoder_tokenizer_encode(EncoderTokenizer *t, const char *text, size_t length, bool prefix_space, int64_t max_length,
                                TokenList *out) {
    size_t valid = utf8_valid_prefix(text, length), begin = 0, end = length, before = out->count;
    if (valid != length) INVALID("invalid UTF-8 at byte %zu", valid);
    strip(text, &begin, &end, true);
    TRY(token_list_push(out, t->first_id));
    if (t->kind == ENCODER_TOKENIZER_BYTE_LEVEL && prefix_space && end > begin) {
        text_clear(&t->text);
        TRY(text_append(&t->text, " ", 1));
        TRY(text_append(&t->text, text + begin, end - begin));
        TRY(encode_text(t, t->text.data, t->text.length, out));
    } else
        TRY(encode_text(t, text + begin, end - begin, out));
    if ((int64_t)(out->count - before) > max_length - 1) out->count = before + (size_t)max_length - 1;
    return token_list_push(out, t->last_id);
}

void encoder_tokenizer_free(EncoderTokenizer *t) {
    if (!t) return;
    vocabulary_free(&t->wordpiece.vocabulary);
    free(t->wordpiece.continuation);
    vocabulary_free(&t->bytes.vocabulary);
    merge_table_free(&t->bytes.merges);
    splitter_free(&t->bytes.splitter);
    added_tokens_free(&t->added);
    text_free(&t->wordpiece_scratch.cleaned);
    text_free(&t->wordpiece_scratch.stripped);
    text_free(&t->wordpiece_scratch.word);
    normalizer_scratch_free(&t->wordpiece_scratch.normalizer);
    splitter_scratch_free(&t->bytes_scratch.splitter);
    bpe_scratch_free(&t->bytes_scratch.bpe);
    text_free(&t->text);
    free(t);
}

int32_t encoder_tokenizer_first_id(const EncoderTokenizer *t) { return t->first_id; }
int32_t encoder_tokenizer_last_id(const EncoderTokenizer *t) { return t->last_id; }
int32_t encoder_tokenizer_size(const EncoderTokenizer *t) {
    return t->kind == ENCODER_TOKENIZER_WORDPIECE ? t->wordpiece.vocabulary.size : t->bytes.vocabulary.size;
}
int64_t encoder_tokenizer_max_length(const EncoderTokenizer *t) { return t->max_length; }
bool encoder_tokenizer_prefix_space(const EncoderTokenizer *t) { return t->prefix_space; }
