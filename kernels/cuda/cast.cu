#include "kernels/cuda/common.cuh"

template <typename Y, typename X, int V> __global__ void cast_kernel(Y *__restrict__ y, const X *__restrict__ x, int64_t packs) {
    const int64_t pack = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (pack >= packs) return;
    float value[V];
    load<V>(value, x + pack * V);
    store<V>(y + pack * V, value);
}

extern "C" Status cuda_cast(Device *device, Tensor y, Tensor x) {
    CudaContext *context = cuda_context(device);
    const int64_t elements = tensor_elements(x);
    if (elements == 0) return STATUS_OK;
    DISPATCH_FLOAT(y.dtype, Y, DISPATCH_FLOAT(x.dtype, X, {
                       DISPATCH_WIDTH(wide_access(elements, 8, y.data, x.data), 8, V, {
                           unsigned grid;
                           TRY(linear_grid(__func__, elements / V, 256, &grid));
                           ADAMEM_LAUNCH((cast_kernel<Y, X, V>), grid, 256, 0, context->stream, (Y *)y.data, (const X *)x.data,
                                         elements / V);
                       });
                   }));
    return STATUS_OK;
}
