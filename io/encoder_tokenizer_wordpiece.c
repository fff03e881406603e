/* BERT's road from text to pieces: clean (drop control characters, one kind of space), spaces around Chinese characters,
 * lower case, accents off, cut at white space and punctuation, then the longest pieces from the left. */
#include "io/encoder_tokenizer_internal.h"

#include "io/unicode.h"
#include "io/utf8.h"

#include <string.h>
#include <utf8proc.h>

/* A canonical decomposition has at most 4 code points (Unicode Standard Annex 15, section 9). */
#define MAX_DECOMPOSITION 4

static Status append_code_point(Text *out, uint32_t code_point) {
    unsigned char bytes[4];
    return text_append(out, (char *)bytes, utf8_encode(code_point, bytes));
}

/* The blocks that BERT takes for Chinese, which are not all. */
static bool is_chinese(uint32_t c) {
    static const uint32_t blocks[][2] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
                                         {0x2B740, 0x2B81F}, {0x2B820, 0x2CEAF}, {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; ++i)
        if (c >= blocks[i][0] && c <= blocks[i][1]) return true;
    return false;
}

/* ASCII that is neither letter, digit, control nor space counts as punctuation, whatever Unicode says. */
static bool is_punctuation(uint32_t c) {
    if (c < 0x80) return (c > 32 && c < 48) || (c > 57 && c < 65) || (c > 90 && c < 97) || (c > 122 && c < 127);
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/* General category C, unassigned code points included, except what counts as space. */
static bool is_dropped(uint32_t c) {
    if (c == '\t' || c == '\n' || c == '\r') return false;
    if (c < 0x80) return c < 32 || c == 127;
    if (c == 0xFFFD) return true;
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_CN || category >= UTF8PROC_CATEGORY_CC;
}

static bool is_cleaned_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || c == '\t' || c == '\n' || c == '\r';
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ZS;
}

/* Character by character, so that a capital sigma never becomes its final form. U+0130 is the one that becomes two. */
static Status append_lower(Text *out, uint32_t c) {
    if (c < 0x80) return append_code_point(out, c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    if (c != 0x130) return append_code_point(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
    return text_append(out, "i\xCC\x87", 3);
}

static Status clean(const WordPiece *model, Text *out, const char *text, size_t length) {
    text_clear(out);
    TRY(text_reserve(out, length + 16));
    for (size_t i = 0, size; i < length; i += size) {
        uint32_t c = utf8_decode((const unsigned char *)text + i, &size);
        if (model->clean && is_dropped(c)) continue;
        if (model->clean && is_cleaned_space(c)) c = ' ';
        bool chinese = model->split_chinese && is_chinese(c);
        if (chinese) TRY(text_append(out, " ", 1));
        TRY(model->lower_case ? append_lower(out, c) : append_code_point(out, c));
        if (chinese) TRY(text_append(out, " ", 1));
    }
    return STATUS_OK;
}

/* Decomposed, without non-spacing marks. What is left of a canonical decomposition needs no ordering. */
static Status strip_accents(Text *out, const char *text, size_t length) {
    text_clear(out);
    TRY(text_reserve(out, length + 16));
    for (size_t i = 0, size; i < length; i += size) {
        uint32_t c = utf8_decode((const unsigned char *)text + i, &size);
        utf8proc_int32_t parts[MAX_DECOMPOSITION] = {(utf8proc_int32_t)c};
        int boundary = 0;
        utf8proc_ssize_t count = 1;
        if (c >= 0x80)
            count = utf8proc_decompose_char((utf8proc_int32_t)c, parts, MAX_DECOMPOSITION, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
                                            &boundary);
        if (count < 1 || count > MAX_DECOMPOSITION) count = 1, parts[0] = (utf8proc_int32_t)c;
        for (utf8proc_ssize_t p = 0; p < count; ++p)
            if (parts[p] < 0x80 || utf8proc_category(parts[p]) != UTF8PROC_CATEGORY_MN)
                TRY(append_code_point(out, (uint32_t)parts[p]));
    }
    return STATUS_OK;
}

/* The longest piece at the front of rest (the continuation mark included after the first); *taken receives its bytes. */
static int32_t longest_piece(const Vocabulary *vocabulary, const Text *rest, size_t mark, size_t *taken) {
    for (size_t length = rest->length; length > mark; --length) {
        if (length < rest->length && ((unsigned char)rest->data[length] & 0xC0) == 0x80) continue; /* inside a character */
        int32_t id = vocabulary_find(vocabulary, rest->data, length);
        if (id >= 0) return *taken = length - mark, id;
    }
    return -1;
}

static size_t count_characters(const char *word, size_t length) {
    size_t count = 0;
    for (size_t i = 0; i < length; ++i) count += ((unsigned char)word[i] & 0xC0) != 0x80;
    return count;
}

/* A word with a part that is no piece is unknown as a whole. */
static Status encode_word(const WordPiece *model, Text *rest, const char *word, size_t length, TokenList *out) {
    size_t first = out->count, mark = 0;
    if (count_characters(word, length) > model->most_characters) return token_list_push(out, model->unknown_id);
    for (size_t start = 0, taken = 0; start < length; start += taken) {
        text_clear(rest);
        if (start) TRY(text_append_string(rest, model->continuation));
        mark = rest->length;
        TRY(text_append(rest, word + start, length - start));
        int32_t id = longest_piece(&model->vocabulary, rest, mark, &taken);
        if (id < 0) {
            out->count = first;
            return token_list_push(out, model->unknown_id);
        }
        TRY(token_list_push(out, id));
    }
    return STATUS_OK;
}

Status wordpiece_encode(const WordPiece *model, const Normalizer *normalizer, WordPieceScratch *scratch, const char *text,
                        size_t length, TokenList *out) {
    TRY(clean(model, &scratch->cleaned, text, length));
    text = scratch->cleaned.data;
    length = scratch->cleaned.length;
    if (model->strip_accents) {
        TRY(strip_accents(&scratch->stripped, text, length));
        text = scratch->stripped.data;
        length = scratch->stripped.length;
    } else if (model->compose)
        TRY(normalizer_run(normalizer, &scratch->normalizer, &text, &length));
    size_t start = 0, size;
    for (size_t i = 0; i < length; i += size) {
        uint32_t c = utf8_decode((const unsigned char *)text + i, &size);
        bool space = unicode_is_space(c), punctuation = !space && is_punctuation(c);
        if (!space && !punctuation) continue;
        if (i > start) TRY(encode_word(model, &scratch->word, text + start, i - start, out));
        if (punctuation) TRY(encode_word(model, &scratch->word, text + i, size, out));
        start = i + size;
    }
    return start < length ? encode_word(model, &scratch->word, text + start, length - start, out) : STATUS_OK;
}
