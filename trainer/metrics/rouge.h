/* ROUGE (Lin 2004) as Google's rouge_score 0.1.2 computes it, number for number: lower case, everything but a-z and 0-9
 * separates words, words longer than three letters are stemmed on demand (trainer/metrics/porter_stemmer.h).
 *
 * rouge1, rouge2: clipped n-gram overlap. rougeL: longest common subsequence of the whole texts. rougeLsum: union over the
 * prediction's lines of the longest common subsequences with each line of the reference (lines end at "\n"), no word
 * counted more often than it occurs on either side. precision = hits / words of the prediction, recall = hits / words of
 * the reference, fmeasure their harmonic mean, 0 where both are. */
#ifndef TRAINER_METRICS_ROUGE_H
#define TRAINER_METRICS_ROUGE_H

#include "io/status.h"
#include "trainer/metrics/metric_text.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum RougeKind { ROUGE_1, ROUGE_2, ROUGE_L, ROUGE_LSUM, ROUGE_KINDS } RougeKind;

typedef struct RougeScore {
    double precision, recall, fmeasure;
} RougeScore;

typedef struct RougeScorer RougeScorer; /* memory that calls use again; for one thread */

Status rouge_scorer_create(bool stemmer, RougeScorer **out);
void rouge_scorer_destroy(RougeScorer *scorer); /* accepts NULL */
/* scores[kind] for every kind whose bit 1 << kind is set in kinds: of the references (at least one) the first with the
 * greatest fmeasure, chosen for each kind by itself. Bytes that are not UTF-8 separate words. */
Status rouge_score(RougeScorer *scorer, unsigned kinds, MetricText prediction, const MetricText *references,
                   int64_t reference_count, RougeScore scores[ROUGE_KINDS]);

#endif
