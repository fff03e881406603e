/* Regular expressions over tensor and module names (PCRE2 syntax, which covers what PEFT users write in Python's). */
#ifndef IO_PATTERN_H
#define IO_PATTERN_H

#include "io/status.h"

#include <stdbool.h>

typedef struct Pattern Pattern;

typedef enum PatternRule {
    PATTERN_SEARCH, /* matches anywhere in the name: re.search */
    PATTERN_SUFFIX, /* PEFT's rule for rank_pattern: (.*\.)?(PATTERN)$ from the start of the name */
} PatternRule;

/* key: the configuration key, for the message of a malformed expression (STATUS_INVALID). */
Status pattern_compile(const char *expression, PatternRule rule, const char *key, Pattern **out);
bool pattern_matches(const Pattern *pattern, const char *name);
void pattern_free(Pattern *pattern);

#endif
