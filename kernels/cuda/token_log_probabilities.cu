/* Log-probabilities of single tokens, a chunk of rows at a time: gather the rows, one matmul to fp32 logits, one kernel that
 * picks what is asked for. */
#include "kernels/cuda/common.cuh"

/* One block per row; offsets of this chunk's rows, counted from the first pair of all. */
template <int V>
__global__ void pick_log_probabilities_kernel(float *__restrict__ log_p, const float *__restrict__ logits,
                                              const int32_t *__restrict__ offsets, const int32_t *__restrict__ tokens,
                                              int64_t vocabulary) {
    const float *z = logits + blockIdx.x * vocabulary;
    const int begin = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
    if (begin == end) return;                    /* for all threads alike */
    float maximum = -INFINITY, exponentials = 0; /* of this thread, exponentials relative to its maximum */
    for (int64_t c = (int64_t)threadIdx.x * V; c < vocabulary; c += (int64_t)blockDim.x * V) {
        float value[V], larger = maximum;
        load<V>(value, z + c);
#pragma unroll
        for (int i = 0; i < V; ++i) larger = fmaxf(larger, value[i]);
        exponentials *= expf(maximum - larger);
#pragma unroll
        for (int i = 0; i < V; ++i) exponentials += expf(value[i] - larger);
        maximum = larger;
    }
    const float row_maximum = block_max(maximum);
    const float log_sum = logf(block_sum(exponentials * expf(maximum - row_maximum)));
    for (int k = begin + threadIdx.x; k < end; k += blockDim.x) log_p[k] = (z[tokens[k]] - row_maximum) - log_sum;
}

static Status pick(Device *device, float *log_p, Tensor logits, const int32_t *offsets, const int32_t *tokens) {
    const int64_t n = logits.shape[0], vocabulary = logits.shape[1];
    DISPATCH_WIDTH(wide_access(vocabulary, 4, logits.data), 4, V,
                   ADAMEM_LAUNCH(pick_log_probabilities_kernel<V>, (unsigned)n, 512, 0, cuda_context(device)->stream, log_p,
                                 (const float *)logits.data, offsets, tokens, vocabulary));
    return STATUS_OK;
}

extern "C" Status cuda_token_log_probabilities(Device *device, Arena *scratch, Tensor log_p, Tensor hidden, Tensor weight,
                                               Tensor rows, TokenPairs pairs) {
    const int64_t n = tensor_elements(rows), width = column_count(weight), vocabulary = weight.shape[0];
    if (n == 0) return STATUS_OK;
    if (hidden.dtype != DTYPE_F32 && hidden.dtype != DTYPE_BF16)
        FAIL("token_log_probabilities: dtype %d is not implemented", (int)hidden.dtype);
    const int64_t rows_per_chunk = cross_entropy_chunk(device, vocabulary, n);
    void *block;
    TRY(arena_allocate(scratch, scratch_token_log_probabilities(device, hidden, weight, rows), ARENA_HIGH, &block));
    Status status = STATUS_OK;
    for (int64_t first = 0; first < n && !status; first += rows_per_chunk) {
        const int64_t count = n - first < rows_per_chunk ? n - first : rows_per_chunk;
        const Tensor logits = tensor_2d(block, DTYPE_F32, count, vocabulary);
        const Tensor chunk = tensor_2d((char *)block + tensor_bytes(logits), hidden.dtype, count, width);
        status = cuda_embedding_forward(device, chunk, hidden, tensor_1d((int32_t *)rows.data + first, DTYPE_I32, count));
        if (!status) status = cuda_matmul(device, scratch, logits, chunk, false, weight, true, tensor_absent(), 1, 0);
        if (!status)
            status = pick(device, (float *)log_p.data, logits, (const int32_t *)pairs.offsets.data + first,
                          (const int32_t *)pairs.tokens.data);
    }
    arena_release(scratch, block);
    return status;
}
