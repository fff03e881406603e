#include "trainer/data_mixture.h"

#include "io/random.h"

#include <math.h>
#include <stdlib.h>

/* Third word of the counters, so that no other use of the seed meets them: "MIXT". */
#define MIXTURE_COUNTER 0x4D495854u
enum { ROUNDS = 6 };

static Status add_source(DataMixture *mixture, int64_t index, int64_t samples, double weight) {
    if (!(weight >= 0) || weight > 1e6)
        INVALID("data.train[%lld].weight = %g must be between 0 and 1e6", (long long)index, weight);
    const MixtureSource *before = index ? &mixture->sources[index - 1] : NULL;
    mixture->sources[index] = (MixtureSource){
        .first = before ? before->first + before->samples : 0,
        .samples = samples,
        .virtual_first = mixture->samples,
        .virtual_samples = llround(weight * (double)samples),
    };
    mixture->samples += mixture->sources[index].virtual_samples;
    ++mixture->source_count;
    return STATUS_OK;
}

Status data_mixture_create(const int64_t *samples, const double *weights, int64_t source_count, uint64_t seed, DataMixture *out) {
    *out = (DataMixture){.seed = seed};
    TRY_ALLOC(out->sources = calloc((size_t)source_count + 1, sizeof *out->sources));
    Status status = STATUS_OK;
    for (int64_t i = 0; i < source_count && !status; ++i) status = add_source(out, i, samples[i], weights[i]);
    if (!status && !out->samples) status = INVALID_INPUT("data: the weights of all sources leave no sample in an epoch");
    if (status) data_mixture_free(out);
    return status;
}

void data_mixture_free(DataMixture *mixture) {
    free(mixture->sources);
    *mixture = (DataMixture){0};
}

/* A permutation of [0, n) without storing it: a Feistel network over the smallest even number of bits that holds n, walked
 * until it lands below n again (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). */
static int64_t permute(uint64_t seed, int64_t epoch, int64_t source, int64_t n, int64_t index) {
    int half = 1;
    while (((uint64_t)1 << (2 * half)) < (uint64_t)n) ++half;
    uint32_t mask = (uint32_t)(((uint64_t)1 << half) - 1);
    uint64_t x = (uint64_t)index;
    do {
        uint32_t left = (uint32_t)(x >> half), right = (uint32_t)x & mask;
        for (uint32_t round = 0; round < ROUNDS; ++round) {
            uint32_t counter[4] = {right, round | (uint32_t)source << 3, MIXTURE_COUNTER, (uint32_t)epoch}, random[4];
            philox4x32((uint32_t)seed, (uint32_t)(seed >> 32), counter, random);
            uint32_t swap = left ^ (random[0] & mask);
            left = right;
            right = swap;
        }
        x = (uint64_t)left << half | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}

int64_t data_mixture_sample(const DataMixture *mixture, int64_t epoch, int64_t index) {
    int64_t i = 0;
    while (i + 1 < mixture->source_count && mixture->sources[i + 1].virtual_first <= index) ++i;
    const MixtureSource *source = &mixture->sources[i];
    int64_t inside = index - source->virtual_first;
    int64_t whole = source->virtual_samples / source->samples * source->samples;
    if (inside < whole) return source->first + inside % source->samples;
    return source->first + permute(mixture->seed, epoch, i, source->samples, inside - whole);
}

int64_t data_view_sample(const DataView *view, int64_t index) { return data_mixture_sample(&view->mixture, view->epoch, index); }

int32_t data_view_length(const void *context, int64_t index) {
    const DataView *view = context;
    return token_dataset_length(view->dataset, data_view_sample(view, index));
}

int32_t data_view_label_tokens(const void *context, int64_t index) {
    const DataView *view = context;
    return token_dataset_label_tokens(view->dataset, data_view_sample(view, index));
}
