#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"

#include <math.h>

/* Writes the sum to y and returns its mean. delta NULL: none. */
ALWAYS_INLINE float sum_row(bool bf16, void *y, const void *x, const void *delta, int64_t width) {
    float total = 0.0f;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < width; ++i) {
        float s = element_load(bf16, x, i);
        if (delta) s = element_round(bf16, s + element_load(bf16, delta, i));
        element_store(bf16, y, i, s);
        total += s;
    }
    return total / (float)width;
}

/* The variance is taken around the mean, in a second pass that also finds what rounding left the mean short of: a mean far
 * from zero costs no digits. */
ALWAYS_INLINE float row_rstd(bool bf16, const void *y, float *mean, int64_t width, float epsilon) {
    float squares = 0.0f, rest = 0.0f, first = *mean;
#pragma omp simd reduction(+ : squares, rest)
    for (int64_t i = 0; i < width; ++i) {
        float d = element_load(bf16, y, i) - first;
        rest += d;
        squares += d * d;
    }
    rest /= (float)width;
    *mean = first + rest;
    return 1.0f / sqrtf(fmaxf(squares / (float)width - rest * rest, 0.0f) + epsilon);
}

ALWAYS_INLINE void normalize_row(bool bf16, void *y, const void *weight, const void *bias, float mean, float rstd,
                                 int64_t width) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
        float xhat = (element_load(bf16, y, i) - mean) * rstd;
        element_store(bf16, y, i, xhat * element_load(bf16, weight, i) + element_load(bf16, bias, i));
    }
}

Status cpu_layer_norm_forward(Device *device, Tensor y, Tensor x, Tensor delta, Tensor weight, Tensor bias, float epsilon) {
    Tensor rows = tensor_as_rows(x);
    int64_t count = rows.shape[0], width = rows.shape[1];
    bool bf16 = x.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t t = 0; t < count; ++t) {
        const void *row = element_at(bf16, x.data, t * width);
        const void *row_delta = delta.data ? element_at(bf16, delta.data, t * width) : NULL;
        void *out = element_at_mutable(bf16, y.data, t * width);
        float mean = BY_STORAGE(bf16, sum_row, out, row, row_delta, width);
        float rstd = BY_STORAGE(bf16, row_rstd, out, &mean, width, epsilon);
        BY_STORAGE(bf16, normalize_row, out, weight.data, bias.data, mean, rstd, width);
    }
    return STATUS_OK;
}
