/* Exact match and F1 of short answers by the rules of SQuAD 2.0's official evaluation script: lower case, ASCII punctuation
 * removed, the words a, an and the removed, white space squeezed; F1 on the bags of words. The best reference counts.
 *
 * References that are empty after normalisation are left out; where none is left the question has no answer, and only an
 * empty prediction is right (both are 1 then, else 0). */
#ifndef TRAINER_METRICS_ANSWER_H
#define TRAINER_METRICS_ANSWER_H

#include "io/buffer.h"
#include "trainer/metrics/metric_text.h"
#include "trainer/metrics/word_ids.h"

/* Zero-initialise; memory that calls use again; for one thread. */
typedef struct AnswerScratch {
    Text lower, prediction, reference;
    WordIds words;
    TokenList prediction_ids, reference_ids;
    int32_t *counts;
    size_t count_capacity;
} AnswerScratch;

void answer_scratch_free(AnswerScratch *scratch);
/* Invalid UTF-8 is STATUS_INVALID. */
Status answer_score(AnswerScratch *scratch, MetricText prediction, const MetricText *references, int64_t reference_count,
                    double *f1, double *exact_match);
/* Appends the normalised text: words with single spaces between. lower: memory for it. */
Status answer_normalize(Text *lower, MetricText text, Text *out);

#endif
