/* The metrics of generated text by name, over many examples: one value per example and what becomes of them all.
 *
 * | name | needs | value |
 * |---|---|---|
 * | rouge1 rouge2 rougeL rougeLsum | references | precision, recall, fmeasure (trainer/metrics/rouge.h) |
 * | bertscore | references, an encoder | precision, recall, fmeasure (trainer/metrics/bertscore.h) |
 * | f1 em | references | SQuAD 2.0's rules (trainer/metrics/answer.h) |
 * | fact_retention | constraints | fraction found (trainer/metrics/fact_retention.h) |
 * | trr | original, compressed, tokenizer | 1 - tokens(compressed) / tokens(original); below 0 where it grew |
 * | words characters | | of the prediction: what white space sets apart; Unicode code points |
 * | tokens | tokenizer | of the prediction |
 *
 * Of several references the one with the best fmeasure (f1, em) counts, for each metric by itself. All are fractions, not
 * percent, and the mean over the examples is the result; an example is never left out. */
#ifndef TRAINER_METRICS_METRICS_H
#define TRAINER_METRICS_METRICS_H

#include "io/json_value.h"
#include "io/tokenizer.h"
#include "trainer/metrics/bertscore.h"
#include "trainer/metrics/metric_text.h"

typedef enum Metric {
    METRIC_ROUGE_1,
    METRIC_ROUGE_2,
    METRIC_ROUGE_L,
    METRIC_ROUGE_LSUM,
    METRIC_F1,
    METRIC_EM,
    METRIC_BERTSCORE,
    METRIC_FACT_RETENTION,
    METRIC_TRR,
    METRIC_WORDS,
    METRIC_CHARACTERS,
    METRIC_TOKENS,
    METRIC_COUNT,
} Metric;

/* What a metric reads. */
enum {
    METRIC_NEEDS_PREDICTION = 1,
    METRIC_NEEDS_REFERENCES = 2,
    METRIC_NEEDS_CONSTRAINTS = 4,
    METRIC_NEEDS_COMPRESSION = 8, /* original and compressed */
    METRIC_NEEDS_TOKENIZER = 16,
    METRIC_NEEDS_ENCODER = 32,
};

typedef struct MetricList {
    Metric metrics[METRIC_COUNT];
    int count;
} MetricList;

/* Names separated by commas or spaces, in the order wanted. Empty lists, unknown names (the message names the nearest) and
 * names given twice are STATUS_INVALID. */
Status metric_list_parse(const char *names, MetricList *out);
const char *metric_name(Metric metric);
unsigned metric_needs(Metric metric);
unsigned metric_list_needs(const MetricList *list); /* of all of them */
bool metric_has_precision(Metric metric);           /* three numbers, not one */
bool metric_is_length(Metric metric);               /* words, characters, tokens: not better when greater */

/* One example, borrowed. What no wanted metric needs may be left 0; lengths of references are reported where there are any. */
typedef struct MetricExample {
    int64_t line; /* where it comes from, for messages; 0: its number in the array */
    MetricText prediction;
    const MetricText *references;
    int64_t reference_count;
    const MetricText *constraints;
    int64_t constraint_count;
    MetricText original, compressed;
} MetricExample;

typedef struct MetricSettings {
    bool stemmer;               /* ROUGE */
    const char *path;           /* where the examples come from, for messages; NULL: nowhere in particular */
    const Tokenizer *tokenizer; /* for trr and tokens */
    Bertscore *bertscore;       /* for bertscore */
} MetricSettings;

typedef struct MetricScore {
    double precision, recall; /* 0 where the metric has none */
    double value;             /* fmeasure, or the one number */
} MetricScore;

typedef struct MetricResult {
    Metric metric;
    MetricScore *scores; /* [example_count], owned */
    MetricScore mean;
    double median;         /* of value */
    double reference_mean; /* lengths: over all references; NaN without any */
} MetricResult;

/* What a reader should know before he believes the numbers. */
typedef struct MetricCounts {
    int64_t empty_predictions; /* or compressed texts: nothing but white space */
    int64_t empty_references;
    int64_t weightless; /* pairs of which BERTScore's idf gives one side no weight */
} MetricCounts;

typedef struct MetricReport {
    MetricResult results[METRIC_COUNT]; /* [list.count], in the list's order */
    MetricList list;
    int64_t example_count;
    MetricCounts counts;
} MetricReport;

/* Scores count > 0 examples on all threads; the numbers do not depend on how many. A missing reference, constraint,
 * tokenizer or encoder, an original without tokens and invalid UTF-8 are STATUS_INVALID naming the example. */
Status metrics_compute(const MetricList *list, const MetricSettings *settings, const MetricExample *examples, int64_t count,
                       MetricReport *out);
/* Puts where example i comes from before its error: "PATH:LINE: ...". NULL stays NULL. */
Status metric_example_error(const MetricSettings *settings, const MetricExample *examples, int64_t i, Status status);
void metric_report_free(MetricReport *report);
/* {"rouge1": {"precision", "recall", "fmeasure"}, "f1": 0.5, "words": {"mean", "median", "reference_mean"}, ...} */
Status metric_report_json(const MetricReport *report, JsonValue **out);
/* Adds one example's values to an object, under the metrics' names. */
Status metric_report_example_json(const MetricReport *report, int64_t example, JsonValue *object);
/* Tells on standard error what was counted, if anything was. what: the file, or the system's name. */
void metric_report_warn(const MetricReport *report, const char *what);

#endif
