#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"
#include "kernels/scratch.h"

ALWAYS_INLINE void scale_range(bool bf16, void *y, bool accumulate, const void *x, float factor, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
        float value = factor * element_load(bf16, x, i);
        element_store(bf16, y, i, accumulate ? element_load(bf16, y, i) + value : value);
    }
}

static void scale(Device *device, Tensor y, bool accumulate, Tensor x, Tensor factor) {
    int64_t count = tensor_elements(x);
    bool bf16 = x.dtype == DTYPE_BF16;
    float a = element_load(factor.dtype == DTYPE_BF16, factor.data, 0);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; i += SCALE_BLOCK)
        BY_STORAGE(bf16, scale_range, y.data, accumulate, x.data, a, i, count - i < SCALE_BLOCK ? count : i + SCALE_BLOCK);
}

Status cpu_scale_forward(Device *device, Tensor y, Tensor x, Tensor factor) {
    scale(device, y, false, x, factor);
    return STATUS_OK;
}

ALWAYS_INLINE float dot_range(bool bf16, const void *x, const void *y, int64_t begin, int64_t end) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) sum += element_load(bf16, x, i) * element_load(bf16, y, i);
    return sum;
}

Status cpu_scale_backward(Device *device, Arena *scratch, Tensor dx, bool accumulate, Tensor dfactor, Tensor dy, Tensor x,
                          Tensor factor) {
    int64_t count = tensor_elements(dy), blocks = (count + SCALE_BLOCK - 1) / SCALE_BLOCK;
    bool bf16 = dy.dtype == DTYPE_BF16;
    if (count == 0) return STATUS_OK;
    if (dfactor.data) {
        void *memory;
        TRY(arena_allocate(scratch, scratch_scale_backward(dfactor, dy), ARENA_HIGH, &memory));
        double *partials = memory, sum = 0.0;
#pragma omp parallel for schedule(static) num_threads(device->threads)
        for (int64_t b = 0; b < blocks; ++b)
            partials[b] = (double)BY_STORAGE(bf16, dot_range, dy.data, x.data, b * SCALE_BLOCK,
                                             count - b * SCALE_BLOCK < SCALE_BLOCK ? count : (b + 1) * SCALE_BLOCK);
        for (int64_t b = 0; b < blocks; ++b) sum += partials[b];
        *(float *)dfactor.data += (float)sum;
        arena_release(scratch, memory);
    }
    if (dx.data) scale(device, dx, accumulate, dy, factor);
    return STATUS_OK;
}
