/* FiLM: the channels of a sequence's rows scaled and shifted by what a code of the sequence says. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/segments.h"
#include "kernels/cpu/vector.h"
#include "kernels/scratch.h"

ALWAYS_INLINE void forward_row(bool bf16, void *y, const void *x, const void *gamma, const void *beta, int64_t width) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i)
        element_store(bf16, y, i, (1.0f + element_load(bf16, gamma, i)) * element_load(bf16, x, i) + element_load(bf16, beta, i));
}

/* First element of gamma; beta follows. */
static int64_t gamma_at(Tensor modulation, int64_t sequence, int64_t place, int64_t width) {
    return sequence * modulation.shape[1] + 2 * place * width;
}

Status cpu_film_forward(Device *device, Tensor y, Tensor x, Tensor modulation, int64_t place, const SequenceLayout *layout) {
    int64_t width = x.shape[1];
    bool bf16 = x.dtype == DTYPE_BF16;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t t = 0; t < layout->tokens; ++t) {
        int64_t gamma = gamma_at(modulation, sequence_of_row(layout, t), place, width);
        BY_STORAGE(bf16, forward_row, element_at_mutable(bf16, y.data, t * width), element_at(bf16, x.data, t * width),
                   element_at(bf16, modulation.data, gamma), element_at(bf16, modulation.data, gamma + width), width);
    }
    return STATUS_OK;
}

enum { COLUMNS_PER_TASK = 64 };

ALWAYS_INLINE void add_products(bool bf16, float *products, float *sums, const void *dy, const void *x, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        products[i] += element_load(bf16, dy, i) * element_load(bf16, x, i);
        sums[i] += element_load(bf16, dy, i);
    }
}

ALWAYS_INLINE void add_to(bool bf16, void *to, const float *sum, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) element_store(bf16, to, i, element_load(bf16, to, i) + sum[i]);
}

/* Some channels of one sequence, its tokens in blocks. */
static void modulation_gradient(Tensor dmodulation, Tensor dy, Tensor x, int64_t place, const SequenceLayout *layout,
                                int64_t sequence, int64_t column) {
    int64_t width = x.shape[1], count = width - column < COLUMNS_PER_TASK ? width - column : COLUMNS_PER_TASK;
    int64_t end = layout->host_offsets[sequence + 1], gamma = gamma_at(dmodulation, sequence, place, width) + column;
    bool bf16 = x.dtype == DTYPE_BF16;
    float products[COLUMNS_PER_TASK] = {0}, sums[COLUMNS_PER_TASK] = {0};
    for (int64_t begin = layout->host_offsets[sequence]; begin < end; begin += TOKEN_BLOCK) {
        float block_products[COLUMNS_PER_TASK] = {0}, block_sums[COLUMNS_PER_TASK] = {0};
        for (int64_t t = begin; t < end && t < begin + TOKEN_BLOCK; ++t)
            BY_STORAGE(bf16, add_products, block_products, block_sums, element_at(bf16, dy.data, t * width + column),
                       element_at(bf16, x.data, t * width + column), count);
        for (int64_t i = 0; i < count; ++i) products[i] += block_products[i], sums[i] += block_sums[i];
    }
    BY_STORAGE(bf16, add_to, element_at_mutable(bf16, dmodulation.data, gamma), products, count);
    BY_STORAGE(bf16, add_to, element_at_mutable(bf16, dmodulation.data, gamma + width), sums, count);
}

ALWAYS_INLINE void backward_row(bool bf16, void *dx, bool accumulate, const void *dy, const void *gamma, int64_t width) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
        float value = (1.0f + element_load(bf16, gamma, i)) * element_load(bf16, dy, i);
        element_store(bf16, dx, i, accumulate ? element_load(bf16, dx, i) + value : value);
    }
}

Status cpu_film_backward(Device *device, Tensor dx, bool accumulate, Tensor dmodulation, Tensor dy, Tensor x, Tensor modulation,
                         int64_t place, const SequenceLayout *layout) {
    int64_t width = x.shape[1], chunks = (width + COLUMNS_PER_TASK - 1) / COLUMNS_PER_TASK;
    bool bf16 = x.dtype == DTYPE_BF16;
    if (dmodulation.data) {
#pragma omp parallel for schedule(static) num_threads(device->threads)
        for (int64_t task = 0; task < layout->sequences * chunks; ++task)
            modulation_gradient(dmodulation, dy, x, place, layout, task / chunks, task % chunks * COLUMNS_PER_TASK);
    }
    if (!dx.data) return STATUS_OK;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t t = 0; t < layout->tokens; ++t) {
        int64_t gamma = gamma_at(modulation, sequence_of_row(layout, t), place, width);
        BY_STORAGE(bf16, backward_row, element_at_mutable(bf16, dx.data, t * width), accumulate,
                   element_at(bf16, dy.data, t * width), element_at(bf16, modulation.data, gamma), width);
    }
    return STATUS_OK;
}
