#include "kernels/cpu/context.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"

Status cpu_embedding_forward(Device *device, Tensor y, Tensor table, Tensor ids) {
    int64_t tokens = y.shape[0], width = y.shape[1];
    size_t row_bytes = (size_t)width * dtype_bytes(table.dtype);
    const int32_t *id = ids.data;
#pragma omp parallel for schedule(static) num_threads(device->threads) if (tokens * width > SERIAL_ELEMENTS)
    for (int64_t t = 0; t < tokens; ++t)
        memcpy((char *)y.data + (size_t)t * row_bytes, (const char *)table.data + (size_t)id[t] * row_bytes, row_bytes);
    return STATUS_OK;
}

ALWAYS_INLINE void add_row(bool bf16, float *to, const void *from, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) to[i] += element_load(bf16, from, i);
}

enum { COLUMNS_PER_TASK = 64 };

/* Each task owns a range of columns and walks the tokens in order: no two threads write one element. */
Status cpu_embedding_backward(Device *device, Arena *scratch, Tensor gradient, Tensor dy, Tensor ids) {
    (void)scratch;
    int64_t tokens = dy.shape[0], width = dy.shape[1];
    bool bf16 = dy.dtype == DTYPE_BF16;
    const int32_t *id = ids.data;
    float *sums = gradient.data;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t column = 0; column < width; column += COLUMNS_PER_TASK) {
        int64_t count = width - column < COLUMNS_PER_TASK ? width - column : COLUMNS_PER_TASK;
        for (int64_t t = 0; t < tokens; ++t)
            BY_STORAGE(bf16, add_row, sums + (int64_t)id[t] * width + column, element_at(bf16, dy.data, t * width + column),
                       count);
    }
    return STATUS_OK;
}

/* As above: tokens in order within a range of columns. The sum starts apart from the gradient, so that adding to a large
 * accumulated value loses no bits of the small ones. */
Status cpu_column_sum(Device *device, Arena *scratch, Tensor gradient, Tensor dy) {
    (void)scratch;
    Tensor rows = tensor_as_rows(dy);
    int64_t tokens = rows.shape[0], width = rows.shape[1];
    bool bf16 = dy.dtype == DTYPE_BF16;
    float *result = gradient.data;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t column = 0; column < width; column += COLUMNS_PER_TASK) {
        int64_t count = width - column < COLUMNS_PER_TASK ? width - column : COLUMNS_PER_TASK;
        float sums[COLUMNS_PER_TASK] = {0};
        for (int64_t t = 0; t < tokens; ++t)
            BY_STORAGE(bf16, add_row, sums, element_at(bf16, dy.data, t * width + column), count);
        add_row(false, result + column, sums, count);
    }
    return STATUS_OK;
}
