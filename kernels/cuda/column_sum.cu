#include "kernels/cuda/common.cuh"

/* A block of 32 x 32 threads sums 32 columns: thread (x, y) takes rows y, y + 32, ... of column x, then the 32 sums of a
 * column are added in order. No scratch, and one order of additions for a given number of rows. */
template <typename T>
__global__ void column_sum_kernel(float *__restrict__ gradient, const T *__restrict__ dy, int64_t rows, int64_t columns) {
    __shared__ float partial[32][32];
    const int64_t column = blockIdx.x * (int64_t)32 + threadIdx.x;
    float sum = 0;
    if (column < columns)
        for (int64_t row = threadIdx.y; row < rows; row += 32) sum += to_float(dy[row * columns + column]);
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= columns) return;
    for (int y = 1; y < 32; ++y) sum += partial[y][threadIdx.x];
    gradient[column] += sum;
}

extern "C" Status cuda_column_sum(Device *device, Arena *scratch, Tensor gradient, Tensor dy) {
    (void)scratch;
    CudaContext *context = cuda_context(device);
    const int64_t rows = row_count(dy), columns = column_count(dy);
    if (rows == 0 || columns == 0) return STATUS_OK;
    unsigned grid;
    TRY(linear_grid(__func__, columns, 32, &grid));
    DISPATCH_FLOAT(dy.dtype, T,
                   ADAMEM_LAUNCH(column_sum_kernel<T>, grid, dim3(32, 32), 0, context->stream, (float *)gradient.data,
                                 (const T *)dy.data, rows, columns));
    return STATUS_OK;
}
