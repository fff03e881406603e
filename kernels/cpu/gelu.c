#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"

enum { ELEMENTS_PER_TASK = 4096 };

/* Distribution function of the normal distribution at -u, u >= 0, given e = exp(-u^2 / 2): e t P(t) with t = 1 / (1 + 0.35 u).
 * P was fitted to erfcx(u / sqrt 2) / 2t on 0..14 for the least relative error, 3.2e-8: the far tail, where 1 - erf would
 * cancel, is as good as the middle. */
ALWAYS_INLINE float lower_tail(float u, float e) {
    float t = 1.0f / (1.0f + 0.35f * u);
    float p = -0.029146134587394908f;
    p = p * t + 0.14397268330952356f;
    p = p * t - 0.25571626911373907f;
    p = p * t + 0.15917643289111683f;
    p = p * t - 0.023111376359178468f;
    p = p * t + 0.10550864517135908f;
    p = p * t + 0.11983270848943015f;
    p = p * t + 0.13986189115879805f;
    p = p * t + 0.13962140309290502f;
    return e * t * p;
}

ALWAYS_INLINE float normal_distribution(float x, float e) {
    float u = x < 0.0f ? -x : x, tail = lower_tail(u, e);
    return x < 0.0f ? tail : 1.0f - tail;
}

ALWAYS_INLINE void forward_range(bool bf16, void *y, const void *x, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
        float value = element_load(bf16, x, i);
        element_store(bf16, y, i, value * normal_distribution(value, exp_fast(-0.5f * value * value)));
    }
}

Status cpu_gelu_forward(Device *device, Tensor y, Tensor x) {
    int64_t count = tensor_elements(x);
    bool bf16 = x.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += ELEMENTS_PER_TASK) {
        int64_t end = count - i < ELEMENTS_PER_TASK ? count : i + ELEMENTS_PER_TASK;
        BY_STORAGE(bf16, forward_range, y.data, x.data, i, end);
    }
    return STATUS_OK;
}

/* d gelu / dx = Phi(x) + x phi(x). */
ALWAYS_INLINE void backward_range(bool bf16, void *dx, const void *dy, const void *x, int64_t begin, int64_t end) {
    const float inverse_sqrt_2pi = 0.3989422804014327f;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
        float value = element_load(bf16, x, i), e = exp_fast(-0.5f * value * value);
        float slope = normal_distribution(value, e) + value * e * inverse_sqrt_2pi;
        element_store(bf16, dx, i, element_load(bf16, dy, i) * slope);
    }
}

Status cpu_gelu_backward(Device *device, Tensor dx, Tensor dy, Tensor x) {
    int64_t count = tensor_elements(x);
    bool bf16 = x.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += ELEMENTS_PER_TASK) {
        int64_t end = count - i < ELEMENTS_PER_TASK ? count : i + ELEMENTS_PER_TASK;
        BY_STORAGE(bf16, backward_range, dx.data, dy.data, x.data, i, end);
    }
    return STATUS_OK;
}
