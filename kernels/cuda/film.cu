/* FiLM: the channels of a sequence's rows scaled and shifted by what a code of the sequence says. */
#include "kernels/cuda/segments.cuh"

struct FilmArguments {
    const int32_t *offsets;
    int64_t sequences, columns, stride, first; /* stride: columns of the modulation; first: of gamma, beta follows */
};

/* One block per row. */
template <typename T, int V>
__global__ void film_forward_kernel(T *y, const T *x, const T *__restrict__ modulation, FilmArguments a) {
    const int64_t row = blockIdx.x;
    const T *gamma = modulation + sequence_of_row(a.offsets, a.sequences, row) * a.stride + a.first, *beta = gamma + a.columns;
    for (int64_t c = (int64_t)threadIdx.x * V; c < a.columns; c += (int64_t)blockDim.x * V) {
        float value[V], scale[V], shift[V];
        load<V>(value, x + row * a.columns + c);
        load<V>(scale, gamma + c);
        load<V>(shift, beta + c);
#pragma unroll
        for (int i = 0; i < V; ++i) value[i] = (1.0f + scale[i]) * value[i] + shift[i];
        store<V>(y + row * a.columns + c, value);
    }
}

template <typename T, int V>
__global__ void film_backward_kernel(T *dx, bool accumulate, const T *dy, const T *__restrict__ modulation, FilmArguments a) {
    const int64_t row = blockIdx.x;
    const T *gamma = modulation + sequence_of_row(a.offsets, a.sequences, row) * a.stride + a.first;
    for (int64_t c = (int64_t)threadIdx.x * V; c < a.columns; c += (int64_t)blockDim.x * V) {
        float value[V], scale[V];
        load<V>(value, dy + row * a.columns + c);
        load<V>(scale, gamma + c);
#pragma unroll
        for (int i = 0; i < V; ++i) value[i] *= 1.0f + scale[i];
        if (accumulate) {
            float before[V];
            load<V>(before, dx + row * a.columns + c);
#pragma unroll
            for (int i = 0; i < V; ++i) value[i] += before[i];
        }
        store<V>(dx + row * a.columns + c, value);
    }
}

/* A block of 32 x 32 threads sums 32 channels of a sequence: thread (x, y) takes its rows y, y + 32, ... of channel x, then the
 * 32 sums of a channel are added in order. */
template <typename T>
__global__ void film_modulation_kernel(T *dmodulation, const T *__restrict__ dy, const T *__restrict__ x, FilmArguments a) {
    __shared__ float products[32][32], sums[32][32];
    const int64_t sequence = blockIdx.x, column = blockIdx.y * (int64_t)32 + threadIdx.x;
    float product = 0, sum = 0;
    if (column < a.columns)
        for (int64_t row = a.offsets[sequence] + threadIdx.y; row < a.offsets[sequence + 1]; row += 32) {
            const float upstream = to_float(dy[row * a.columns + column]);
            product += upstream * to_float(x[row * a.columns + column]);
            sum += upstream;
        }
    products[threadIdx.y][threadIdx.x] = product;
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= a.columns) return;
    for (int y = 1; y < 32; ++y) {
        product += products[y][threadIdx.x];
        sum += sums[y][threadIdx.x];
    }
    T *gamma = dmodulation + sequence * a.stride + a.first + column, *beta = gamma + a.columns;
    *gamma = from_float<T>(to_float(*gamma) + product);
    *beta = from_float<T>(to_float(*beta) + sum);
}

static FilmArguments make_arguments(Tensor x, Tensor modulation, int64_t place, const SequenceLayout *layout) {
    const int64_t columns = column_count(x);
    return {layout->offsets, layout->sequences, columns, column_count(modulation), 2 * place * columns};
}

/* Whether rows of x and of the modulation can be read in whole packs. */
template <typename T> static bool wide_rows(const FilmArguments &a, const void *x, const void *y, const void *modulation) {
    return wide_access(a.columns, wide_width<T>(), x, y, modulation) && a.stride % wide_width<T>() == 0;
}

extern "C" Status cuda_film_forward(Device *device, Tensor y, Tensor x, Tensor modulation, int64_t place,
                                    const SequenceLayout *layout) {
    CudaContext *context = cuda_context(device);
    const FilmArguments a = make_arguments(x, modulation, place, layout);
    if (layout->tokens == 0 || a.columns == 0) return STATUS_OK;
    unsigned grid;
    TRY(linear_grid(__func__, layout->tokens, 1, &grid));
    DISPATCH_FLOAT(x.dtype, T,
                   DISPATCH_WIDTH(wide_rows<T>(a, x.data, y.data, modulation.data), wide_width<T>(), V,
                                  ADAMEM_LAUNCH((film_forward_kernel<T, V>), grid, row_threads(ceil_divide(a.columns, V), 256), 0,
                                                context->stream, (T *)y.data, (const T *)x.data, (const T *)modulation.data, a)));
    return STATUS_OK;
}

extern "C" Status cuda_film_backward(Device *device, Tensor dx, bool accumulate, Tensor dmodulation, Tensor dy, Tensor x,
                                     Tensor modulation, int64_t place, const SequenceLayout *layout) {
    CudaContext *context = cuda_context(device);
    const FilmArguments a = make_arguments(x, modulation, place, layout);
    if (layout->tokens == 0 || a.columns == 0) return STATUS_OK;
    unsigned sequences, rows;
    TRY(linear_grid(__func__, layout->sequences, 1, &sequences));
    TRY(linear_grid(__func__, layout->tokens, 1, &rows));
    if (dmodulation.data)
        DISPATCH_FLOAT(x.dtype, T,
                       ADAMEM_LAUNCH(film_modulation_kernel<T>, dim3(sequences, (unsigned)ceil_divide(a.columns, 32)),
                                     dim3(32, 32), 0, context->stream, (T *)dmodulation.data, (const T *)dy.data,
                                     (const T *)x.data, a));
    if (dx.data)
        DISPATCH_FLOAT(x.dtype, T,
                       DISPATCH_WIDTH(wide_rows<T>(a, dx.data, dy.data, modulation.data), wide_width<T>(), V,
                                      ADAMEM_LAUNCH((film_backward_kernel<T, V>), rows,
                                                    row_threads(ceil_divide(a.columns, V), 256), 0, context->stream, (T *)dx.data,
                                                    accumulate, (const T *)dy.data, (const T *)modulation.data, a)));
    return STATUS_OK;
}
