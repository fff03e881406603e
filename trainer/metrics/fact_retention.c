#define _GNU_SOURCE /* memmem */
#include "trainer/metrics/fact_retention.h"

#include "io/unicode.h"
#include "io/utf8.h"

#include <stdbool.h>
#include <string.h>

void fact_scratch_free(FactScratch *s) {
    text_free(&s->lower);
    text_free(&s->text);
    text_free(&s->fact);
}

static uint32_t decode(const char *p, size_t *size) { return utf8_decode((const unsigned char *)p, size); }

static bool is_digit(uint32_t c) { return c >= '0' && c <= '9'; }
static bool is_sign(uint32_t c) { return c == '%' || c == '$' || (c >= 0xA2 && c <= 0xA5) || (c >= 0x20A0 && c <= 0x20CF); }
/* Letters, digits, and what is written onto them: combining marks, zero-width joiners. */
static bool is_part_of_word(uint32_t c) {
    return unicode_is_alphanumeric(c) || (c >= 0x300 && c <= 0x36F) || c == 0x200C || c == 0x200D ||
           (c >= 0x900 && c <= 0x109F && !unicode_is_space(c)); /* vowel signs of the Indic scripts, Thai, Lao, Burmese */
}

/* Scripts whose words are not set apart by spaces. */
static bool is_unspaced(uint32_t c) {
    return (c >= 0xE00 && c <= 0xEFF) || (c >= 0x1000 && c <= 0x109F) || (c >= 0x1780 && c <= 0x17FF) ||
           (c >= 0x2E80 && c <= 0xA4CF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFF66 && c <= 0xFF9F) ||
           (c >= 0x20000 && c <= 0x3FFFF);
}

/* "." and "," between two characters: whether nothing is written for it, or it stays. */
static bool joins(uint32_t mark, uint32_t before, uint32_t after, bool *stays) {
    bool digits = is_digit(before) && is_digit(after);
    bool letters = unicode_is_alphanumeric(before) && !is_digit(before) && unicode_is_alphanumeric(after) && !is_digit(after);
    *stays = mark == '.' && digits;
    return (mark == ',' && digits) || (mark == '.' && (digits || letters));
}

/* Words with single spaces between, one before the first and one after the last. */
static Status normalize(Text *lower, MetricText text, Text *out) {
    uint32_t before = ' ';
    size_t next_size;
    text_clear(lower);
    text_clear(out);
    TRY(unicode_append_lower(lower, text.bytes, text.length));
    TRY(text_append(out, " ", 1));
    for (size_t i = 0, size; i < lower->length; i += size) {
        uint32_t c = decode(lower->data + i, &size);
        uint32_t after = i + size < lower->length ? decode(lower->data + i + size, &next_size) : ' ';
        bool stays = false, word = is_part_of_word(c), open = out->data[out->length - 1] != ' ';
        if (word || is_sign(c)) {
            if (is_sign(c) && open) TRY(text_append(out, " ", 1));
            TRY(text_append(out, lower->data + i, size));
            if (is_sign(c)) TRY(text_append(out, " ", 1));
        } else if (joins(c, before, after, &stays)) {
            if (stays) TRY(text_append(out, lower->data + i, size));
        } else if (open) {
            TRY(text_append(out, " ", 1));
        }
        before = c;
    }
    return out->data[out->length - 1] == ' ' ? STATUS_OK : text_append(out, " ", 1);
}

/* Whether a word may end between the two characters: at a space, or where either side's script has none. */
static bool is_boundary(const char *left_end, const char *right) {
    const char *left = left_end - 1;
    size_t size;
    while (((unsigned char)*left & 0xC0) == 0x80) --left;
    uint32_t a = decode(left, &size), b = decode(right, &size);
    return a == ' ' || b == ' ' || is_unspaced(a) || is_unspaced(b);
}

static bool contains(const Text *text, const char *fact, size_t length) {
    const char *end = text->data + text->length - 1; /* the last space stays behind every find */
    for (const char *from = text->data + 1; from < end; ++from) {
        from = memmem(from, (size_t)(end - from), fact, length);
        if (!from) return false;
        if (is_boundary(from, from) && is_boundary(from + length, from + length)) return true;
    }
    return false;
}

Status fact_retention(FactScratch *s, MetricText text, const MetricText *facts, int64_t count, double *fraction) {
    int64_t found = 0;
    TRY(normalize(&s->lower, text, &s->text));
    for (int64_t i = 0; i < count; ++i) {
        TRY(normalize(&s->lower, facts[i], &s->fact));
        if (s->fact.length < 3) INVALID("constraints[%lld] has neither letter nor digit: it cannot be looked for", (long long)i);
        found += contains(&s->text, s->fact.data + 1, s->fact.length - 2);
    }
    *fraction = (double)found / (double)count;
    return STATUS_OK;
}
