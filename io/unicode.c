#include "io/unicode.h"

#include "io/utf8.h"

#include <utf8proc.h>

#define CAPITAL_SIGMA    0x3A3u
#define SMALL_SIGMA      0x3C3u
#define FINAL_SIGMA      0x3C2u
#define I_WITH_DOT_ABOVE 0x130u

static uint32_t decode(const char *p, size_t *size) { return utf8_decode((const unsigned char *)p, size); }

bool unicode_is_alphanumeric(uint32_t c) {
    if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO &&
           (category <= UTF8PROC_CATEGORY_LO || category >= UTF8PROC_CATEGORY_ND); /* marks stand between them */
}

bool unicode_is_digit(uint32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9';
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND;
}

bool unicode_is_upper(uint32_t c) {
    if (c < 0x80) return c >= 'A' && c <= 'Z';
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LT;
}

bool unicode_is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* Case_Ignorable: the categories, and the characters of word break property MidLetter, MidNumLet or Single_Quote. */
static bool is_case_ignorable(uint32_t c) {
    static const uint32_t inside_words[] = {0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,  0x5F4,  0x2018, 0x2019,
                                            0x2024, 0x2027, 0xFE13, 0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
    for (size_t i = 0; i < sizeof inside_words / sizeof *inside_words; ++i)
        if (c == inside_words[i]) return true;
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_ME || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_LM || category == UTF8PROC_CATEGORY_SK;
}

static bool is_cased(uint32_t c) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT ||
           c == 0xAA || c == 0xBA || utf8proc_tolower((utf8proc_int32_t)c) != utf8proc_toupper((utf8proc_int32_t)c);
}

/* Condition Final_Sigma: behind a letter and before none, whatever marks stand between. */
static bool sigma_is_final(const char *bytes, size_t length, size_t at) {
    size_t size;
    bool behind_letter = false;
    for (size_t i = at; i > 0 && !behind_letter;) {
        do --i;
        while (i > 0 && ((unsigned char)bytes[i] & 0xC0) == 0x80);
        uint32_t c = decode(bytes + i, &size);
        if (is_case_ignorable(c)) continue;
        if (!is_cased(c)) return false;
        behind_letter = true;
    }
    if (!behind_letter) return false;
    for (size_t i = at + 2; i < length; i += size) { /* a sigma has two bytes */
        uint32_t c = decode(bytes + i, &size);
        if (!is_case_ignorable(c)) return !is_cased(c);
    }
    return true;
}

static Status append_lower_of(Text *out, const char *bytes, size_t length, size_t at, uint32_t c) {
    unsigned char encoded[4];
    if (c == I_WITH_DOT_ABOVE) return text_append(out, "i\xCC\x87", 3);
    if (c == CAPITAL_SIGMA)
        c = sigma_is_final(bytes, length, at) ? FINAL_SIGMA : SMALL_SIGMA;
    else
        c = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return text_append(out, (const char *)encoded, utf8_encode(c, encoded));
}

Status unicode_append_lower(Text *out, const char *bytes, size_t length) {
    size_t valid = utf8_valid_prefix(bytes, length), size;
    if (valid != length) INVALID("invalid UTF-8 at byte %zu", valid);
    TRY(text_reserve(out, out->length + length + 1));
    for (size_t i = 0; i < length; i += size) {
        uint32_t c = decode(bytes + i, &size);
        if (c < 0x80) {
            char lower = c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : (char)c;
            TRY(text_append(out, &lower, 1));
        } else {
            TRY(append_lower_of(out, bytes, length, i, c));
        }
    }
    return STATUS_OK;
}
