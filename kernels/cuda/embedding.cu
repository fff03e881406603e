#include "kernels/cuda/common.cuh"

template <typename T, int V>
__global__ void embedding_forward_kernel(T *__restrict__ y, const T *__restrict__ table, const int32_t *__restrict__ ids,
                                         int64_t items, int64_t packs) {
    const int64_t item = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (item >= items) return;
    const int64_t row = item / packs, pack = item % packs;
    *reinterpret_cast<Pack<T, V> *>(y + (row * packs + pack) * V) =
        *reinterpret_cast<const Pack<T, V> *>(table + (ids[row] * packs + pack) * V);
}

/* One block of 256 threads per token. The block of the first token with an id owns that id's gradient row: it walks over
 * the later tokens in order and adds every match, so the order of the sum is the order of the tokens and nobody races.
 * Looking through the ids costs T^2 reads of a list that stays in the L1 cache. */
template <typename T>
__global__ void embedding_backward_kernel(float *__restrict__ gradient, const T *__restrict__ dy, const int32_t *__restrict__ ids,
                                          int64_t tokens, int64_t columns) {
    __shared__ uint32_t matches[8]; /* one bit per thread */
    const int64_t own = blockIdx.x;
    const int32_t id = ids[own];
    for (int64_t start = 0; start < own; start += 256) {
        const int64_t t = start + threadIdx.x;
        if (__syncthreads_or(t < own && ids[t] == id)) return; /* another block owns this id */
    }
    float *row = gradient + id * columns;
    for (int64_t start = own; start < tokens; start += 256) {
        const int64_t t = start + threadIdx.x;
        const uint32_t ballot = __ballot_sync(0xffffffffu, t < tokens && ids[t] == id);
        __syncthreads(); /* matches may still be read */
        if (threadIdx.x % 32 == 0) matches[threadIdx.x / 32] = ballot;
        __syncthreads();
        for (int warp = 0; warp < 8; ++warp)
            for (uint32_t bits = matches[warp]; bits; bits &= bits - 1) {
                const T *source = dy + (start + warp * 32 + __ffs((int)bits) - 1) * columns;
                for (int64_t c = threadIdx.x; c < columns; c += 256) row[c] += to_float(source[c]);
            }
    }
}

extern "C" Status cuda_embedding_forward(Device *device, Tensor y, Tensor table, Tensor ids) {
    CudaContext *context = cuda_context(device);
    const int64_t rows = tensor_elements(ids), columns = column_count(table);
    if (rows == 0 || columns == 0) return STATUS_OK;
    DISPATCH_FLOAT(table.dtype, T, {
        DISPATCH_WIDTH(wide_access(columns, wide_width<T>(), y.data, table.data), wide_width<T>(), V, {
            unsigned grid;
            TRY(linear_grid(__func__, rows * (columns / V), 256, &grid));
            ADAMEM_LAUNCH((embedding_forward_kernel<T, V>), grid, 256, 0, context->stream, (T *)y.data, (const T *)table.data,
                          (const int32_t *)ids.data, rows * (columns / V), columns / V);
        });
    });
    return STATUS_OK;
}

extern "C" Status cuda_embedding_backward(Device *device, Arena *scratch, Tensor gradient, Tensor dy, Tensor ids) {
    (void)scratch;
    CudaContext *context = cuda_context(device);
    const int64_t rows = tensor_elements(ids), columns = column_count(gradient);
    if (rows == 0 || columns == 0) return STATUS_OK;
    unsigned grid;
    TRY(linear_grid(__func__, rows, 1, &grid));
    DISPATCH_FLOAT(dy.dtype, T,
                   ADAMEM_LAUNCH(embedding_backward_kernel<T>, grid, 256, 0, context->stream, (float *)gradient.data,
                                 (const T *)dy.data, (const int32_t *)ids.data, rows, columns));
    return STATUS_OK;
}
