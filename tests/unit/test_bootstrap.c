/* Intervals and p-values against cases whose distribution is known, and that they depend on nothing but seed and values. */
#include "trainer/metrics/bootstrap.h"

#include "io/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define N 1000

static void assert_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

static void assert_near(double actual, double expected, double tolerance) {
    if (!(fabs(actual - expected) <= tolerance)) fail_msg("%.6g, expected %.6g within %.2g", actual, expected, tolerance);
}

/* Two examples 0 and 1: the resamples' means are 0, 1/2, 1 with chances 1/4, 1/2, 1/4. */
static void test_two_examples(void **state) {
    (void)state;
    static const double zero[] = {0, 0}, values[] = {0, 1};
    BootstrapSettings settings = bootstrap_defaults;
    double mean;
    Interval interval;
    assert_ok(bootstrap_mean(values, 2, settings, &mean, &interval));
    assert_true(mean == 0.5 && interval.low == 0 && interval.high == 1);
    settings.confidence = 0.4;
    assert_ok(bootstrap_mean(values, 2, settings, &mean, &interval));
    assert_true(interval.low == 0.5 && interval.high == 0.5);
    PairedBootstrap paired;
    assert_ok(bootstrap_paired(zero, values, 2, bootstrap_defaults, &paired));
    assert_near(paired.p_value, 0.5, 0.02); /* half of the resamples differ by 1/2 from 1/2 */
}

static void test_one_example(void **state) {
    (void)state;
    double value = 0.3, mean;
    Interval interval;
    assert_ok(bootstrap_mean(&value, 1, bootstrap_defaults, &mean, &interval));
    assert_true(mean == 0.3 && interval.low == 0.3 && interval.high == 0.3);
}

static void draw_normal(uint64_t stream, double shift, double deviation, double *out) {
    for (uint64_t i = 0; i < N; ++i) out[i] = shift + deviation * random_normal_at(7, stream, i);
}

static void mean_and_error(const double *values, double *mean, double *error) {
    double sum = 0, squares = 0;
    for (int i = 0; i < N; ++i) sum += values[i];
    *mean = sum / N;
    for (int i = 0; i < N; ++i) squares += (values[i] - *mean) * (values[i] - *mean);
    *error = sqrt(squares / N / N);
}

/* Of many examples the mean is nearly normal: interval mean +- 1.96 errors, p that of the z test. */
static void test_normal_limit(void **state) {
    (void)state;
    double base[N], adapter[N], difference[N], mean, error;
    Interval interval;
    PairedBootstrap paired;
    draw_normal(1, 0.4, 1, base);
    mean_and_error(base, &mean, &error);
    double bootstrap;
    assert_ok(bootstrap_mean(base, N, bootstrap_defaults, &bootstrap, &interval));
    assert_near(bootstrap, mean, 1e-12);
    assert_near(interval.low, mean - 1.95996 * error, 0.1 * error);
    assert_near(interval.high, mean + 1.95996 * error, 0.1 * error);
    for (int step = 0; step < 5; ++step) {
        draw_normal(2 + (uint64_t)step, 0.02 * step, 0.5, difference);
        for (int i = 0; i < N; ++i) adapter[i] = base[i] + difference[i];
        mean_and_error(difference, &mean, &error);
        assert_ok(bootstrap_paired(base, adapter, N, bootstrap_defaults, &paired));
        assert_near(paired.difference, mean, 1e-12);
        assert_near(paired.difference_interval.low, mean - 1.95996 * error, 0.1 * error);
        assert_near(paired.difference_interval.high, mean + 1.95996 * error, 0.1 * error);
        assert_near(paired.p_value, erfc(fabs(mean) / error / sqrt(2)), 0.02);
    }
}

static void test_equal_and_clear_differences(void **state) {
    (void)state;
    double base[N], adapter[N];
    PairedBootstrap paired;
    draw_normal(1, 0, 1, base);
    assert_ok(bootstrap_paired(base, base, N, bootstrap_defaults, &paired));
    assert_true(paired.p_value == 1 && paired.difference == 0 && paired.difference_interval.low == 0);
    draw_normal(2, 1, 0.1, adapter);
    for (int i = 0; i < N; ++i) adapter[i] += base[i];
    assert_ok(bootstrap_paired(base, adapter, N, bootstrap_defaults, &paired));
    assert_true(paired.p_value == 1.0 / 10001);
    for (int i = 0; i < N; ++i) adapter[i] = base[i] + 0.1; /* the same for every example: every resample has it */
    assert_ok(bootstrap_paired(base, adapter, N, bootstrap_defaults, &paired));
    assert_true(paired.p_value == 1.0 / 10001);
}

static void test_seed_threads_and_exchange(void **state) {
    (void)state;
    double base[N], adapter[N];
    PairedBootstrap one, three, other, back;
    BootstrapSettings settings = bootstrap_defaults;
    draw_normal(1, 0, 1, base);
    draw_normal(2, 0.05, 1, adapter);
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    assert_ok(bootstrap_paired(base, adapter, N, settings, &one));
    omp_set_num_threads(3);
    assert_ok(bootstrap_paired(base, adapter, N, settings, &three));
    omp_set_num_threads(threads);
    assert_memory_equal(&one, &three, sizeof one);
    settings.seed = 43;
    assert_ok(bootstrap_paired(base, adapter, N, settings, &other));
    assert_true(other.difference_interval.low != one.difference_interval.low);
    assert_near(other.p_value, one.p_value, 0.02);
    assert_ok(bootstrap_paired(adapter, base, N, bootstrap_defaults, &back));
    assert_true(back.difference == -one.difference && back.p_value == one.p_value);
    assert_near(back.difference_interval.low, -one.difference_interval.high, 1e-12);
    double mean; /* a system alone is drawn as in a pair */
    Interval interval;
    assert_ok(bootstrap_mean(base, N, bootstrap_defaults, &mean, &interval));
    assert_memory_equal(&interval, &one.base_interval, sizeof interval);
}

static void test_refusals(void **state) {
    (void)state;
    double value = 0, mean;
    Interval interval;
    BootstrapSettings bad[] = {{0, 0.95, 1}, {10, 1, 1}, {10, 0, 1}, {10, NAN, 1}};
    for (size_t i = 0; i < 5; ++i) {
        Status status = bootstrap_mean(&value, i < 4, i < 4 ? bad[i] : bootstrap_defaults, &mean, &interval);
        assert_int_equal(status_exit_code(status), STATUS_INVALID);
        status_free(status);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_examples),
        cmocka_unit_test(test_one_example),
        cmocka_unit_test(test_normal_limit),
        cmocka_unit_test(test_equal_and_clear_differences),
        cmocka_unit_test(test_seed_threads_and_exchange),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
