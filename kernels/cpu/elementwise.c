#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"

enum { ELEMENTS_PER_TASK = 16384 };

ALWAYS_INLINE void cast_range(bool to_bf16, bool from_bf16, void *y, const void *x, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) element_store(to_bf16, y, i, element_load(from_bf16, x, i));
}

Status cpu_cast(Device *device, Tensor y, Tensor x) {
    int64_t count = tensor_elements(x);
    bool to = y.dtype == DTYPE_BF16, from = x.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += ELEMENTS_PER_TASK) {
        int64_t end = count - i < ELEMENTS_PER_TASK ? count : i + ELEMENTS_PER_TASK;
        if (to == from) {
            size_t width = to ? 2 : 4;
            memcpy((char *)y.data + (size_t)i * width, (const char *)x.data + (size_t)i * width, (size_t)(end - i) * width);
        } else if (to) {
            cast_range(true, false, y.data, x.data, i, end);
        } else {
            cast_range(false, true, y.data, x.data, i, end);
        }
    }
    return STATUS_OK;
}

ALWAYS_INLINE void add_range(bool bf16, void *y, const void *x, float alpha, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) element_store(bf16, y, i, element_load(bf16, y, i) + alpha * element_load(bf16, x, i));
}

Status cpu_add(Device *device, Tensor y, Tensor x, float alpha) {
    int64_t count = tensor_elements(x);
    bool bf16 = y.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += ELEMENTS_PER_TASK) {
        int64_t end = count - i < ELEMENTS_PER_TASK ? count : i + ELEMENTS_PER_TASK;
        BY_STORAGE(bf16, add_range, y.data, x.data, alpha, i, end);
    }
    return STATUS_OK;
}
