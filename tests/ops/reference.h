/* The formulas of kernels/ops.h written plainly in float64: what every backend is compared with.
 *
 * One loop per sum, no blocking, no fusion. Arrays are row-major; gradients are written, not accumulated. */
#ifndef TESTS_OPS_REFERENCE_H
#define TESTS_OPS_REFERENCE_H

#include "kernels/ops.h"

/* c[m,n] = alpha op(a) op(b) + beta c + bias; bias NULL = none. */
void reference_matmul(double *c, const double *a, bool transpose_a, const double *b, bool transpose_b, const double *bias,
                      double alpha, double beta, int64_t m, int64_t n, int64_t k);

void reference_rms_norm_forward(double *y, double *rstd, const double *x, const double *weight, double epsilon, int64_t rows,
                                int64_t width);
/* rstd is recomputed from x and epsilon. */
void reference_rms_norm_backward(double *dx, double *dweight, const double *dy, const double *x, const double *weight,
                                 double epsilon, int64_t rows, int64_t width);

void reference_rope_table(double *cos_sin, const int32_t *positions, double theta, int64_t tokens, int64_t width);
void reference_rope(double *y, const double *x, const double *cos_sin, bool inverse, int64_t tokens, int64_t heads,
                    int64_t width);

void reference_attention_forward(double *out, double *lse, const double *q, const double *k, const double *v,
                                 const SequenceLayout *layout, AttentionShape shape);
/* out as the op sees it: stored, so possibly rounded. */
void reference_attention_backward(double *dq, double *dk, double *dv, const double *dout, const double *out, const double *q,
                                  const double *k, const double *v, const SequenceLayout *layout, AttentionShape shape);

void reference_swiglu_forward(double *y, const double *gate, const double *up, int64_t count);
void reference_swiglu_backward(double *dgate, double *dup, const double *dy, const double *gate, const double *up, int64_t count);

void reference_gelu_forward(double *y, const double *x, int64_t count);
void reference_gelu_backward(double *dx, const double *dy, const double *x, int64_t count);
void reference_layer_norm_forward(double *y, const double *x, const double *weight, const double *bias, double epsilon,
                                  int64_t rows, int64_t width);

/* dhidden [tokens, width] and dweight [vocabulary, width] may be NULL. */
/* Beside the cross-entropy; NULL where there is none. derivative: of the further terms by the pairs' log-probabilities. */
typedef struct ReferenceLossTerms {
    const double *row_weight;
    const int32_t *offsets, *tokens;
    const double *derivative;
} ReferenceLossTerms;
void reference_linear_cross_entropy(double *nll, double *dhidden, double *dweight, const double *hidden, const double *weight,
                                    const int32_t *rows, const int32_t *labels, double smoothing, double scale, int64_t count,
                                    int64_t tokens, int64_t width, int64_t vocabulary, ReferenceLossTerms terms);
void reference_token_log_probabilities(double *log_p, const double *hidden, const double *weight, const int32_t *rows,
                                       const int32_t *offsets, const int32_t *tokens, int64_t count, int64_t width,
                                       int64_t vocabulary);

/* p as kernels/ops.h lays out a stack's matrices; da and dx are added to. */
void reference_lora_down(double *p, const double *x, const double *a, LoraStack stack, const SequenceLayout *layout,
                         Dropout dropout, int64_t width);
void reference_lora_down_backward(double *da, double *dx, const double *q, const double *x, const double *a, LoraStack stack,
                                  const SequenceLayout *layout, Dropout dropout, int64_t width);

/* Whether element (token, channel) is kept: Philox4x32-10 as ops.h defines it. */
bool reference_dropout_keeps(const SequenceLayout *layout, Dropout dropout, int64_t token, int64_t channel);
void reference_philox(uint32_t counter[4], uint32_t key0, uint32_t key1);

void reference_adamw(double *parameter, double *exp_avg, double *exp_avg_sq, const double *gradient, AdamWSettings settings,
                     int64_t count);

#endif
