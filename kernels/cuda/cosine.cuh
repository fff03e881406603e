/* What the losses on cosines share: one over the norm of rows, and the derivative through the norm. */
#ifndef KERNELS_CUDA_COSINE_CUH
#define KERNELS_CUDA_COSINE_CUH

#include "kernels/cuda/common.cuh"

/* Under the root of every norm: a row of zeros has cosine 0 and a finite gradient. */
#define COSINE_EPSILON 1e-12f

/* Shared memory of a block that every supported GPU can give. */
static const size_t cosine_most_shared = 160 << 10;

/* One warp per row, eight rows per block. */
template <typename T>
__global__ void inverse_norm_kernel(float *__restrict__ inverse, const T *__restrict__ x, int64_t rows, int64_t columns) {
    const int64_t row = blockIdx.x * (int64_t)8 + threadIdx.x / 32;
    if (row >= rows) return;
    float squares = 0;
    for (int64_t c = threadIdx.x % 32; c < columns; c += 32) {
        const float value = to_float(x[row * columns + c]);
        squares += value * value;
    }
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) inverse[row] = 1.0f / sqrtf(squares + COSINE_EPSILON);
}

static inline Status launch_inverse_norm(CudaContext *context, float *inverse, Tensor x) {
    const int64_t rows = row_count(x);
    unsigned grid;
    TRY(linear_grid("inverse_norm", rows, 8, &grid));
    DISPATCH_FLOAT(
        x.dtype, T,
        ADAMEM_LAUNCH(inverse_norm_kernel<T>, grid, 256, 0, context->stream, inverse, (const T *)x.data, rows, column_count(x)));
    return STATUS_OK;
}

/* dx (+)= factor r (g - xhat (xhat . g)), xhat = r x, by a whole block; every thread reads only those g that it wrote. */
template <typename T>
__device__ __forceinline__ void store_through_norm(T *dx, bool accumulate, const float *g, const T *x, float r, float factor,
                                                   int64_t columns) {
    float product = 0;
    for (int64_t c = threadIdx.x; c < columns; c += blockDim.x) product += g[c] * (r * to_float(x[c]));
    const float dot = block_sum(product);
    for (int64_t c = threadIdx.x; c < columns; c += blockDim.x) {
        const float value = factor * r * (g[c] - r * to_float(x[c]) * dot);
        dx[c] = from_float<T>(accumulate ? to_float(dx[c]) + value : value);
    }
}

#endif
