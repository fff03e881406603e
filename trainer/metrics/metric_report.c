/* What became of the examples, as JSON and in words. */
#include "trainer/metrics/metrics.h"

#include "io/log.h"

#include <math.h>

static Status set_scores(JsonValue *object, Metric metric, MetricScore score) {
    if (!metric_has_precision(metric)) return json_value_set_number(object, metric_name(metric), score.value);
    JsonValue *three;
    TRY_ALLOC(three = json_value_new_object());
    Status status = json_value_set_number(three, "precision", score.precision);
    if (!status) status = json_value_set_number(three, "recall", score.recall);
    if (!status) status = json_value_set_number(three, "fmeasure", score.value);
    if (!status) return json_value_set(object, metric_name(metric), three);
    json_value_free(three);
    return status;
}

static Status set_lengths(JsonValue *object, const MetricResult *result) {
    JsonValue *lengths;
    TRY_ALLOC(lengths = json_value_new_object());
    Status status = json_value_set_number(lengths, "mean", result->mean.value);
    if (!status) status = json_value_set_number(lengths, "median", result->median);
    if (!status && !isnan(result->reference_mean))
        status = json_value_set_number(lengths, "reference_mean", result->reference_mean);
    if (!status) return json_value_set(object, metric_name(result->metric), lengths);
    json_value_free(lengths);
    return status;
}

Status metric_report_json(const MetricReport *report, JsonValue **out) {
    Status status = STATUS_OK;
    TRY_ALLOC(*out = json_value_new_object());
    for (int m = 0; m < report->list.count && !status; ++m) {
        const MetricResult *result = &report->results[m];
        status = metric_is_length(result->metric) ? set_lengths(*out, result) : set_scores(*out, result->metric, result->mean);
    }
    if (!status) return STATUS_OK;
    json_value_free(*out);
    *out = NULL;
    return status;
}

Status metric_report_example_json(const MetricReport *report, int64_t example, JsonValue *object) {
    for (int m = 0; m < report->list.count; ++m)
        TRY(set_scores(object, report->results[m].metric, report->results[m].scores[example]));
    return STATUS_OK;
}

void metric_report_warn(const MetricReport *report, const char *what) {
    const MetricCounts *counts = &report->counts;
    if (counts->empty_predictions)
        log_warning("%s: %lld of %lld predictions are empty; they are scored like any other", what,
                    (long long)counts->empty_predictions, (long long)report->example_count);
    if (counts->empty_references)
        log_warning(
            "%s: %lld references are empty: to f1 and em they say that there is no answer, to other metrics they match nothing",
            what, (long long)counts->empty_references);
    if (counts->weightless)
        log_warning(
            "%s: of %lld pairs idf gives one side no weight (all its tokens are in every reference): bertscore is 0 there", what,
            (long long)counts->weightless);
}
