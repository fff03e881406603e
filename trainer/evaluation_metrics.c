#include "trainer/evaluation_metrics.h"

#include <string.h>

static Status parse_names(const ConfigStringList *names, MetricList *out) {
    Text text = {0};
    Status status = STATUS_OK;
    for (int64_t i = 0; i < names->count && !status; ++i)
        status = text_append_format(&text, "%s%s", i ? "," : "", names->items[i]);
    if (!status) status = status_prefix(metric_list_parse(text.data ? text.data : "", out), "evaluation.metrics");
    text_free(&text);
    return status;
}

Status evaluation_metrics(const Options *options, MetricList *out) {
    TRY(parse_names(&options->evaluation.metrics, out));
    bool words = false;
    for (int i = 0; i < out->count; ++i) {
        Metric metric = out->metrics[i];
        words |= metric == METRIC_WORDS;
        if (metric_needs(metric) & (METRIC_NEEDS_CONSTRAINTS | METRIC_NEEDS_COMPRESSION))
            INVALID("evaluation.metrics: %s is not of a prediction and its references; adamem score has it", metric_name(metric));
        if (metric_needs(metric) & METRIC_NEEDS_ENCODER && !options->evaluation.bertscore_model[0])
            INVALID("evaluation.metrics: %s needs evaluation.bertscore_model, an encoder's directory", metric_name(metric));
    }
    if (!words) out->metrics[out->count++] = METRIC_WORDS;
    return STATUS_OK;
}

int evaluation_best_metric(const Options *options, const MetricList *list) {
    for (int i = 0; i < list->count; ++i)
        if (strcmp(options->training.metric_for_best_model, metric_name(list->metrics[i])) == 0) return i;
    return -1;
}

Status evaluation_check_best_metric(const Options *options) {
    MetricList list;
    const char *name = options->training.metric_for_best_model;
    if (strcmp(name, "eval_loss") == 0) return STATUS_OK;
    if (!options->training.predict_with_generate)
        INVALID("training.metric_for_best_model = \"%s\" needs training.predict_with_generate", name);
    TRY(evaluation_metrics(options, &list));
    if (evaluation_best_metric(options, &list) < 0)
        INVALID("training.metric_for_best_model = \"%s\" is not in evaluation.metrics", name);
    return STATUS_OK;
}
