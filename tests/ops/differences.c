#include "tests/ops/differences.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

enum { SAMPLED = 60 };

void check_gradient(Run *run, Objective objective, const void *context, Value operand, Tensor gradient, const char *what) {
    double *got = run_read(run, gradient);
    int64_t count = tensor_elements(operand.tensor), step = count / SAMPLED + 1;
    const double h = 1e-5;
    double largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = fmax(largest, fabs(got[i]));
    for (int64_t i = 0; run->compare && i < count; i += step) {
        double kept = operand.host[i];
        operand.host[i] = kept + h;
        double above = objective(context);
        operand.host[i] = kept - h;
        double below = objective(context);
        operand.host[i] = kept;
        double expected = (above - below) / (2 * h);
        if (!(fabs(got[i] - expected) <= 2e-5 * largest + 1e-6))
            fail_msg("%s: %s[%lld] is %.9g, by differences %.9g", run->label, what, (long long)i, got[i], expected);
    }
    free(got);
}

double dot_product(const double *a, const double *b, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

bool small_enough_for_differences(const Shape *shape) { return shape_tokens(shape) > 0 && shape_tokens(shape) <= 9; }
