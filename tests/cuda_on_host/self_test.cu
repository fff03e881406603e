#include "kernels/cuda/common.cuh"
#include "kernels/cuda/tensor_core.cuh"

#include "tests/cuda_on_host/self_test.h"

enum { BLOCK = 128 };

__global__ void reverse_kernel(float *out, const float *in, bool barrier) {
    __shared__ float row[BLOCK];
    const int i = threadIdx.x;
    row[i] = in[blockIdx.x * BLOCK + i];
    if (barrier) __syncthreads();
    out[blockIdx.x * BLOCK + i] = row[BLOCK - 1 - i];
}

__global__ void reverse_dynamic_kernel(float *out, const float *in, bool barrier) {
    extern __shared__ float shared[];
    const int i = threadIdx.x;
    shared[i] = in[blockIdx.x * BLOCK + i];
    if (barrier) __syncthreads();
    out[blockIdx.x * BLOCK + i] = shared[BLOCK - 1 - i];
}

__global__ void reverse_warp_kernel(float *out, const float *in, bool barrier) {
    __shared__ float row[BLOCK];
    const int i = threadIdx.x;
    row[i] = in[blockIdx.x * BLOCK + i];
    if (barrier) __syncwarp();
    out[blockIdx.x * BLOCK + i] = row[i / 32 * 32 + 31 - i % 32];
}

__global__ void reverse_async_kernel(float *out, const float *in, bool wait) {
    extern __shared__ float shared[];
    const int i = threadIdx.x;
    copy_async<4>(shared + i, in + blockIdx.x * BLOCK + i, true);
    copy_async_commit();
    if (wait) copy_async_wait<0>();
    __syncthreads();
    out[blockIdx.x * BLOCK + i] = shared[BLOCK - 1 - i];
}

__global__ void leftover_kernel(float *out) {
    __shared__ float kept;
    if (blockIdx.x == 0 && threadIdx.x == 0) kept = 1;
    __syncthreads();
    if (threadIdx.x == 0) out[blockIdx.x] = kept;
}

__global__ void atomics_kernel(float *sum, int *count, int *largest, const float *in) {
    const int i = (int)(blockIdx.x * BLOCK + threadIdx.x);
    atomicAdd(sum, in[i]);
    atomicAdd(count, 1);
    atomicMax(largest, i);
    __syncthreads();
}

__global__ void warp_kernel(float *sums, uint32_t *ballot, float *fifth, const float *in) {
    float by_xor = in[threadIdx.x], by_down = by_xor, by_up = by_xor;
    for (int offset = 16; offset > 0; offset /= 2) {
        by_xor += __shfl_xor_sync(0xffffffffu, by_xor, offset);
        by_down += __shfl_down_sync(0xffffffffu, by_down, (unsigned)offset);
        const float below = __shfl_up_sync(0xffffffffu, by_up, (unsigned)offset);
        if ((int)threadIdx.x >= offset) by_up += below;
    }
    const uint32_t bits = __ballot_sync(0xffffffffu, threadIdx.x % 2);
    const float value = __shfl_sync(0xffffffffu, in[threadIdx.x], 5);
    if (threadIdx.x == 17) sums[0] = by_xor, *ballot = bits, *fifth = value;
    if (threadIdx.x == 0) sums[1] = by_down;
    if (threadIdx.x == 31) sums[2] = by_up;
}

__global__ void split_barrier_kernel() {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

__global__ void missing_lane_kernel() {
    if (threadIdx.x == 0)
        __syncwarp();
    else
        __syncthreads();
}

__global__ void nothing_kernel() {}

__global__ void overrun_kernel() {
    extern __shared__ float shared[];
    shared[BLOCK + threadIdx.x] = 0; /* asked for: BLOCK floats */
}

__global__ void early_return_kernel(int *out) {
    if (threadIdx.x >= 40) return;
    const int stayed = __syncthreads_count(1);
    if (threadIdx.x == 0) *out = stayed;
}

__global__ void tensor_core_kernel(float *d, const uint16_t *a, const uint16_t *b) {
    __shared__ __align__(16) uint16_t left[16][16];
    __shared__ __align__(16) uint16_t right[16][8];
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = lane; i < 256; i += 32) left[i / 16][i % 16] = a[i];
    for (int i = lane; i < 128; i += 32) right[i / 8][i % 8] = b[i];
    __syncwarp();
    uint32_t first[4], second[4];
    load_matrices(first, &left[lane % 16][lane / 16 * 8]);
    load_matrices_transposed(second, &right[lane % 16][0]);
    float sum[4] = {d[g * 8 + 2 * t], d[g * 8 + 2 * t + 1], d[(g + 8) * 8 + 2 * t], d[(g + 8) * 8 + 2 * t + 1]};
    multiply_add(sum, first, second[0], second[1]);
    d[g * 8 + 2 * t] = sum[0];
    d[g * 8 + 2 * t + 1] = sum[1];
    d[(g + 8) * 8 + 2 * t] = sum[2];
    d[(g + 8) * 8 + 2 * t + 1] = sum[3];
}

extern "C" Status self_test_reverse(float *out, const float *in, int blocks, bool barrier) {
    ADAMEM_LAUNCH(reverse_kernel, (unsigned)blocks, BLOCK, 0, NULL, out, in, barrier);
    return STATUS_OK;
}

extern "C" Status self_test_reverse_dynamic(float *out, const float *in, int blocks, bool barrier) {
    ADAMEM_LAUNCH(reverse_dynamic_kernel, (unsigned)blocks, BLOCK, BLOCK * sizeof(float), NULL, out, in, barrier);
    return STATUS_OK;
}

extern "C" Status self_test_reverse_warp(float *out, const float *in, int blocks, bool barrier) {
    ADAMEM_LAUNCH(reverse_warp_kernel, (unsigned)blocks, BLOCK, 0, NULL, out, in, barrier);
    return STATUS_OK;
}

extern "C" Status self_test_reverse_async(float *out, const float *in, int blocks, bool wait) {
    ADAMEM_LAUNCH(reverse_async_kernel, (unsigned)blocks, BLOCK, BLOCK * sizeof(float), NULL, out, in, wait);
    return STATUS_OK;
}

extern "C" Status self_test_leftover(float *out, int blocks) {
    ADAMEM_LAUNCH(leftover_kernel, (unsigned)blocks, 32, 0, NULL, out);
    return STATUS_OK;
}

extern "C" Status self_test_atomics(float *sum, int *count, int *largest, const float *in, int blocks) {
    ADAMEM_LAUNCH(atomics_kernel, (unsigned)blocks, BLOCK, 0, NULL, sum, count, largest, in);
    return STATUS_OK;
}

extern "C" Status self_test_warp(float *sums, uint32_t *ballot, float *fifth, const float *in) {
    ADAMEM_LAUNCH(warp_kernel, 1, 32, 0, NULL, sums, ballot, fifth, in);
    return STATUS_OK;
}

extern "C" Status self_test_split_barrier(void) {
    ADAMEM_LAUNCH(split_barrier_kernel, 1, 64, 0, NULL);
    return STATUS_OK;
}

extern "C" Status self_test_missing_lane(void) {
    ADAMEM_LAUNCH(missing_lane_kernel, 1, 32, 0, NULL);
    return STATUS_OK;
}

extern "C" Status self_test_shared_memory(int bytes, bool allow) {
    if (allow) TRY_CUDA(cudaFuncSetAttribute(nothing_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    ADAMEM_LAUNCH(nothing_kernel, 1, 32, bytes, NULL);
    return STATUS_OK;
}

extern "C" Status self_test_shared_overrun(void) {
    ADAMEM_LAUNCH(overrun_kernel, 1, BLOCK, BLOCK * sizeof(float), NULL);
    return STATUS_OK;
}

extern "C" Status self_test_early_return(int *out) {
    ADAMEM_LAUNCH(early_return_kernel, 1, 100, 0, NULL, out);
    return STATUS_OK;
}

extern "C" Status self_test_tensor_core(float *d, const uint16_t *a, const uint16_t *b) {
    ADAMEM_LAUNCH(tensor_core_kernel, 1, 32, 0, NULL, d, a, b);
    return STATUS_OK;
}

static Status blas(cublasStatus_t status) {
    if (status != CUBLAS_STATUS_SUCCESS) FAIL("%s", cublasLtGetStatusString(status));
    return STATUS_OK;
}

/* With cuBLASLt's words: C[m, n] = A B column-major, 64 x 32 by 32 x 64. */
static Status product(cublasLtHandle_t handle, float *c, const float *a, const float *b, bool misaligned, bool other_shape) {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t first, second, result;
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t choice;
    const float one = 1, zero = 0;
    int found;
    TRY(blas(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F)));
    TRY(blas(cublasLtMatrixLayoutInit(&first, CUDA_R_32F, 64, 32, 64)));
    TRY(blas(cublasLtMatrixLayoutInit(&second, CUDA_R_32F, 32, 64, 32)));
    TRY(blas(cublasLtMatrixLayoutInit(&result, CUDA_R_32F, 64, 64, 64)));
    TRY(blas(cublasLtMatmulPreferenceInit(&preference)));
    TRY(blas(
        cublasLtMatmulAlgoGetHeuristic(handle, &operation, &first, &second, &result, &result, &preference, 1, &choice, &found)));
    if (other_shape) first.rows = second.columns = result.rows = result.columns = 16; /* still a valid product */
    return blas(cublasLtMatmul(handle, &operation, &one, a + (misaligned ? 1 : 0), &first, b, &second, &zero, c, &result, c,
                               &result, &choice.algo, NULL, 0, NULL));
}

extern "C" Status self_test_product(float *c, const float *a, const float *b, bool misaligned, bool other_shape) {
    cublasLtHandle_t handle;
    TRY(blas(cublasLtCreate(&handle)));
    Status status = product(handle, c, a, b, misaligned, other_shape);
    (void)cublasLtDestroy(handle);
    return status;
}
