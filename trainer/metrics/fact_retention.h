/* Fact retention: the fraction of given facts (names, numbers, phrases) that a text still contains.
 *
 * Both sides are normalised: lower case; "." goes between letters (U.S. = us) and stays between digits; "," goes between
 * digits (1,000 = 1000); every other character that is no letter, digit or mark separates words, of which "%" and currency
 * signs are words themselves. A fact is found where its words follow one another in the text as whole words; next to
 * writing without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) a word may end anywhere. */
#ifndef TRAINER_METRICS_FACT_RETENTION_H
#define TRAINER_METRICS_FACT_RETENTION_H

#include "io/buffer.h"
#include "trainer/metrics/metric_text.h"

/* Zero-initialise; memory that calls use again; for one thread. */
typedef struct FactScratch {
    Text lower, text, fact;
} FactScratch;

void fact_scratch_free(FactScratch *scratch);
/* facts[count], count > 0. A fact without any letter, digit or sign, and invalid UTF-8, are STATUS_INVALID. */
Status fact_retention(FactScratch *scratch, MetricText text, const MetricText *facts, int64_t count, double *fraction);

#endif
