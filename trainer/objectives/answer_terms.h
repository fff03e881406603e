/* Two terms of the multi-objective loss, per answer (a run of label rows), as functions of a few token probabilities. Pure
 * arithmetic in double: the network's part (probabilities, and the gradients behind them) is linear_cross_entropy's.
 *
 * Both take log-probabilities under teacher forcing and add derivatives with respect to them; all arrays are row-major.
 * work: [n] doubles of the caller's, contents undefined before and after. */
#ifndef TRAINER_OBJECTIVES_ANSWER_TERMS_H
#define TRAINER_OBJECTIVES_ANSWER_TERMS_H

#include <stdint.h>

/* Length control. log_p[n]: of the end-of-sequence token at each of the answer's n rows, whose last one is the end itself.
 * With p_u its probability at row u, the expected length, cut off one row behind the answer's end, is
 *   E = sum_{t=1}^{n+1} prod_{u<t} (1 - p_u)          and the term is ((E - n) / n)^2:
 * ending early makes E smaller than n, not ending in time makes it larger. gradient[n] += scale * dterm/dlog_p. */
double answer_length_term(const double *log_p, int64_t n, double scale, double *gradient, double *work);

/* Coverage. log_p[n, m]: at each of the answer's n rows, of each of m distinct tokens that the answer must mention:
 *   term = -1/m sum_e log(1 - prod_t (1 - p_t(e)) + 1e-6).     gradient[n, m] += scale * dterm/dlog_p. m = 0 gives 0. */
double answer_coverage_term(const double *log_p, int64_t n, int64_t m, double scale, double *gradient, double *work);

#endif
