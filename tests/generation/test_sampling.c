/* The choice of the next token: the distribution is Transformers', and what is drawn follows it. */
#include "tests/generation/model.h"

#include "io/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static SamplingSettings settings_of(const JsonValue *json) {
    SamplingSettings settings = sampling_defaults();
    int64_t top_k;
    succeeds(json_value_get_number(json, "temperature", &settings.temperature));
    succeeds(json_value_get_integer(json, "top_k", &top_k));
    succeeds(json_value_get_number(json, "top_p", &settings.top_p));
    succeeds(json_value_get_number(json, "repetition_penalty", &settings.repetition_penalty));
    settings.top_k = top_k;
    return settings;
}

/* A copy: files of mixed dtypes are not aligned. */
static void *tensor_data(const Safetensors *file, const char *name, int64_t *elements) {
    const SafetensorsEntry *entry = safetensors_find(file, name);
    if (!entry) fail_msg("%s is missing", name);
    *elements = entry->shape[0];
    void *copy = malloc((size_t)entry->bytes);
    memcpy(copy, entry->data, (size_t)entry->bytes);
    return copy;
}

static void distribution_is_transformers(void **state) {
    (void)state;
    Safetensors *file;
    JsonValue *meta, *settings;
    TokenSampler *sampler;
    double largest = 0;
    int compared = 0, kept = 0;
    succeeds(safetensors_open(GENERATION_DATA "/untied/distributions.safetensors", &file));
    succeeds(json_value_read_file(GENERATION_DATA "/untied/meta.json", &meta));
    succeeds(json_value_get_array(meta, "settings", &settings));
    for (int n = 0; n < 4; ++n) {
        char name[64];
        int64_t vocabulary, context;
        snprintf(name, sizeof name, "logits.%d", n);
        float *logits = tensor_data(file, name, &vocabulary);
        snprintf(name, sizeof name, "contexts.%d", n);
        int32_t *ids = tensor_data(file, name, &context);
        succeeds(token_sampler_create(vocabulary, &sampler));
        float *own = malloc((size_t)vocabulary * sizeof *own);
        double *probabilities = malloc((size_t)vocabulary * sizeof *probabilities);
        for (size_t s = 0; s < json_value_size(settings); ++s) {
            SamplingSettings one = settings_of(json_value_at(settings, s));
            /* The context in two parts, as prompt and continuation. */
            SamplingInput input = {.logits = own, .limit = vocabulary, .seen = {ids, ids + 2}, .seen_count = {2, context - 2}};
            int64_t elements;
            snprintf(name, sizeof name, "distribution.%d.%zu", n, s);
            double *expected = tensor_data(file, name, &elements);
            memcpy(own, logits, (size_t)vocabulary * sizeof *own);
            assert_true(token_sampler_distribution(sampler, &one, &input, probabilities));
            for (int64_t v = 0; v < vocabulary; ++v) {
                largest = fmax(largest, fabs(probabilities[v] - expected[v]));
                kept += expected[v] > 0;
                assert_true((probabilities[v] > 0) == (expected[v] > 0) || expected[v] < 1e-30);
            }
            ++compared;
            free(expected);
        }
        free(own);
        free(probabilities);
        free(logits);
        free(ids);
        token_sampler_destroy(sampler);
    }
    printf("%d distributions, %d probabilities above 0: largest difference %g\n", compared, kept, largest);
    assert_true(compared == 40 && largest < 1e-6);
    json_value_free(meta);
    safetensors_close(file);
}

/* Pearson's chi-square over 20,000 draws of 30 tokens with top_p: within five standard deviations of its mean. */
static void draws_follow_the_distribution(void **state) {
    (void)state;
    enum { V = 30, DRAWS = 20000 };
    SamplingSettings settings = {.temperature = 1.3, .top_p = 0.97, .repetition_penalty = 1.0};
    TokenSampler *sampler;
    float logits[V], own[V];
    double probabilities[V], chi = 0;
    int counts[V] = {0}, degrees = -1;
    RandomStream stream = random_stream(3, 4);
    for (int i = 0; i < V; ++i) logits[i] = (float)(1.5 * random_normal(&stream));
    succeeds(token_sampler_create(V, &sampler));
    SamplingInput input = {.logits = own, .limit = V, .seed = 9};
    memcpy(own, logits, sizeof own);
    assert_true(token_sampler_distribution(sampler, &settings, &input, probabilities));
    for (int i = 0; i < DRAWS; ++i) {
        memcpy(own, logits, sizeof own);
        input.sample = (uint64_t)(i / 100);
        input.position = (uint64_t)(i % 100);
        int32_t id = token_sampler_next(sampler, &settings, &input);
        assert_in_range(id, 0, V - 1);
        ++counts[id];
    }
    int removed = 0;
    for (int i = 0; i < V; ++i) {
        double expected = probabilities[i] * DRAWS;
        if (expected == 0) {
            assert_int_equal(counts[i], 0);
            ++removed;
            continue;
        }
        chi += (counts[i] - expected) * (counts[i] - expected) / expected;
        ++degrees;
    }
    printf("chi-square %.1f of %d degrees of freedom, %d tokens removed\n", chi, degrees, removed);
    assert_true(removed > 0 && fabs(chi - degrees) < 5 * sqrt(2.0 * degrees));
    token_sampler_destroy(sampler);
}

/* The key decides: another seed, sample or position draws anew, the same key the same. */
static void keys_are_independent(void **state) {
    (void)state;
    enum { V = 1000 };
    SamplingSettings settings = {.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0};
    TokenSampler *sampler;
    float logits[V] = {0};
    succeeds(token_sampler_create(V, &sampler));
    int32_t first[4][50];
    int equal = 0;
    for (int key = 0; key < 4; ++key)
        for (int i = 0; i < 50; ++i) {
            SamplingInput input = {.logits = logits,
                                   .limit = V,
                                   .seed = key == 1 ? 2 : 1,
                                   .sample = (uint64_t)i + (key == 2 ? (uint64_t)1 << 33 : 0),
                                   .position = key == 3 ? 1 : 0};
            first[key][i] = token_sampler_next(sampler, &settings, &input);
            assert_int_equal(first[key][i], token_sampler_next(sampler, &settings, &input));
            equal += key > 0 && first[key][i] == first[0][i];
        }
    assert_true(equal <= 3); /* 150 comparisons, each equal by chance once in 1000 */
    token_sampler_destroy(sampler);
}

static void ties_and_bad_logits(void **state) {
    (void)state;
    SamplingSettings greedy = sampling_defaults(), sampled = {.temperature = 1, .top_k = 2, .top_p = 1, .repetition_penalty = 1};
    TokenSampler *sampler;
    double probabilities[6];
    float ties[6] = {1, 3, 3, 0, 3, 9}, all_masked[6], nan[6] = {0, 1, NAN, 0, 0, 0}, infinite[6] = {0, INFINITY, 0, 0, 0, 0};
    for (int i = 0; i < 6; ++i) all_masked[i] = -INFINITY;
    succeeds(token_sampler_create(6, &sampler));
    SamplingInput input = {.logits = ties, .limit = 5};
    assert_int_equal(token_sampler_next(sampler, &greedy, &input), 1); /* the first of equals; 5 is beyond the limit */
    assert_true(token_sampler_distribution(sampler, &sampled, &input, probabilities));
    for (int i = 0; i < 6; ++i) assert_true(fabs(probabilities[i] - (ties[i] == 3 && i < 5 ? 1.0 / 3 : 0)) < 1e-15);
    float *bad[] = {all_masked, nan, infinite};
    for (int i = 0; i < 3; ++i) {
        input.logits = bad[i];
        assert_int_equal(token_sampler_next(sampler, &greedy, &input), -1);
        assert_int_equal(token_sampler_next(sampler, &sampled, &input), -1);
        assert_false(token_sampler_distribution(sampler, &sampled, &input, probabilities));
    }
    float beyond[6] = {1, 2, 0, 0, 0, NAN}; /* what cannot come cannot hurt */
    input.logits = beyond;
    assert_int_equal(token_sampler_next(sampler, &greedy, &input), 1);
    token_sampler_destroy(sampler);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(distribution_is_transformers),
                                       cmocka_unit_test(draws_follow_the_distribution), cmocka_unit_test(keys_are_independent),
                                       cmocka_unit_test(ties_and_bad_logits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
