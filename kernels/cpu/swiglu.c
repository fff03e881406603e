#include "kernels/cpu/context.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"

enum { ELEMENTS_PER_TASK = 4096 };

ALWAYS_INLINE void forward_range(bool bf16, void *y, const void *gate, const void *up, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
        float g = element_load(bf16, gate, i);
        element_store(bf16, y, i, g * sigmoid(g) * element_load(bf16, up, i));
    }
}

Status cpu_swiglu_forward(Device *device, Tensor y, Tensor gate, Tensor up) {
    int64_t count = tensor_elements(y);
    bool bf16 = y.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(device->threads) if (count > SERIAL_ELEMENTS)
    for (int64_t i = 0; i < count; i += ELEMENTS_PER_TASK) {
        int64_t end = count - i < ELEMENTS_PER_TASK ? count : i + ELEMENTS_PER_TASK;
        BY_STORAGE(bf16, forward_range, y.data, gate.data, up.data, i, end);
    }
    return STATUS_OK;
}

/* d silu(g) / dg = s (1 + g (1 - s)), s = sigmoid(g). Both inputs are read before either output is written: in place works. */
ALWAYS_INLINE void backward_range(bool bf16, void *dgate, void *dup, const void *dy, const void *gate, const void *up,
                                  int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
        float g = element_load(bf16, gate, i), u = element_load(bf16, up, i), d = element_load(bf16, dy, i);
        float s = sigmoid(g);
        element_store(bf16, dgate, i, d * u * s * (1.0f + g * (1.0f - s)));
        element_store(bf16, dup, i, d * g * s);
    }
}

Status cpu_swiglu_backward(Device *device, Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) {
    int64_t count = tensor_elements(dy);
    bool bf16 = dy.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += ELEMENTS_PER_TASK) {
        int64_t end = count - i < ELEMENTS_PER_TASK ? count : i + ELEMENTS_PER_TASK;
        BY_STORAGE(bf16, backward_range, dgate.data, dup.data, dy.data, gate.data, up.data, i, end);
    }
    return STATUS_OK;
}
