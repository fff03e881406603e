#include "kernels/cuda/common.cuh"

/* partial[chunk][column] = sum of the chunk's rows; block x covers columns, block y is the chunk. */
template <typename T>
__global__ void column_partials_kernel(float *__restrict__ partial, const T *__restrict__ dy, int64_t rows, int64_t columns,
                                       int64_t first_chunk, int64_t rows_per_chunk) {
    const int64_t column = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, chunk = first_chunk + blockIdx.y;
    if (column >= columns) return;
    const int64_t first = chunk * rows_per_chunk;
    const int64_t end = first + rows_per_chunk < rows ? first + rows_per_chunk : rows;
    float sum = 0;
    for (int64_t t = first; t < end; ++t) sum += to_float(dy[t * columns + column]);
    partial[chunk * columns + column] = sum;
}

__global__ void add_column_partials_kernel(float *__restrict__ gradient, const float *__restrict__ partial, int64_t chunks,
                                           int64_t columns) {
    const int64_t column = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (column >= columns) return;
    float sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * columns + column];
    gradient[column] += sum;
}

Status add_column_partials(CudaContext *context, float *gradient, const float *partial, int64_t chunks, int64_t columns) {
    unsigned grid;
    TRY(linear_grid(__func__, columns, 128, &grid));
    ADAMEM_LAUNCH(add_column_partials_kernel, grid, 128, 0, context->stream, gradient, partial, chunks, columns);
    return STATUS_OK;
}

template <typename T>
static Status launch_partials(CudaContext *context, float *partial, const T *dy, int64_t rows, int64_t columns, int64_t chunks) {
    const int threads = 256;
    for (int64_t first = 0; first < chunks; first += 65535) { /* CUDA allows 65535 blocks in y */
        const int64_t count = chunks - first < 65535 ? chunks - first : 65535;
        dim3 grid((unsigned)ceil_divide(columns, threads), (unsigned)count);
        ADAMEM_LAUNCH(column_partials_kernel<T>, grid, threads, 0, context->stream, partial, dy, rows, columns, first,
                      rows_per_partial);
    }
    return STATUS_OK;
}

extern "C" Status cuda_column_sum(Device *device, Arena *scratch, Tensor gradient, Tensor dy) {
    CudaContext *context = cuda_context(device);
    const int64_t rows = row_count(dy), columns = column_count(dy), chunks = ceil_divide(rows, rows_per_partial);
    if (rows == 0 || columns == 0) return STATUS_OK;
    if (dy.dtype != DTYPE_BF16 && dy.dtype != DTYPE_F32) FAIL("column_sum: dtype %d is not implemented", (int)dy.dtype);
    void *partial;
    TRY(arena_allocate(scratch, (size_t)chunks * (size_t)columns * sizeof(float), ARENA_HIGH, &partial));
    Status status = dy.dtype == DTYPE_BF16
                        ? launch_partials(context, (float *)partial, (const __nv_bfloat16 *)dy.data, rows, columns, chunks)
                        : launch_partials(context, (float *)partial, (const float *)dy.data, rows, columns, chunks);
    if (!status) status = add_column_partials(context, (float *)gradient.data, (const float *)partial, chunks, columns);
    arena_release(scratch, partial);
    return status;
}
