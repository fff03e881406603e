#include "kernels/cuda/segments.cuh"

/* A block of 32 x 32 threads sums 32 channels of a sequence: thread (x, y) takes its rows y, y + 32, ... of channel x, then the
 * 32 sums of a channel are added in order. */
template <typename T>
__global__ void segment_mean_forward_kernel(T *__restrict__ y, const T *__restrict__ x, const int32_t *__restrict__ offsets,
                                            int64_t columns) {
    __shared__ float partial[32][32];
    const int64_t sequence = blockIdx.x, column = blockIdx.y * (int64_t)32 + threadIdx.x;
    const int64_t begin = offsets[sequence], end = offsets[sequence + 1];
    float sum = 0;
    if (column < columns)
        for (int64_t row = begin + threadIdx.y; row < end; row += 32) sum += to_float(x[row * columns + column]);
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= columns) return;
    for (int other = 1; other < 32; ++other) sum += partial[other][threadIdx.x];
    y[sequence * columns + column] = from_float<T>(begin < end ? sum / (float)(end - begin) : 0.0f);
}

/* One block per row. */
template <typename T>
__global__ void segment_mean_backward_kernel(T *__restrict__ dx, bool accumulate, const T *__restrict__ dy,
                                             const int32_t *__restrict__ offsets, int64_t sequences, int64_t columns) {
    const int64_t row = blockIdx.x, sequence = sequence_of_row(offsets, sequences, row);
    const float rows = (float)(offsets[sequence + 1] - offsets[sequence]);
    for (int64_t c = threadIdx.x; c < columns; c += blockDim.x) {
        const float value = to_float(dy[sequence * columns + c]) / rows;
        T *to = dx + row * columns + c;
        *to = from_float<T>(accumulate ? to_float(*to) + value : value);
    }
}

extern "C" Status cuda_segment_mean_forward(Device *device, Tensor y, Tensor x, const SequenceLayout *layout) {
    CudaContext *context = cuda_context(device);
    const int64_t columns = column_count(x);
    if (layout->sequences == 0 || columns == 0) return STATUS_OK;
    unsigned sequences;
    TRY(linear_grid(__func__, layout->sequences, 1, &sequences));
    DISPATCH_FLOAT(x.dtype, T,
                   ADAMEM_LAUNCH(segment_mean_forward_kernel<T>, dim3(sequences, (unsigned)ceil_divide(columns, 32)),
                                 dim3(32, 32), 0, context->stream, (T *)y.data, (const T *)x.data, layout->offsets, columns));
    return STATUS_OK;
}

extern "C" Status cuda_segment_mean_backward(Device *device, Tensor dx, bool accumulate, Tensor dy,
                                             const SequenceLayout *layout) {
    CudaContext *context = cuda_context(device);
    const int64_t columns = column_count(dx);
    if (layout->tokens == 0 || columns == 0) return STATUS_OK;
    unsigned rows;
    TRY(linear_grid(__func__, layout->tokens, 1, &rows));
    DISPATCH_FLOAT(dx.dtype, T,
                   ADAMEM_LAUNCH(segment_mean_backward_kernel<T>, rows, row_threads(columns, 256), 0, context->stream,
                                 (T *)dx.data, accumulate, (const T *)dy.data, layout->offsets, layout->sequences, columns));
    return STATUS_OK;
}
