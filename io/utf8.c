#include "io/utf8.h"

#include <stdbool.h>
#include <string.h>

/* Bytes of the well-formed sequence at p, or 0; *bad then receives the bytes of the maximal ill-formed part (Unicode 16.0,
 * table 3-7: only the second byte's range depends on the first). */
static size_t sequence_length(const unsigned char *p, const unsigned char *end, size_t *bad) {
    *bad = 1;
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    if (length < 2) return length;
    unsigned char low = p[0] == 0xE0 ? 0xA0 : p[0] == 0xF0 ? 0x90 : 0x80, high = p[0] == 0xED ? 0x9F : p[0] == 0xF4 ? 0x8F : 0xBF;
    for (size_t i = 1; i < length; ++i) {
        if (p + i == end || p[i] < low || p[i] > high) return *bad = i, 0;
        low = 0x80, high = 0xBF;
    }
    return length;
}

static bool eight_ascii(const unsigned char *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return !(word & 0x8080808080808080u);
}

size_t utf8_valid_prefix(const char *bytes, size_t length) {
    const unsigned char *begin = (const unsigned char *)bytes, *p = begin, *end = begin + length;
    while (p < end) {
        while (end - p >= 8 && eight_ascii(p)) p += 8;
        if (p == end) break;
        size_t bad, size = sequence_length(p, end, &bad);
        if (!size) break;
        p += size;
    }
    return (size_t)(p - begin);
}

Status utf8_append_repaired(Text *out, const char *bytes, size_t length) {
    for (size_t start = 0; start < length;) {
        size_t good = utf8_valid_prefix(bytes + start, length - start), bad;
        TRY(text_append(out, bytes + start, good));
        start += good;
        if (start == length) break;
        sequence_length((const unsigned char *)bytes + start, (const unsigned char *)bytes + length, &bad);
        TRY(text_append(out, "\xEF\xBF\xBD", 3));
        start += bad;
    }
    return STATUS_OK;
}
