/* How sure a mean over examples is, and whether two systems differ, by drawing the examples again.
 *
 * A resample draws n of the n examples with replacement; of two systems the same examples are drawn (Koehn 2004,
 * "Statistical significance tests for machine translation evaluation"). Interval: the quantiles (1-c)/2 and (1+c)/2 of the
 * resamples' means, between two order statistics by linear interpolation (percentile method, Efron and Tibshirani 1993,
 * section 13.3). p-value, two-sided, for "there is no difference": with d the difference of the means and d*_b that of
 * resample b, p = (1 + #{b : |d*_b - d| >= |d|}) / (1 + B): the resamples, moved to where there is no difference, that
 * differ as much (Davison and Hinkley 1997, section 4.4). p is therefore never below 1 / (1 + B).
 *
 * Resample b draws from Philox stream b of the seed: the results depend on neither the number of threads nor the metric. An
 * index is floor(u n / 2^32) of a 32-bit number u: examples' chances differ by less than n / 2^32. */
#ifndef TRAINER_METRICS_BOOTSTRAP_H
#define TRAINER_METRICS_BOOTSTRAP_H

#include "io/status.h"

#include <stdint.h>

typedef struct BootstrapSettings {
    int64_t resamples; /* B, at least 1 */
    double confidence; /* c, between 0 and 1 */
    uint64_t seed;
} BootstrapSettings;
static const BootstrapSettings bootstrap_defaults = {10000, 0.95, 42};

typedef struct Interval {
    double low, high;
} Interval;

typedef struct PairedBootstrap {
    double base, adapter, difference; /* means; adapter - base */
    Interval base_interval, adapter_interval, difference_interval;
    double p_value;
} PairedBootstrap;

/* values[count], 1 <= count < 2^32. */
Status bootstrap_mean(const double *values, int64_t count, BootstrapSettings settings, double *mean, Interval *interval);
/* base[i] and adapter[i] are of the same example. */
Status bootstrap_paired(const double *base, const double *adapter, int64_t count, BootstrapSettings settings,
                        PairedBootstrap *out);

#endif
