#include "kernels/cuda/common.cuh"

/* One block per row; the sum waits in y, where each thread reads back only what it wrote itself. x and delta may be y. */
template <typename T, int V>
__global__ void layer_norm_forward_kernel(T *y, const T *x, const T *delta, const T *__restrict__ weight,
                                          const T *__restrict__ bias, int64_t columns, float epsilon) {
    const int64_t start = blockIdx.x * columns;
    const int64_t first = (int64_t)threadIdx.x * V, step = (int64_t)blockDim.x * V;
    float total = 0;
    for (int64_t c = first; c < columns; c += step) {
        float value[V];
        load<V>(value, x + start + c);
        if (delta) {
            float added[V];
            load<V>(added, delta + start + c);
#pragma unroll
            for (int i = 0; i < V; ++i) value[i] = to_float(from_float<T>(value[i] + added[i]));
        }
        store<V>(y + start + c, value);
#pragma unroll
        for (int i = 0; i < V; ++i) total += value[i];
    }
    const float first_mean = block_sum(total) / (float)columns;
    /* Around the mean, with what rounding left the mean short of: a mean far from zero costs no digits. */
    float squares = 0, rest = 0;
    for (int64_t c = first; c < columns; c += step) {
        float value[V];
        load<V>(value, y + start + c);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float d = value[i] - first_mean;
            rest += d;
            squares += d * d;
        }
    }
    rest = block_sum(rest) / (float)columns;
    const float mean = first_mean + rest;
    const float rstd = 1.0f / sqrtf(fmaxf(block_sum(squares) / (float)columns - rest * rest, 0.0f) + epsilon);
    for (int64_t c = first; c < columns; c += step) {
        float value[V], w[V], b[V];
        load<V>(value, y + start + c);
        load<V>(w, weight + c);
        load<V>(b, bias + c);
#pragma unroll
        for (int i = 0; i < V; ++i) value[i] = (value[i] - mean) * rstd * w[i] + b[i];
        store<V>(y + start + c, value);
    }
}

extern "C" Status cuda_layer_norm_forward(Device *device, Tensor y, Tensor x, Tensor delta, Tensor weight, Tensor bias,
                                          float epsilon) {
    CudaContext *context = cuda_context(device);
    const int64_t rows = row_count(x), columns = column_count(x);
    if (rows == 0 || columns == 0) return STATUS_OK;
    unsigned grid;
    TRY(linear_grid(__func__, rows, 1, &grid));
    DISPATCH_FLOAT(x.dtype, T, {
        const bool wide = wide_access(columns, wide_width<T>(), y.data, x.data, delta.data, weight.data, bias.data);
        DISPATCH_WIDTH(wide, wide_width<T>(), V,
                       ADAMEM_LAUNCH((layer_norm_forward_kernel<T, V>), grid, row_threads(ceil_divide(columns, V), 512), 0,
                                     context->stream, (T *)y.data, (const T *)x.data, (const T *)delta.data,
                                     (const T *)weight.data, (const T *)bias.data, columns, epsilon));
    });
    return STATUS_OK;
}
