/* Cutting text into pieces with the pre-tokenizer's regular expression, run by PCRE2.
 *
 * Hugging Face runs the pattern with Oniguruma. Two differences matter and are levelled when the pattern is translated:
 * PCRE2's \s takes U+180E, which is no white space since Unicode 6.3; and an older PCRE2 (10.42 knows Unicode 14) lacks the
 * letters and numbers of Unicode 15 and 16. Escapes whose meaning differs otherwise are refused. */
#include "io/tokenizer_internal.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

const char qwen2_pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                             "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* General category L and N of Unicode 16 less Unicode 14. */
static const char new_letters[] =
    "\\x{1C89}\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{105F3}\\x{10D4A}-\\x{10D65}\\x{10D6F}-\\x{10D85}"
    "\\x{10EC2}-\\x{10EC4}\\x{1123F}\\x{11240}\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}\\x{11390}-\\x{113B5}\\x{113B7}"
    "\\x{113D1}\\x{113D3}\\x{11BC0}-\\x{11BE0}\\x{11F02}\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}\\x{1342F}"
    "\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}\\x{16D40}-\\x{16D6C}\\x{18CFF}\\x{1B132}\\x{1B155}"
    "\\x{1DF25}-\\x{1DF2A}\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{2B739}"
    "\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}";
static const char new_numbers[] =
    "\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}\\x{11F50}-\\x{11F59}\\x{16130}-\\x{16139}"
    "\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}\\x{1D2C0}-\\x{1D2D3}\\x{1E4F0}-\\x{1E4F9}\\x{1E5F1}-\\x{1E5FA}";
/* White_Space of Unicode 16. */
static const char white_space[] = "\\x{09}-\\x{0D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"
                                  "\\x{205F}\\x{3000}";

typedef struct Escape {
    const char *written, *members; /* members: what stands between [ and ] */
    bool negated;
} Escape;

/* Longer spellings first. \p{L} itself is kept: the library may know more letters than this file. */
static const Escape escapes[] = {{"\\s", white_space, false},   {"\\S", white_space, true},     {"\\p{L}", new_letters, false},
                                 {"\\P{L}", new_letters, true}, {"\\p{N}", new_numbers, false}, {"\\P{N}", new_numbers, true},
                                 {"\\p{", NULL, false},         {"\\P{", NULL, false},          {"\\r", NULL, false},
                                 {"\\n", NULL, false},          {"\\t", NULL, false},           {"\\f", NULL, false},
                                 {"\\d", NULL, false},          {"\\D", NULL, false},           {"\\x{", NULL, false}};

static const Escape *find_escape(const char *p) {
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; ++i)
        if (!strncmp(p, escapes[i].written, strlen(escapes[i].written))) return &escapes[i];
    return NULL;
}

static Status append_escape(Text *out, const Escape *escape, bool in_class) {
    bool property = escape->written[1] == 'p' || escape->written[1] == 'P';
    if (!escape->members) return text_append_string(out, escape->written);
    if (escape->negated && in_class) INVALID("pre-tokenizer pattern: %s inside [ ] is not supported", escape->written);
    if (!in_class) TRY(text_append_string(out, escape->negated ? "[^" : "["));
    if (property) TRY(text_append_format(out, "\\p%s", escape->written + 2));
    TRY(text_append_string(out, escape->members));
    return in_class ? STATUS_OK : text_append(out, "]", 1);
}

/* Refuses what is spelled alike but read differently: nested classes and intersections, anchors (of lines in Oniguruma),
 * groups with flags other than i. */
static Status check_plain(const char *pattern, const char *p, bool in_class) {
    static const char *const groups[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    bool known = !(in_class ? *p == '[' || !strncmp(p, "&&", 2) : *p == '^' || *p == '$' || !strncmp(p, "(?", 2));
    for (size_t i = 0; i < sizeof groups / sizeof *groups && !in_class && !known; ++i)
        known = !strncmp(p, groups[i], strlen(groups[i]));
    if (!known) INVALID("pre-tokenizer pattern: \"%.4s\" is not supported here: %s", p, pattern);
    return STATUS_OK;
}

/* The pattern with its escapes spelled so that PCRE2 agrees with Oniguruma. */
static Status translate(const char *pattern, Text *out) {
    bool in_class = false;
    for (const char *p = pattern; *p;) {
        if (*p != '\\') {
            TRY(check_plain(pattern, p, in_class));
            size_t size = *p == '[' && p[1] == '^' ? 2 : 1;
            if (*p == '[' || *p == ']') in_class = *p == '[';
            TRY(text_append(out, p, size));
            p += size;
            continue;
        }
        const Escape *escape = find_escape(p);
        bool letter = (p[1] >= '0' && p[1] <= '9') || (p[1] >= 'A' && p[1] <= 'Z') || (p[1] >= 'a' && p[1] <= 'z');
        if (!p[1] || (!escape && letter)) INVALID("pre-tokenizer pattern: escape \\%c is not supported: %s", p[1], pattern);
        if (escape)
            TRY(append_escape(out, escape, in_class));
        else
            TRY(text_append(out, p, 2));
        p += escape ? strlen(escape->written) : 2;
    }
    return STATUS_OK;
}

static Status compile(Splitter *splitter, const char *translated) {
    int error;
    PCRE2_SIZE offset;
    PCRE2_UCHAR message[256];
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK,
                                     &error, &offset, NULL);
    if (!code) {
        pcre2_get_error_message(error, message, sizeof message);
        INVALID("pre-tokenizer pattern: %s: %s", (char *)message, splitter->pattern);
    }
    splitter->code = code;
    splitter->jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0; /* without it the interpreter gives the same */
    return STATUS_OK;
}

Status splitter_init(Splitter *splitter, const char *pattern) {
    Text translated = {0};
    TRY_ALLOC(splitter->pattern = strdup(pattern));
    splitter->is_qwen2 = !strcmp(pattern, qwen2_pattern);
    Status status = translate(pattern, &translated);
    if (!status) status = compile(splitter, translated.data ? translated.data : "");
    text_free(&translated);
    return status;
}

void splitter_free(Splitter *splitter) {
    pcre2_code_free(splitter->code);
    free(splitter->pattern);
    *splitter = (Splitter){0};
}

Status splitter_scratch_init(const Splitter *splitter, SplitterScratch *scratch) {
    TRY_ALLOC(scratch->match = pcre2_match_data_create_from_pattern(splitter->code, NULL));
    TRY_ALLOC(scratch->context = pcre2_match_context_create(NULL));
    if (!splitter->jit) return STATUS_OK;
    TRY_ALLOC(scratch->stack = pcre2_jit_stack_create(32 << 10, 8 << 20, NULL));
    pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
    return STATUS_OK;
}

void splitter_scratch_free(SplitterScratch *scratch) {
    pcre2_match_data_free(scratch->match);
    pcre2_match_context_free(scratch->context);
    pcre2_jit_stack_free(scratch->stack);
    *scratch = (SplitterScratch){0};
}

Status splitter_next_pcre2(const Splitter *splitter, SplitterScratch *scratch, const char *text, size_t length, size_t start,
                           size_t *end) {
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    uint32_t options = PCRE2_NOTEMPTY;
    int result =
        splitter->jit
            ? pcre2_jit_match(splitter->code, subject, length, start, options, scratch->match, scratch->context)
            : pcre2_match(splitter->code, subject, length, start, options | PCRE2_NO_UTF_CHECK, scratch->match, scratch->context);
    *end = length;
    if (result == PCRE2_ERROR_NOMATCH) return STATUS_OK;
    if (result < 0) {
        PCRE2_UCHAR message[256];
        pcre2_get_error_message(result, message, sizeof message);
        FAIL("pre-tokenizer pattern at byte %zu of the text: %s", start, (char *)message);
    }
    const PCRE2_SIZE *match = pcre2_get_ovector_pointer(scratch->match);
    *end = match[0] > start ? match[0] : match[1];
    return STATUS_OK;
}

/* --- qwen2_pattern on ASCII, by hand --- */

enum { LETTER = 1, NUMBER = 2, SPACE = 4, LINE_END = 8, OTHER = 16, WIDE = 32 };

#define O   OTHER
#define S   SPACE
#define E   (SPACE | LINE_END)
#define N   NUMBER
#define L   LETTER
#define W   WIDE
#define W16 W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W
static const uint8_t byte_class[256] = {
    O,   O,   O,   O,   O,   O,   O,   O,  O, S, E, S, S, E, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, /* 00 */
    S,   O,   O,   O,   O,   O,   O,   O,  O, O, O, O, O, O, O, O, N, N, N, N, N, N, N, N, N, N, O, O, O, O, O, O, /* 20 */
    O,   L,   L,   L,   L,   L,   L,   L,  L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, /* 40 */
    O,   L,   L,   L,   L,   L,   L,   L,  L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, /* 60 */
    W16, W16, W16, W16, W16, W16, W16, W16};
#undef O
#undef S
#undef E
#undef N
#undef L
#undef W
#undef W16

static const unsigned char *skip(const unsigned char *p, const unsigned char *end, int classes) {
    while (p < end && byte_class[*p] & classes) ++p;
    return p;
}

/* Bytes of an English contraction after the apostrophe at p: 0, 1 or 2; -1 when a wide character decides (U+017F is a small
 * letter s to a pattern that ignores case). */
static int contraction(const unsigned char *p, const unsigned char *end) {
    if (end - p < 2) return 0;
    if (byte_class[p[1]] == WIDE) return -1;
    int a = p[1] | 0x20, b = end - p > 2 ? p[2] | 0x20 : 0;
    if (byte_class[p[1]] != LETTER) return 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 1;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 2 : 0;
}

/* White space from p on: \s*[\r\n]+ up to the last line end in it, else \s+(?!\S) without the last of several before
 * something, else \s+. NULL when a wide character follows, which might be white space. */
static const unsigned char *space_end(const unsigned char *p, const unsigned char *end) {
    const unsigned char *stop = skip(p, end, SPACE);
    if (stop < end && byte_class[*stop] == WIDE) return NULL;
    for (const unsigned char *q = stop; q > p; --q)
        if (byte_class[q[-1]] & LINE_END) return q;
    return stop == end || stop == p + 1 ? stop : stop - 1;
}

/* The end of the match at p, or NULL when a wide character takes part in the decision. */
static const unsigned char *qwen2_match(const unsigned char *p, const unsigned char *end) {
    int class_ = byte_class[*p], next = p + 1 < end ? byte_class[p[1]] : 0;
    if (class_ == WIDE) return NULL;
    if (class_ == NUMBER) return p + 1;
    if (*p == '\'') {
        int size = contraction(p, end);
        if (size) return size < 0 ? NULL : p + 1 + size;
    }
    const unsigned char *stop;
    if (class_ == LETTER || (!(class_ & LINE_END) && next == LETTER)) {
        stop = skip(p + 1, end, LETTER);
        return stop < end && byte_class[*stop] == WIDE ? NULL : stop;
    }
    if (next == WIDE) return NULL;
    if (class_ == OTHER || (*p == ' ' && next == OTHER)) {
        stop = skip(p + 1, end, OTHER);
        if (stop < end && byte_class[*stop] == WIDE) return NULL;
        return skip(stop, end, LINE_END);
    }
    return space_end(p, end);
}

Status splitter_next(const Splitter *splitter, SplitterScratch *scratch, const char *text, size_t length, size_t start,
                     size_t *end) {
    if (splitter->is_qwen2) {
        const unsigned char *begin = (const unsigned char *)text, *stop = qwen2_match(begin + start, begin + length);
        if (stop) return *end = (size_t)(stop - begin), STATUS_OK;
    }
    return splitter_next_pcre2(splitter, scratch, text, length, start, end);
}
