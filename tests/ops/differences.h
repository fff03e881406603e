/* Gradients of ops against central differences of the float64 forward formula.
 *
 * With L = sum(output * direction), dL/dx_i is (L(x_i + h) - L(x_i - h)) / 2h. In float64 with h = 1e-5 that is good to about
 * 1e-9, so what is measured is the fp32 op. A sample of elements is tested per operand. */
#ifndef TESTS_OPS_DIFFERENCES_H
#define TESTS_OPS_DIFFERENCES_H

#include "tests/ops/harness.h"

/* L as a function of the operands that `context` points to. */
typedef double (*Objective)(const void *context);

/* Compares the op's gradient with differences of the objective; perturbs operand.host in place. */
void check_gradient(Run *run, Objective objective, const void *context, Value operand, Tensor gradient, const char *what);

double dot_product(const double *a, const double *b, int64_t count);

/* The float64 forward passes are long: shapes beyond this size are left to the direct comparison. */
bool small_enough_for_differences(const Shape *shape);

#endif
