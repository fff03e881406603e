/* The formulas of the latent memory's ops (kernels/ops.h) written plainly in float64, as tests/ops/reference.h does it. */
#ifndef TESTS_OPS_MEMORY_REFERENCE_H
#define TESTS_OPS_MEMORY_REFERENCE_H

#include "kernels/ops.h"

void reference_cross_attention_forward(double *out, double *lse, const double *q, const double *k, const double *v,
                                       const SequenceLayout *queries, const SequenceLayout *keys, AttentionShape shape);
/* out as the op sees it: stored, so possibly rounded. */
void reference_cross_attention_backward(double *dq, double *dk, double *dv, const double *dout, const double *out,
                                        const double *q, const double *k, const double *v, const SequenceLayout *queries,
                                        const SequenceLayout *keys, AttentionShape shape);

/* columns: of the modulation. */
void reference_film_forward(double *y, const double *x, const double *modulation, int64_t place, const SequenceLayout *layout,
                            int64_t width, int64_t columns);
/* dmodulation is added to. */
void reference_film_backward(double *dx, double *dmodulation, const double *dy, const double *x, const double *modulation,
                             int64_t place, const SequenceLayout *layout, int64_t width, int64_t columns);

void reference_segment_mean(double *y, const double *x, const SequenceLayout *layout, int64_t width);

typedef struct ReferenceDistillation {
    const double *hidden, *weight, *teacher, *teacher_weight;
    const int32_t *rows, *labels;
    int64_t count, tokens, width, vocabulary;
    double temperature, nll_scale, kl_scale;
} ReferenceDistillation;

/* dhidden [tokens, width] and dweight [vocabulary, width] may be NULL. */
void reference_linear_distillation(double *nll, double *kl, double *dhidden, double *dweight, const ReferenceDistillation *d);

/* groups NULL: none. The gradients may be NULL; dlog_scale is that without the limit's say, at the limited scale. */
void reference_info_nce(double *loss, double *du, double *dv, double *dlog_scale, const double *u, const double *v,
                        double log_scale, const int32_t *groups, double scale, int64_t rows, int64_t width);

/* dz may be NULL. */
void reference_diversity(double *loss, double *dz, const double *z, const SequenceLayout *layout, double scale, int64_t width);

#endif
