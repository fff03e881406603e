#include "kernels/cuda/common.cuh"

/* 1 / (1 + e^-x): e^-x may overflow to infinity, which gives the right limit 0. */
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename T, int V> __global__ void swiglu_forward_kernel(T *y, const T *gate, const T *up, int64_t packs) {
    const int64_t pack = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    float g[V], u[V];
    load<V>(g, gate + pack * V);
    load<V>(u, up + pack * V);
#pragma unroll
    for (int i = 0; i < V; ++i) u[i] *= g[i] * sigmoid(g[i]);
    store<V>(y + pack * V, u);
}

/* Pointers are not restrict: dgate may be gate and dup may be up. A thread reads its elements before it writes them. */
template <typename T, int V>
__global__ void swiglu_backward_kernel(T *dgate, T *dup, const T *dy, const T *gate, const T *up, int64_t packs) {
    const int64_t pack = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    float g[V], u[V], upstream[V], gate_result[V], up_result[V];
    load<V>(g, gate + pack * V);
    load<V>(u, up + pack * V);
    load<V>(upstream, dy + pack * V);
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const float s = sigmoid(g[i]);
        gate_result[i] = upstream[i] * u[i] * s * (1.0f + g[i] * (1.0f - s));
        up_result[i] = upstream[i] * g[i] * s;
    }
    store<V>(dgate + pack * V, gate_result);
    store<V>(dup + pack * V, up_result);
}

extern "C" Status cuda_swiglu_forward(Device *device, Tensor y, Tensor gate, Tensor up) {
    CudaContext *context = cuda_context(device);
    const int64_t elements = tensor_elements(gate);
    if (elements == 0) return STATUS_OK;
    DISPATCH_FLOAT(gate.dtype, T, {
        DISPATCH_WIDTH(wide_access(elements, wide_width<T>(), y.data, gate.data, up.data), wide_width<T>(), V, {
            unsigned grid;
            TRY(linear_grid(__func__, elements / V, 256, &grid));
            ADAMEM_LAUNCH((swiglu_forward_kernel<T, V>), grid, 256, 0, context->stream, (T *)y.data, (const T *)gate.data,
                          (const T *)up.data, elements / V);
        });
    });
    return STATUS_OK;
}

extern "C" Status cuda_swiglu_backward(Device *device, Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) {
    CudaContext *context = cuda_context(device);
    const int64_t elements = tensor_elements(gate);
    if (elements == 0) return STATUS_OK;
    DISPATCH_FLOAT(gate.dtype, T, {
        const bool wide = wide_access(elements, wide_width<T>(), dgate.data, dup.data, dy.data, gate.data, up.data);
        DISPATCH_WIDTH(wide, wide_width<T>(), V, {
            unsigned grid;
            TRY(linear_grid(__func__, elements / V, 256, &grid));
            ADAMEM_LAUNCH((swiglu_backward_kernel<T, V>), grid, 256, 0, context->stream, (T *)dgate.data, (T *)dup.data,
                          (const T *)dy.data, (const T *)gate.data, (const T *)up.data, elements / V);
        });
    });
    return STATUS_OK;
}
