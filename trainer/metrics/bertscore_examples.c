#include "trainer/metrics/bertscore_examples.h"

#include <stdlib.h>
#include <string.h>

/* One pair for every reference. Texts are copied: the encoder wants them to end with NUL. */
typedef struct Pairs {
    char *letters;
    const char **predictions, **references;
    BertscoreResult *results;
    int64_t count;
} Pairs;

static void pairs_free(Pairs *pairs) {
    free(pairs->letters);
    free((void *)pairs->predictions);
    free((void *)pairs->references);
    free(pairs->results);
}

static Status copy_text(MetricText text, const char *what, char **letters, const char **out) {
    if (text.length && memchr(text.bytes, 0, text.length)) INVALID("%s holds a NUL character, which bertscore cannot read", what);
    *out = *letters;
    if (text.length) memcpy(*letters, text.bytes, text.length);
    (*letters)[text.length] = 0;
    *letters += text.length + 1;
    return STATUS_OK;
}

static Status pairs_allocate(const MetricExample *examples, int64_t count, Pairs *out) {
    size_t letters = 0;
    for (int64_t i = 0; i < count; ++i) {
        letters += examples[i].prediction.length + 1;
        for (int64_t r = 0; r < examples[i].reference_count; ++r) letters += examples[i].references[r].length + 1;
        out->count += examples[i].reference_count;
    }
    TRY_ALLOC(out->letters = malloc(letters));
    TRY_ALLOC(out->predictions = calloc((size_t)out->count, sizeof *out->predictions));
    TRY_ALLOC(out->references = calloc((size_t)out->count, sizeof *out->references));
    TRY_ALLOC(out->results = calloc((size_t)out->count, sizeof *out->results));
    return STATUS_OK;
}

static Status pairs_fill(const MetricSettings *settings, const MetricExample *examples, int64_t count, Pairs *pairs) {
    char *letters = pairs->letters;
    int64_t pair = 0;
    for (int64_t i = 0; i < count; ++i) {
        const char *prediction;
        Status status = copy_text(examples[i].prediction, "the prediction", &letters, &prediction);
        for (int64_t r = 0; r < examples[i].reference_count && !status; ++r, ++pair) {
            pairs->predictions[pair] = prediction;
            status = copy_text(examples[i].references[r], "a reference", &letters, &pairs->references[pair]);
        }
        TRY(metric_example_error(settings, examples, i, status));
    }
    return STATUS_OK;
}

static void choose(const BertscoreResult *results, int64_t count, MetricScore *out) {
    const BertscoreResult *best = results;
    for (int64_t r = 1; r < count; ++r)
        if (results[r].f1 > best->f1) best = &results[r];
    *out = (MetricScore){best->precision, best->recall, best->f1};
}

Status bertscore_examples(const MetricSettings *settings, const MetricExample *examples, int64_t count, MetricScore *scores,
                          MetricCounts *counts) {
    Pairs pairs = {0};
    Status status = pairs_allocate(examples, count, &pairs);
    if (!status) status = pairs_fill(settings, examples, count, &pairs);
    if (!status) status = bertscore_pairs(settings->bertscore, pairs.predictions, pairs.references, pairs.count, pairs.results);
    for (int64_t i = 0, pair = 0; i < count && !status; pair += examples[i++].reference_count)
        choose(pairs.results + pair, examples[i].reference_count, &scores[i]);
    for (int64_t pair = 0; pair < pairs.count && !status; ++pair) counts->weightless += pairs.results[pair].weightless;
    pairs_free(&pairs);
    return status;
}
