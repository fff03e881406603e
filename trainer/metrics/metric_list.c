/* Names of metrics, and what each needs. */
#include "trainer/metrics/metrics.h"

#include "io/edit_distance.h"

#include <string.h>
#include <strings.h>

#define MAX_NAME 64

static const struct {
    const char *name;
    unsigned needs;
    bool precision, length;
} metrics[METRIC_COUNT] = {
    [METRIC_ROUGE_1] = {"rouge1", METRIC_NEEDS_PREDICTION | METRIC_NEEDS_REFERENCES, true, false},
    [METRIC_ROUGE_2] = {"rouge2", METRIC_NEEDS_PREDICTION | METRIC_NEEDS_REFERENCES, true, false},
    [METRIC_ROUGE_L] = {"rougeL", METRIC_NEEDS_PREDICTION | METRIC_NEEDS_REFERENCES, true, false},
    [METRIC_ROUGE_LSUM] = {"rougeLsum", METRIC_NEEDS_PREDICTION | METRIC_NEEDS_REFERENCES, true, false},
    [METRIC_F1] = {"f1", METRIC_NEEDS_PREDICTION | METRIC_NEEDS_REFERENCES, false, false},
    [METRIC_EM] = {"em", METRIC_NEEDS_PREDICTION | METRIC_NEEDS_REFERENCES, false, false},
    [METRIC_BERTSCORE] = {"bertscore", METRIC_NEEDS_PREDICTION | METRIC_NEEDS_REFERENCES | METRIC_NEEDS_ENCODER, true, false},
    [METRIC_FACT_RETENTION] = {"fact_retention", METRIC_NEEDS_PREDICTION | METRIC_NEEDS_CONSTRAINTS, false, false},
    [METRIC_TRR] = {"trr", METRIC_NEEDS_COMPRESSION | METRIC_NEEDS_TOKENIZER, false, false},
    [METRIC_WORDS] = {"words", METRIC_NEEDS_PREDICTION, false, true},
    [METRIC_CHARACTERS] = {"characters", METRIC_NEEDS_PREDICTION, false, true},
    [METRIC_TOKENS] = {"tokens", METRIC_NEEDS_PREDICTION | METRIC_NEEDS_TOKENIZER, false, true},
};

const char *metric_name(Metric metric) { return metrics[metric].name; }
unsigned metric_needs(Metric metric) { return metrics[metric].needs; }
bool metric_has_precision(Metric metric) { return metrics[metric].precision; }
bool metric_is_length(Metric metric) { return metrics[metric].length; }

unsigned metric_list_needs(const MetricList *list) {
    unsigned needs = 0;
    for (int i = 0; i < list->count; ++i) needs |= metrics[list->metrics[i]].needs;
    return needs;
}

static Status find(const char *name, Metric *out) {
    const char *names[METRIC_COUNT], *nearest = NULL;
    for (int i = 0; i < METRIC_COUNT; ++i) {
        names[i] = metrics[i].name;
        if (!strcmp(name, names[i])) {
            *out = (Metric)i;
            return STATUS_OK;
        }
        if (!strcasecmp(name, names[i])) nearest = names[i];
    }
    if (!nearest) nearest = names[nearest_name(name, names, METRIC_COUNT)];
    INVALID("unknown metric \"%s\"; the nearest is %s", name, nearest);
}

Status metric_list_parse(const char *names, MetricList *out) {
    static const char separators[] = ", ";
    *out = (MetricList){0};
    for (const char *at = names + strspn(names, separators); *at; at += strspn(at, separators)) {
        char name[MAX_NAME];
        Metric metric;
        size_t length = strcspn(at, separators);
        if (length >= sizeof name) INVALID("unknown metric \"%.*s\"", (int)length, at);
        memcpy(name, at, length);
        name[length] = 0;
        at += length;
        TRY(find(name, &metric));
        for (int i = 0; i < out->count; ++i)
            if (out->metrics[i] == metric) INVALID("metric \"%s\" is named twice", name);
        out->metrics[out->count++] = metric;
    }
    if (out->count == 0) INVALID("no metric is named");
    return STATUS_OK;
}
