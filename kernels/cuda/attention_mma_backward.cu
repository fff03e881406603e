/* Attention backward on tensor cores: FlashAttention-2 (Dao 2023), algorithm 2, made deterministic by two passes.
 *
 * One pass gives dq: a block owns queries and walks over the keys. The other gives dk and dv: a block owns keys and walks over
 * the queries of every query head that reads its key head, one head after another. Each computes the softmax weights again
 * from the scores and the stored lse, and every sum stays in the registers of one warp in one fixed order: there are no
 * atomics, at the price of seven products instead of five. In both passes the own rows are the rows of the products (the
 * second works with the transposed scores), so weights and their gradients pass from product to product inside a lane. */
#include "kernels/cuda/attention_mma.cuh"

/* Sizes by head dimension, chosen so that a warp's sums and one tile of scores fit in 255 registers. */
template <int E> struct Sizes {
    static const int dq_rows = 128, dq_keys = 32;                                                 /* own queries, keys per tile */
    static const int dkv_rows = E == 64 ? 128 : 64, dkv_queries = E == 64 ? 32 : 64;              /* own keys, queries per tile */
    static const int dq_tile = 2 * dq_keys * E, dkv_tile = 2 * dkv_queries * E + 4 * dkv_queries; /* bf16 elements per stage */
};

/* delta[H,T] = sum over the head dimension of dout * out; E / 8 lanes per row. */
template <int E>
__global__ void attention_mma_delta_kernel(float *__restrict__ delta, const __nv_bfloat16 *__restrict__ dout,
                                           const __nv_bfloat16 *__restrict__ out, int64_t tokens, int heads) {
    constexpr int lanes = E / 8;
    const int64_t row = blockIdx.x * (int64_t)(blockDim.x / lanes) + threadIdx.x / lanes;
    float sum = 0;
    if (row < tokens * heads) {
        float x[8], y[8];
        load<8>(x, dout + row * E + threadIdx.x % lanes * 8);
        load<8>(y, out + row * E + threadIdx.x % lanes * 8);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += x[i] * y[i];
    }
#pragma unroll
    for (int distance = lanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (row < tokens * heads && threadIdx.x % lanes == 0) delta[row % heads * tokens + row / heads] = sum;
}

template <int E, int STAGES>
__global__ void __launch_bounds__(mma_threads, 2)
    attention_mma_dq_kernel(__nv_bfloat16 *__restrict__ dq, const __nv_bfloat16 *__restrict__ dout, const float *__restrict__ lse,
                            const float *__restrict__ delta, const __nv_bfloat16 *__restrict__ q,
                            const __nv_bfloat16 *__restrict__ k, const __nv_bfloat16 *__restrict__ v, MmaArguments a) {
    constexpr int ROWS = Sizes<E>::dq_rows, KEYS = Sizes<E>::dq_keys, MT = ROWS / 16 / mma_warps, NT = KEYS / 8;
    extern __shared__ __align__(16) float shared[]; /* cp.async and ldmatrix take 16 bytes */
    __nv_bfloat16 *queries = (__nv_bfloat16 *)shared, *upstream = queries + ROWS * E, *tiles = upstream + ROWS * E;
    const MmaBlock block = find_block<ROWS>(a, blockIdx.x, a.causal);
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * MT, first = block.first + warp_row;
    const int64_t head = blockIdx.y, key_head = head / (a.query_heads / a.key_heads);
    const int q_stride = a.query_heads * E, k_stride = a.key_heads * E;
    const int64_t own = (block.start + block.first) * q_stride + head * E, other = block.start * k_stride + key_head * E;
    const int end = a.causal && block.first + ROWS < block.length ? block.first + ROWS : block.length;
    const float scale = a.scale * log2_e;

    const auto load_keys = [&](int tile) {
        __nv_bfloat16 *to = tiles + tile / KEYS % STAGES * Sizes<E>::dq_tile;
        load_tile<E, KEYS>(to, k + other + (int64_t)tile * k_stride, k_stride, block.length - tile);
        load_tile<E, KEYS>(to + KEYS * E, v + other + (int64_t)tile * k_stride, k_stride, block.length - tile);
        copy_async_commit();
    };
    load_tile<E, ROWS>(queries, q + own, q_stride, block.length - block.first);
    load_tile<E, ROWS>(upstream, dout + own, q_stride, block.length - block.first);
    load_keys(0);

    float row_lse[MT][2], row_delta[MT][2], sum[MT][E / 8][4];
    clear(sum);
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = first + 16 * m + 8 * half + lane / 4;
            const int64_t index = head * a.tokens + block.start + row;
            row_lse[m][half] = row < block.length ? lse[index] * log2_e : 0.0f;
            row_delta[m][half] = row < block.length ? delta[index] : 0.0f;
        }

    for (int tile = 0; tile < end; tile += KEYS) {
        const __nv_bfloat16 *keys = tiles + tile / KEYS % STAGES * Sizes<E>::dq_tile, *values = keys + KEYS * E;
        copy_async_wait<0>();
        __syncthreads(); /* the tile is there, and all warps have done with the one before */
        if (STAGES == 2 && tile + KEYS < end) load_keys(tile + KEYS);
        if (!a.causal || tile < first + 16 * MT) {
            const bool hide = tile + KEYS > block.length || (a.causal && tile + KEYS > first + 1);
            float score[MT][NT][4], dweight[MT][NT][4];
            multiply_rows<E, 2>(score, queries + warp_row * E, keys);
            multiply_rows<E, 2>(dweight, upstream + warp_row * E, values);
#pragma unroll
            for (int m = 0; m < MT; ++m)
#pragma unroll
                for (int n = 0; n < NT; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const int row = first + 16 * m + i / 2 * 8 + lane / 4, key = tile + 8 * n + lane % 4 * 2 + i % 2;
                        float weight = exponential_2(fmaf(score[m][n][i], scale, -row_lse[m][i / 2]));
                        if (hide && (key >= block.length || (a.causal && key > row))) weight = 0;
                        score[m][n][i] = weight * (dweight[m][n][i] - row_delta[m][i / 2]);
                    }
            add_weighted_rows<E>(sum, score, keys);
        }
        if (STAGES == 1) {
            __syncthreads();
            if (tile + KEYS < end) load_keys(tile + KEYS);
        }
    }
    float factor[MT][2];
#pragma unroll
    for (int m = 0; m < MT; ++m) factor[m][0] = factor[m][1] = a.scale;
    store_rows<E>(dq + own + (int64_t)warp_row * q_stride, q_stride, block.length - first, queries + warp_row * E, sum, factor);
}

/* Rows of the products are keys, columns are queries. Zeros stand for queries beyond the sequence's end: their weight is one,
 * and they add one times zero. */
template <int E, int STAGES>
__global__ void __launch_bounds__(mma_threads, 2)
    attention_mma_dkv_kernel(__nv_bfloat16 *__restrict__ dk, __nv_bfloat16 *__restrict__ dv,
                             const __nv_bfloat16 *__restrict__ dout, const float *__restrict__ lse,
                             const float *__restrict__ delta, const __nv_bfloat16 *__restrict__ q,
                             const __nv_bfloat16 *__restrict__ k, const __nv_bfloat16 *__restrict__ v, MmaArguments a) {
    constexpr int ROWS = Sizes<E>::dkv_rows, QUERIES = Sizes<E>::dkv_queries, MT = ROWS / 16 / mma_warps, NT = QUERIES / 8;
    extern __shared__ __align__(16) float shared[]; /* cp.async and ldmatrix take 16 bytes */
    __nv_bfloat16 *keys = (__nv_bfloat16 *)shared, *values = keys + ROWS * E, *tiles = values + ROWS * E;
    const MmaBlock block = find_block<ROWS>(a, blockIdx.x, false);
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * MT, first = block.first + warp_row;
    const int group = a.query_heads / a.key_heads;
    const int q_stride = a.query_heads * E, k_stride = a.key_heads * E;
    const int64_t key_head = blockIdx.y;
    const int64_t own = (block.start + block.first) * k_stride + key_head * E;
    /* Causal: no query before the first own key sees any of them. */
    const int begin = a.causal ? block.first / QUERIES * QUERIES : 0;
    const int tiles_per_head = (block.length - begin + QUERIES - 1) / QUERIES, count = group * tiles_per_head;
    const float scale = a.scale * log2_e;

    const auto load_queries = [&](int index) {
        __nv_bfloat16 *to = tiles + index % STAGES * Sizes<E>::dkv_tile;
        const int64_t head = key_head * group + index / tiles_per_head;
        const int tile = begin + index % tiles_per_head * QUERIES, valid = block.length - tile;
        const int64_t source = (block.start + tile) * q_stride + head * E;
        load_tile<E, QUERIES>(to, q + source, q_stride, valid);
        load_tile<E, QUERIES>(to + QUERIES * E, dout + source, q_stride, valid);
        const int column = threadIdx.x % QUERIES;
        const bool inside = column < valid;
        const int64_t statistic = head * a.tokens + block.start + tile + (inside ? column : 0);
        float *statistics = (float *)(to + 2 * QUERIES * E);
        if (threadIdx.x < QUERIES)
            copy_async<4>(statistics + column, lse + statistic, inside);
        else if (threadIdx.x < 2 * QUERIES)
            copy_async<4>(statistics + QUERIES + column, delta + statistic, inside);
        copy_async_commit();
    };
    load_tile<E, ROWS>(keys, k + own, k_stride, block.length - block.first);
    load_tile<E, ROWS>(values, v + own, k_stride, block.length - block.first);
    load_queries(0);

    float key_sum[MT][E / 8][4], value_sum[MT][E / 8][4];
    clear(key_sum);
    clear(value_sum);
    for (int index = 0; index < count; ++index) {
        const int tile = begin + index % tiles_per_head * QUERIES;
        const __nv_bfloat16 *queries = tiles + index % STAGES * Sizes<E>::dkv_tile, *upstream = queries + QUERIES * E;
        const float *statistics = (const float *)(upstream + QUERIES * E);
        copy_async_wait<0>();
        __syncthreads(); /* the tile is there, and all warps have done with the one before */
        if (STAGES == 2 && index + 1 < count) load_queries(index + 1);
        if (!a.causal || tile + QUERIES > first) {
            const bool hide = a.causal && tile < first + 16 * MT - 1;
            float score[MT][NT][4], dweight[MT][NT][4];
            multiply_rows<E, 2>(score, keys + warp_row * E, queries);
#pragma unroll
            for (int n = 0; n < NT; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int column = 8 * n + lane % 4 * 2 + i;
                    const float query_lse = statistics[column] * log2_e;
#pragma unroll
                    for (int m = 0; m < MT; ++m)
#pragma unroll
                        for (int half = 0; half < 2; ++half) {
                            float weight = exponential_2(fmaf(score[m][n][2 * half + i], scale, -query_lse));
                            if (hide && first + 16 * m + 8 * half + lane / 4 > tile + column) weight = 0;
                            score[m][n][2 * half + i] = weight;
                        }
                }
            add_weighted_rows<E>(value_sum, score, upstream);
            multiply_rows<E, 2>(dweight, values + warp_row * E, upstream);
#pragma unroll
            for (int n = 0; n < NT; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const float query_delta = statistics[QUERIES + 8 * n + lane % 4 * 2 + i];
#pragma unroll
                    for (int m = 0; m < MT; ++m)
#pragma unroll
                        for (int half = 0; half < 2; ++half)
                            score[m][n][2 * half + i] *= dweight[m][n][2 * half + i] - query_delta;
                }
            add_weighted_rows<E>(key_sum, score, queries);
        }
        if (STAGES == 1) {
            __syncthreads();
            if (index + 1 < count) load_queries(index + 1);
        }
    }
    float key_factor[MT][2], value_factor[MT][2];
#pragma unroll
    for (int m = 0; m < MT; ++m) {
        key_factor[m][0] = key_factor[m][1] = a.scale;
        value_factor[m][0] = value_factor[m][1] = 1.0f;
    }
    const int64_t row = own + (int64_t)warp_row * k_stride;
    store_rows<E>(dk + row, k_stride, block.length - first, keys + warp_row * E, key_sum, key_factor);
    store_rows<E>(dv + row, k_stride, block.length - first, values + warp_row * E, value_sum, value_factor);
}

template <int E, int STAGES> static int dq_shared_bytes() {
    return (2 * Sizes<E>::dq_rows * E + STAGES * Sizes<E>::dq_tile) * (int)sizeof(__nv_bfloat16);
}

template <int E, int STAGES> static int dkv_shared_bytes() {
    return (2 * Sizes<E>::dkv_rows * E + STAGES * Sizes<E>::dkv_tile) * (int)sizeof(__nv_bfloat16);
}

template <int E, int STAGES> static Status launch_dq(CudaContext *context, const AttentionOperands &o, const float *delta) {
    const int bytes = dq_shared_bytes<E, STAGES>();
    unsigned blocks;
    TRY(linear_grid("attention_backward", mma_blocks(o.layout, Sizes<E>::dq_rows), 1, &blocks));
    TRY_CUDA(cudaFuncSetAttribute(attention_mma_dq_kernel<E, STAGES>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    ADAMEM_LAUNCH((attention_mma_dq_kernel<E, STAGES>), dim3(blocks, (unsigned)o.shape.query_heads), mma_threads, bytes,
                  context->stream, (__nv_bfloat16 *)o.dq.data, (const __nv_bfloat16 *)o.dout.data, (const float *)o.lse.data,
                  delta, (const __nv_bfloat16 *)o.q.data, (const __nv_bfloat16 *)o.k.data, (const __nv_bfloat16 *)o.v.data,
                  mma_arguments(o));
    return STATUS_OK;
}

template <int E, int STAGES> static Status launch_dkv(CudaContext *context, const AttentionOperands &o, const float *delta) {
    const int bytes = dkv_shared_bytes<E, STAGES>();
    unsigned blocks;
    TRY(linear_grid("attention_backward", mma_blocks(o.layout, Sizes<E>::dkv_rows), 1, &blocks));
    TRY_CUDA(cudaFuncSetAttribute(attention_mma_dkv_kernel<E, STAGES>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    ADAMEM_LAUNCH((attention_mma_dkv_kernel<E, STAGES>), dim3(blocks, (unsigned)o.shape.key_heads), mma_threads, bytes,
                  context->stream, (__nv_bfloat16 *)o.dk.data, (__nv_bfloat16 *)o.dv.data, (const __nv_bfloat16 *)o.dout.data,
                  (const float *)o.lse.data, delta, (const __nv_bfloat16 *)o.q.data, (const __nv_bfloat16 *)o.k.data,
                  (const __nv_bfloat16 *)o.v.data, mma_arguments(o));
    return STATUS_OK;
}

/* Two stages are faster where two blocks with them fit on a multiprocessor (each costs 1 KB besides): at head dimension 64
 * everywhere, at 128 on H100 but not on A100. The bits are the same. */
template <int E> static Status launch_passes(CudaContext *context, const AttentionOperands &o, const float *delta) {
    if constexpr (E == 128) {
        const int needed =
            2 * (dq_shared_bytes<E, 2>() > dkv_shared_bytes<E, 2>() ? dq_shared_bytes<E, 2>() : dkv_shared_bytes<E, 2>()) + 2048;
        int present;
        TRY_CUDA(cudaDeviceGetAttribute(&present, cudaDevAttrMaxSharedMemoryPerMultiprocessor, context->ordinal));
        if (present < needed) {
            TRY((launch_dkv<E, 1>(context, o, delta)));
            return launch_dq<E, 1>(context, o, delta);
        }
    }
    TRY((launch_dkv<E, 2>(context, o, delta)));
    return launch_dq<E, 2>(context, o, delta);
}

template <int E> static Status launch_backward(CudaContext *context, const AttentionOperands &o, float *delta) {
    unsigned blocks;
    TRY(linear_grid("attention_backward", o.layout->tokens * o.shape.query_heads, 256 / (E / 8), &blocks));
    ADAMEM_LAUNCH(attention_mma_delta_kernel<E>, blocks, 256, 0, context->stream, delta, (const __nv_bfloat16 *)o.dout.data,
                  (const __nv_bfloat16 *)o.out.data, o.layout->tokens, (int)o.shape.query_heads);
    return launch_passes<E>(context, o, delta);
}

Status attention_mma_backward(CudaContext *context, const AttentionOperands &operands, float *delta) {
    return operands.shape.head_dimension == 64 ? launch_backward<64>(context, operands, delta)
                                               : launch_backward<128>(context, operands, delta);
}
