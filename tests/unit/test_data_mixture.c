/* Epochs of weighted sources: exact counts, every copy where it belongs, a new fraction every epoch, no state. */
#include "io/random.h"
#include "trainer/data_mixture.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void count_epoch(const DataMixture *mixture, int64_t epoch, int32_t *seen, int64_t samples) {
    memset(seen, 0, (size_t)samples * sizeof *seen);
    for (int64_t i = 0; i < mixture->samples; ++i) {
        int64_t sample = data_mixture_sample(mixture, epoch, i);
        assert_in_range(sample, 0, samples - 1);
        ++seen[sample];
    }
}

static void weight_one_is_the_data_set_itself(void **state) {
    (void)state;
    const int64_t samples[] = {5, 0, 9};
    const double weights[] = {1, 1, 1};
    DataMixture mixture;
    assert_null(data_mixture_create(samples, weights, 3, 42, &mixture));
    assert_int_equal(mixture.samples, 14);
    for (int64_t i = 0; i < 14; ++i) assert_int_equal(data_mixture_sample(&mixture, 3, i), i);
    data_mixture_free(&mixture);
}

static void weights_give_exact_counts(void **state) {
    (void)state;
    const int64_t samples[] = {1000, 333, 77};
    const double weights[] = {0.3, 2.5, 0};
    DataMixture mixture;
    int32_t seen[1410];
    assert_null(data_mixture_create(samples, weights, 3, 42, &mixture));
    assert_int_equal(mixture.samples, 300 + 833); /* llround(832.5) = 833 */
    for (int64_t epoch = 0; epoch < 20; ++epoch) {
        count_epoch(&mixture, epoch, seen, 1410);
        int64_t first = 0, second = 0, third = 0;
        for (int i = 0; i < 1000; ++i) assert_in_range(seen[i], 0, 1), first += seen[i];
        for (int i = 1000; i < 1333; ++i) assert_in_range(seen[i], 2, 3), second += seen[i];
        for (int i = 1333; i < 1410; ++i) third += seen[i];
        assert_int_equal(first, 300);
        assert_int_equal(second, 833);
        assert_int_equal(third, 0);
    }
    data_mixture_free(&mixture);
}

/* Over many epochs each sample comes up as often as its weight says: within 5 standard deviations of the binomial, and the
 * sources' shares within 1 % (they are exact). */
static void the_fraction_is_drawn_evenly_and_anew(void **state) {
    (void)state;
    enum { N = 257, EPOCHS = 2000 };
    const int64_t samples[] = {N};
    const double weights[] = {0.25};
    DataMixture mixture;
    static int64_t total[N];
    int32_t seen[N], before[N] = {0};
    int equal_epochs = 0;
    assert_null(data_mixture_create(samples, weights, 1, 9, &mixture));
    for (int64_t epoch = 0; epoch < EPOCHS; ++epoch) {
        count_epoch(&mixture, epoch, seen, N);
        equal_epochs += !memcmp(seen, before, sizeof seen);
        memcpy(before, seen, sizeof seen);
        for (int i = 0; i < N; ++i) total[i] += seen[i];
    }
    assert_int_equal(equal_epochs, 0);
    double p = 64.0 / N, deviation = sqrt(EPOCHS * p * (1 - p));
    for (int i = 0; i < N; ++i) assert_true(fabs((double)total[i] - EPOCHS * p) < 5 * deviation);
    data_mixture_free(&mixture);
}

static void every_length_is_permuted_without_loss(void **state) {
    (void)state;
    for (int64_t n = 1; n < 300; ++n) {
        const double almost = (double)(n - 1) / (double)n + 1; /* all once, then all but one */
        int32_t seen[300];
        DataMixture mixture;
        assert_null(data_mixture_create(&n, &almost, 1, 1, &mixture));
        assert_int_equal(mixture.samples, 2 * n - 1);
        count_epoch(&mixture, 5, seen, n);
        for (int64_t i = 0; i < n; ++i) assert_in_range(seen[i], 1, 2);
        data_mixture_free(&mixture);
    }
}

static void bad_weights_are_refused(void **state) {
    (void)state;
    const int64_t samples = 10;
    const double bad[] = {-1, NAN, INFINITY, 0, 0.01};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
        DataMixture mixture;
        Status status = data_mixture_create(&samples, &bad[i], 1, 1, &mixture);
        assert_int_equal(status_exit_code(status), 2);
        status_free(status);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weight_one_is_the_data_set_itself),
        cmocka_unit_test(weights_give_exact_counts),
        cmocka_unit_test(the_fraction_is_drawn_evenly_and_anew),
        cmocka_unit_test(every_length_is_permuted_without_loss),
        cmocka_unit_test(bad_weights_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
