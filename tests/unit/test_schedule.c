/* Learning-rate schedules against figures worked out by hand or with Transformers' formulas in Python. */
#include "trainer/schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

typedef struct Row {
    const char *kind;
    int64_t warmup, total;
    double min_ratio;
    int64_t s;
    double factor;
} Row;

static const Row rows[] = {
    /* warm-up starts at 0 and reaches the peak at s = w */
    {"linear", 100, 65001, 0, 0, 0.0},
    {"linear", 100, 65001, 0, 1, 0.01},
    {"cosine", 100, 65001, 0, 50, 0.5},
    {"cosine", 100, 65001, 0, 99, 0.99},
    {"cosine", 100, 65001, 0, 100, 1.0},
    {"constant", 10, 100, 0, 4, 0.4},
    {"constant_with_warmup", 10, 100, 0, 4, 0.4},
    /* without warm-up the first update has the full rate */
    {"linear", 0, 10, 0, 0, 1.0},
    {"cosine", 0, 10, 0, 0, 1.0},
    {"constant", 0, 10, 0, 0, 1.0},
    /* the run of 65,001 steps */
    {"cosine", 100, 65001, 0, 10000, 0.9436777398590988},
    {"cosine", 100, 65001, 0, 57000, 0.0370331033235865},
    {"cosine", 100, 65001, 0, 65000, 5.857833107469901e-10},
    {"linear", 100, 65001, 0, 57000, 0.12328007272615216},
    /* quarters of the way down */
    {"linear", 0, 8, 0, 2, 0.75},
    {"linear", 4, 12, 0, 10, 0.25},
    {"cosine", 0, 8, 0, 4, 0.5},
    {"cosine", 4, 16, 0, 8, 0.75}, /* a third: 0.5 (1 + cos 60 degrees) */
    {"cosine", 4, 16, 0, 12, 0.25},
    /* the end and behind it */
    {"linear", 2, 10, 0, 10, 0.0},
    {"cosine", 2, 10, 0, 10, 0.0},
    {"linear", 2, 10, 0, 1000, 0.0},
    {"constant", 2, 10, 0, 1000, 1.0},
    /* min_lr_ratio: the floor of the decay, not of the warm-up */
    {"cosine", 0, 20, 0.1, 15, 0.23180194846605365},
    {"linear", 5, 25, 0.2, 15, 0.6},
    {"linear", 5, 25, 0.2, 1, 0.2},
    {"linear", 5, 25, 0.2, 0, 0.0},
    {"cosine", 5, 25, 0.2, 25, 0.2},
    {"linear", 5, 25, 0.2, 26, 0.2},
    /* warm-up as long as the run, and longer */
    {"cosine", 10, 10, 0, 9, 0.9},
    {"cosine", 10, 10, 0, 10, 0.0},
    {"linear", 20, 10, 0, 9, 0.45},
};

static void test_factors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        const Row *row = &rows[i];
        Schedule schedule = {.kind = schedule_kind(row->kind),
                             .warmup_steps = row->warmup,
                             .total_steps = row->total,
                             .min_ratio = row->min_ratio};
        double factor = schedule_factor(&schedule, row->s);
        if (!(fabs(factor - row->factor) <= 1e-14))
            fail_msg("%s, warm-up %lld of %lld, s = %lld: %.17g, expected %.17g", row->kind, (long long)row->warmup,
                     (long long)row->total, (long long)row->s, factor, row->factor);
    }
}

/* Up in warm-up, down afterwards, never out of [0, 1]. */
static void test_shape(void **state) {
    static const char *const kinds[] = {"linear", "cosine", "constant"};
    (void)state;
    for (int k = 0; k < 3; ++k) {
        Schedule schedule = {.kind = schedule_kind(kinds[k]), .warmup_steps = 37, .total_steps = 500, .min_ratio = 0.05};
        for (int64_t s = 0; s < 600; ++s) {
            double now = schedule_factor(&schedule, s), next = schedule_factor(&schedule, s + 1);
            assert_true(now >= 0 && now <= 1);
            assert_true(s < 37 ? next > now : next <= now);
            if (s >= 37) assert_true(now >= 0.05);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_factors), cmocka_unit_test(test_shape)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
