#include "kernels/cuda/common.cuh"

/* One thread per pair. Angles are formed in double: at position 10^5 a float angle is wrong by 10^-2. */
__global__ void rope_table_kernel(float *__restrict__ cos_sin, const int32_t *__restrict__ positions, int64_t pairs, int64_t half,
                                  double log_theta) {
    const int64_t index = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (index >= pairs) return;
    const int64_t t = index / half, i = index % half;
    double sine, cosine;
    sincos((double)positions[t] * exp(-log_theta * (double)i / (double)half), &sine, &cosine);
    cos_sin[t * 2 * half + i] = (float)cosine;
    cos_sin[t * 2 * half + half + i] = (float)sine;
}

/* One thread per V pairs; sign = -1 rotates back. */
template <typename T, int V>
__global__ void rope_kernel(T *__restrict__ x, const float *__restrict__ cos_sin, int64_t items, int64_t heads, int64_t half,
                            float sign) {
    const int64_t item = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (item >= items) return;
    const int64_t packs = half / V, row = item / packs, i = item % packs * V; /* row = t * heads + head */
    const float *angles = cos_sin + row / heads * 2 * half;
    T *first = x + row * 2 * half + i, *second = first + half;
    float x1[V], x2[V], cosine[V], sine[V], y1[V], y2[V];
    load<V>(x1, first);
    load<V>(x2, second);
    load<V>(cosine, angles + i);
    load<V>(sine, angles + half + i);
#pragma unroll
    for (int j = 0; j < V; ++j) {
        y1[j] = x1[j] * cosine[j] - x2[j] * (sign * sine[j]);
        y2[j] = x2[j] * cosine[j] + x1[j] * (sign * sine[j]);
    }
    store<V>(first, y1);
    store<V>(second, y2);
}

extern "C" Status cuda_rope_table(Device *device, Tensor cos_sin, const int32_t *positions, float theta) {
    CudaContext *context = cuda_context(device);
    const int64_t half = column_count(cos_sin) / 2, pairs = row_count(cos_sin) * half;
    if (pairs == 0) return STATUS_OK;
    unsigned grid;
    TRY(linear_grid(__func__, pairs, 128, &grid));
    ADAMEM_LAUNCH(rope_table_kernel, grid, 128, 0, context->stream, (float *)cos_sin.data, positions, pairs, half,
                  log((double)theta));
    return STATUS_OK;
}

extern "C" Status cuda_rope(Device *device, Tensor x, Tensor cos_sin, bool inverse) {
    CudaContext *context = cuda_context(device);
    const int64_t tokens = x.shape[0], heads = x.shape[1], half = x.shape[2] / 2;
    if (tokens * heads * half == 0) return STATUS_OK;
    DISPATCH_FLOAT(x.dtype, T, {
        DISPATCH_WIDTH(wide_access(half, wide_width<T>(), x.data, cos_sin.data), wide_width<T>(), V, {
            const int64_t items = tokens * heads * (half / V);
            unsigned grid;
            TRY(linear_grid(__func__, items, 256, &grid));
            ADAMEM_LAUNCH((rope_kernel<T, V>), grid, 256, 0, context->stream, (T *)x.data, (const float *)cos_sin.data, items,
                          heads, half, inverse ? -1.0f : 1.0f);
        });
    });
    return STATUS_OK;
}
