#include "kernels/cuda/common.cuh"

/* One block per row. The row is read twice, the second time from the L1 or L2 cache. */
template <typename T, int V>
__global__ void rms_norm_forward_kernel(T *__restrict__ y, float *__restrict__ rstd, T *sum, const T *x, const T *delta,
                                        const T *__restrict__ weight, int64_t columns, float epsilon) {
    const int64_t row = blockIdx.x;
    const T *source = (sum ? sum : x) + row * columns;
    float squares = 0;
    for (int64_t c = (int64_t)threadIdx.x * V; c < columns; c += (int64_t)blockDim.x * V) {
        float value[V];
        load<V>(value, x + row * columns + c);
        if (delta) {
            float added[V];
            load<V>(added, delta + row * columns + c);
#pragma unroll
            /* Rounded to T before the statistics, so that a recomputation from the stored sum gives the same bits. */
            for (int i = 0; i < V; ++i) value[i] = to_float(from_float<T>(value[i] + added[i]));
            store<V>(sum + row * columns + c, value);
        }
#pragma unroll
        for (int i = 0; i < V; ++i) squares += value[i] * value[i];
    }
    const float scale = 1.0f / sqrtf(block_sum(squares) / (float)columns + epsilon);
    if (threadIdx.x == 0) rstd[row] = scale;
    for (int64_t c = (int64_t)threadIdx.x * V; c < columns; c += (int64_t)blockDim.x * V) {
        float value[V], w[V]; /* each thread reads back what it wrote itself */
        load<V>(value, source + c);
        load<V>(w, weight + c);
#pragma unroll
        for (int i = 0; i < V; ++i) value[i] = value[i] * scale * w[i];
        store<V>(y + row * columns + c, value);
    }
}

template <typename T, int V>
__global__ void rms_norm_backward_kernel(T *__restrict__ dx, bool accumulate, const T *__restrict__ dy, const T *__restrict__ x,
                                         const T *__restrict__ weight, const float *__restrict__ rstd, int64_t columns) {
    const int64_t start = blockIdx.x * columns;
    const float scale = rstd[blockIdx.x];
    float product = 0;
    for (int64_t c = (int64_t)threadIdx.x * V; c < columns; c += (int64_t)blockDim.x * V) {
        float upstream[V], value[V], w[V];
        load<V>(upstream, dy + start + c);
        load<V>(value, x + start + c);
        load<V>(w, weight + c);
#pragma unroll
        for (int i = 0; i < V; ++i) product += upstream[i] * w[i] * (value[i] * scale);
    }
    const float mean = block_sum(product) / (float)columns;
    for (int64_t c = (int64_t)threadIdx.x * V; c < columns; c += (int64_t)blockDim.x * V) {
        float upstream[V], value[V], w[V], result[V];
        load<V>(upstream, dy + start + c);
        load<V>(value, x + start + c);
        load<V>(w, weight + c);
#pragma unroll
        for (int i = 0; i < V; ++i) result[i] = scale * (upstream[i] * w[i] - value[i] * scale * mean);
        if (accumulate) {
            float before[V];
            load<V>(before, dx + start + c);
#pragma unroll
            for (int i = 0; i < V; ++i) result[i] += before[i];
        }
        store<V>(dx + start + c, result);
    }
}

/* partial[chunk][column] = sum of dy * xhat over the chunk's rows; block x covers columns, block y is the chunk. */
template <typename T>
__global__ void rms_norm_dweight_kernel(float *__restrict__ partial, const T *__restrict__ dy, const T *__restrict__ x,
                                        const float *__restrict__ rstd, int64_t rows, int64_t columns, int64_t first_chunk) {
    const int64_t column = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, chunk = first_chunk + blockIdx.y;
    if (column >= columns) return;
    const int64_t first = chunk * TOKEN_BLOCK;
    const int64_t end = first + TOKEN_BLOCK < rows ? first + TOKEN_BLOCK : rows;
    float sum = 0;
    for (int64_t t = first; t < end; ++t)
        sum += to_float(dy[t * columns + column]) * (to_float(x[t * columns + column]) * rstd[t]);
    partial[chunk * columns + column] = sum;
}

/* dweight[column] += the partial sums, in the order of the chunks. */
__global__ void add_dweight_kernel(float *__restrict__ dweight, const float *__restrict__ partial, int64_t chunks,
                                   int64_t columns) {
    const int64_t column = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (column >= columns) return;
    float sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * columns + column];
    dweight[column] += sum;
}

template <typename T>
static Status launch_dweight(CudaContext *context, Tensor dweight, Tensor dy, Tensor x, Tensor rstd, float *partial) {
    const int64_t rows = row_count(x), columns = column_count(x), chunks = ceil_divide(rows, TOKEN_BLOCK);
    const int threads = 256;
    for (int64_t first = 0; first < chunks; first += 65535) { /* CUDA allows 65535 blocks in y */
        const int64_t count = chunks - first < 65535 ? chunks - first : 65535;
        dim3 grid((unsigned)ceil_divide(columns, threads), (unsigned)count);
        ADAMEM_LAUNCH(rms_norm_dweight_kernel<T>, grid, threads, 0, context->stream, partial, (const T *)dy.data,
                      (const T *)x.data, (const float *)rstd.data, rows, columns, first);
    }
    unsigned grid;
    TRY(linear_grid("rms_norm_backward", columns, 64, &grid));
    ADAMEM_LAUNCH(add_dweight_kernel, grid, 64, 0, context->stream, (float *)dweight.data, partial, chunks, columns);
    return STATUS_OK;
}

extern "C" Status cuda_rms_norm_forward(Device *device, Tensor y, Tensor rstd, Tensor sum, Tensor x, Tensor delta, Tensor weight,
                                        float epsilon) {
    CudaContext *context = cuda_context(device);
    const int64_t rows = row_count(x), columns = column_count(x);
    if (rows == 0 || columns == 0) return STATUS_OK;
    if (!delta.data) sum.data = NULL;
    unsigned grid;
    TRY(linear_grid(__func__, rows, 1, &grid));
    DISPATCH_FLOAT(x.dtype, T, {
        const bool wide = wide_access(columns, wide_width<T>(), y.data, sum.data, x.data, delta.data, weight.data);
        DISPATCH_WIDTH(wide, wide_width<T>(), V,
                       ADAMEM_LAUNCH((rms_norm_forward_kernel<T, V>), grid, row_threads(ceil_divide(columns, V), 512), 0,
                                     context->stream, (T *)y.data, (float *)rstd.data, (T *)sum.data, (const T *)x.data,
                                     (const T *)delta.data, (const T *)weight.data, columns, epsilon));
    });
    return STATUS_OK;
}

extern "C" Status cuda_rms_norm_backward(Device *device, Arena *scratch, Tensor dx, bool accumulate, Tensor dweight, Tensor dy,
                                         Tensor x, Tensor weight, Tensor rstd) {
    CudaContext *context = cuda_context(device);
    const int64_t rows = row_count(x), columns = column_count(x);
    if (rows == 0 || columns == 0) return STATUS_OK;
    unsigned grid;
    TRY(linear_grid(__func__, rows, 1, &grid));
    DISPATCH_FLOAT(x.dtype, T, {
        const bool wide = wide_access(columns, wide_width<T>(), dx.data, dy.data, x.data, weight.data);
        DISPATCH_WIDTH(wide, wide_width<T>(), V,
                       ADAMEM_LAUNCH((rms_norm_backward_kernel<T, V>), grid, row_threads(ceil_divide(columns, V), 512), 0,
                                     context->stream, (T *)dx.data, accumulate, (const T *)dy.data, (const T *)x.data,
                                     (const T *)weight.data, (const float *)rstd.data, columns));
    });
    if (!dweight.data) return STATUS_OK;
    void *partial;
    TRY(arena_allocate(scratch, scratch_rms_norm_backward(dweight, x), ARENA_HIGH, &partial));
    Status status = x.dtype == DTYPE_BF16 ? launch_dweight<__nv_bfloat16>(context, dweight, dy, x, rstd, (float *)partial)
                                          : launch_dweight<float>(context, dweight, dy, x, rstd, (float *)partial);
    arena_release(scratch, partial);
    return status;
}
