#include "kernels/cuda/common.cuh"

/* A block of 256 threads sums SQUARES_BLOCK elements: fixed, so that the bits follow from the array alone. */
__global__ void sum_squares_partial_kernel(double *__restrict__ partial, const float *__restrict__ x, int64_t elements) {
    const int64_t first = blockIdx.x * (int64_t)SQUARES_BLOCK;
    const int64_t end = first + SQUARES_BLOCK < elements ? first + SQUARES_BLOCK : elements;
    double sum = 0;
    for (int64_t i = first + threadIdx.x; i < end; i += 256) sum += (double)x[i] * (double)x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void sum_partials_kernel(double *__restrict__ result, const double *__restrict__ partial, int64_t count) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += 256) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *result = sum;
}

static Status launch_sums(CudaContext *context, double *result, double *partial, const float *x, int64_t elements) {
    unsigned blocks;
    TRY(linear_grid("sum_squares", elements, SQUARES_BLOCK, &blocks));
    ADAMEM_LAUNCH(sum_squares_partial_kernel, blocks, 256, 0, context->stream, partial, x, elements);
    ADAMEM_LAUNCH(sum_partials_kernel, 1, 256, 0, context->stream, result, partial, (int64_t)blocks);
    return STATUS_OK;
}

extern "C" Status cuda_sum_squares(Device *device, Arena *scratch, Tensor result, Tensor x) {
    CudaContext *context = cuda_context(device);
    const int64_t elements = tensor_elements(x);
    if (elements == 0) {
        TRY_CUDA(cudaMemsetAsync(result.data, 0, sizeof(double), context->stream));
        return STATUS_OK;
    }
    void *partial;
    TRY(arena_allocate(scratch, scratch_sum_squares(x), ARENA_HIGH, &partial));
    Status status = launch_sums(context, (double *)result.data, (double *)partial, (const float *)x.data, elements);
    arena_release(scratch, partial);
    return status;
}
