/* What scoring needs to know of Unicode characters, as Python's str has it: lower case, letters and digits, white space. */
#ifndef IO_UNICODE_H
#define IO_UNICODE_H

#include "io/buffer.h"

#include <stdbool.h>
#include <stdint.h>

/* Appends the text in lower case by the full mapping of the Unicode Standard (section 3.13), as str.lower(): U+0130 becomes
 * two code points, a capital sigma at the end of a word its final form. Invalid UTF-8 is STATUS_INVALID with the offset. */
Status unicode_append_lower(Text *out, const char *bytes, size_t length);
/* str.isalnum(): a letter or a number (general category L* or N*). */
bool unicode_is_alphanumeric(uint32_t code_point);
/* A decimal digit (general category Nd); an upper-case or title-case letter (Lu, Lt). */
bool unicode_is_digit(uint32_t code_point);
bool unicode_is_upper(uint32_t code_point);
/* str.isspace(), which is where str.split() cuts. */
bool unicode_is_space(uint32_t code_point);

#endif
