/* ROUGE against Google's rouge_score and its own test's values (tests/data/rouge), and properties; the subsequences against
 * the whole table. */
#include "trainer/metrics/rouge.h"

#include "io/json_lines.h"
#include "io/random.h"
#include "trainer/metrics/lcs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL            ((1u << ROUGE_KINDS) - 1)
#define MAX_REFERENCES 8

static const char *const kind_names[ROUGE_KINDS] = {"rouge1", "rouge2", "rougeL", "rougeLsum"};

static void assert_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

static MetricText text_of(const JsonValue *string) {
    MetricText text;
    assert_non_null(text.bytes = json_value_string(string, &text.length));
    return text;
}

static MetricText from(const char *string) { return (MetricText){string, strlen(string)}; }

static double number(const JsonValue *object, const char *key) {
    double value;
    assert_ok(json_value_get_number(object, key, &value));
    return value;
}

/* Equal to the last bit: the formulas are the same. */
static void check_equal(const char *what, int64_t line, const JsonValue *expected, const RougeScore *scores) {
    for (int kind = 0; kind < ROUGE_KINDS; ++kind) {
        const JsonValue *e = json_value_get(expected, kind_names[kind]);
        const RougeScore *s = &scores[kind];
        assert_non_null(e);
        if (s->precision != number(e, "precision") || s->recall != number(e, "recall") || s->fmeasure != number(e, "fmeasure"))
            fail_msg("%s line %d, %s: %.17g %.17g %.17g, expected %.17g %.17g %.17g", what, (int)line, kind_names[kind],
                     s->precision, s->recall, s->fmeasure, number(e, "precision"), number(e, "recall"), number(e, "fmeasure"));
    }
}

static size_t collect_references(const JsonValue *line, MetricText references[MAX_REFERENCES]) {
    const JsonValue *target = json_value_get(line, "target"), *list = json_value_get(line, "references");
    if (target) return references[0] = text_of(target), 1;
    size_t count = json_value_size(list);
    assert_in_range(count, 1, MAX_REFERENCES);
    for (size_t i = 0; i < count; ++i) references[i] = text_of(json_value_at(list, i));
    return count;
}

static int check_file(const char *path) {
    JsonLines *reader;
    JsonValue *line;
    RougeScorer *scorers[2];
    int count = 0;
    for (int stemmer = 0; stemmer < 2; ++stemmer) assert_ok(rouge_scorer_create(stemmer, &scorers[stemmer]));
    assert_ok(json_lines_open(path, &reader));
    for (;; ++count) {
        MetricText references[MAX_REFERENCES];
        assert_ok(json_lines_next_object(reader, &line));
        if (!line) break;
        size_t references_count = collect_references(line, references);
        for (int stemmer = 0; stemmer < 2; ++stemmer) {
            RougeScore scores[ROUGE_KINDS];
            assert_ok(rouge_score(scorers[stemmer], ALL, text_of(json_value_get(line, "prediction")), references,
                                  (int64_t)references_count, scores));
            check_equal(stemmer ? "stemmer" : "no stemmer", json_lines_number(reader),
                        json_value_get(line, stemmer ? "scores_stemmer" : "scores"), scores);
        }
        json_value_free(line);
    }
    json_lines_close(reader);
    for (int stemmer = 0; stemmer < 2; ++stemmer) rouge_scorer_destroy(scorers[stemmer]);
    return count;
}

static void test_system_outputs(void **state) {
    (void)state;
    assert_int_equal(check_file(TEST_DATA "/rouge/cases.jsonl.gz"), 50);
}

static void test_made_up_texts(void **state) {
    (void)state;
    assert_int_equal(check_file(TEST_DATA "/rouge/made_up.jsonl.gz"), 100);
}

/* To the places given. */
static void check_google_line(const JsonValue *line, int64_t number_of_line) {
    const char *type, *members[] = {"precision", "recall", "fmeasure"};
    RougeScorer *scorer;
    RougeScore scores[ROUGE_KINDS] = {0};
    MetricText target = text_of(json_value_get(line, "target"));
    int kind = 0;
    assert_ok(json_value_get_string(line, "rouge_type", &type, NULL));
    while (kind < ROUGE_KINDS && strcmp(type, kind_names[kind])) ++kind;
    assert_in_range(kind, 0, ROUGE_KINDS - 1);
    assert_ok(rouge_scorer_create(json_value_boolean(json_value_get(line, "use_stemmer")), &scorer));
    assert_ok(rouge_score(scorer, 1u << kind, text_of(json_value_get(line, "prediction")), &target, 1, scores));
    rouge_scorer_destroy(scorer);
    double values[] = {scores[kind].precision, scores[kind].recall, scores[kind].fmeasure};
    for (int i = 0; i < 3; ++i) {
        double expected = number(json_value_get(line, "expected"), members[i]);
        if (!(fabs(values[i] - expected) < 0.5 * pow(10, -number(line, "places"))))
            fail_msg("line %d: %s %.10f, expected %.10f", (int)number_of_line, members[i], values[i], expected);
    }
}

static void test_google_values(void **state) {
    (void)state;
    JsonLines *reader;
    JsonValue *line;
    int count = 0;
    assert_ok(json_lines_open(TEST_DATA "/rouge/google_reference.jsonl.gz", &reader));
    for (;; ++count) {
        assert_ok(json_lines_next_object(reader, &line));
        if (!line) break;
        check_google_line(line, json_lines_number(reader));
        json_value_free(line);
    }
    json_lines_close(reader);
    assert_int_equal(count, 12);
}

/* A line of made-up words "a" to "h", some lines broken. */
static void random_text(RandomStream *random, char *out, int words) {
    for (int i = 0; i < words; ++i) {
        *out++ = (char)('a' + random_below(random, 8));
        *out++ = random_below(random, 9) ? ' ' : '\n';
    }
    *out = 0;
}

static void test_itself_and_exchanged(void **state) {
    (void)state;
    RandomStream random = random_stream(1, 0);
    RougeScorer *scorer;
    assert_ok(rouge_scorer_create(true, &scorer));
    for (int round = 0; round < 300; ++round) {
        char a[1024], b[1024];
        random_text(&random, a, 2 + (int)random_below(&random, 300));
        random_text(&random, b, 2 + (int)random_below(&random, 300));
        MetricText texts[] = {from(a), from(b)};
        RougeScore same[ROUGE_KINDS], forth[ROUGE_KINDS], back[ROUGE_KINDS];
        assert_ok(rouge_score(scorer, ALL, texts[0], &texts[0], 1, same));
        assert_ok(rouge_score(scorer, ALL, texts[0], &texts[1], 1, forth));
        assert_ok(rouge_score(scorer, ALL, texts[1], &texts[0], 1, back));
        for (int kind = 0; kind < ROUGE_KINDS; ++kind) {
            assert_true(same[kind].precision == 1 && same[kind].recall == 1 && same[kind].fmeasure == 1);
            assert_true(forth[kind].fmeasure >= 0 && forth[kind].fmeasure < 1 + 1e-15);
            if (kind == ROUGE_LSUM) continue; /* the union is over one side's lines */
            assert_true(forth[kind].precision == back[kind].recall && forth[kind].recall == back[kind].precision);
        }
    }
    rouge_scorer_destroy(scorer);
}

static void test_best_reference_of_each_kind(void **state) {
    (void)state;
    RougeScorer *scorer;
    RougeScore scores[ROUGE_KINDS];
    MetricText references[] = {from("x y"), from("d c b a"), from("a b q r s t u v")};
    assert_ok(rouge_scorer_create(false, &scorer));
    assert_ok(rouge_score(scorer, ALL, from("a b c d"), references, 3, scores));
    assert_true(scores[ROUGE_1].fmeasure == 1);     /* the second */
    assert_true(scores[ROUGE_2].recall == 1.0 / 7); /* the third: the second has no pair in order */
    assert_true(scores[ROUGE_L].precision == 0.5 && scores[ROUGE_L].recall == 0.25); /* the third: 2 words against 1 */
    rouge_scorer_destroy(scorer);
}

/* Bytes that are not UTF-8, and NUL, separate words. */
static void test_stray_bytes(void **state) {
    (void)state;
    RougeScorer *scorer;
    RougeScore scores[ROUGE_KINDS];
    MetricText prediction = {"one\xFFtwo\0three\xC4", 15}, reference = from("one two three");
    assert_ok(rouge_scorer_create(true, &scorer));
    assert_ok(rouge_score(scorer, ALL, prediction, &reference, 1, scores));
    for (int kind = 0; kind < ROUGE_KINDS; ++kind) assert_true(scores[kind].fmeasure == 1);
    rouge_scorer_destroy(scorer);
}

/* The whole table, and back through it: the definition. */
static size_t plain_lcs(const int32_t *a, size_t n, const int32_t *b, size_t m, bool *in_lcs) {
    size_t *table = calloc((n + 1) * (m + 1), sizeof *table), stride = m + 1;
    for (size_t i = 1; i <= n; ++i)
        for (size_t j = 1; j <= m; ++j) {
            size_t up = table[(i - 1) * stride + j], left = table[i * stride + j - 1];
            table[i * stride + j] = a[i - 1] == b[j - 1] ? table[(i - 1) * stride + j - 1] + 1 : up > left ? up : left;
        }
    size_t length = table[n * stride + m];
    for (size_t i = n, j = m; i > 0 && j > 0;) {
        if (a[i - 1] == b[j - 1]) {
            in_lcs[--i] = true;
            --j;
        } else if (table[i * stride + j - 1] > table[(i - 1) * stride + j]) {
            --j;
        } else {
            --i;
        }
    }
    free(table);
    return length;
}

static void test_subsequences(void **state) {
    (void)state;
    RandomStream random = random_stream(2, 0);
    LcsScratch scratch = {0};
    for (int round = 0; round < 400; ++round) {
        int32_t a[200], b[200];
        bool expected[200] = {0}, actual[200] = {0};
        size_t n = random_below(&random, 200), m = random_below(&random, 200), ids = 1 + random_below(&random, 40), length;
        for (size_t i = 0; i < n; ++i) a[i] = (int32_t)random_below(&random, ids);
        for (size_t i = 0; i < m; ++i) b[i] = (int32_t)random_below(&random, ids);
        size_t right = plain_lcs(a, n, b, m, expected);
        assert_ok(lcs_length(&scratch, a, n, b, m, ids, &length));
        assert_int_equal(length, right);
        assert_ok(lcs_mark(&scratch, a, n, b, m, ids, actual));
        assert_memory_equal(actual, expected, sizeof actual);
    }
    lcs_scratch_free(&scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_system_outputs),
        cmocka_unit_test(test_made_up_texts),
        cmocka_unit_test(test_google_values),
        cmocka_unit_test(test_itself_and_exchanged),
        cmocka_unit_test(test_best_reference_of_each_kind),
        cmocka_unit_test(test_stray_bytes),
        cmocka_unit_test(test_subsequences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
