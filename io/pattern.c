#define PCRE2_CODE_UNIT_WIDTH 8
#include "io/pattern.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct Pattern {
    pcre2_code *code;
    pcre2_match_data *match;
};

Status pattern_compile(const char *expression, PatternRule rule, const char *key, Pattern **out) {
    size_t size = strlen(expression) + 16;
    char *text;
    TRY_ALLOC(text = malloc(size));
    snprintf(text, size, rule == PATTERN_SUFFIX ? "^(?:.*\\.)?(?:%s)$" : "%s", expression);
    int error;
    PCRE2_SIZE offset;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0, &error, &offset, NULL);
    free(text);
    if (!code) {
        PCRE2_UCHAR reason[128];
        pcre2_get_error_message(error, reason, sizeof reason);
        INVALID("%s: \"%s\" is not a valid regular expression: %s", key, expression, (const char *)reason);
    }
    Pattern *pattern = malloc(sizeof *pattern);
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(code, NULL);
    if (!pattern || !match) {
        free(pattern);
        pcre2_match_data_free(match);
        pcre2_code_free(code);
        FAIL("out of memory: pattern \"%s\"", expression);
    }
    *pattern = (Pattern){code, match};
    *out = pattern;
    return STATUS_OK;
}

bool pattern_matches(const Pattern *pattern, const char *name) {
    return pcre2_match(pattern->code, (PCRE2_SPTR)name, strlen(name), 0, 0, pattern->match, NULL) >= 0;
}

void pattern_free(Pattern *pattern) {
    if (!pattern) return;
    pcre2_match_data_free(pattern->match);
    pcre2_code_free(pattern->code);
    free(pattern);
}
