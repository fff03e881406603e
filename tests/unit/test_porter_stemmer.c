/* The stemmer against NLTK's on 20,000 words (tests/data/metrics). */
#include "trainer/metrics/porter_stemmer.h"

#include "io/json_lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void assert_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

static void test_nltk_words(void **state) {
    (void)state;
    JsonLines *reader;
    const char *line;
    size_t length;
    int count = 0;
    assert_ok(json_lines_open(TEST_DATA "/metrics/porter.txt.gz", &reader));
    for (;; ++count) {
        char word[128], expected[128], stem[128];
        assert_ok(json_lines_next(reader, &line, &length));
        if (!line) break;
        assert_int_equal(sscanf(line, "%127s %127s", word, expected), 2);
        strcpy(stem, word);
        stem[porter_stem(stem, strlen(stem))] = 0;
        if (strcmp(stem, expected)) fail_msg("%s becomes %s, expected %s", word, stem, expected);
    }
    json_lines_close(reader);
    assert_int_equal(count, 20000);
}

/* A hostile "word" must neither take quadratic time nor leave its memory. */
static void test_long_words(void **state) {
    (void)state;
    static const char *const parts[] = {"y", "ay", "ing", "ational", "s", "eed"};
    size_t length = 4 << 20;
    char *word = malloc(length);
    assert_non_null(word);
    for (size_t p = 0; p < sizeof parts / sizeof *parts; ++p) {
        size_t part = strlen(parts[p]);
        for (size_t i = 0; i < length; ++i) word[i] = parts[p][i % part];
        assert_true(porter_stem(word, length) <= length);
    }
    free(word);
}

static void test_short_words_stay(void **state) {
    (void)state;
    static const char *const words[] = {"", "s", "y", "is", "ed", "99"};
    for (size_t i = 0; i < sizeof words / sizeof *words; ++i) {
        char word[4];
        strcpy(word, words[i]);
        assert_int_equal(porter_stem(word, strlen(word)), strlen(words[i]));
        assert_string_equal(word, words[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nltk_words),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_short_words_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
