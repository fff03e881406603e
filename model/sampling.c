#include "model/sampling.h"

#include "io/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Candidate {
    int32_t id;
    double weight;
} Candidate;

struct TokenSampler {
    int64_t vocabulary;
    double *weights;       /* [vocabulary] exp(logit - largest), 0 for what may not come */
    float *order;          /* [vocabulary] for the selection of the k-th largest */
    Candidate *candidates; /* [vocabulary] */
    unsigned char *seen;   /* [vocabulary], all 0 between calls */
};

SamplingSettings sampling_defaults(void) { return (SamplingSettings){.top_p = 1.0, .repetition_penalty = 1.0}; }

/* The comparisons are false for NaN. */
Status sampling_check(const SamplingSettings *settings) {
    if (!(settings->temperature >= 0 && settings->temperature <= 1e6))
        INVALID("temperature must be between 0 (greedy) and 1e6, not %g", settings->temperature);
    if (settings->top_k < 0) INVALID("top_k must be 0 (off) or more, not %lld", (long long)settings->top_k);
    if (!(settings->top_p > 0 && settings->top_p <= 1))
        INVALID("top_p must be above 0 and at most 1 (off), not %g", settings->top_p);
    if (!(settings->repetition_penalty > 0 && settings->repetition_penalty <= 1e6))
        INVALID("repetition_penalty must be above 0 (1: off) and at most 1e6, not %g", settings->repetition_penalty);
    return STATUS_OK;
}

Status token_sampler_create(int64_t vocabulary, TokenSampler **out) {
    TokenSampler *sampler = calloc(1, sizeof *sampler);
    TRY_ALLOC(sampler);
    size_t count = (size_t)vocabulary;
    sampler->vocabulary = vocabulary;
    sampler->weights = malloc(count * sizeof *sampler->weights);
    sampler->order = malloc(count * sizeof *sampler->order);
    sampler->candidates = malloc(count * sizeof *sampler->candidates);
    sampler->seen = calloc(count, 1);
    if (!sampler->weights || !sampler->order || !sampler->candidates || !sampler->seen) {
        token_sampler_destroy(sampler);
        FAIL("out of memory: sampling from %lld tokens", (long long)vocabulary);
    }
    *out = sampler;
    return STATUS_OK;
}

void token_sampler_destroy(TokenSampler *sampler) {
    if (!sampler) return;
    free(sampler->weights);
    free(sampler->order);
    free(sampler->candidates);
    free(sampler->seen);
    free(sampler);
}

/* In fp32, as Transformers: the bits of the logits decide ties. */
static void penalise(TokenSampler *sampler, double penalty, const SamplingInput *input) {
    float factor = (float)penalty;
    if (penalty == 1.0) return;
    for (int part = 0; part < 2; ++part)
        for (int64_t i = 0; i < input->seen_count[part]; ++i) {
            int32_t id = input->seen[part][i];
            if (sampler->seen[id]) continue;
            sampler->seen[id] = 1;
            float x = input->logits[id];
            input->logits[id] = x < 0 ? x * factor : x / factor;
        }
    for (int part = 0; part < 2; ++part)
        for (int64_t i = 0; i < input->seen_count[part]; ++i) sampler->seen[input->seen[part][i]] = 0;
}

/* False when a logit is NaN or the largest is not finite. */
static bool largest_logit(const float *logits, int64_t limit, float *out) {
    float largest = -INFINITY;
    int nan = 0;
#pragma omp simd reduction(max : largest) reduction(| : nan)
    for (int64_t i = 0; i < limit; ++i) {
        nan |= logits[i] != logits[i];
        largest = logits[i] > largest ? logits[i] : largest;
    }
    *out = largest;
    return !nan && isfinite(largest);
}

static int32_t first_of(const float *logits, int64_t limit, float value) {
    int64_t i = 0;
    while (i < limit - 1 && logits[i] != value) ++i;
    return (int32_t)i;
}

/* The k-th largest of x[count], 1 <= k <= count (Hoare's selection); x is reordered. */
static float select_largest(float *x, int64_t count, int64_t k) {
    int64_t low = 0, high = count - 1, target = k - 1;
    while (low < high) {
        float pivot = x[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (x[i] > pivot) ++i;
            while (x[j] < pivot) --j;
            if (i > j) break;
            float swap = x[i];
            x[i++] = x[j];
            x[j--] = swap;
        }
        if (target <= j)
            high = j;
        else if (target >= i)
            low = i;
        else
            break;
    }
    return x[target];
}

/* Smallest weight first; of equal ones the later id. */
static int by_weight(const void *a, const void *b) {
    const Candidate *x = a, *y = b;
    if (x->weight != y->weight) return x->weight < y->weight ? -1 : 1;
    return x->id > y->id ? -1 : 1;
}

/* Takes the least likely away while what is taken sums to at most 1 - top_p of the total. Those below the mean share of that
 * mass go in any case, so that only the others need sorting. */
static void keep_top_p(TokenSampler *sampler, int64_t limit, double total, double top_p) {
    double room = (1.0 - top_p) * total, sure = room / (double)limit, taken = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < limit; ++i) {
        double weight = sampler->weights[i];
        if (weight <= 0) continue;
        if (weight < sure) {
            taken += weight;
            sampler->weights[i] = 0;
        } else {
            sampler->candidates[count++] = (Candidate){(int32_t)i, weight};
        }
    }
    qsort(sampler->candidates, (size_t)count, sizeof *sampler->candidates, by_weight);
    for (int64_t i = 0; i + 1 < count; ++i) {
        taken += sampler->candidates[i].weight;
        if (taken > room) break;
        sampler->weights[sampler->candidates[i].id] = 0;
    }
}

static double sum_weights(const TokenSampler *sampler, int64_t limit) {
    double total = 0;
    for (int64_t i = 0; i < limit; ++i) total += sampler->weights[i];
    return total;
}

/* Fills weights behind temperature, top-k and top-p; their sum. */
static double fill_weights(TokenSampler *sampler, const SamplingSettings *settings, float *logits, int64_t limit, float largest) {
    float temperature = (float)settings->temperature, threshold = -INFINITY;
    for (int64_t i = 0; i < limit; ++i) logits[i] /= temperature;
    if (settings->top_k > 0 && settings->top_k < limit) {
        memcpy(sampler->order, logits, (size_t)limit * sizeof *logits);
        threshold = select_largest(sampler->order, limit, settings->top_k);
    }
    double shift = (double)(largest / temperature), total = 0;
    for (int64_t i = 0; i < limit; ++i) {
        sampler->weights[i] = logits[i] >= threshold ? exp((double)logits[i] - shift) : 0.0;
        total += sampler->weights[i];
    }
    if (settings->top_p >= 1.0) return total;
    keep_top_p(sampler, limit, total, settings->top_p);
    return sum_weights(sampler, limit);
}

static double draw(const SamplingInput *input) {
    uint32_t counter[4] = {(uint32_t)input->position, (uint32_t)input->sample, (uint32_t)(input->sample >> 32), 0x67656e65u},
             bits[4];
    philox4x32((uint32_t)input->seed, (uint32_t)(input->seed >> 32), counter, bits);
    return (double)(((uint64_t)bits[0] << 32 | bits[1]) >> 11) * 0x1p-53;
}

/* The id at which the running sum passes `target`; the last possible one where rounding keeps it from passing. */
static int32_t walk(const TokenSampler *sampler, int64_t limit, double target) {
    double sum = 0;
    int32_t last = -1;
    for (int64_t i = 0; i < limit; ++i) {
        if (sampler->weights[i] <= 0) continue;
        sum += sampler->weights[i];
        last = (int32_t)i;
        if (sum > target) break;
    }
    return last;
}

int32_t token_sampler_next(TokenSampler *sampler, const SamplingSettings *settings, const SamplingInput *input) {
    float largest;
    penalise(sampler, settings->repetition_penalty, input);
    if (!largest_logit(input->logits, input->limit, &largest)) return -1;
    if (settings->temperature == 0) return first_of(input->logits, input->limit, largest);
    double total = fill_weights(sampler, settings, input->logits, input->limit, largest);
    return walk(sampler, input->limit, draw(input) * total);
}

bool token_sampler_distribution(TokenSampler *sampler, const SamplingSettings *settings, const SamplingInput *input,
                                double *probabilities) {
    float largest;
    penalise(sampler, settings->repetition_penalty, input);
    if (!largest_logit(input->logits, input->limit, &largest)) return false;
    memset(probabilities, 0, (size_t)sampler->vocabulary * sizeof *probabilities);
    if (settings->temperature == 0) {
        probabilities[first_of(input->logits, input->limit, largest)] = 1;
        return true;
    }
    double total = fill_weights(sampler, settings, input->logits, input->limit, largest);
    for (int64_t i = 0; i < input->limit; ++i) probabilities[i] = sampler->weights[i] / total;
    return true;
}
