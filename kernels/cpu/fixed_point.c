#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"

#include <math.h>

enum { ELEMENTS_PER_TASK = 16384 };
static const double fixed_point_one = 281474976710656.0; /* 2^48 */
static const float fixed_point_limit = 1024.0f;          /* 2^10 */

/* Returns whether some element was too large (or NaN) to be converted. */
static bool accumulate_range(int64_t *q, float *x, int64_t count) {
    int bad = 0;
#pragma omp simd reduction(| : bad)
    for (int64_t i = 0; i < count; ++i) {
        bool good = fabsf(x[i]) < fixed_point_limit; /* false for NaN */
        double value = good ? (double)x[i] * fixed_point_one : 0.0;
        q[i] += (int64_t)rint(value);
        bad |= !good;
        x[i] = 0.0f;
    }
    return bad;
}

Status cpu_fixed_point_accumulate(Device *device, Tensor q, Tensor flag, Tensor x) {
    int64_t count = tensor_elements(x);
    int64_t *sums = q.data;
    float *values = x.data;
    int bad = 0;
#pragma omp parallel for schedule(static) num_threads(device->threads) reduction(| : bad)
    for (int64_t i = 0; i < count; i += ELEMENTS_PER_TASK) {
        int64_t span = count - i < ELEMENTS_PER_TASK ? count - i : ELEMENTS_PER_TASK;
        bad |= accumulate_range(sums + i, values + i, span);
    }
    if (bad) *(int32_t *)flag.data = 1;
    return STATUS_OK;
}

Status cpu_fixed_point_convert(Device *device, Tensor x, Tensor q) {
    int64_t count = tensor_elements(x);
    int64_t *sums = q.data;
    float *values = x.data;
#pragma omp parallel for simd schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; ++i) {
        values[i] = (float)((double)sums[i] / fixed_point_one);
        sums[i] = 0;
    }
    return STATUS_OK;
}
