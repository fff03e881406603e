/* F1 and exact match on 1,000 pairs (tests/data/metrics), normalisation, Unicode, and fact retention. */
#include "trainer/metrics/answer.h"

#include "io/json_lines.h"
#include "io/unicode.h"
#include "trainer/metrics/fact_retention.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#define MAX_REFERENCES 8

static void assert_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

static void assert_invalid(Status status, const char *word) {
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    if (!strstr(status_message(status), word)) fail_msg("\"%s\" lacks \"%s\"", status_message(status), word);
    status_free(status);
}

static MetricText from(const char *string) { return (MetricText){string, strlen(string)}; }

static MetricText text_of(const JsonValue *string) {
    MetricText text;
    assert_non_null(text.bytes = json_value_string(string, &text.length));
    return text;
}

static void test_golden_pairs(void **state) {
    (void)state;
    JsonLines *reader;
    JsonValue *line;
    AnswerScratch scratch = {0};
    int count = 0;
    assert_ok(json_lines_open(TEST_DATA "/metrics/answers.jsonl.gz", &reader));
    for (;; ++count) {
        MetricText references[MAX_REFERENCES];
        double f1, exact_match, expected_f1, expected_match;
        assert_ok(json_lines_next_object(reader, &line));
        if (!line) break;
        const JsonValue *list = json_value_get(line, "references");
        assert_in_range(json_value_size(list), 1, MAX_REFERENCES);
        for (size_t i = 0; i < json_value_size(list); ++i) references[i] = text_of(json_value_at(list, i));
        assert_ok(json_value_get_number(line, "f1", &expected_f1));
        assert_ok(json_value_get_number(line, "em", &expected_match));
        assert_ok(answer_score(&scratch, text_of(json_value_get(line, "prediction")), references, (int64_t)json_value_size(list),
                               &f1, &exact_match));
        if (f1 != expected_f1 || exact_match != expected_match)
            fail_msg("line %d: f1 %.17g em %g, expected %.17g %g", count + 1, f1, exact_match, expected_f1, expected_match);
        json_value_free(line);
    }
    json_lines_close(reader);
    answer_scratch_free(&scratch);
    assert_int_equal(count, 1000);
}

static void test_questions_without_answer(void **state) {
    (void)state;
    static const struct {
        const char *prediction, *references[2];
        double score;
    } rows[] = {{"", {"", ""}, 1},
                {"the", {"", ""}, 1},
                {"cat", {"", "the"}, 0},
                {"", {"cat", ""}, 0}, /* the empty one is left out */
                {"a cat!", {"", "The cat"}, 1}};
    AnswerScratch scratch = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        MetricText references[] = {from(rows[i].references[0]), from(rows[i].references[1])};
        double f1, exact_match;
        assert_ok(answer_score(&scratch, from(rows[i].prediction), references, 2, &f1, &exact_match));
        assert_true(f1 == rows[i].score && exact_match == rows[i].score);
    }
    answer_scratch_free(&scratch);
}

static void test_normalisation(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"The  Cat's (an) hat!", "cats hat"},
        {"a\xCC\x81", "\xCC\x81"},                                                /* a mark is no part of the word */
        {"the\xE2\x80\x93the", "\xE2\x80\x93"},                                   /* an en dash is no ASCII punctuation */
        {"x\xC2\xA0y\xE3\x80\x80z", "x y z"},                                     /* white space beyond ASCII */
        {"\xCE\x9F\xCE\x94\xCE\x9F\xCE\xA3", "\xCE\xBF\xCE\xB4\xCE\xBF\xCF\x82"}, /* final sigma */
        {"\xC4\xB0", "i\xCC\x87"},
        {"a_b theatre an-a", "ab theatre ana"},
    };
    Text lower = {0}, out = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        text_clear(&out);
        assert_ok(answer_normalize(&lower, from(rows[i][0]), &out));
        assert_string_equal(out.data, rows[i][1]);
    }
    assert_invalid(answer_normalize(&lower, from("ab\xFF"), &out), "byte 2");
    text_free(&lower);
    text_free(&out);
}

static void test_lower_case(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"\xCE\xA3", "\xCF\x83"},     /* a sigma alone is not final */
        {"A\xCE\xA3.", "a\xCF\x82."}, /* "." is ignored when looking for letters */
        {"A\xCE\xA3.B", "a\xCF\x83.b"},
        {"A\xCC\x81\xCE\xA3", "a\xCC\x81\xCF\x82"},                /* so are marks */
        {"\xC2\xBA\xCE\xA3 B", "\xC2\xBA\xCF\x82 b"},              /* the masculine ordinal has case */
        {"\xE1\xBA\x9E\xE2\x84\xAA\xD0\x96", "\xC3\x9Fk\xD0\xB6"}, /* capital sharp s, kelvin sign, Zhe */
        {"\xE4\xB8\xAD\xF0\x9F\x98\x80", "\xE4\xB8\xAD\xF0\x9F\x98\x80"},
    };
    Text out = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        text_clear(&out);
        assert_ok(unicode_append_lower(&out, rows[i][0], strlen(rows[i][0])));
        assert_string_equal(out.data, rows[i][1]);
    }
    text_free(&out);
    assert_true(unicode_is_alphanumeric('z') && unicode_is_alphanumeric(0xB2) && unicode_is_alphanumeric(0x4E2D));
    assert_false(unicode_is_alphanumeric('_') || unicode_is_alphanumeric(0x301) || unicode_is_alphanumeric(0x903));
    assert_true(unicode_is_space(0x1C) && unicode_is_space(0x3000));
    assert_false(unicode_is_space(0x200B));
}

static void test_facts(void **state) {
    (void)state;
    static const struct {
        const char *text, *fact;
        double found;
    } rows[] = {{"We met Anna-Lena Smith.", "anna lena SMITH", 1},
                {"John's car cost $1,000.50!", "John", 1},
                {"John's car cost $1,000.50!", "$1000.50", 1},
                {"It cost 1200.", "12", 0},
                {"It cost 12", "12", 1},
                {"It rose by 3.5%.", "35", 0},
                {"It rose by 3.5%.", "3.5 %", 1},
                {"in the US, as", "U.S.", 1},
                {"theory", "the", 0},
                {"the the then then", "then then", 1},
                {"\xE5\x9C\xA8\xE5\x8C\x97\xE4\xBA\xAC\xE8\xA7\x81", "\xE5\x8C\x97\xE4\xBA\xAC", 1}, /* Chinese has no spaces */
                {"caf\xC3\xA9s", "caf\xC3\xA9", 0},
                {"", "x", 0}};
    FactScratch scratch = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        double fraction;
        MetricText fact = from(rows[i].fact);
        assert_ok(fact_retention(&scratch, from(rows[i].text), &fact, 1, &fraction));
        if (fraction != rows[i].found) fail_msg("\"%s\" in \"%s\": %g", rows[i].fact, rows[i].text, fraction);
    }
    MetricText facts[] = {from("Anna"), from("Bob"), from("Carl"), from(" ,.- ")};
    double fraction;
    assert_ok(fact_retention(&scratch, from("anna, carl."), facts, 3, &fraction));
    assert_true(fraction == 2.0 / 3);
    assert_invalid(fact_retention(&scratch, from("x"), facts, 4, &fraction), "constraints[3]");
    fact_scratch_free(&scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_pairs),  cmocka_unit_test(test_questions_without_answer),
        cmocka_unit_test(test_normalisation), cmocka_unit_test(test_lower_case),
        cmocka_unit_test(test_facts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
