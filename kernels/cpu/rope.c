#include "kernels/cpu/context.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"

#include <math.h>

/* Angles in double precision: at position 30000 a float angle is off by up to 2e-3. */
Status cpu_rope_table(Device *device, Tensor cos_sin, const int32_t *positions, float theta) {
    int64_t tokens = cos_sin.shape[0], width = cos_sin.shape[1], half = width / 2;
    float *table = cos_sin.data;
#pragma omp parallel for schedule(static) num_threads(device->threads) if (16 * tokens * width > SERIAL_ELEMENTS)
    for (int64_t i = 0; i < half; ++i) {
        double frequency = pow((double)theta, -2.0 * (double)i / (double)width);
        for (int64_t t = 0; t < tokens; ++t) {
            double angle = (double)positions[t] * frequency;
            table[t * width + i] = (float)cos(angle);
            table[t * width + half + i] = (float)sin(angle);
        }
    }
    return STATUS_OK;
}

ALWAYS_INLINE void rotate(bool bf16, void *x, const float *cosine, const float *sine, int64_t half, float sign) {
    void *upper = element_at_mutable(bf16, x, half);
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
        float x1 = element_load(bf16, x, i), x2 = element_load(bf16, upper, i), s = sign * sine[i];
        element_store(bf16, x, i, x1 * cosine[i] - x2 * s);
        element_store(bf16, upper, i, x2 * cosine[i] + x1 * s);
    }
}

Status cpu_rope(Device *device, Tensor x, Tensor cos_sin, bool inverse) {
    int64_t tokens = x.shape[0], heads = x.shape[1], width = x.shape[2], half = width / 2;
    bool bf16 = x.dtype == DTYPE_BF16;
    const float *table = cos_sin.data;
#pragma omp parallel for schedule(static) num_threads(device->threads) if (tokens * heads * width > SERIAL_ELEMENTS)
    for (int64_t t = 0; t < tokens; ++t) {
        const float *row = table + t * width;
        for (int64_t h = 0; h < heads; ++h)
            BY_STORAGE(bf16, rotate, element_at_mutable(bf16, x.data, (t * heads + h) * width), row, row + half, half,
                       inverse ? -1.0f : 1.0f);
    }
    return STATUS_OK;
}
