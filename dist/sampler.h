/* Which samples form global batch `step`, how they are cut into micro-batches, and which rank computes which.
 *
 * Everything is a pure function of (seed, step, data set lengths): resuming seeks. The order of an epoch is the
 * Fisher-Yates permutation of (seed, epoch); the last batch of an epoch is smaller, never dropped, never joined to the next.
 * Micro-batches never depend on the number of ranks: consecutive samples of the global order, at most micro_batch_samples,
 * closed earlier when max_tokens would be exceeded. They are given to ranks by longest-processing-time-first, balanced by
 * tokens, ties to the lower rank; each rank computes its own in ascending order. */
#ifndef DIST_SAMPLER_H
#define DIST_SAMPLER_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct Sampler Sampler;

typedef struct SamplerSettings {
    uint64_t seed;
    bool shuffle;
    int64_t samples;             /* N: samples of one epoch */
    int64_t global_batch;        /* samples */
    int64_t micro_batch_samples; /* per_device_train_batch_size */
    int64_t max_tokens;          /* max_tokens_per_micro_batch; 0 = no limit */
    int world;
    int32_t (*length)(const void *context, int64_t sample); /* tokens of a sample */
    const void *context;
} SamplerSettings;

typedef struct MicroBatch {
    int64_t first, count; /* range in GlobalBatch.samples */
    int64_t tokens;
    int rank;
} MicroBatch;

typedef struct GlobalBatch {
    int64_t step, epoch, cursor; /* cursor: samples consumed in the epoch after this batch */
    int64_t *samples;            /* [sample_count] sample numbers in global order */
    int64_t sample_count;
    MicroBatch *micro_batches;
    int64_t micro_batch_count;
} GlobalBatch;

Status sampler_create(const SamplerSettings *settings, Sampler **out);
void sampler_destroy(Sampler *sampler);
int64_t sampler_steps_per_epoch(const Sampler *sampler); /* ceil(N / global_batch) */
/* Batch of any step >= 0, in any order of calls. The result belongs to the caller: global_batch_free. */
Status sampler_batch(Sampler *sampler, int64_t step, GlobalBatch *out);
void global_batch_free(GlobalBatch *batch);

#endif
