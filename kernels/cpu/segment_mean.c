#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/segments.h"
#include "kernels/cpu/vector.h"
#include "kernels/scratch.h"

enum { COLUMNS_PER_TASK = 64 };

ALWAYS_INLINE void add_row(bool bf16, float *sum, const void *row, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) sum[i] += element_load(bf16, row, i);
}

ALWAYS_INLINE void store_mean(bool bf16, void *to, const float *sum, float rows, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) element_store(bf16, to, i, rows > 0.0f ? sum[i] / rows : 0.0f);
}

/* Some channels of one sequence, its tokens in blocks. */
static void mean_columns(Tensor y, Tensor x, int64_t sequence, int64_t begin, int64_t end, int64_t column) {
    int64_t width = x.shape[1], count = width - column < COLUMNS_PER_TASK ? width - column : COLUMNS_PER_TASK;
    bool bf16 = x.dtype == DTYPE_BF16;
    float sum[COLUMNS_PER_TASK] = {0};
    for (int64_t first = begin; first < end; first += TOKEN_BLOCK) {
        float block[COLUMNS_PER_TASK] = {0};
        for (int64_t t = first; t < end && t < first + TOKEN_BLOCK; ++t)
            BY_STORAGE(bf16, add_row, block, element_at(bf16, x.data, t * width + column), count);
        for (int64_t i = 0; i < count; ++i) sum[i] += block[i];
    }
    BY_STORAGE(bf16, store_mean, element_at_mutable(bf16, y.data, sequence * width + column), sum, (float)(end - begin), count);
}

Status cpu_segment_mean_forward(Device *device, Tensor y, Tensor x, const SequenceLayout *layout) {
    int64_t chunks = (x.shape[1] + COLUMNS_PER_TASK - 1) / COLUMNS_PER_TASK;
    const int32_t *offsets = layout->host_offsets;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t task = 0; task < layout->sequences * chunks; ++task) {
        int64_t s = task / chunks;
        mean_columns(y, x, s, offsets[s], offsets[s + 1], task % chunks * COLUMNS_PER_TASK);
    }
    return STATUS_OK;
}

ALWAYS_INLINE void backward_row(bool bf16, void *dx, bool accumulate, const void *dy, float rows, int64_t width) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
        float value = element_load(bf16, dy, i) / rows;
        element_store(bf16, dx, i, accumulate ? element_load(bf16, dx, i) + value : value);
    }
}

Status cpu_segment_mean_backward(Device *device, Tensor dx, bool accumulate, Tensor dy, const SequenceLayout *layout) {
    int64_t width = dx.shape[1];
    bool bf16 = dx.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t t = 0; t < layout->tokens; ++t) {
        int64_t s = sequence_of_row(layout, t);
        BY_STORAGE(bf16, backward_row, element_at_mutable(bf16, dx.data, t * width), accumulate,
                   element_at(bf16, dy.data, s * width), (float)(layout->host_offsets[s + 1] - layout->host_offsets[s]), width);
    }
    return STATUS_OK;
}
