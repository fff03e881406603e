/* The terms of the multi-objective loss that are arithmetic on a few probabilities: values by hand, gradients by finite
 * differences; and which tokens count as facts. */
#include "io/random.h"
#include "trainer/objectives/answer_terms.h"
#include "trainer/objectives/token_classes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 7, TOKENS = 3 };

static double term(int which, const double *log_p, double scale, double *gradient) {
    double work[ROWS];
    return which == 0 ? answer_length_term(log_p, ROWS, scale, gradient, work)
                      : answer_coverage_term(log_p, ROWS, TOKENS, scale, gradient, work);
}

static void random_log_probabilities(uint64_t seed, double *out) {
    RandomStream stream = random_stream(seed, 0);
    for (int i = 0; i < ROWS * TOKENS; ++i) out[i] = log(0.9 * random_uniform(&stream) + 1e-4);
}

/* d/dlog p by central differences of 1e-6: about 1e-9 of error. */
static void test_gradients(void **state) {
    (void)state;
    for (int which = 0; which < 2; ++which)
        for (uint64_t seed = 1; seed <= 20; ++seed) {
            double log_p[ROWS * TOKENS], gradient[ROWS * TOKENS], none[ROWS * TOKENS] = {0};
            int count = which ? ROWS * TOKENS : ROWS;
            random_log_probabilities(seed, log_p);
            for (int i = 0; i < count; ++i) gradient[i] = 0.25; /* added to, not overwritten */
            term(which, log_p, 3.0, gradient);
            for (int i = 0; i < count; ++i) {
                const double step = 1e-6, kept = log_p[i];
                log_p[i] = kept + step;
                double above = term(which, log_p, 0.0, none);
                log_p[i] = kept - step;
                double below = term(which, log_p, 0.0, none);
                log_p[i] = kept;
                double expected = 0.25 + 3.0 * (above - below) / (2 * step);
                if (fabs(gradient[i] - expected) > 1e-7 * (1 + fabs(expected)))
                    fail_msg("term %d, seed %d, element %d: %.12g, by differences %.12g", which, (int)seed, i, gradient[i],
                             expected);
            }
            for (int i = 0; i < count; ++i) assert_true(none[i] == 0);
        }
}

/* An answer of two tokens and its end. Ends surely and only there: nothing to pay. Ends at once: E = 1. Never ends: E = 4. */
static void test_length_values(void **state) {
    (void)state;
    double gradient[3] = {0}, work[3];
    assert_true(answer_length_term((double[]){-INFINITY, -INFINITY, 0}, 3, 1, gradient, work) == 0);
    assert_true(fabs(answer_length_term((double[]){0, -1, -1}, 3, 1, gradient, work) - 4.0 / 9) < 1e-15);
    assert_true(fabs(answer_length_term((double[]){-INFINITY, -INFINITY, -INFINITY}, 3, 1, gradient, work) - 1.0 / 9) < 1e-15);
    for (int i = 0; i < 3; ++i) assert_true(isfinite(gradient[i]));
    double half = log(0.5); /* E = 1 + 1/2 + 1/4 + 1/8 */
    assert_true(fabs(answer_length_term((double[]){half, half, half}, 3, 1, gradient, work) - pow((1.875 - 3) / 3, 2)) < 1e-15);
    assert_true(answer_length_term(NULL, 0, 1, NULL, NULL) == 0);
}

static void test_coverage_values(void **state) {
    (void)state;
    double gradient[4] = {0}, work[2];
    /* One token that is certain at one row, one with a quarter at both: 1 - (3/4)^2 = 7/16. */
    double log_p[4] = {0, log(0.25), -INFINITY, log(0.25)};
    double expected = -(log(1 + 1e-6) + log(7.0 / 16 + 1e-6)) / 2;
    assert_true(fabs(answer_coverage_term(log_p, 2, 2, 1, gradient, work) - expected) < 1e-14);
    for (int i = 0; i < 4; ++i) assert_true(isfinite(gradient[i]));
    assert_true(gradient[1] < 0 && gradient[3] < 0); /* more probability, less loss */
    assert_true(answer_coverage_term(log_p, 2, 0, 1, gradient, work) == 0);
}

/* Marks tokens of fact words with their text in brackets, the first one with a star. */
static void expect_facts(const TokenClasses *classes, const Tokenizer *tokenizer, TokenizerScratch *scratch, const char *text,
                         const char *expected) {
    TokenList ids = {0};
    Text marked = {0};
    FactToken facts[256];
    assert_null(tokenizer_encode(tokenizer, scratch, text, strlen(text), &ids));
    assert_true(ids.count <= 256);
    token_classes_facts(classes, ids.ids, (int64_t)ids.count, facts);
    for (size_t i = 0, end; i < ids.count; i = end) {
        for (end = i + 1; end < ids.count && (facts[i] != FACT_NONE) == (facts[end] != FACT_NONE) && facts[end] != FACT_FIRST;)
            ++end;
        if (facts[i] != FACT_NONE) assert_null(text_append(&marked, "[", 1));
        assert_null(tokenizer_decode(tokenizer, ids.ids + i, end - i, false, &marked));
        if (facts[i] != FACT_NONE) assert_null(text_append(&marked, "]", 1));
    }
    if (strlen(expected) != marked.length || memcmp(expected, marked.data, marked.length) != 0)
        fail_msg("%s: %.*s, not %s", text, (int)marked.length, marked.data, expected);
    text_free(&marked);
    token_list_free(&ids);
}

static void test_facts(void **state) {
    (void)state;
    Tokenizer *tokenizer;
    TokenizerScratch *scratch;
    TokenClasses *classes;
    assert_null(tokenizer_load(TEST_DATA "/tokenizer-small", &tokenizer));
    assert_null(tokenizer_scratch_new(tokenizer, &scratch));
    assert_null(token_classes_create(tokenizer, &classes));
    expect_facts(classes, tokenizer, scratch, "the man from Paris went home", "the man from[ Paris] went home");
    expect_facts(classes, tokenizer, scratch, "The man went. He saw Anna!", "The man went. He saw[ Anna]!");
    expect_facts(classes, tokenizer, scratch, "NATO met. It did", "[NATO] met. It did");
    expect_facts(classes, tokenizer, scratch, "it was word, then one", "it was word, then one");
    expect_facts(classes, tokenizer, scratch, "", "");
    expect_facts(classes, tokenizer, scratch, "one\nTwo three", "one\nTwo three");
    expect_facts(classes, tokenizer, scratch, "saw <|im_end|>Anna", "saw <|im_end|>[Anna]");
    FactToken unknown[2];
    token_classes_facts(classes, (int32_t[]){-1, INT32_MAX}, 2, unknown);
    assert_int_equal(unknown[0], FACT_NONE);
    assert_int_equal(unknown[1], FACT_NONE);
    token_classes_destroy(classes);
    tokenizer_scratch_free(scratch);
    tokenizer_free(tokenizer);
}

/* A number is marked from its lone space on, its first token is its first digit. */
static void test_numbers(void **state) {
    (void)state;
    Tokenizer *tokenizer;
    TokenizerScratch *scratch;
    TokenClasses *classes;
    TokenList ids = {0};
    FactToken facts[8];
    const char *text = "in 2024";
    assert_null(tokenizer_load(TEST_DATA "/tokenizer-small", &tokenizer));
    assert_null(tokenizer_scratch_new(tokenizer, &scratch));
    assert_null(token_classes_create(tokenizer, &classes));
    assert_null(tokenizer_encode(tokenizer, scratch, text, strlen(text), &ids));
    assert_int_equal(ids.count, 6); /* "in", " ", four digits */
    token_classes_facts(classes, ids.ids, 6, facts);
    assert_int_equal(facts[0], FACT_NONE);
    assert_int_equal(facts[1], FACT_INSIDE);
    assert_int_equal(facts[2], FACT_FIRST);
    for (int i = 3; i < 6; ++i) assert_int_equal(facts[i], FACT_INSIDE);
    token_list_free(&ids);
    token_classes_destroy(classes);
    tokenizer_scratch_free(scratch);
    tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients), cmocka_unit_test(test_length_values),
                                       cmocka_unit_test(test_coverage_values), cmocka_unit_test(test_facts),
                                       cmocka_unit_test(test_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
