/* BERTScore of examples with several references: all pairs in one call, since idf is of all references together. */
#ifndef TRAINER_METRICS_BERTSCORE_EXAMPLES_H
#define TRAINER_METRICS_BERTSCORE_EXAMPLES_H

#include "trainer/metrics/metrics.h"

/* scores[count]: of each example's references the first with the best f1 (the bert-score package takes the best precision
 * and recall separately). A text with a NUL character is STATUS_INVALID naming the example. */
Status bertscore_examples(const MetricSettings *settings, const MetricExample *examples, int64_t count, MetricScore *scores,
                          MetricCounts *counts);

#endif
