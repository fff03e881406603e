/* Metrics by name over arrays of examples: lists, values, means, medians, counts, errors, and the table of two systems. */
#include "trainer/metrics/metrics.h"
#include "trainer/metrics/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#define TEXT(s)                                                                                                                  \
    { s, sizeof(s) - 1 }

static void assert_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

static void assert_invalid(Status status, const char *word) {
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    if (!strstr(status_message(status), word)) fail_msg("\"%s\" lacks \"%s\"", status_message(status), word);
    status_free(status);
}

static void assert_json(JsonValue *object, Status status, const char *expected) {
    Text text = {0};
    assert_ok(status);
    assert_ok(json_value_write(object, 0, &text));
    assert_string_equal(text.data, expected);
    text_free(&text);
    json_value_free(object);
}

static MetricList list_of(const char *names) {
    MetricList list;
    assert_ok(metric_list_parse(names, &list));
    return list;
}

static void test_lists(void **state) {
    (void)state;
    MetricList list = list_of("em, rougeLsum,trr f1");
    assert_int_equal(list.count, 4);
    assert_string_equal(metric_name(list.metrics[1]), "rougeLsum");
    assert_int_equal(list.metrics[0], METRIC_EM);
    for (int m = 0; m < METRIC_COUNT; ++m) {
        list = list_of(metric_name((Metric)m));
        assert_true(list.count == 1 && list.metrics[0] == (Metric)m);
        assert_int_not_equal(metric_list_needs(&list), 0);
    }
    assert_invalid(metric_list_parse("rouge1,rougel", &list), "\"rougel\"; the nearest is rougeL");
    assert_invalid(metric_list_parse("f1,em,f1", &list), "\"f1\" is named twice");
    assert_invalid(metric_list_parse(" ,", &list), "no metric");
}

static const MetricText references_0[] = {TEXT("a cat sat"), TEXT("the dog  ran\nfar")}, references_1[] = {TEXT("")},
                        references_2[] = {TEXT("one two")}, facts[] = {TEXT("two"), TEXT("four")};
static const MetricExample examples[] = {
    {.line = 3,
     .prediction = TEXT("the dog ran"),
     .references = references_0,
     .reference_count = 2,
     .constraints = facts,
     .constraint_count = 1,
     .original = TEXT("one two three four five six"),
     .compressed = TEXT("one")},
    {.line = 4,
     .prediction = TEXT(" "),
     .references = references_1,
     .reference_count = 1,
     .constraints = facts,
     .constraint_count = 1,
     .original = TEXT("a b"),
     .compressed = TEXT("a b a b a b")},
    {.line = 7,
     .prediction = TEXT("\xC3\xA9 two"),
     .references = references_2,
     .reference_count = 1,
     .constraints = facts,
     .constraint_count = 2,
     .original = TEXT("same"),
     .compressed = TEXT("same")},
};

static void test_values(void **state) {
    (void)state;
    MetricList list = list_of("rouge1,f1,em,fact_retention,words,characters");
    MetricSettings settings = {0};
    MetricReport report;
    JsonValue *object;
    assert_ok(metrics_compute(&list, &settings, examples, 3, &report));
    /* f1 of the first: "dog ran" against "dog ran far" is 0.8; the second has no answer; the third 1/2. */
    assert_json(
        object, metric_report_json(&report, &object),
        "{\"rouge1\": {\"precision\": 0.6666666666666666, \"recall\": 0.4166666666666667, \"fmeasure\": 0.5079365079365079}, "
        "\"f1\": 0.7666666666666666, \"em\": 0.3333333333333333, \"fact_retention\": 0.16666666666666666, "
        "\"words\": {\"mean\": 1.6666666666666667, \"median\": 2.0, \"reference_mean\": 2.25}, "
        "\"characters\": {\"mean\": 5.666666666666667, \"median\": 5.0, \"reference_mean\": 8.0}}");
    assert_ok((object = json_value_new_object()) ? STATUS_OK : FAILURE("out of memory"));
    assert_json(object, metric_report_example_json(&report, 2, object),
                "{\"rouge1\": {\"precision\": 1.0, \"recall\": 0.5, \"fmeasure\": 0.6666666666666666}, \"f1\": 0.5, \"em\": 0.0, "
                "\"fact_retention\": 0.5, \"words\": 2.0, \"characters\": 5.0}");
    assert_int_equal(report.counts.empty_predictions, 1);
    assert_int_equal(report.counts.empty_references, 1);
    metric_report_free(&report);
}

static void test_tokens(void **state) {
    (void)state;
    Tokenizer *tokenizer;
    TokenizerScratch *scratch;
    TokenList ids = {0};
    assert_ok(tokenizer_load(TEST_DATA "/tokenizer-small", &tokenizer));
    assert_ok(tokenizer_scratch_new(tokenizer, &scratch));
    MetricList list = list_of("trr tokens");
    MetricSettings settings = {.tokenizer = tokenizer};
    MetricReport report;
    assert_ok(metrics_compute(&list, &settings, examples, 3, &report));
    double sum = 0;
    for (int i = 0; i < 3; ++i) {
        token_list_clear(&ids);
        assert_ok(tokenizer_encode(tokenizer, scratch, examples[i].original.bytes, examples[i].original.length, &ids));
        double before = (double)ids.count;
        token_list_clear(&ids);
        assert_ok(tokenizer_encode(tokenizer, scratch, examples[i].compressed.bytes, examples[i].compressed.length, &ids));
        assert_true(report.results[0].scores[i].value == 1 - (double)ids.count / before);
        sum += report.results[0].scores[i].value;
    }
    assert_true(report.results[0].scores[0].value > 0.5 && report.results[0].scores[1].value < 0);
    assert_true(report.results[0].scores[2].value == 0 && report.results[0].mean.value == sum / 3);
    assert_true(report.results[1].mean.value > 1 && report.results[1].reference_mean > 1);
    metric_report_free(&report);
    MetricExample empty = examples[0];
    empty.original.length = 0;
    assert_invalid(metrics_compute(&list, &settings, &empty, 1, &report), "example 3: \"original\" has no token");
    token_list_free(&ids);
    tokenizer_scratch_free(scratch);
    tokenizer_free(tokenizer);
}

static void test_errors(void **state) {
    (void)state;
    MetricList rouge = list_of("rouge2"), trr = list_of("trr"), retention = list_of("fact_retention");
    MetricSettings settings = {.path = "x.jsonl"};
    MetricExample bad[40];
    MetricReport report;
    for (int i = 0; i < 40; ++i) bad[i] = examples[0], bad[i].line = i + 1;
    bad[30].reference_count = bad[20].reference_count = 0; /* the first is told, whichever thread meets it */
    for (int round = 0; round < 10; ++round)
        assert_invalid(metrics_compute(&rouge, &settings, bad, 40, &report), "x.jsonl:21: there is no reference");
    bad[3].prediction = (MetricText)TEXT("ab\xFF");
    assert_invalid(metrics_compute(&rouge, &settings, bad, 40, &report), "x.jsonl:4: the prediction: invalid UTF-8 at byte 2");
    bad[0].constraint_count = 0;
    assert_invalid(metrics_compute(&retention, &settings, bad, 3, &report), "x.jsonl:1: there is no constraint");
    assert_invalid(metrics_compute(&trr, &settings, bad, 3, &report), "need a tokenizer");
    assert_invalid(metrics_compute(&rouge, &settings, bad, 0, &report), "no example");
}

static void test_threads_do_not_matter(void **state) {
    (void)state;
    static char texts[500][24];
    MetricExample many[500];
    MetricReport one, three;
    MetricList list = list_of("rouge1,rougeLsum,f1,words");
    MetricSettings settings = {.stemmer = true};
    for (int i = 0; i < 500; ++i) {
        snprintf(texts[i], sizeof texts[i], "%d the %d dog %d", i % 7, i % 3, i);
        many[i] = examples[0];
        many[i].prediction = (MetricText){texts[i], strlen(texts[i])};
    }
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    assert_ok(metrics_compute(&list, &settings, many, 500, &one));
    omp_set_num_threads(3);
    assert_ok(metrics_compute(&list, &settings, many, 500, &three));
    omp_set_num_threads(threads);
    for (int m = 0; m < list.count; ++m) {
        assert_memory_equal(one.results[m].scores, three.results[m].scores, 500 * sizeof(MetricScore));
        assert_memory_equal(&one.results[m].mean, &three.results[m].mean, sizeof(MetricScore));
    }
    metric_report_free(&one);
    metric_report_free(&three);
}

static void test_table(void **state) {
    (void)state;
    MetricList list = list_of("f1,words"), other = list_of("em,words");
    MetricSettings settings = {0};
    MetricExample better[3];
    MetricReport base, adapter, wrong;
    MetricTable table;
    Text text = {0};
    JsonValue *object;
    memcpy(better, examples, sizeof better);
    better[0].prediction = references_0[1];
    better[2].prediction = references_2[0];
    assert_ok(metrics_compute(&list, &settings, examples, 3, &base));
    assert_ok(metrics_compute(&list, &settings, better, 3, &adapter));
    assert_ok(metric_table_compute(&base, &adapter, (BootstrapSettings){200, 0.9, 5}, &table));
    assert_ok(metric_table_text(&table, "plain", "tuned", &text));
    assert_string_equal(text.data, "metric                  plain   tuned  difference  relative       90 % interval       p\n"
                                   "f1                     0.7667  1.0000     +0.2333   +30.4 %  [+0.0633, +0.4000]  0.0896\n"
                                   "words (reference 2.2)     1.7     2.0        +0.3   +20.0 %        [+0.0, +0.7]  0.5871\n"
                                   "3 examples; paired bootstrap, 200 resamples, seed 5\n");
    assert_ok(metric_table_json(&table, &object));
    const JsonValue *f1 = json_value_get(object, "f1");
    assert_true(json_value_number(json_value_get(f1, "adapter")) == 1);
    assert_true(json_value_number(json_value_get(f1, "p_value")) == table.rows[0].paired.p_value);
    assert_int_equal(json_value_size(json_value_get(f1, "difference_interval")), 2);
    json_value_free(object);
    assert_ok(metrics_compute(&other, &settings, better, 3, &wrong));
    assert_invalid(metric_table_compute(&base, &wrong, bootstrap_defaults, &table), "different metrics");
    metric_report_free(&wrong);
    assert_ok(metrics_compute(&list, &settings, better, 2, &wrong));
    assert_invalid(metric_table_compute(&base, &wrong, bootstrap_defaults, &table), "cannot be paired");
    metric_report_free(&wrong);
    metric_report_free(&base);
    metric_report_free(&adapter);
    text_free(&text);
}

static MetricText text_of(const JsonValue *string) {
    MetricText text;
    assert_non_null(text.bytes = json_value_string(string, &text.length));
    return text;
}

static void assert_near(double actual, const JsonValue *expected) {
    if (!(fabs(actual - json_value_number(expected)) < 1e-5))
        fail_msg("%.8f, expected %.8f", actual, json_value_number(expected));
}

/* Against the bert-score package on a small random BERT; of two references the better one. */
static void test_bertscore(void **state) {
    (void)state;
    BertscoreSettings encoder = {.num_layers = 1};
    MetricSettings settings = {0};
    MetricList list = list_of("bertscore");
    MetricReport report;
    MetricExample pairs[64];
    MetricText references[64];
    Device *device;
    JsonValue *goldens;
    assert_ok(json_value_read_file(TEST_DATA "/encoder/goldens.json", &goldens));
    assert_ok(device_open(BACKEND_CPU, 0, 0, &device));
    assert_ok(bertscore_open(TEST_DATA "/encoder/bert", &encoder, device, &settings.bertscore));
    const JsonValue *texts = json_value_get(goldens, "pairs");
    const JsonValue *scores = json_value_get(json_value_get(json_value_get(goldens, "scores"), "bert"), "layer 1");
    size_t count = json_value_size(texts);
    assert_in_range(count, 2, 63);
    for (size_t i = 0; i < count; ++i) {
        references[i] = text_of(json_value_at(json_value_at(texts, i), 1));
        pairs[i] = (MetricExample){
            .prediction = text_of(json_value_at(json_value_at(texts, i), 0)), .references = &references[i], .reference_count = 1};
    }
    pairs[count] = (MetricExample){.prediction = pairs[0].prediction, .references = references, .reference_count = 2};
    assert_ok(metrics_compute(&list, &settings, pairs, (int64_t)count + 1, &report));
    for (size_t i = 0; i <= count; ++i) { /* the second pair has the first one's prediction as reference: the best of two */
        const JsonValue *expected = json_value_at(scores, i < count ? i : 1);
        assert_near(report.results[0].scores[i].precision, json_value_at(expected, 0));
        assert_near(report.results[0].scores[i].recall, json_value_at(expected, 1));
        assert_near(report.results[0].scores[i].value, json_value_at(expected, 2));
    }
    metric_report_free(&report);
    references[1] = (MetricText)TEXT("a\0b");
    assert_invalid(metrics_compute(&list, &settings, pairs, (int64_t)count, &report), "example 2: a reference holds a NUL");
    bertscore_close(settings.bertscore);
    assert_invalid(metrics_compute(&list, &(MetricSettings){0}, pairs, 1, &report), "bertscore needs an encoder");
    device_close(device);
    json_value_free(goldens);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_bertscore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
