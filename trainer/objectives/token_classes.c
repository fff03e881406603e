#include "trainer/objectives/token_classes.h"

#include "io/unicode.h"
#include "io/utf8.h"

#include <stdlib.h>

enum {
    BEGINS_WORD = 1, /* white space or punctuation in front */
    HAS_WORD = 2,    /* a letter or digit */
    HAS_DIGIT = 4,
    UPPER_FIRST = 8, /* its first letter or digit is an upper-case letter */
    UPPER_ONCE = 16,
    UPPER_TWICE = 32,
    ENDS_SENTENCE = 64, /* . ! ? or a line break behind its last letter or digit */
};

struct TokenClasses {
    int32_t size;
    uint8_t *flags; /* [size] */
};

static uint8_t classify(const char *text, size_t length) {
    uint8_t flags = 0;
    int uppers = 0;
    size_t size;
    for (size_t i = 0; i < length; i += size) {
        uint32_t c = utf8_decode((const unsigned char *)text + i, &size);
        bool word = unicode_is_alphanumeric(c) || c == 0xFFFD; /* U+FFFD: a piece of a character */
        if (i == 0 && !word) flags |= BEGINS_WORD;
        if (word && !(flags & HAS_WORD) && unicode_is_upper(c)) flags |= UPPER_FIRST;
        if (word) flags = (uint8_t)((flags | HAS_WORD) & ~ENDS_SENTENCE);
        if (unicode_is_digit(c)) flags |= HAS_DIGIT;
        if (unicode_is_upper(c)) flags |= ++uppers > 1 ? UPPER_TWICE : UPPER_ONCE;
        if (c == '.' || c == '!' || c == '?' || c == '\n') flags |= ENDS_SENTENCE;
    }
    return flags;
}

Status token_classes_create(const Tokenizer *tokenizer, TokenClasses **out) {
    TokenClasses *classes;
    Text text = {0};
    Status status = STATUS_OK;
    TRY_ALLOC(classes = calloc(1, sizeof *classes));
    classes->size = tokenizer_size(tokenizer);
    classes->flags = calloc((size_t)classes->size, 1);
    if (!classes->flags) {
        free(classes);
        FAIL("out of memory: token classes");
    }
    for (int32_t id = 0; id < classes->size && !status; ++id) {
        text.length = 0;
        status = tokenizer_decode(tokenizer, &id, 1, true, &text); /* special tokens give no text, thus no flags */
        if (!status) {
            classes->flags[id] = classify(text.data, text.length);
        } else if (status_exit_code(status) == STATUS_INVALID) { /* a gap in the vocabulary */
            status_free(status);
            status = STATUS_OK;
        }
    }
    text_free(&text);
    if (status) {
        token_classes_destroy(classes);
        return status_trace(status, __FILE__, __LINE__);
    }
    *out = classes;
    return STATUS_OK;
}

void token_classes_destroy(TokenClasses *classes) {
    if (!classes) return;
    free(classes->flags);
    free(classes);
}

static uint8_t flags_of(const TokenClasses *classes, int32_t id) {
    return id >= 0 && id < classes->size ? classes->flags[id] : 0;
}

/* The end of the word that begins at `begin`; a token without text is alone. */
static int64_t word_end(const TokenClasses *classes, const int32_t *ids, int64_t begin, int64_t n) {
    int64_t end = begin + 1;
    if (!flags_of(classes, ids[begin])) return end;
    while (end < n && (flags_of(classes, ids[end]) & (BEGINS_WORD | HAS_WORD)) == HAS_WORD) ++end;
    return end;
}

void token_classes_facts(const TokenClasses *classes, const int32_t *ids, int64_t n, FactToken *out) {
    bool sentence_begins = true;
    for (int64_t begin = 0, end; begin < n; begin = end) {
        uint8_t all = 0;
        bool once = false, twice = false;
        end = word_end(classes, ids, begin, n);
        int64_t first = begin; /* with a letter or digit: in front may stand a lone space or line break */
        for (; first + 1 < end && !(flags_of(classes, ids[first]) & HAS_WORD); ++first)
            sentence_begins |= (flags_of(classes, ids[first]) & ENDS_SENTENCE) != 0;
        for (int64_t i = begin; i < end; ++i) {
            uint8_t flags = flags_of(classes, ids[i]);
            all |= flags;
            twice |= (flags & UPPER_TWICE) || (once && (flags & UPPER_ONCE));
            once |= (flags & UPPER_ONCE) != 0;
        }
        bool fact = (all & HAS_DIGIT) || twice || (!sentence_begins && (flags_of(classes, ids[first]) & UPPER_FIRST));
        for (int64_t i = begin; i < end; ++i) out[i] = !fact ? FACT_NONE : i == first ? FACT_FIRST : FACT_INSIDE;
        if (flags_of(classes, ids[end - 1]) & ENDS_SENTENCE)
            sentence_begins = true;
        else if (all & HAS_WORD)
            sentence_begins = false;
    }
}
