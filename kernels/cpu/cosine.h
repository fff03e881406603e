/* What the losses on cosines share: one over the norm of a row, and the derivative through the norm. */
#ifndef KERNELS_CPU_COSINE_H
#define KERNELS_CPU_COSINE_H

#include "kernels/cpu/vector.h"

#include <math.h>

/* Under the root of every norm: a row of zeros has cosine 0 and a finite gradient. */
#define COSINE_EPSILON 1e-12f

ALWAYS_INLINE float row_dot(bool bf16, const void *x, const void *y, int64_t width) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += element_load(bf16, x, i) * element_load(bf16, y, i);
    return sum;
}

static inline float inverse_norm(bool bf16, const void *x, int64_t width) {
    return 1.0f / sqrtf(BY_STORAGE(bf16, row_dot, x, x, width) + COSINE_EPSILON);
}

/* sum += weight * row. */
ALWAYS_INLINE void add_weighted_row(bool bf16, float *sum, const void *row, float weight, int64_t width) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) sum[i] += weight * element_load(bf16, row, i);
}

/* dx (+)= factor r (g - xhat (xhat . g)), xhat = r x: g is a derivative with respect to xhat. */
ALWAYS_INLINE void store_through_norm(bool bf16, void *dx, bool accumulate, const float *g, const void *x, float r, float factor,
                                      int64_t width) {
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; ++i) dot += g[i] * (r * element_load(bf16, x, i));
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
        float value = factor * r * (g[i] - r * element_load(bf16, x, i) * dot);
        element_store(bf16, dx, i, accumulate ? element_load(bf16, dx, i) + value : value);
    }
}

#endif
