#include "kernels/cpu/context.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"
#include "kernels/scratch.h"

#include <math.h>

/* Writes sum (when there is a delta) and returns 1 / rms. */
ALWAYS_INLINE float forward_statistics(bool bf16, void *sum, const void *x, const void *delta, int64_t width, float epsilon) {
    float squares = 0.0f;
    if (delta) {
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; ++i) {
            float s = element_round(bf16, element_load(bf16, x, i) + element_load(bf16, delta, i));
            element_store(bf16, sum, i, s);
            squares += s * s;
        }
    } else {
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; ++i) {
            float s = element_load(bf16, x, i);
            squares += s * s;
        }
    }
    return 1.0f / sqrtf(squares / (float)width + epsilon);
}

ALWAYS_INLINE void forward_row(bool bf16, void *y, const void *x, const void *weight, float rstd, int64_t width) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i)
        element_store(bf16, y, i, element_load(bf16, x, i) * rstd * element_load(bf16, weight, i));
}

Status cpu_rms_norm_forward(Device *device, Tensor y, Tensor rstd, Tensor sum, Tensor x, Tensor delta, Tensor weight,
                            float epsilon) {
    Tensor rows = tensor_as_rows(x);
    int64_t count = rows.shape[0], width = rows.shape[1];
    float *statistics = rstd.data;
    bool bf16 = x.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(device->threads) if (count * width > SERIAL_ELEMENTS)
    for (int64_t t = 0; t < count; ++t) {
        const void *row = element_at(bf16, x.data, t * width);
        void *row_sum = delta.data ? element_at_mutable(bf16, sum.data, t * width) : NULL;
        const void *row_delta = delta.data ? element_at(bf16, delta.data, t * width) : NULL;
        statistics[t] = BY_STORAGE(bf16, forward_statistics, row_sum, row, row_delta, width, epsilon);
        BY_STORAGE(bf16, forward_row, element_at_mutable(bf16, y.data, t * width), row_sum ? row_sum : row, weight.data,
                   statistics[t], width);
    }
    return STATUS_OK;
}

ALWAYS_INLINE void backward_row(bool bf16, void *dx, bool accumulate, const void *dy, const void *x, const void *weight,
                                float rstd, int64_t width) {
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; ++i)
        dot += element_load(bf16, dy, i) * element_load(bf16, weight, i) * (element_load(bf16, x, i) * rstd);
    float mean = dot / (float)width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
        float g = element_load(bf16, dy, i) * element_load(bf16, weight, i);
        float value = rstd * (g - element_load(bf16, x, i) * rstd * mean);
        if (accumulate) value += element_load(bf16, dx, i);
        element_store(bf16, dx, i, value);
    }
}

ALWAYS_INLINE void add_weight_gradient(bool bf16, float *partial, const void *dy, const void *x, float rstd, int64_t width) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) partial[i] += element_load(bf16, dy, i) * (element_load(bf16, x, i) * rstd);
}

/* dweight += the partial sums, in block order. */
static void add_partials(Device *device, float *dweight, const float *partials, int64_t blocks, int64_t width) {
#pragma omp parallel for simd schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < width; ++i) {
        float total = 0.0f;
        for (int64_t b = 0; b < blocks; ++b) total += partials[b * width + i];
        dweight[i] += total;
    }
}

Status cpu_rms_norm_backward(Device *device, Arena *scratch, Tensor dx, bool accumulate, Tensor dweight, Tensor dy, Tensor x,
                             Tensor weight, Tensor rstd) {
    Tensor rows = tensor_as_rows(x);
    int64_t count = rows.shape[0], width = rows.shape[1], blocks = (count + TOKEN_BLOCK - 1) / TOKEN_BLOCK;
    if (count == 0) return STATUS_OK;
    const float *statistics = rstd.data;
    void *memory = NULL;
    if (dweight.data) TRY(arena_allocate(scratch, scratch_rms_norm_backward(dweight, x), ARENA_HIGH, &memory));
    float *partials = memory;
    bool bf16 = x.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t b = 0; b < blocks; ++b) {
        float *partial = partials ? partials + b * width : NULL;
        if (partial) memset(partial, 0, (size_t)width * sizeof *partial);
        for (int64_t t = b * TOKEN_BLOCK; t < count && t < (b + 1) * TOKEN_BLOCK; ++t) {
            const void *row_dy = element_at(bf16, dy.data, t * width);
            const void *row_x = element_at(bf16, x.data, t * width);
            void *row_dx = element_at_mutable(bf16, dx.data, t * width);
            if (partial) BY_STORAGE(bf16, add_weight_gradient, partial, row_dy, row_x, statistics[t], width);
            BY_STORAGE(bf16, backward_row, row_dx, accumulate, row_dy, row_x, weight.data, statistics[t], width);
        }
    }
    if (partials) add_partials(device, dweight.data, partials, blocks, width);
    arena_release(scratch, memory);
    return STATUS_OK;
}
