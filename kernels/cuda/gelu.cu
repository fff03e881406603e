#include "kernels/cuda/common.cuh"

/* Distribution function of the normal distribution; erfc keeps the digits of the lower tail. */
__device__ __forceinline__ float normal_distribution(float x) { return 0.5f * erfcf(x * -0.70710678118654752f); }

/* Pointers are not restrict: y may be x. A thread reads its elements before it writes them. */
template <typename T, int V> __global__ void gelu_forward_kernel(T *y, const T *x, int64_t packs) {
    const int64_t pack = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    float value[V];
    load<V>(value, x + pack * V);
#pragma unroll
    for (int i = 0; i < V; ++i) value[i] *= normal_distribution(value[i]);
    store<V>(y + pack * V, value);
}

template <typename T, int V> __global__ void gelu_backward_kernel(T *dx, const T *dy, const T *x, int64_t packs) {
    const int64_t pack = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    const float inverse_sqrt_2pi = 0.3989422804014327f;
    if (pack >= packs) return;
    float value[V], result[V];
    load<V>(value, x + pack * V);
    load<V>(result, dy + pack * V);
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const float density = expf(-0.5f * value[i] * value[i]) * inverse_sqrt_2pi;
        result[i] *= normal_distribution(value[i]) + value[i] * density;
    }
    store<V>(dx + pack * V, result);
}

extern "C" Status cuda_gelu_forward(Device *device, Tensor y, Tensor x) {
    CudaContext *context = cuda_context(device);
    const int64_t elements = tensor_elements(x);
    if (elements == 0) return STATUS_OK;
    DISPATCH_FLOAT(x.dtype, T, {
        DISPATCH_WIDTH(wide_access(elements, wide_width<T>(), y.data, x.data), wide_width<T>(), V, {
            unsigned grid;
            TRY(linear_grid(__func__, elements / V, 256, &grid));
            ADAMEM_LAUNCH((gelu_forward_kernel<T, V>), grid, 256, 0, context->stream, (T *)y.data, (const T *)x.data,
                          elements / V);
        });
    });
    return STATUS_OK;
}

extern "C" Status cuda_gelu_backward(Device *device, Tensor dx, Tensor dy, Tensor x) {
    CudaContext *context = cuda_context(device);
    const int64_t elements = tensor_elements(x);
    if (elements == 0) return STATUS_OK;
    DISPATCH_FLOAT(x.dtype, T, {
        DISPATCH_WIDTH(wide_access(elements, wide_width<T>(), dx.data, dy.data, x.data), wide_width<T>(), V, {
            unsigned grid;
            TRY(linear_grid(__func__, elements / V, 256, &grid));
            ADAMEM_LAUNCH((gelu_backward_kernel<T, V>), grid, 256, 0, context->stream, (T *)dx.data, (const T *)dy.data,
                          (const T *)x.data, elements / V);
        });
    });
    return STATUS_OK;
}
