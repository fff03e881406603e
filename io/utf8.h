/* UTF-8 (RFC 3629): checking, reading and writing code points, repairing. */
#ifndef IO_UTF8_H
#define IO_UTF8_H

#include "io/buffer.h"

#include <stdint.h>

/* Length of the longest well-formed prefix: length itself when all is well formed, else the offset of the first sequence
 * that is not (overlong, surrogate, above U+10FFFF, truncated or stray byte). */
size_t utf8_valid_prefix(const char *bytes, size_t length);
/* Appends bytes with every maximal ill-formed part replaced by U+FFFD (Unicode 16.0, section 3.9, "substitution of maximal
 * subparts"), as Python and Rust do. */
Status utf8_append_repaired(Text *out, const char *bytes, size_t length);

/* The code point at p, which must be well formed; *size receives its bytes. */
static inline uint32_t utf8_decode(const unsigned char *p, size_t *size) {
    if (p[0] < 0x80) return *size = 1, p[0];
    if (p[0] < 0xE0) return *size = 2, (uint32_t)(p[0] & 0x1F) << 6 | (p[1] & 0x3F);
    if (p[0] < 0xF0) return *size = 3, (uint32_t)(p[0] & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
    *size = 4;
    return (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 | (p[3] & 0x3F);
}

/* Writes a code point (not a surrogate, at most U+10FFFF) to p, which holds 4 bytes; returns how many it took. */
static inline size_t utf8_encode(uint32_t code_point, unsigned char *p) {
    if (code_point < 0x80) return p[0] = (unsigned char)code_point, 1;
    if (code_point < 0x800) {
        p[0] = (unsigned char)(0xC0 | code_point >> 6);
        p[1] = (unsigned char)(0x80 | (code_point & 0x3F));
        return 2;
    }
    if (code_point < 0x10000) {
        p[0] = (unsigned char)(0xE0 | code_point >> 12);
        p[1] = (unsigned char)(0x80 | (code_point >> 6 & 0x3F));
        p[2] = (unsigned char)(0x80 | (code_point & 0x3F));
        return 3;
    }
    p[0] = (unsigned char)(0xF0 | code_point >> 18);
    p[1] = (unsigned char)(0x80 | (code_point >> 12 & 0x3F));
    p[2] = (unsigned char)(0x80 | (code_point >> 6 & 0x3F));
    p[3] = (unsigned char)(0x80 | (code_point & 0x3F));
    return 4;
}

#endif
