/* NFC (Unicode Standard Annex 15) with utf8proc's tables.
 *
 * Nearly all text is NFC already, so only the stretches around code points that could change are decomposed and composed
 * again; the rest is copied, or not touched at all. Marks are put in canonical order by counting, since a hostile text may
 * hold millions of them in one stretch. */
#include "io/tokenizer_internal.h"

#include "io/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* A canonical decomposition has at most 4 code points (Unicode Standard Annex 15, section 9). */
#define MAX_DECOMPOSITION 4

static bool is_plain(const Normalizer *n, uint32_t code_point) {
    return code_point < NORMALIZER_LIMIT && n->plain[code_point / 64] >> (code_point % 64) & 1;
}

static void clear_plain(Normalizer *n, uint32_t code_point) {
    if (code_point < NORMALIZER_LIMIT) n->plain[code_point / 64] &= ~((uint64_t)1 << (code_point % 64));
}

static size_t decompose(uint32_t code_point, int32_t out[MAX_DECOMPOSITION]) {
    int boundary = 0;
    utf8proc_ssize_t count = utf8proc_decompose_char((utf8proc_int32_t)code_point, out, MAX_DECOMPOSITION,
                                                     UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
    if (count >= 1 && count <= MAX_DECOMPOSITION) return (size_t)count;
    out[0] = (int32_t)code_point;
    return 1;
}

static uint8_t combining_class(int32_t code_point) { return (uint8_t)utf8proc_get_property(code_point)->combining_class; }

void normalizer_init(Normalizer *n) {
    memset(n->plain, 0xFF, sizeof n->plain);
    for (uint32_t c = 0xD800; c < 0xE000; ++c) clear_plain(n, c);
    for (uint32_t c = 0x1161; c < 0x1200; ++c) clear_plain(n, c); /* Hangul vowels and finals compose with what precedes */
    for (uint32_t c = 0x80; c < NORMALIZER_LIMIT; ++c) {
        if (c >= 0xAC00 && c < 0xE000) continue; /* Hangul syllables: composed by arithmetic, always plain */
        int32_t parts[MAX_DECOMPOSITION];
        size_t count = decompose(c, parts);
        if (combining_class((int32_t)c)) clear_plain(n, c);
        if (count == 1 && parts[0] == (int32_t)c) continue;
        for (size_t i = 1; i < count; ++i) clear_plain(n, (uint32_t)parts[i]);
        utf8proc_ssize_t composed = utf8proc_normalize_utf32(parts, (utf8proc_ssize_t)count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (composed != 1 || parts[0] != (int32_t)c) clear_plain(n, c);
    }
}

/* Offset of the first code point at or after start that is not plain, or length; *before receives the offset of the code
 * point in front of it (of the result itself when nothing is in front). */
static size_t find_not_plain(const Normalizer *n, const unsigned char *text, size_t length, size_t start, size_t *before) {
    size_t i = start, size;
    *before = start;
    while (i < length) {
        uint64_t word;
        if (length - i >= 8 && (memcpy(&word, text + i, 8), !(word & 0x8080808080808080u))) {
            *before = i + 7;
            i += 8;
            continue;
        }
        if (!is_plain(n, utf8_decode(text + i, &size))) return i;
        *before = i;
        i += size;
    }
    return length;
}

static size_t find_plain(const Normalizer *n, const unsigned char *text, size_t length, size_t start) {
    size_t i = start, size;
    while (i < length && !is_plain(n, utf8_decode(text + i, &size))) i += size;
    return i;
}

static Status reserve_code_points(int32_t **array, size_t *capacity, size_t needed) {
    if (needed <= *capacity) return STATUS_OK;
    size_t grown = needed + needed / 2 > 256 ? needed + needed / 2 : 256;
    int32_t *memory;
    TRY_ALLOC(memory = realloc(*array, grown * sizeof *memory));
    *array = memory;
    *capacity = grown;
    return STATUS_OK;
}

/* Sorts a run of marks by combining class, stably. */
static Status sort_marks(NormalizerScratch *scratch, int32_t *marks, size_t count) {
    bool sorted = true;
    for (size_t i = 1; i < count && sorted; ++i) sorted = combining_class(marks[i - 1]) <= combining_class(marks[i]);
    if (sorted) return STATUS_OK;
    TRY(reserve_code_points(&scratch->sorted, &scratch->sorted_capacity, count));
    size_t place[257] = {0};
    for (size_t i = 0; i < count; ++i) ++place[combining_class(marks[i]) + 1];
    for (size_t c = 1; c < 257; ++c) place[c] += place[c - 1];
    for (size_t i = 0; i < count; ++i) scratch->sorted[place[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, scratch->sorted, count * sizeof *marks);
    return STATUS_OK;
}

/* NFC of one stretch into scratch->segment. */
static Status normalize_segment(NormalizerScratch *scratch, const unsigned char *text, size_t length) {
    /* Only the first code point can be a single byte: a stretch is one plain code point and then others. */
    TRY(reserve_code_points(&scratch->code_points, &scratch->capacity, (length / 2 + 1) * MAX_DECOMPOSITION));
    int32_t *code_points = scratch->code_points;
    size_t count = 0, size;
    for (size_t i = 0; i < length; i += size) count += decompose(utf8_decode(text + i, &size), code_points + count);
    for (size_t i = 0, end; i < count; i = end) {
        end = i + 1;
        if (!combining_class(code_points[i])) continue;
        while (end < count && combining_class(code_points[end])) ++end;
        TRY(sort_marks(scratch, code_points + i, end - i));
    }
    utf8proc_ssize_t composed =
        utf8proc_normalize_utf32(code_points, (utf8proc_ssize_t)count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (composed < 0) FAIL("utf8proc: %s", utf8proc_errmsg(composed));
    text_clear(&scratch->segment);
    TRY(text_reserve(&scratch->segment, (size_t)composed * 4));
    unsigned char *out = (unsigned char *)scratch->segment.data;
    for (utf8proc_ssize_t i = 0; i < composed; ++i) out += utf8_encode((uint32_t)code_points[i], out);
    scratch->segment.length = (size_t)((char *)out - scratch->segment.data);
    return STATUS_OK;
}

Status normalizer_run(const Normalizer *n, NormalizerScratch *scratch, const char **text, size_t *length) {
    const unsigned char *bytes = (const unsigned char *)*text;
    size_t copied = 0; /* input up to here stands in scratch->text, when anything changed */
    bool changed = false;
    for (size_t at = 0, start, end; at < *length; at = end) {
        size_t not_plain = find_not_plain(n, bytes, *length, at, &start);
        if (not_plain == *length) break;
        end = find_plain(n, bytes, *length, not_plain);
        TRY(normalize_segment(scratch, bytes + start, end - start));
        if (scratch->segment.length == end - start && !memcmp(scratch->segment.data, bytes + start, end - start)) continue;
        if (!changed) text_clear(&scratch->text);
        changed = true;
        TRY(text_append(&scratch->text, *text + copied, start - copied));
        TRY(text_append(&scratch->text, scratch->segment.data, scratch->segment.length));
        copied = end;
    }
    if (!changed) return STATUS_OK;
    TRY(text_append(&scratch->text, *text + copied, *length - copied));
    *text = scratch->text.data;
    *length = scratch->text.length;
    return STATUS_OK;
}

void normalizer_scratch_free(NormalizerScratch *scratch) {
    free(scratch->code_points);
    free(scratch->sorted);
    text_free(&scratch->segment);
    text_free(&scratch->text);
    *scratch = (NormalizerScratch){0};
}
