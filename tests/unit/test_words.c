/* Words, overlap and sentences against hand-made expectations, and properties over random text. */
#include "io/random.h"
#include "io/utf8.h"
#include "io/words.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void folding(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"", ""},
        {" ... ", ""},
        {"Where is it?", " where is it "},
        {"Let's, don\xe2\x80\x99t 'quote' rock'", " lets dont quote rock "},
        {"#Person1#: $1,200 caf\xc3\x89", " person1 1 200 caf\xc3\xa9 "},
        {"\xd0\x9f\xd0\xa0\xd0\x98\xd0\x92\xd0\x95\xd0\xa2 x", " \xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 x "},
        {"\xe6\x9d\xb1\xe4\xba\xac"
         "abc\xe3\x81\xae",
         " \xe6\x9d\xb1 \xe4\xba\xac abc \xe3\x81\xae "},
    };
    Text out = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        assert_null(words_fold(rows[i][0], strlen(rows[i][0]), &out));
        assert_string_equal(out.data, rows[i][1]);
    }
    text_free(&out);
}

static void overlap(void **state) {
    (void)state;
    assert_float_equal(folded_overlap(" where is the hotel ", " the hotel costs ", " where is the "), 1.0, 0);
    assert_float_equal(folded_overlap(" hotel price in paris ", " the price of paris ", " in "), 2.0 / 3, 1e-15);
    assert_float_equal(folded_overlap(" hotel hotel x ", " hotel ", ""), 0.5, 0);
    assert_float_equal(folded_overlap(" why is it ", " why ", " why is it "), 1.0 / 3, 1e-15); /* nothing but stop words */
    assert_float_equal(folded_overlap("", " a ", ""), 0, 0);
    assert_float_equal(folded_overlap(" a ", "", ""), 0, 0);
    assert_float_equal(folded_overlap(" hot ", " hotel ", ""), 0, 0);
}

static void squeezing(void **state) {
    (void)state;
    Text out = {0};
    const char nul[] = " a\0b\t\xc2\xa0 c\n";
    assert_null(words_squeeze(nul, sizeof nul - 1, 0, &out));
    assert_string_equal(out.data, "a b c");
    assert_null(words_squeeze("one two  three four", 19, 2, &out));
    assert_string_equal(out.data, "one two");
    assert_null(words_squeeze("  ", 2, 2, &out));
    assert_string_equal(out.data, "");
    text_free(&out);
}

static void sentences(void **state) {
    (void)state;
    static const struct {
        const char *text, *sentences[6];
    } rows[] = {
        {"One.  Two!\nThree", {"One.", "Two!", "Three"}},
        {"Dr. Smith paid 3.50, e.g. cash. Fine.", {"Dr. Smith paid 3.50, e.g. cash.", "Fine."}},
        {"J. Doe and I. Then we left.", {"J. Doe and I.", "Then we left."}},
        {"1. Buy milk. 2. Go.", {"1. Buy milk.", "2. Go."}},
        {"\"Really?!\" he said. (Yes.) No...", {"\"Really?!\"", "he said.", "(Yes.)", "No..."}},
        {"a\xe3\x80\x82"
         "b\xef\xbc\x9f"
         "c",
         {"a\xe3\x80\x82", "b\xef\xbc\x9f", "c"}},
        {"... !? \n - \n", {NULL}},
        {"see www.example.com/a?b=c now", {"see www.example.com/a?b=c now"}},
    };
    StringList abbreviations = {0}, out = {0};
    assert_null(string_list_append(&abbreviations, " dr ", 4));
    assert_null(string_list_append(&abbreviations, " e g ", 5));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        string_list_clear(&out);
        assert_null(sentences_split(rows[i].text, strlen(rows[i].text), &abbreviations, &out));
        for (size_t k = 0; k < out.count; ++k) {
            if (!rows[i].sentences[k]) fail_msg("row %zu has too much: %s", i, out.items[k]);
            assert_string_equal(out.items[k], rows[i].sentences[k]);
        }
        assert_null(rows[i].sentences[out.count]);
    }
    string_list_free(&out);
    string_list_free(&abbreviations);
}

static void questions(void **state) {
    (void)state;
    static const char *const yes[] = {"a?", "a?!", "\"a?\"", "\xe4\xba\xac\xef\xbc\x9f", "a?)"};
    static const char *const no[] = {"a.", "a?b", "Why? he said", "", "a!"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; ++i) assert_true(sentence_is_question(yes[i]));
    for (size_t i = 0; i < sizeof no / sizeof *no; ++i) assert_false(sentence_is_question(no[i]));
}

static size_t without_blanks(const char *text, size_t length, char *out) {
    size_t count = 0;
    for (size_t i = 0; i < length; ++i)
        if (text[i] != ' ' && text[i] != '\n' && text[i] != '\t') out[count++] = text[i];
    out[count] = 0;
    return count;
}

/* Random text of marks, blanks and letters of several scripts. */
static void random_text_keeps_its_letters(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "a",  "Be", " ",   "\n", ".", "?", "!", "'", "\"", "3", "\xc3\x89", "\xe6\x9d\xb1", "\xe3\x80\x82", "\xe2\x80\xa6",
        "\t", "I",  "e.g", ")"};
    RandomStream random = random_stream(7, 1);
    Text text = {0}, folded = {0}, again = {0}, all = {0};
    StringList none = {0}, out = {0};
    for (int round = 0; round < 3000; ++round) {
        text_clear(&text);
        text_clear(&all);
        assert_null(text_append(&text, "", 0));
        for (uint64_t n = random_below(&random, 40); n > 0; --n)
            assert_null(text_append_string(&text, pieces[random_below(&random, sizeof pieces / sizeof *pieces)]));
        string_list_clear(&out);
        assert_null(sentences_split(text.data, text.length, &none, &out));
        for (size_t i = 0; i < out.count; ++i) { /* a sentence is in squeezed form and has a word */
            assert_null(words_squeeze(out.items[i], strlen(out.items[i]), 0, &again));
            assert_string_equal(again.data, out.items[i]);
            assert_null(words_fold(out.items[i], strlen(out.items[i]), &folded));
            assert_true(folded.length >= 3 && folded.data[0] == ' ' && folded.data[folded.length - 1] == ' ');
            assert_int_equal(utf8_valid_prefix(folded.data, folded.length), folded.length);
            assert_null(text_append_string(&all, out.items[i]));
        }
        /* No letter is lost or made: with marks removed both are the same. */
        char *left = malloc(text.length + 1), *right = malloc(all.length + 1);
        assert_non_null(left);
        assert_non_null(right);
        size_t have = without_blanks(all.data ? all.data : "", all.length, right),
               had = without_blanks(text.data, text.length, left);
        assert_true(have <= had);
        size_t at = 0;
        for (size_t i = 0; i < had; ++i) {
            if (at < have && left[i] == right[at])
                ++at;
            else
                assert_false((left[i] >= 'a' && left[i] <= 'z') || (left[i] >= '0' && left[i] <= '9'));
        }
        assert_int_equal(at, have);
        free(left);
        free(right);
        /* Folding is idempotent. */
        assert_null(words_fold(text.data, text.length, &folded));
        assert_null(words_fold(folded.data, folded.length, &again));
        assert_string_equal(again.data, folded.data);
    }
    text_free(&text);
    text_free(&folded);
    text_free(&again);
    text_free(&all);
    string_list_free(&out);
}

static void lists(void **state) {
    (void)state;
    StringList list = {0};
    for (int i = 0; i < 20; ++i) assert_null(string_list_append(&list, "abcdefghijklmnopqrst" + i, 1));
    string_list_remove(&list, 0);
    string_list_remove(&list, 18);
    string_list_remove(&list, 5);
    assert_int_equal(list.count, 17);
    assert_string_equal(list.items[0], "b");
    assert_string_equal(list.items[4], "f");
    assert_string_equal(list.items[5], "h");
    assert_string_equal(list.items[16], "s");
    string_list_free(&list);
    assert_int_equal(list.count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folding),   cmocka_unit_test(overlap),   cmocka_unit_test(squeezing),
        cmocka_unit_test(sentences), cmocka_unit_test(questions), cmocka_unit_test(random_text_keeps_its_letters),
        cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
