/* Choosing the next token from logits, with the semantics and the order of Transformers' logits processors:
 * RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper (generation/logits_process.py,
 * order of _get_logits_processor in generation/utils.py). Sums are double. Works on the host. */
#ifndef MODEL_SAMPLING_H
#define MODEL_SAMPLING_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct SamplingSettings {
    double temperature;        /* 0: greedy, and top_k and top_p do nothing */
    int64_t top_k;             /* 0: off; the k largest logits, and those equal to the k-th, may come */
    double top_p;              /* 1: off; the smallest set of likeliest tokens whose probability reaches top_p may come */
    double repetition_penalty; /* 1: off; logits of ids in prompt or continuation: times it when negative, else divided by it */
} SamplingSettings;

/* temperature 0, all else off. */
SamplingSettings sampling_defaults(void);
/* STATUS_INVALID names the setting that is out of range. */
Status sampling_check(const SamplingSettings *settings);

typedef struct TokenSampler TokenSampler; /* buffers for one vocabulary; no state between tokens; one thread at a time */
Status token_sampler_create(int64_t vocabulary, TokenSampler **out);
void token_sampler_destroy(TokenSampler *sampler); /* accepts NULL */

/* What the choice depends on besides the logits. */
typedef struct SamplingInput {
    float *logits;          /* [vocabulary]; changed in place */
    int64_t limit;          /* ids from here on cannot come; at most the vocabulary */
    const int32_t *seen[2]; /* prompt and continuation so far */
    int64_t seen_count[2];
    uint64_t seed, sample, position; /* key of the random number; position: tokens in front of the new one */
} SamplingInput;

/* The next token. -1: the logits are not numbers (NaN, or no finite one among those that may come). */
int32_t token_sampler_next(TokenSampler *sampler, const SamplingSettings *settings, const SamplingInput *input);
/* The distribution that token_sampler_next draws from: probabilities[vocabulary] (one 1 when greedy). False as -1 above. */
bool token_sampler_distribution(TokenSampler *sampler, const SamplingSettings *settings, const SamplingInput *input,
                                double *probabilities);

#endif
