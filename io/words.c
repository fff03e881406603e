#include "io/words.h"

#include "io/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static bool is_blank(uint32_t c) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP ||
           category == UTF8PROC_CATEGORY_CC;
}

static bool is_word_part(uint32_t c) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO;
}

/* Written without spaces between words: hiragana, katakana, Chinese characters. */
static bool is_whole_word(uint32_t c) {
    return (c >= 0x3041 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x3FFFF);
}

static bool is_apostrophe(uint32_t c) { return c == '\'' || c == 0x2019 || c == 0x02BC; }

static bool is_one_of(uint32_t c, const uint32_t *set) {
    for (; *set; ++set)
        if (*set == c) return true;
    return false;
}

/* NUL is no code point of a text here: it counts as white space, as the other control characters do. */
static bool is_end_mark(uint32_t c) {
    static const uint32_t set[] = {'.', '!', '?', 0x2026, 0x061F, 0};
    return c && is_one_of(c, set);
}
static bool is_full_width_end(uint32_t c) {
    static const uint32_t set[] = {0x3002, 0xFF01, 0xFF1F, 0};
    return c && is_one_of(c, set);
}
static bool is_closing(uint32_t c) {
    static const uint32_t set[] = {'"', '\'', ')', ']', '}', 0x201D, 0x2019, 0xBB, 0x300D, 0x300F, 0xFF09, 0};
    return c && is_one_of(c, set);
}
static bool is_question_mark(uint32_t c) { return c == '?' || c == 0xFF1F || c == 0x061F; }

static uint32_t code_point_at(const char *bytes, size_t at, size_t *size) {
    return utf8_decode((const unsigned char *)bytes + at, size);
}

static Status append_code_point(uint32_t c, Text *out) {
    unsigned char bytes[4];
    return text_append(out, (const char *)bytes, utf8_encode(c, bytes));
}

static bool word_goes_on(const char *bytes, size_t at, size_t length) {
    size_t size;
    if (at >= length) return false;
    uint32_t c = code_point_at(bytes, at, &size);
    return is_word_part(c) && !is_whole_word(c);
}

Status words_fold(const char *bytes, size_t length, Text *out) {
    text_clear(out);
    TRY(text_append(out, "", 0));
    bool inside = false;
    for (size_t i = 0, size; i < length; i += size) {
        uint32_t c = code_point_at(bytes, i, &size);
        if (inside && is_apostrophe(c) && word_goes_on(bytes, i + size, length)) continue;
        bool whole = is_whole_word(c), part = whole || is_word_part(c);
        if (inside && (!part || whole)) TRY(text_append(out, " ", 1));
        if (part && (!inside || whole) && !out->length) TRY(text_append(out, " ", 1));
        if (part) TRY(append_code_point((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), out));
        if (whole) TRY(text_append(out, " ", 1));
        inside = part && !whole;
    }
    return inside ? text_append(out, " ", 1) : STATUS_OK;
}

bool folded_next_word(const char *folded, FoldedWord *word) {
    const char *p = word->start ? word->start + word->length : folded;
    if (*p) ++p;
    if (!*p) return false;
    word->start = p;
    word->length = strcspn(p, " ");
    return true;
}

bool folded_contains(const char *folded, FoldedWord word) {
    for (FoldedWord w = {0}; folded_next_word(folded, &w);)
        if (w.length == word.length && !memcmp(w.start, word.start, w.length)) return true;
    return false;
}

static bool seen_before(const char *folded, FoldedWord word) {
    for (FoldedWord w = {0}; folded_next_word(folded, &w) && w.start < word.start;)
        if (w.length == word.length && !memcmp(w.start, word.start, w.length)) return true;
    return false;
}

double folded_overlap(const char *sought, const char *text, const char *ignored) {
    size_t found[2] = {0}, total[2] = {0}; /* of words that count, of the others */
    for (FoldedWord w = {0}; folded_next_word(sought, &w);) {
        if (seen_before(sought, w)) continue;
        bool other = folded_contains(ignored, w);
        ++total[other];
        found[other] += folded_contains(text, w);
    }
    bool use_others = total[0] == 0;
    return total[use_others] ? (double)found[use_others] / (double)total[use_others] : 0.0;
}

Status words_squeeze(const char *bytes, size_t length, size_t maximum_words, Text *out) {
    text_clear(out);
    TRY(text_append(out, "", 0));
    size_t words = 0;
    bool inside = false;
    for (size_t i = 0, size; i < length; i += size) {
        bool blank = is_blank(code_point_at(bytes, i, &size));
        if (!blank && !inside) {
            if (maximum_words && words == maximum_words) break;
            if (words++) TRY(text_append(out, " ", 1));
        }
        inside = !blank;
        if (!blank) TRY(text_append(out, bytes + i, size));
    }
    return STATUS_OK;
}

typedef struct Splitter {
    const StringList *abbreviations;
    StringList *out;    /* either */
    SentenceEnds *ends; /* or */
    Text sentence, folded;
} Splitter;

static Status add_end(SentenceEnds *ends, SentenceEnd end) {
    if (ends->count == ends->capacity) {
        size_t capacity = ends->capacity ? 2 * ends->capacity : 64;
        SentenceEnd *items;
        TRY_ALLOC(items = realloc(ends->items, capacity * sizeof *items));
        ends->items = items;
        ends->capacity = capacity;
    }
    ends->items[ends->count++] = end;
    return STATUS_OK;
}

static Status end_sentence(Splitter *s, SentenceEnd end) {
    while (s->sentence.length && s->sentence.data[s->sentence.length - 1] == ' ') s->sentence.data[--s->sentence.length] = 0;
    if (!s->sentence.length) return STATUS_OK;
    TRY(words_fold(s->sentence.data, s->sentence.length, &s->folded));
    if (s->folded.length && s->out) TRY(string_list_append(s->out, s->sentence.data, s->sentence.length));
    if (s->folded.length && s->ends) TRY(add_end(s->ends, end));
    text_clear(&s->sentence);
    return STATUS_OK;
}

/* The sentence so far ends in one full stop: does that belong to its last word? */
static Status stop_belongs_to_word(Splitter *s, bool *belongs) {
    const char *text = s->sentence.data;
    size_t end = s->sentence.length - 1, start = end;
    while (start && text[start - 1] != ' ') --start;
    bool capital = end - start == 1 && text[start] >= 'A' && text[start] <= 'Z' && text[start] != 'I';
    bool number = !start && end && strspn(text, "0123456789") == end;
    *belongs = capital || number;
    TRY(words_fold(text + start, end - start, &s->folded));
    for (size_t i = 0; i < s->abbreviations->count && !*belongs; ++i)
        *belongs = !strcmp(s->abbreviations->items[i], s->folded.data);
    return STATUS_OK;
}

/* After an end mark at `at`: takes what belongs to it; *next is behind it. */
static Status take_end_marks(Splitter *s, const char *bytes, size_t length, size_t at, size_t *next) {
    size_t size, marks = 0;
    uint32_t c = code_point_at(bytes, at, &size);
    bool full_width = is_full_width_end(c), stop = c == '.';
    size_t i = at;
    for (; i < length; i += size, ++marks) {
        c = code_point_at(bytes, i, &size);
        if (!is_end_mark(c) && !is_full_width_end(c) && !is_closing(c)) break;
        full_width = full_width || is_full_width_end(c);
        TRY(text_append(&s->sentence, bytes + i, size));
    }
    *next = i;
    bool ends = full_width || i >= length || is_blank(code_point_at(bytes, i, &size)), belongs = false;
    if (ends && stop && marks == 1) TRY(stop_belongs_to_word(s, &belongs));
    return ends && !belongs ? end_sentence(s, (SentenceEnd){.at = i}) : STATUS_OK;
}

static Status split(Splitter *s, const char *bytes, size_t length) {
    for (size_t i = 0, size; i < length;) {
        uint32_t c = code_point_at(bytes, i, &size);
        if (is_end_mark(c) || is_full_width_end(c)) {
            TRY(take_end_marks(s, bytes, length, i, &i));
            continue;
        }
        bool blank = is_blank(c), after_blank = s->sentence.length && s->sentence.data[s->sentence.length - 1] == ' ';
        if (c == '\n' || c == 0x2028 || c == 0x2029)
            TRY(end_sentence(s, (SentenceEnd){.at = i, .line = true}));
        else if (!blank)
            TRY(text_append(&s->sentence, bytes + i, size));
        else if (s->sentence.length && !after_blank)
            TRY(text_append(&s->sentence, " ", 1));
        i += size;
    }
    return end_sentence(s, (SentenceEnd){.at = length, .line = true});
}

static Status run_splitter(Splitter *splitter, const char *bytes, size_t length) {
    Status status = split(splitter, bytes, length);
    text_free(&splitter->sentence);
    text_free(&splitter->folded);
    return status;
}

Status sentences_split(const char *bytes, size_t length, const StringList *abbreviations, StringList *out) {
    Splitter splitter = {.abbreviations = abbreviations, .out = out};
    return run_splitter(&splitter, bytes, length);
}

Status sentences_find_ends(const char *bytes, size_t length, const StringList *abbreviations, SentenceEnds *out) {
    Splitter splitter = {.abbreviations = abbreviations, .ends = out};
    return run_splitter(&splitter, bytes, length);
}

void sentence_ends_free(SentenceEnds *ends) {
    free(ends->items);
    *ends = (SentenceEnds){0};
}

bool sentence_is_question(const char *sentence) {
    size_t size, length = strlen(sentence);
    bool question = false;
    for (size_t i = 0; i < length; i += size) {
        uint32_t c = code_point_at(sentence, i, &size);
        if (is_question_mark(c))
            question = true;
        else if (!is_end_mark(c) && !is_full_width_end(c) && !is_closing(c))
            question = false;
    }
    return question;
}
