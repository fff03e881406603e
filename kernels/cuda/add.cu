#include "kernels/cuda/common.cuh"

template <typename T, int V> __global__ void add_kernel(T *__restrict__ y, const T *__restrict__ x, float alpha, int64_t packs) {
    const int64_t pack = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    float sum[V], added[V];
    load<V>(sum, y + pack * V);
    load<V>(added, x + pack * V);
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] += alpha * added[i];
    store<V>(y + pack * V, sum);
}

extern "C" Status cuda_add(Device *device, Tensor y, Tensor x, float alpha) {
    CudaContext *context = cuda_context(device);
    const int64_t elements = tensor_elements(x);
    if (elements == 0) return STATUS_OK;
    DISPATCH_FLOAT(x.dtype, T, {
        DISPATCH_WIDTH(wide_access(elements, wide_width<T>(), y.data, x.data), wide_width<T>(), V, {
            unsigned grid;
            TRY(linear_grid(__func__, elements / V, 256, &grid));
            ADAMEM_LAUNCH((add_kernel<T, V>), grid, 256, 0, context->stream, (T *)y.data, (const T *)x.data, alpha, elements / V);
        });
    });
    return STATUS_OK;
}
