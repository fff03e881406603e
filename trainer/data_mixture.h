/* What one epoch is made of when sources have weights.
 *
 * A source with n samples and weight w gives round(w n) samples to every epoch: each of them floor(w) times, and a
 * fractional rest that is chosen anew every epoch by a permutation of (seed, epoch, source). With weight 1 everywhere an
 * epoch is the data set itself. Index i of an epoch is a pure function of (seed, epoch, i): resuming seeks. */
#ifndef TRAINER_DATA_MIXTURE_H
#define TRAINER_DATA_MIXTURE_H

#include "io/dataset.h"

typedef struct MixtureSource {
    int64_t first, samples; /* range in the data set */
    int64_t virtual_first;  /* index of its first sample in an epoch */
    int64_t virtual_samples;
} MixtureSource;

typedef struct DataMixture {
    uint64_t seed;
    MixtureSource *sources;
    int64_t source_count;
    int64_t samples; /* N of an epoch */
} DataMixture;

/* samples, weights: [source_count]. STATUS_INVALID for negative or non-finite weights and an empty epoch. */
Status data_mixture_create(const int64_t *samples, const double *weights, int64_t source_count, uint64_t seed, DataMixture *out);
void data_mixture_free(DataMixture *mixture);
/* Sample of the data set at index (0 <= index < mixture->samples) of an epoch. */
int64_t data_mixture_sample(const DataMixture *mixture, int64_t epoch, int64_t index);

/* A mixture over an open data set as the sampler's length callback wants it. The caller sets epoch (step divided by
 * steps_per_epoch) before it asks for the batch of a step. */
typedef struct DataView {
    const TokenDataset *dataset;
    DataMixture mixture;
    int64_t epoch;
} DataView;
int32_t data_view_length(const void *view, int64_t index);       /* tokens */
int32_t data_view_label_tokens(const void *view, int64_t index); /* labels that count */
int64_t data_view_sample(const DataView *view, int64_t index);   /* in the data set */

#endif
