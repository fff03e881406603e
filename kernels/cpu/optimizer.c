#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"
#include "kernels/scratch.h"

#include <math.h>

static double block_squares(const float *x, int64_t count) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += (double)x[i] * (double)x[i];
    return sum;
}

Status cpu_sum_squares(Device *device, Arena *scratch, Tensor result, Tensor x) {
    int64_t count = tensor_elements(x), blocks = (count + SQUARES_BLOCK - 1) / SQUARES_BLOCK;
    double total = 0.0;
    if (count > 0) {
        void *memory;
        TRY(arena_allocate(scratch, scratch_sum_squares(x), ARENA_HIGH, &memory));
        double *partials = memory;
        const float *values = x.data;
#pragma omp parallel for schedule(static) num_threads(device->threads)
        for (int64_t b = 0; b < blocks; ++b) {
            int64_t begin = b * SQUARES_BLOCK;
            partials[b] = block_squares(values + begin, count - begin < SQUARES_BLOCK ? count - begin : SQUARES_BLOCK);
        }
        for (int64_t b = 0; b < blocks; ++b) total += partials[b];
        arena_release(scratch, memory);
    }
    *(double *)result.data = total;
    return STATUS_OK;
}

enum { ELEMENTS_PER_TASK = 16384 };

typedef struct AdamWFactors {
    float decay, beta1, beta2, rest1, rest2, step_size, inverse_correction2, epsilon, gradient_scale;
} AdamWFactors;

ALWAYS_INLINE void update_range(bool has_value, float *p, float *m, float *v, uint16_t *value, const float *gradient,
                                AdamWFactors f, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        float g = gradient[i] * f.gradient_scale;
        float first = f.beta1 * m[i] + f.rest1 * g;
        float second = f.beta2 * v[i] + f.rest2 * g * g;
        float updated = p[i] * f.decay - f.step_size * first / (sqrtf(second * f.inverse_correction2) + f.epsilon);
        m[i] = first;
        v[i] = second;
        p[i] = updated;
        if (has_value) value[i] = bf16_from_float(updated);
    }
}

Status cpu_adamw(Device *device, Tensor parameter, Tensor exp_avg, Tensor exp_avg_sq, Tensor value, Tensor gradient,
                 AdamWSettings settings) {
    double correction1 = 1.0 - pow(settings.beta1, (double)settings.update);
    double correction2 = 1.0 - pow(settings.beta2, (double)settings.update);
    AdamWFactors factors = {.decay = (float)(1.0 - (double)settings.learning_rate * (double)settings.weight_decay),
                            .beta1 = (float)settings.beta1,
                            .beta2 = (float)settings.beta2,
                            .rest1 = (float)(1.0 - settings.beta1),
                            .rest2 = (float)(1.0 - settings.beta2),
                            .step_size = (float)((double)settings.learning_rate / correction1),
                            .inverse_correction2 = (float)(1.0 / correction2),
                            .epsilon = settings.epsilon,
                            .gradient_scale = settings.gradient_scale};
    int64_t count = tensor_elements(parameter);
    float *p = parameter.data, *m = exp_avg.data, *v = exp_avg_sq.data;
    const float *g = gradient.data;
    uint16_t *copy = value.data;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += ELEMENTS_PER_TASK) {
        int64_t span = count - i < ELEMENTS_PER_TASK ? count - i : ELEMENTS_PER_TASK;
        if (copy)
            update_range(true, p + i, m + i, v + i, copy + i, g + i, factors, span);
        else
            update_range(false, p + i, m + i, v + i, NULL, g + i, factors, span);
    }
    return STATUS_OK;
}
