#include "trainer/objectives/answer_terms.h"

#include <math.h>

static const double coverage_floor = 1e-6;

/* before[t] = product over the rows before t of (1 - p); rows lie `step` apart. Returns the product over all. */
static double products_before(const double *log_p, int64_t n, int64_t step, double *before) {
    double product = 1;
    for (int64_t t = 0; t < n; ++t) {
        before[t] = product;
        product *= -expm1(log_p[t * step]);
    }
    return product;
}

double answer_length_term(const double *log_p, int64_t n, double scale, double *gradient, double *work) {
    if (n == 0) return 0;
    double expected = products_before(log_p, n, 1, work);
    for (int64_t u = 0; u < n; ++u) expected += work[u];
    double off = (expected - (double)n) / (double)n, factor = scale * 2 * off / (double)n;
    double rest = 1; /* the expected number of rows behind u, were the answer to go on there */
    for (int64_t u = n - 1; u >= 0; --u) {
        gradient[u] -= factor * work[u] * rest * exp(log_p[u]);
        rest = 1 - expm1(log_p[u]) * rest;
    }
    return off * off;
}

/* The product over the rows but one is what stands before the row times what stands behind it: nothing is divided by a
 * factor that may be zero. */
static double token_coverage(const double *log_p, int64_t n, int64_t m, double scale, double *gradient, double *work) {
    double covered = 1 - products_before(log_p, n, m, work) + coverage_floor, behind = 1;
    for (int64_t t = n - 1; t >= 0; --t) {
        gradient[t * m] -= scale * work[t] * behind / covered * exp(log_p[t * m]);
        behind *= -expm1(log_p[t * m]);
    }
    return -log(covered);
}

double answer_coverage_term(const double *log_p, int64_t n, int64_t m, double scale, double *gradient, double *work) {
    double sum = 0;
    for (int64_t e = 0; e < m; ++e) sum += token_coverage(log_p + e, n, m, scale / (double)m, gradient + e, work);
    return m ? sum / (double)m : 0;
}
