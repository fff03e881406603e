/* BERTScore against the bert-score package on small random models; its settings, and what they refuse. */
#include "io/file.h"
#include "io/json_value.h"
#include "trainer/metrics/bertscore.h"
#include "trainer/metrics/bertscore_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA TEST_DATA "/encoder"

enum { MOST_PAIRS = 32 };

static void succeed(Status status) {
    if (status) fail_msg("%s [%s]", status_message(status), status_positions(status));
}

static void expect_error(Status status, const char *part) {
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    if (!strstr(status_message(status), part)) fail_msg("\"%s\" does not say \"%s\"", status_message(status), part);
    status_free(status);
}

typedef struct Fixture {
    Device *device;
    JsonValue *goldens;
    const char *predictions[MOST_PAIRS], *references[MOST_PAIRS];
    int64_t pairs;
} Fixture;

static int set_up(void **state) {
    Fixture *f = calloc(1, sizeof *f);
    succeed(device_open(BACKEND_CPU, 0, 2, &f->device));
    succeed(json_value_read_file(DATA "/goldens.json", &f->goldens));
    const JsonValue *pairs = json_value_get(f->goldens, "pairs");
    for (size_t i = 0; i < json_value_size(pairs); ++i) {
        f->predictions[i] = json_value_string(json_value_at(json_value_at(pairs, i), 0), NULL);
        f->references[i] = json_value_string(json_value_at(json_value_at(pairs, i), 1), NULL);
    }
    f->pairs = (int64_t)json_value_size(pairs);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    Fixture *f = *state;
    device_close(f->device);
    json_value_free(f->goldens);
    free(f);
    return 0;
}

static Bertscore *open_score(const Fixture *f, const char *model, int64_t layers, bool idf, bool rescaled) {
    char directory[512];
    snprintf(directory, sizeof directory, "%s/%s", DATA, model);
    BertscoreSettings settings = {.num_layers = layers, .idf = idf, .baseline_path = rescaled ? DATA "/baseline.csv" : NULL};
    Bertscore *score = NULL;
    succeed(bertscore_open(directory, &settings, f->device, &score));
    assert_int_equal(bertscore_layers(score), layers);
    return score;
}

/* Largest difference of precision, recall and f1 from the golden rows. */
static double difference(const BertscoreResult *results, const JsonValue *expected, int64_t pairs) {
    double largest = 0;
    assert_int_equal(json_value_size(expected), pairs);
    for (int64_t i = 0; i < pairs; ++i) {
        const double got[3] = {results[i].precision, results[i].recall, results[i].f1};
        for (size_t k = 0; k < 3; ++k) {
            const JsonValue *value = json_value_at(json_value_at(expected, (size_t)i), k);
            assert_true(json_value_is_number(value));
            largest = fmax(largest, fabs(got[k] - json_value_number(value)));
        }
    }
    return largest;
}

static void score_with(const Fixture *f, const char *model, int64_t layers, bool idf, bool rescaled, BertscoreResult *out) {
    Bertscore *score = open_score(f, model, layers, idf, rescaled);
    succeed(bertscore_pairs(score, f->predictions, f->references, f->pairs, out));
    bertscore_close(score);
}

/* Every golden of a model: all layers, and the first and the last with idf and rescaling. */
static void check_model(const Fixture *f, const char *model, int64_t layers) {
    const JsonValue *scores = json_value_get(json_value_get(f->goldens, "scores"), model);
    double worst = 0;
    int checked = 0;
    for (int64_t layer = 0; layer <= layers; ++layer)
        for (int flags = 0; flags < 4; ++flags) {
            char key[64];
            BertscoreResult results[MOST_PAIRS];
            snprintf(key, sizeof key, "layer %lld%s%s", (long long)layer, flags & 1 ? " idf" : "", flags & 2 ? " rescaled" : "");
            const JsonValue *expected = json_value_get(scores, key);
            if (!expected) continue;
            score_with(f, model, layer, flags & 1, flags & 2, results);
            double off = difference(results, expected, f->pairs);
            if (!(off <= 1e-5)) fail_msg("%s, %s: off by %g", model, key, off);
            worst = fmax(worst, off);
            ++checked;
        }
    assert_int_equal(checked, layers + 1 + 6);
    print_message("%s: %d tables of scores within %.2g of the package\n", model, checked, worst);
}

static void test_bert(void **state) { check_model(*state, "bert", 3); }
static void test_roberta(void **state) { check_model(*state, "roberta", 4); }
static void test_bart(void **state) { check_model(*state, "bart", 3); }

/* Negative control: another layer, idf or rescaling that was not asked for, and sides exchanged are all seen. */
static void test_wrong_settings_miss(void **state) {
    Fixture *f = *state;
    const JsonValue *expected = json_value_get(json_value_get(json_value_get(f->goldens, "scores"), "roberta"), "layer 4");
    BertscoreResult results[MOST_PAIRS];
    score_with(f, "roberta", 3, false, false, results);
    assert_true(difference(results, expected, f->pairs) > 1e-3);
    score_with(f, "roberta", 4, true, false, results);
    assert_true(difference(results, expected, f->pairs) > 1e-4);
    score_with(f, "roberta", 4, false, true, results);
    assert_true(difference(results, expected, f->pairs) > 1e-2);
    Bertscore *score = open_score(f, "roberta", 4, false, false);
    succeed(bertscore_pairs(score, f->references, f->predictions, f->pairs, results));
    assert_true(difference(results, expected, f->pairs) > 1e-4);
    bertscore_close(score);
}

static void test_empty_and_weightless(void **state) {
    Fixture *f = *state;
    Bertscore *score = open_score(f, "bert", 2, false, false);
    const char *predictions[] = {"", "they said no", " \t", "they said no"}, *references[] = {"no", " ", "", "they said no"};
    BertscoreResult results[4];
    succeed(bertscore_pairs(score, predictions, references, 4, results));
    for (int i = 0; i < 3; ++i) assert_true(results[i].empty && results[i].f1 == 0 && results[i].precision == 0);
    assert_false(results[3].empty || results[3].weightless);
    assert_true(fabs(results[3].f1 - 1) < 1e-6);
    succeed(bertscore_pairs(score, predictions, references, 0, results));
    bertscore_close(score);
    /* One reference alone: each of its tokens is in all documents, so idf leaves it no weight. */
    score = open_score(f, "bert", 2, true, false);
    succeed(bertscore_pairs(score, predictions + 1, predictions + 1, 1, results));
    assert_true(results[0].weightless && !results[0].empty);
    assert_true(results[0].precision == 0 && results[0].recall == 0 && results[0].f1 == 0);
    bertscore_close(score);
}

/* Many pairs, more than one window and batch hold: the same scores as one by one, whatever stands beside them. */
static void test_many_pairs(void **state) {
    Fixture *f = *state;
    enum { COUNT = 3000 };
    const char **predictions = calloc(COUNT, sizeof *predictions), **references = calloc(COUNT, sizeof *references);
    char(*texts)[128] = calloc(2 * COUNT, sizeof *texts);
    BertscoreResult *all = calloc(COUNT, sizeof *all), few[100], one;
    for (int i = 0; i < COUNT; ++i) { /* every tenth pair repeats an earlier one */
        int n = i % 10 == 9 ? i / 2 : i;
        snprintf(texts[2 * i], sizeof *texts, "the committee met %d members and said %d times no", n, n * 7 % 1000);
        snprintf(texts[2 * i + 1], sizeof *texts, "in %d the school %.*s", n * 3, n % 40,
                 "would need more money from the reserve of it");
        predictions[i] = texts[2 * i];
        references[i] = texts[2 * i + 1];
    }
    Bertscore *score = open_score(f, "roberta", 2, false, false);
    score->window_bytes = 1 << 20; /* 8192 tokens: about 20 windows of several batches */
    succeed(bertscore_pairs(score, predictions, references, COUNT, all));
    score->window_bytes = 0; /* the least: one pair of the longest texts */
    succeed(bertscore_pairs(score, predictions, references, 100, few));
    for (int i = 0; i < 100; ++i) assert_true(fabs(few[i].f1 - all[i].f1) < 1e-5 && few[i].empty == all[i].empty);
    for (int i = 0; i < COUNT; i += 97) {
        succeed(bertscore_pairs(score, predictions + i, references + i, 1, &one));
        assert_true(fabs(one.f1 - all[i].f1) < 1e-5 && fabs(one.precision - all[i].precision) < 1e-5);
    }
    bertscore_close(score);
    free(predictions);
    free(references);
    free(texts);
    free(all);
}

static void test_known_layers(void **state) {
    (void)state;
    assert_int_equal(bertscore_known_layer("roberta-large"), 17);
    assert_int_equal(bertscore_known_layer("FacebookAI/roberta-large"), 17);
    assert_int_equal(bertscore_known_layer("/models/facebook/bart-base/"), 6);
    assert_int_equal(bertscore_known_layer("bert-base-uncased"), 9);
    assert_int_equal(bertscore_known_layer("roberta"), -1);
    assert_int_equal(bertscore_known_layer("my-roberta-large"), -1);
    assert_int_equal(bertscore_known_layer(""), -1);
}

static void expect_open(const Fixture *f, const char *directory, BertscoreSettings settings, const char *part) {
    Bertscore *score = NULL;
    expect_error(bertscore_open(directory, &settings, f->device, &score), part);
    assert_null(score);
}

static void test_bad_settings(void **state) {
    Fixture *f = *state;
    expect_open(f, DATA "/roberta", (BertscoreSettings){.num_layers = -1}, "give the number of layers, 1 to 4");
    expect_open(f, DATA "/roberta", (BertscoreSettings){.num_layers = 5}, "layer 5 is out of range");
    expect_open(f, DATA "/bert-cased", (BertscoreSettings){.num_layers = 1}, "config.json");
    expect_open(f, DATA "/bert", (BertscoreSettings){1, false, DATA "/no-such.csv"}, "no-such.csv");
    Bertscore *score = open_score(f, "bert", 1, false, false);
    const char *good = "fine", *bad = "b\xC3";
    BertscoreResult result;
    expect_error(bertscore_pairs(score, &good, &bad, 1, &result), "reference of pair 1: invalid UTF-8 at byte 1");
    expect_error(bertscore_pairs(score, &bad, &good, 1, &result), "prediction of pair 1: invalid UTF-8");
    bertscore_close(score);
}

static void expect_baseline(const char *text, int64_t layer, const char *part) {
    char path[] = "/tmp/baseline-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    succeed(file_write_atomic(path, text, strlen(text)));
    double baseline[3] = {0};
    Status status = bertscore_read_baseline(path, layer, baseline);
    unlink(path);
    if (part)
        expect_error(status, part);
    else {
        succeed(status);
        assert_true(baseline[0] == 0.25 && baseline[1] == 0.5 && baseline[2] == 0.75);
    }
}

static void test_baselines(void **state) {
    (void)state;
    expect_baseline("LAYER,P,R,F\n0,0.1,0.1,0.1\n1,0.25,0.5,0.75\n2,0,0,0\n", 1, NULL);
    expect_baseline("LAYER,P,R,F\r\n0,0.25,0.5,0.75\r\n", 0, NULL);
    expect_baseline("LAYER\tP\tR\tF\n0\t0.25\t0.5\t0.75", 0, NULL);
    expect_baseline("LAYER,P,R,F\n0,0.1,0.1,0.1\n", 1, "has no line for layer 1");
    expect_baseline("", 0, "has no line for layer 0");
    expect_baseline("LAYER,P,R,F\n1,0.1,0.1,0.1\n", 0, ":2: not a baseline of layer 0");
    expect_baseline("LAYER,P,R,F\n0,0.1,x,0.1\n", 0, ":2: not a baseline");
    expect_baseline("LAYER,P,R,F\n0,0.1,0.1,0.1,0.1\n", 0, ":2: not a baseline");
    expect_baseline("LAYER,P,R,F\n0,1,0.1,0.1\n", 0, "must be below 1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bert),
        cmocka_unit_test(test_roberta),
        cmocka_unit_test(test_bart),
        cmocka_unit_test(test_wrong_settings_miss),
        cmocka_unit_test(test_empty_and_weightless),
        cmocka_unit_test(test_many_pairs),
        cmocka_unit_test(test_known_layers),
        cmocka_unit_test(test_bad_settings),
        cmocka_unit_test(test_baselines),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
