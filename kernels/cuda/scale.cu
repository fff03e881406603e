#include "kernels/cuda/common.cuh"

/* y (+)= factor[0] * x. */
template <typename T, typename F>
__global__ void scale_kernel(T *y, bool accumulate, const T *x, const F *__restrict__ factor, int64_t elements) {
    const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= elements) return;
    const float value = to_float(factor[0]) * to_float(x[i]);
    y[i] = from_float<T>(accumulate ? to_float(y[i]) + value : value);
}

/* One block per SCALE_BLOCK elements. */
template <typename T>
__global__ void scale_partial_kernel(double *__restrict__ partial, const T *__restrict__ dy, const T *__restrict__ x,
                                     int64_t elements) {
    const int64_t begin = blockIdx.x * (int64_t)SCALE_BLOCK;
    float sum = 0;
    for (int64_t i = begin + threadIdx.x; i < begin + SCALE_BLOCK && i < elements; i += 256)
        sum += to_float(dy[i]) * to_float(x[i]);
    const double total = block_sum((double)sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

/* One block: thread t adds partial sums t, t + 256, ... in order. */
__global__ void scale_factor_kernel(float *__restrict__ dfactor, const double *__restrict__ partial, int64_t count) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += 256) sum += partial[i];
    const double total = block_sum(sum);
    if (threadIdx.x == 0) dfactor[0] += (float)total;
}

static Status launch_scale(CudaContext *context, Tensor y, bool accumulate, Tensor x, Tensor factor) {
    const int64_t elements = tensor_elements(x);
    unsigned grid;
    TRY(linear_grid("scale", elements, 256, &grid));
    DISPATCH_FLOAT(x.dtype, T,
                   DISPATCH_FLOAT(factor.dtype, F,
                                  ADAMEM_LAUNCH((scale_kernel<T, F>), grid, 256, 0, context->stream, (T *)y.data, accumulate,
                                                (const T *)x.data, (const F *)factor.data, elements)));
    return STATUS_OK;
}

static Status launch_factor(CudaContext *context, Tensor dfactor, Tensor dy, Tensor x, double *partial) {
    const int64_t elements = tensor_elements(dy), blocks = ceil_divide(elements, SCALE_BLOCK);
    unsigned grid;
    TRY(linear_grid("scale_backward", blocks, 1, &grid));
    DISPATCH_FLOAT(dy.dtype, T,
                   ADAMEM_LAUNCH(scale_partial_kernel<T>, grid, 256, 0, context->stream, partial, (const T *)dy.data,
                                 (const T *)x.data, elements));
    ADAMEM_LAUNCH(scale_factor_kernel, 1, 256, 0, context->stream, (float *)dfactor.data, partial, blocks);
    return STATUS_OK;
}

extern "C" Status cuda_scale_forward(Device *device, Tensor y, Tensor x, Tensor factor) {
    if (tensor_elements(x) == 0) return STATUS_OK;
    return launch_scale(cuda_context(device), y, false, x, factor);
}

extern "C" Status cuda_scale_backward(Device *device, Arena *scratch, Tensor dx, bool accumulate, Tensor dfactor, Tensor dy,
                                      Tensor x, Tensor factor) {
    CudaContext *context = cuda_context(device);
    if (tensor_elements(dy) == 0) return STATUS_OK;
    if (dfactor.data) {
        void *partial;
        TRY(arena_allocate(scratch, scratch_scale_backward(dfactor, dy), ARENA_HIGH, &partial));
        Status status = launch_factor(context, dfactor, dy, x, (double *)partial);
        arena_release(scratch, partial);
        TRY(status);
    }
    return dx.data ? launch_scale(context, dx, accumulate, dy, factor) : STATUS_OK;
}
