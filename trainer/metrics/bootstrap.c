#include "trainer/metrics/bootstrap.h"

#include "io/random.h"

#include <math.h>
#include <stdlib.h>

/* Means of the resamples, of one system or two. */
typedef struct Resamples {
    double *first, *second, *difference; /* [B]; the latter two only for two systems */
} Resamples;

static void resamples_free(Resamples *r) {
    free(r->first);
    free(r->second);
    free(r->difference);
}

static Status check(int64_t count, BootstrapSettings settings) {
    if (count < 1 || count > UINT32_MAX) INVALID("bootstrap: %lld examples, expected 1 to 2^32 - 1", (long long)count);
    if (settings.resamples < 1) INVALID("bootstrap: %lld resamples, expected at least 1", (long long)settings.resamples);
    if (!(settings.confidence > 0 && settings.confidence < 1))
        INVALID("bootstrap: confidence %g is not between 0 and 1", settings.confidence);
    return STATUS_OK;
}

static double mean_of(const double *values, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += values[i];
    return sum / (double)count;
}

/* Sums over one resample. second may be NULL. */
static void draw(const double *first, const double *second, int64_t count, uint64_t seed, int64_t resample, double sums[2]) {
    sums[0] = sums[1] = 0;
    for (int64_t i = 0; i < count; i += 4) { /* a block of Philox yields four numbers */
        uint32_t counter[4] = {(uint32_t)(i / 4), (uint32_t)((uint64_t)i >> 34), (uint32_t)resample,
                               (uint32_t)((uint64_t)resample >> 32)};
        uint32_t random[4];
        philox4x32((uint32_t)seed, (uint32_t)(seed >> 32), counter, random);
        for (int64_t k = 0; k < 4 && i + k < count; ++k) {
            uint64_t index = (uint64_t)random[k] * (uint64_t)count >> 32;
            sums[0] += first[index];
            if (second) sums[1] += second[index];
        }
    }
}

static Status resample_all(const double *first, const double *second, int64_t count, BootstrapSettings settings, Resamples *out) {
    size_t bytes = (size_t)settings.resamples * sizeof(double);
    TRY_ALLOC(out->first = malloc(bytes));
    if (second) TRY_ALLOC(out->second = malloc(bytes));
    if (second) TRY_ALLOC(out->difference = malloc(bytes));
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < settings.resamples; ++b) {
        double sums[2];
        draw(first, second, count, settings.seed, b, sums);
        out->first[b] = sums[0] / (double)count;
        if (second) out->second[b] = sums[1] / (double)count;
        if (second) out->difference[b] = out->second[b] - out->first[b];
    }
    return STATUS_OK;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int64_t count, double q) {
    double at = q * (double)(count - 1);
    int64_t below = (int64_t)at;
    if (below + 1 >= count) return sorted[count - 1];
    return sorted[below] + (at - (double)below) * (sorted[below + 1] - sorted[below]);
}

static Interval interval_of(double *means, BootstrapSettings settings) {
    qsort(means, (size_t)settings.resamples, sizeof *means, ascending);
    double tail = (1 - settings.confidence) / 2;
    return (Interval){quantile(means, settings.resamples, tail), quantile(means, settings.resamples, 1 - tail)};
}

/* What equals in exact arithmetic must count as equal: sums over other orders of the same values differ in the last bits. */
static double p_value(const double *differences, double difference, int64_t resamples) {
    int64_t extreme = 0;
    double bound = fabs(difference) * (1 - 1e-12);
    for (int64_t b = 0; b < resamples; ++b) extreme += fabs(differences[b] - difference) >= bound;
    return (double)(1 + extreme) / (double)(1 + resamples);
}

Status bootstrap_mean(const double *values, int64_t count, BootstrapSettings settings, double *mean, Interval *interval) {
    Resamples resamples = {0};
    TRY(check(count, settings));
    Status status = resample_all(values, NULL, count, settings, &resamples);
    if (!status) {
        *mean = mean_of(values, count);
        *interval = interval_of(resamples.first, settings);
    }
    resamples_free(&resamples);
    return status;
}

Status bootstrap_paired(const double *base, const double *adapter, int64_t count, BootstrapSettings settings,
                        PairedBootstrap *out) {
    Resamples resamples = {0};
    TRY(check(count, settings));
    Status status = resample_all(base, adapter, count, settings, &resamples);
    if (!status) {
        *out = (PairedBootstrap){.base = mean_of(base, count), .adapter = mean_of(adapter, count)};
        out->difference = out->adapter - out->base;
        out->p_value = p_value(resamples.difference, out->difference, settings.resamples);
        out->base_interval = interval_of(resamples.first, settings);
        out->adapter_interval = interval_of(resamples.second, settings);
        out->difference_interval = interval_of(resamples.difference, settings);
    }
    resamples_free(&resamples);
    return status;
}
