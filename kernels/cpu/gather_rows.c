#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"
#include "kernels/scratch.h"

Status cpu_gather_rows(Device *device, Tensor y, Tensor x, Tensor index) {
    int64_t rows = y.shape[0];
    size_t bytes = (size_t)y.shape[1] * dtype_bytes(y.dtype);
    const int32_t *from = index.data;
#pragma omp parallel for schedule(static) num_threads(device->threads) if (rows > 16)
    for (int64_t n = 0; n < rows; ++n)
        if (from[n] >= 0) memcpy((char *)y.data + (size_t)n * bytes, (const char *)x.data + (size_t)from[n] * bytes, bytes);
    return STATUS_OK;
}

enum { COLUMNS_PER_TASK = 256 };

typedef struct Scatter {
    Tensor dx, dy;
    bool accumulate, dx_bf16, dy_bf16;
    int32_t *begins, *entries; /* rows of dy that belong to row r of dx: entries[begins[r]] .. entries[begins[r+1]-1] */
} Scatter;

/* Counting sort: the rows of dy that name a row of dx, in their order. */
static void sort_rows(const Scatter *s, const int32_t *index) {
    int64_t rows = s->dx.shape[0], count = s->dy.shape[0];
    int32_t *next = s->begins;
    memset(next, 0, (size_t)(rows + 1) * sizeof *next);
    for (int64_t n = 0; n < count; ++n)
        if (index[n] >= 0) ++next[index[n] + 1];
    for (int64_t r = 0; r < rows; ++r) next[r + 1] += next[r];
    for (int64_t n = 0; n < count; ++n)
        if (index[n] >= 0) s->entries[next[index[n]]++] = (int32_t)n;
    for (int64_t r = rows; r > 0; --r) next[r] = next[r - 1]; /* every begin had moved to its end */
    next[0] = 0;
}

ALWAYS_INLINE void add_row(bool bf16, float *sum, const void *row, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) sum[i] += element_load(bf16, row, i);
}

ALWAYS_INLINE void store_row(bool bf16, void *row, const float *sum, bool accumulate, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) element_store(bf16, row, i, accumulate ? element_load(bf16, row, i) + sum[i] : sum[i]);
}

static void scatter_row(const Scatter *s, int64_t row, int64_t column) {
    int64_t width = s->dx.shape[1], count = width - column < COLUMNS_PER_TASK ? width - column : COLUMNS_PER_TASK;
    float sum[COLUMNS_PER_TASK] = {0};
    if (s->accumulate && s->begins[row] == s->begins[row + 1]) return;
    for (int32_t i = s->begins[row]; i < s->begins[row + 1]; ++i)
        BY_STORAGE(s->dy_bf16, add_row, sum, element_at(s->dy_bf16, s->dy.data, s->entries[i] * width + column), count);
    BY_STORAGE(s->dx_bf16, store_row, element_at_mutable(s->dx_bf16, s->dx.data, row * width + column), sum, s->accumulate,
               count);
}

Status cpu_scatter_rows(Device *device, Arena *scratch, Tensor dx, bool accumulate, Tensor dy, Tensor index) {
    int64_t rows = dx.shape[0], width = dx.shape[1], chunks = (width + COLUMNS_PER_TASK - 1) / COLUMNS_PER_TASK;
    if (rows == 0 || width == 0) return STATUS_OK;
    void *memory;
    TRY(arena_allocate(scratch, scratch_scatter_rows(device, dx, index), ARENA_HIGH, &memory));
    int32_t *lists = memory;
    Scatter s = {dx, dy, accumulate, dx.dtype == DTYPE_BF16, dy.dtype == DTYPE_BF16, lists, lists + rows + 1};
    sort_rows(&s, index.data);
#pragma omp parallel for schedule(dynamic, 16) num_threads(device->threads)
    for (int64_t task = 0; task < rows * chunks; ++task) scatter_row(&s, task / chunks, task % chunks * COLUMNS_PER_TASK);
    arena_release(scratch, memory);
    return STATUS_OK;
}
