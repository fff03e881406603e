#include "dist/sampler.h"

#include "io/random.h"

#include <stdlib.h>
#include <string.h>

/* High half of the random stream's number, so that no other use of the seed meets these counters: "SMPL". */
#define SAMPLER_STREAM ((uint64_t)0x534D504C << 32)

struct Sampler {
    SamplerSettings settings;
    int64_t *permutation; /* [samples], of cached_epoch */
    int64_t cached_epoch; /* -1: none yet */
};

Status sampler_create(const SamplerSettings *settings, Sampler **out) {
    *out = NULL;
    if (settings->samples <= 0) INVALID("the data set has no samples");
    if (settings->global_batch <= 0 || settings->micro_batch_samples <= 0)
        INVALID("global batch (%lld) and micro-batch (%lld) must be at least one sample", (long long)settings->global_batch,
                (long long)settings->micro_batch_samples);
    if (settings->max_tokens < 0) INVALID("max_tokens_per_micro_batch = %lld is negative", (long long)settings->max_tokens);
    if (settings->world <= 0) INVALID("world size %d is not positive", settings->world);

    Sampler *sampler;
    TRY_ALLOC(sampler = calloc(1, sizeof *sampler));
    sampler->settings = *settings;
    sampler->cached_epoch = -1;
    sampler->permutation = calloc((size_t)settings->samples, sizeof *sampler->permutation);
    if (!sampler->permutation) {
        sampler_destroy(sampler);
        FAIL("out of memory for the order of %lld samples", (long long)settings->samples);
    }
    *out = sampler;
    return STATUS_OK;
}

void sampler_destroy(Sampler *sampler) {
    if (!sampler) return;
    free(sampler->permutation);
    free(sampler);
}

int64_t sampler_steps_per_epoch(const Sampler *sampler) {
    const SamplerSettings *s = &sampler->settings;
    return s->samples / s->global_batch + (s->samples % s->global_batch != 0);
}

static void fill_permutation(Sampler *sampler, int64_t epoch) {
    const SamplerSettings *s = &sampler->settings;
    int64_t *order = sampler->permutation;
    for (int64_t i = 0; i < s->samples; ++i) order[i] = i;
    if (s->shuffle) {
        RandomStream stream = random_stream(s->seed, SAMPLER_STREAM | (uint32_t)epoch);
        for (int64_t i = s->samples - 1; i > 0; --i) {
            int64_t j = (int64_t)random_below(&stream, (uint64_t)i + 1), swap = order[i];
            order[i] = order[j];
            order[j] = swap;
        }
    }
    sampler->cached_epoch = epoch;
}

/* Cuts batch->samples into consecutive micro-batches. A sample longer than max_tokens stands alone. */
static Status cut_micro_batches(const SamplerSettings *s, GlobalBatch *batch) {
    MicroBatch *current = NULL;
    for (int64_t i = 0; i < batch->sample_count; ++i) {
        int32_t length = s->length(s->context, batch->samples[i]);
        if (length < 0) FAIL("sample %lld has the length %d", (long long)batch->samples[i], (int)length);
        bool full = !current || current->count == s->micro_batch_samples ||
                    (s->max_tokens > 0 && current->tokens + length > s->max_tokens);
        if (full) {
            current = &batch->micro_batches[batch->micro_batch_count++];
            *current = (MicroBatch){.first = i};
        }
        current->count += 1;
        current->tokens += length;
    }
    return STATUS_OK;
}

typedef struct Job {
    int64_t tokens, index;
} Job;

static int by_tokens_descending(const void *left, const void *right) {
    const Job *a = left, *b = right;
    if (a->tokens != b->tokens) return a->tokens < b->tokens ? 1 : -1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* Longest processing time first (Graham 1969): at most 4/3 - 1/(3 world) times the best possible balance. */
static Status assign_ranks(int world, GlobalBatch *batch) {
    int64_t count = batch->micro_batch_count;
    Status status = STATUS_OK;
    Job *jobs = malloc((size_t)count * sizeof *jobs);
    int64_t *load = calloc((size_t)world, sizeof *load);
    if (!jobs || !load) {
        status = FAILURE("out of memory for %lld micro-batches on %d ranks", (long long)count, world);
        goto done;
    }
    for (int64_t i = 0; i < count; ++i) jobs[i] = (Job){batch->micro_batches[i].tokens, i};
    qsort(jobs, (size_t)count, sizeof *jobs, by_tokens_descending);
    for (int64_t i = 0; i < count; ++i) {
        int least = 0;
        for (int rank = 1; rank < world; ++rank)
            if (load[rank] < load[least]) least = rank;
        batch->micro_batches[jobs[i].index].rank = least;
        load[least] += jobs[i].tokens;
    }
done:
    free(jobs);
    free(load);
    return status;
}

Status sampler_batch(Sampler *sampler, int64_t step, GlobalBatch *out) {
    const SamplerSettings *s = &sampler->settings;
    int64_t steps = sampler_steps_per_epoch(sampler);
    Status status = STATUS_OK;
    memset(out, 0, sizeof *out);
    if (step < 0) FAIL("step %lld is negative", (long long)step);

    int64_t first = step % steps * s->global_batch;
    out->step = step;
    out->epoch = step / steps;
    out->sample_count = s->samples - first < s->global_batch ? s->samples - first : s->global_batch;
    out->cursor = first + out->sample_count;
    if (out->epoch != sampler->cached_epoch) fill_permutation(sampler, out->epoch);

    out->samples = malloc((size_t)out->sample_count * sizeof *out->samples);
    out->micro_batches = malloc((size_t)out->sample_count * sizeof *out->micro_batches);
    if (!out->samples || !out->micro_batches) {
        status = FAILURE("out of memory for a batch of %lld samples", (long long)out->sample_count);
        goto fail;
    }
    memcpy(out->samples, sampler->permutation + first, (size_t)out->sample_count * sizeof *out->samples);
    TRY_GOTO(cut_micro_batches(s, out), fail);
    TRY_GOTO(assign_ranks(s->world, out), fail);
    return STATUS_OK;
fail:
    global_batch_free(out);
    return status;
}

void global_batch_free(GlobalBatch *batch) {
    free(batch->samples);
    free(batch->micro_batches);
    memset(batch, 0, sizeof *batch);
}
