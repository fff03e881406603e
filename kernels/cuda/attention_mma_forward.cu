/* Attention forward on tensor cores: FlashAttention-2 (Dao 2023), algorithm 1, for packed sequences.
 *
 * A block owns 128 queries of one head, each warp 32 of them, and walks over the keys in tiles of 64. One buffer for keys and
 * one for values: the values of a tile arrive while its scores are computed, the keys of the next tile while the values are
 * added up. Two blocks per multiprocessor fill each other's waits. */
#include "kernels/cuda/attention_mma.cuh"

static const int forward_queries = 128, forward_keys = 64;

/* Running softmax of a row in base two: the largest score so far (times scale log2 e) and this lane's share of the sum. */
struct RowStatistics {
    float offset, total;
};

/* Minus infinity where the row does not see the key. row, key: of element (0, 0) of this lane, from the sequence's start. */
template <int MT, int NT>
__device__ __forceinline__ void hide_keys(float (&score)[MT][NT][4], int row, int key, int length, bool causal) {
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int last = row + 16 * m + i / 2 * 8, end = causal && last < length ? last + 1 : length;
#pragma unroll
            for (int n = 0; n < NT; ++n)
                if (key + 8 * n + i % 2 >= end) score[m][n][i] = -INFINITY;
        }
}

/* Turns the scores of a tile into weights and brings the results so far to the new largest score. The first tile holds key
 * 0, which every row sees: the offset is finite from there on. */
template <int MT, int NT, int WIDTH>
__device__ __forceinline__ void softmax_tile(float (&score)[MT][NT][4], float (&sum)[MT][WIDTH][4], RowStatistics (&rows)[MT][2],
                                             float scale) {
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            RowStatistics &row = rows[m][half];
            float largest = score[m][0][2 * half];
#pragma unroll
            for (int n = 0; n < NT; ++n) largest = fmaxf(largest, fmaxf(score[m][n][2 * half], score[m][n][2 * half + 1]));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
            const float offset = fmaxf(row.offset, largest * scale), correction = exponential_2(row.offset - offset);
            row.offset = offset;
            row.total *= correction;
#pragma unroll
            for (int n = 0; n < NT; ++n)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; ++i) {
                    score[m][n][i] = exponential_2(fmaf(score[m][n][i], scale, -offset));
                    row.total += score[m][n][i];
                }
#pragma unroll
            for (int n = 0; n < WIDTH; ++n) {
                sum[m][n][2 * half] *= correction;
                sum[m][n][2 * half + 1] *= correction;
            }
        }
}

template <int E>
__global__ void __launch_bounds__(mma_threads, 2)
    attention_mma_forward_kernel(__nv_bfloat16 *__restrict__ out, float *__restrict__ lse, const __nv_bfloat16 *__restrict__ q,
                                 const __nv_bfloat16 *__restrict__ k, const __nv_bfloat16 *__restrict__ v, MmaArguments a) {
    constexpr int MT = 2, NT = forward_keys / 8;
    extern __shared__ __align__(16) float shared[]; /* cp.async and ldmatrix take 16 bytes */
    __nv_bfloat16 *queries = (__nv_bfloat16 *)shared, *keys = queries + forward_queries * E, *values = keys + forward_keys * E;
    const MmaBlock block = find_block<forward_queries>(a, blockIdx.x, a.causal);
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * MT, first = block.first + warp_row;
    const int64_t head = blockIdx.y, key_head = head / (a.query_heads / a.key_heads);
    const int q_stride = a.query_heads * E, k_stride = a.key_heads * E;
    const int64_t own = (block.start + block.first) * q_stride + head * E, other = block.start * k_stride + key_head * E;
    const int end = a.causal && block.first + forward_queries < block.length ? block.first + forward_queries : block.length;

    load_tile<E, forward_queries>(queries, q + own, q_stride, block.length - block.first);
    load_tile<E, forward_keys>(keys, k + other, k_stride, block.length);
    copy_async_commit();
    float sum[MT][E / 8][4];
    RowStatistics rows[MT][2];
    clear(sum);
#pragma unroll
    for (int m = 0; m < MT; ++m) rows[m][0] = rows[m][1] = RowStatistics{-INFINITY, 0.0f};

    for (int tile = 0; tile < end; tile += forward_keys) {
        const bool seen = !a.causal || tile < first + 16 * MT; /* by this warp */
        float score[MT][NT][4];
        copy_async_wait<0>();
        __syncthreads(); /* the keys are there, and all warps have done with the values of the tile before */
        load_tile<E, forward_keys>(values, v + other + (int64_t)tile * k_stride, k_stride, block.length - tile);
        copy_async_commit();
        if (seen) {
            multiply_rows<E, E == 128 ? 1 : 2>(score, queries + warp_row * E, keys);
            if (tile + forward_keys > block.length || (a.causal && tile + forward_keys > first + 1))
                hide_keys(score, first + lane / 4, tile + lane % 4 * 2, block.length, a.causal);
            softmax_tile(score, sum, rows, a.scale * log2_e);
        }
        copy_async_wait<0>();
        __syncthreads(); /* the values are there, and all warps have done with the keys */
        if (tile + forward_keys < end) {
            const int next = tile + forward_keys;
            load_tile<E, forward_keys>(keys, k + other + (int64_t)next * k_stride, k_stride, block.length - next);
            copy_async_commit();
        }
        if (seen) add_weighted_rows<E>(sum, score, values);
    }

    float factor[MT][2];
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float total = rows[m][half].total;
            total += __shfl_xor_sync(0xffffffffu, total, 1);
            total += __shfl_xor_sync(0xffffffffu, total, 2);
            factor[m][half] = 1.0f / total;
            const int row = first + 16 * m + 8 * half + lane / 4;
            if (lane % 4 == 0 && row < block.length)
                lse[head * a.tokens + block.start + row] = (rows[m][half].offset + log2f(total)) * ln_2;
        }
    store_rows<E>(out + own + (int64_t)warp_row * q_stride, q_stride, block.length - first, queries + warp_row * E, sum, factor);
}

template <int E> static Status launch_forward(CudaContext *context, const AttentionOperands &o) {
    const int bytes = (forward_queries + 2 * forward_keys) * E * (int)sizeof(__nv_bfloat16);
    unsigned blocks;
    TRY(linear_grid("attention_forward", mma_blocks(o.layout, forward_queries), 1, &blocks));
    TRY_CUDA(cudaFuncSetAttribute(attention_mma_forward_kernel<E>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    ADAMEM_LAUNCH(attention_mma_forward_kernel<E>, dim3(blocks, (unsigned)o.shape.query_heads), mma_threads, bytes,
                  context->stream, (__nv_bfloat16 *)o.out.data, (float *)o.lse.data, (const __nv_bfloat16 *)o.q.data,
                  (const __nv_bfloat16 *)o.k.data, (const __nv_bfloat16 *)o.v.data, mma_arguments(o));
    return STATUS_OK;
}

Status attention_mma_forward(CudaContext *context, const AttentionOperands &operands) {
    return operands.shape.head_dimension == 64 ? launch_forward<64>(context, operands) : launch_forward<128>(context, operands);
}
