/* P = dropout(x) A^T for a stack of adapters: x is read once for all of them, and the mask is drawn where x passes.
 *
 * Bound by reading x: at T = 8192, K = 3584 58 MB, 0.018 ms at 3.35 TB/s, beside 0.012 ms of Philox on 132 multiprocessors, which
 * overlaps. A block of eight warps takes 32 tokens and up to 64 ranks; each warp takes every eighth slice of 16 channels, and the
 * eight partial sums are added in the order of the warps. A is read by every block of tokens, from the L2 cache. */
#include "kernels/cuda/lora.cuh"

enum { DOWN_THREADS = 256, DOWN_WARPS = DOWN_THREADS / 32, DOWN_TOKENS = 32, DOWN_CHANNELS = 128 };

template <int N16>
__global__ void __launch_bounds__(DOWN_THREADS)
    lora_down_mma_kernel(__nv_bfloat16 *__restrict__ p, const __nv_bfloat16 *__restrict__ x, const __nv_bfloat16 *__restrict__ a,
                         int64_t width, LoraColumns columns, DropoutMask mask) {
    constexpr int ranks = 16 * N16;
    __shared__ __align__(16) __nv_bfloat16 tiles[2][(DOWN_TOKENS + ranks) * DOWN_CHANNELS];
    const int64_t token = blockIdx.x * (int64_t)DOWN_TOKENS;
    const int rank = blockIdx.y * ranks, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    auto start = [&](int stage, int64_t channel) {
        copy_tile<DOWN_CHANNELS, DOWN_TOKENS, DOWN_THREADS>(tiles[stage], x, token, channel, columns.tokens, width);
        copy_tile<DOWN_CHANNELS, ranks, DOWN_THREADS>(tiles[stage] + DOWN_TOKENS * DOWN_CHANNELS, a, rank, channel, columns.rank,
                                                      width);
        copy_async_commit();
    };
    float sum[2][2 * N16][4] = {};
    start(0, 0);
    for (int64_t channel = 0, step = 0; channel < width; channel += DOWN_CHANNELS, ++step) {
        __nv_bfloat16 *rows = tiles[step % 2], *stacked = rows + DOWN_TOKENS * DOWN_CHANNELS;
        if (channel + DOWN_CHANNELS < width) {
            start((int)(step + 1) % 2, channel + DOWN_CHANNELS);
            copy_async_wait<1>();
        } else {
            copy_async_wait<0>();
        }
        keep_tile<DOWN_CHANNELS, DOWN_TOKENS, DOWN_THREADS>(rows, mask, token, channel, columns.tokens);
        __syncthreads();
        uint32_t left[2][4];
#pragma unroll
        for (int m = 0; m < 2; ++m)
            load_matrices(left[m], rows + lora_place<DOWN_CHANNELS>(16 * m + lane % 16, 2 * warp + lane / 16));
#pragma unroll
        for (int n = 0; n < N16; ++n) {
            uint32_t right[4];
            load_matrices(right, stacked + lora_place<DOWN_CHANNELS>(16 * n + lane % 8 + lane / 16 * 8, 2 * warp + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                multiply_add(sum[m][2 * n], left[m], right[0], right[1]);
                multiply_add(sum[m][2 * n + 1], left[m], right[2], right[3]);
            }
        }
        __syncthreads(); /* all warps have done with this stage before it is filled again */
    }
    float *total = reinterpret_cast<float *>(tiles); /* [DOWN_TOKENS, ranks] */
    for (int turn = 0; turn < DOWN_WARPS; ++turn) {
        if (warp == turn) {
#pragma unroll
            for (int m = 0; m < 2; ++m)
#pragma unroll
                for (int n = 0; n < 2 * N16; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        float *at = total + (16 * m + lane / 4 + i / 2 * 8) * ranks + 8 * n + lane % 4 * 2 + i % 2;
                        *at = turn ? *at + sum[m][n][i] : sum[m][n][i];
                    }
        }
        __syncthreads();
    }
    const float scale = mask.threshold ? mask.scale : 1.0f;
    for (int i = threadIdx.x; i < DOWN_TOKENS * ranks; i += DOWN_THREADS)
        if (token + i / ranks < columns.tokens && rank + i % ranks < columns.rank)
            p[lora_element(columns, token + i / ranks, rank + i % ranks)] = __float2bfloat16_rn(scale * total[i]);
}

/* Any type, width and address: one warp per token, eight ranks at a time. */
template <typename T>
__global__ void lora_down_kernel(T *__restrict__ p, const T *__restrict__ x, const T *__restrict__ a, int64_t width,
                                 LoraColumns columns, DropoutMask mask) {
    const int64_t token = blockIdx.x * (int64_t)(blockDim.x / 32) + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (token >= columns.tokens) return;
    const float scale = mask.threshold ? mask.scale : 1.0f;
    for (int rank = 0; rank < columns.rank; rank += 8) {
        float sum[8] = {};
        for (int64_t group = lane; group * 8 < width; group += 32) {
            const uint32_t kept = mask.threshold ? kept_channels(mask, token, group) : 0xffu;
            for (int i = 0; i < 8 && group * 8 + i < width; ++i) {
                const float value = kept >> i & 1 ? to_float(x[token * width + group * 8 + i]) : 0.0f;
#pragma unroll
                for (int r = 0; r < 8; ++r)
                    if (rank + r < columns.rank) sum[r] += value * to_float(a[(rank + r) * width + group * 8 + i]);
            }
        }
#pragma unroll
        for (int r = 0; r < 8; ++r) {
            const float total = warp_sum(sum[r]);
            if (lane == 0 && rank + r < columns.rank) p[lora_element(columns, token, rank + r)] = from_float<T>(scale * total);
        }
    }
}

extern "C" Status cuda_lora_down(Device *device, Tensor p, Tensor x, Tensor a, LoraStack stack, const SequenceLayout *layout,
                                 Dropout dropout) {
    CudaContext *context = cuda_context(device);
    const int64_t tokens = row_count(x), width = column_count(x);
    LoraColumns columns;
    TRY(lora_columns(&columns, stack, tokens));
    if (tokens == 0 || columns.rank == 0) return STATUS_OK;
    const DropoutMask mask = dropout_mask(layout, dropout);
    unsigned grid;
    if (x.dtype == DTYPE_BF16 && wide_access(width, 8, x.data, a.data)) {
        TRY(linear_grid(__func__, tokens, DOWN_TOKENS, &grid));
        DISPATCH_RANKS(columns.rank, N16,
                       ADAMEM_LAUNCH(lora_down_mma_kernel<N16>, dim3(grid, (unsigned)ceil_divide(columns.rank, 16 * N16)),
                                     DOWN_THREADS, 0, context->stream, (__nv_bfloat16 *)p.data, (const __nv_bfloat16 *)x.data,
                                     (const __nv_bfloat16 *)a.data, width, columns, mask));
        return STATUS_OK;
    }
    TRY(linear_grid(__func__, tokens, 4, &grid));
    DISPATCH_FLOAT(x.dtype, T,
                   ADAMEM_LAUNCH(lora_down_kernel<T>, grid, 128, 0, context->stream, (T *)p.data, (const T *)x.data,
                                 (const T *)a.data, width, columns, mask));
    return STATUS_OK;
}
