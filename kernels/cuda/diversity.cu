/* Mean squared cosine between the rows of a sequence: one block per row takes its cosines with all others into shared memory. */
#include "kernels/cuda/cosine.cuh"
#include "kernels/cuda/segments.cuh"

struct DiversityArguments {
    const int32_t *offsets;
    int64_t sequences, longest, columns;
    float scale;
    bool accumulate;
};

/* parts[t] = sum of the squared cosines of row t with the others of its sequence. dz NULL: not wanted. */
template <typename T>
__global__ void diversity_kernel(T *__restrict__ dz, float *__restrict__ parts, const T *__restrict__ z,
                                 const float *__restrict__ inverse, DiversityArguments a) {
    extern __shared__ float shared[];
    float *cosines = shared, *gradient = shared + a.longest;
    const int64_t own = blockIdx.x, sequence = sequence_of_row(a.offsets, a.sequences, own), begin = a.offsets[sequence];
    const int64_t rows = a.offsets[sequence + 1] - begin;
    const T *row = z + own * a.columns;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    for (int64_t j = warp; j < rows; j += warps) {
        float dot = 0;
        for (int64_t c = lane; c < a.columns; c += 32) dot += to_float(row[c]) * to_float(z[(begin + j) * a.columns + c]);
        dot = warp_sum(dot);
        if (lane == 0) cosines[j] = begin + j == own ? 0.0f : dot * inverse[own] * inverse[begin + j];
    }
    __syncthreads();
    float squares = 0;
    for (int64_t j = threadIdx.x; j < rows; j += blockDim.x) squares += cosines[j] * cosines[j];
    const float sum = block_sum(squares);
    if (threadIdx.x == 0) parts[own] = sum;
    if (!dz) return;
    for (int64_t c = threadIdx.x; c < a.columns; c += blockDim.x) {
        float total = 0;
        for (int64_t j = 0; j < rows; ++j) total += cosines[j] * inverse[begin + j] * to_float(z[(begin + j) * a.columns + c]);
        gradient[c] = total;
    }
    const float factor = rows > 1 ? 4.0f * a.scale / ((float)rows * (float)(rows - 1)) : 0.0f; /* a pair counts twice, squared */
    store_through_norm(dz + own * a.columns, a.accumulate, gradient, row, inverse[own], factor, a.columns);
}

/* One block per sequence. */
__global__ void diversity_loss_kernel(float *__restrict__ loss, const float *__restrict__ parts,
                                      const int32_t *__restrict__ offsets) {
    const int64_t begin = offsets[blockIdx.x], end = offsets[blockIdx.x + 1], rows = end - begin;
    double sum = 0;
    for (int64_t t = begin + threadIdx.x; t < end; t += blockDim.x) sum += (double)parts[t];
    const double total = block_sum(sum);
    if (threadIdx.x == 0) loss[blockIdx.x] = rows > 1 ? (float)(total / ((double)rows * (double)(rows - 1))) : 0.0f;
}

static Status launch_rows(CudaContext *context, Tensor dz, bool accumulate, Tensor z, const SequenceLayout *layout, float scale,
                          float *inverse, float *parts) {
    const DiversityArguments a = {layout->offsets, layout->sequences, layout->longest, column_count(z), scale, accumulate};
    const size_t bytes = (size_t)(layout->longest + (dz.data ? a.columns : 0)) * sizeof(float);
    if (bytes > cosine_most_shared)
        FAIL("diversity: %lld rows of %lld elements do not fit into shared memory", (long long)layout->longest,
             (long long)a.columns);
    unsigned grid;
    TRY(linear_grid("diversity", layout->tokens, 1, &grid));
    TRY(launch_inverse_norm(context, inverse, z));
    DISPATCH_FLOAT(z.dtype, T, {
        TRY_CUDA(cudaFuncSetAttribute(diversity_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
        ADAMEM_LAUNCH(diversity_kernel<T>, grid, 256, bytes, context->stream, (T *)dz.data, parts, (const T *)z.data,
                      (const float *)inverse, a);
    });
    return STATUS_OK;
}

extern "C" Status cuda_diversity(Device *device, Arena *scratch, Tensor loss, Tensor dz, bool accumulate, Tensor z,
                                 const SequenceLayout *layout, float scale) {
    CudaContext *context = cuda_context(device);
    if (layout->sequences == 0) return STATUS_OK;
    unsigned sequences;
    TRY(linear_grid(__func__, layout->sequences, 1, &sequences));
    void *memory = NULL;
    if (layout->tokens) TRY(arena_allocate(scratch, scratch_diversity(z), ARENA_HIGH, &memory));
    float *inverse = (float *)memory, *parts = inverse + layout->tokens;
    Status status = layout->tokens ? launch_rows(context, dz, accumulate, z, layout, scale, inverse, parts) : STATUS_OK;
    arena_release(scratch, memory); /* what is launched next comes before whoever takes it */
    TRY(status);
    ADAMEM_LAUNCH(diversity_loss_kernel, sequences, 128, 0, context->stream, (float *)loss.data, (const float *)parts,
                  layout->offsets);
    return STATUS_OK;
}
