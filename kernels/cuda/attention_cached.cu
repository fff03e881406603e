/* Attention of new rows to a paged key/value cache, in plain fp32 arithmetic.
 *
 * A block of four warps owns one (new row, query head). Warp w takes keys w, w + 4, ...; its lanes share out the channels, so
 * that a key is one coalesced read. The four running softmaxes are joined in the order of the warps: a row's bits depend on
 * its own sequence only. */
#include "kernels/cuda/common.cuh"

static const int cached_warps = 4;

struct CachedArguments {
    const int32_t *offsets, *lengths, *block_table;
    int64_t table_width;
    int sequences, query_heads, key_heads, head_dimension;
    float scale;
};

/* The sequence whose rows hold `row`. */
__device__ __forceinline__ int sequence_of_row(const CachedArguments &a, int row) {
    int low = 0, high = a.sequences - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (a.offsets[middle] <= row)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* C: channels per lane. */
template <typename T, int C>
__global__ void __launch_bounds__(128)
    attention_cached_kernel(T *__restrict__ out, const T *__restrict__ q, const T *__restrict__ keys,
                            const T *__restrict__ values, CachedArguments a) {
    __shared__ float maxima[cached_warps], totals[cached_warps], sums[cached_warps][32 * C];
    const int row = blockIdx.x, head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32, E = a.head_dimension;
    const int sequence = sequence_of_row(a, row), key_head = head / (a.query_heads / a.key_heads);
    const int visible = a.lengths[sequence] - (a.offsets[sequence + 1] - row) + 1;
    const int32_t *table = a.block_table + sequence * a.table_width;
    const T *query = q + ((int64_t)row * a.query_heads + head) * E;
    float own[C], sum[C], maximum = -INFINITY, total = 0;
#pragma unroll
    for (int i = 0; i < C; ++i) {
        own[i] = lane + 32 * i < E ? to_float(query[lane + 32 * i]) : 0.0f;
        sum[i] = 0;
    }
    for (int key = warp; key < visible; key += cached_warps) {
        const int64_t slot = (int64_t)table[key / CACHE_BLOCK] * CACHE_BLOCK + key % CACHE_BLOCK;
        const int64_t at = (slot * a.key_heads + key_head) * E;
        float dot = 0;
#pragma unroll
        for (int i = 0; i < C; ++i)
            if (lane + 32 * i < E) dot += own[i] * to_float(keys[at + lane + 32 * i]);
        const float score = warp_sum(dot) * a.scale, larger = fmaxf(maximum, score);
        const float correction = expf(maximum - larger), weight = expf(score - larger);
        maximum = larger;
        total = total * correction + weight;
#pragma unroll
        for (int i = 0; i < C; ++i)
            if (lane + 32 * i < E) sum[i] = sum[i] * correction + weight * to_float(values[at + lane + 32 * i]);
    }
    if (lane == 0) maxima[warp] = maximum, totals[warp] = total;
#pragma unroll
    for (int i = 0; i < C; ++i) sums[warp][lane + 32 * i] = sum[i];
    __syncthreads();
    float largest = maxima[0];
    for (int w = 1; w < cached_warps; ++w) largest = fmaxf(largest, maxima[w]);
    float all = 0, factor[cached_warps];
#pragma unroll
    for (int w = 0; w < cached_warps; ++w) {
        factor[w] = maxima[w] == -INFINITY ? 0.0f : expf(maxima[w] - largest); /* fewer keys than warps */
        all += factor[w] * totals[w];
    }
    for (int e = threadIdx.x; e < E; e += cached_warps * 32) {
        float result = 0;
#pragma unroll
        for (int w = 0; w < cached_warps; ++w) result += factor[w] * sums[w][e];
        out[((int64_t)row * a.query_heads + head) * E + e] = from_float<T>(result / all);
    }
}

template <typename T, int V>
__global__ void cache_append_kernel(T *__restrict__ cache, const T *__restrict__ x, const int32_t *__restrict__ slots,
                                    int64_t items, int64_t packs) {
    const int64_t item = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (item >= items) return;
    const int64_t row = item / packs, pack = item % packs;
    *reinterpret_cast<Pack<T, V> *>(cache + (slots[row] * packs + pack) * V) =
        *reinterpret_cast<const Pack<T, V> *>(x + (row * packs + pack) * V);
}

extern "C" Status cuda_cache_append(Device *device, Tensor cache, Tensor x, const int32_t *slots) {
    CudaContext *context = cuda_context(device);
    const int64_t rows = x.shape[0], columns = x.shape[1] * x.shape[2];
    if (rows == 0 || columns == 0) return STATUS_OK;
    DISPATCH_FLOAT(x.dtype, T, {
        DISPATCH_WIDTH(wide_access(columns, wide_width<T>(), cache.data, x.data), wide_width<T>(), V, {
            unsigned grid;
            TRY(linear_grid(__func__, rows * (columns / V), 256, &grid));
            ADAMEM_LAUNCH((cache_append_kernel<T, V>), grid, 256, 0, context->stream, (T *)cache.data, (const T *)x.data, slots,
                          rows * (columns / V), columns / V);
        });
    });
    return STATUS_OK;
}

template <typename T>
static Status launch_cached(CudaContext *context, Tensor out, Tensor q, Tensor keys, Tensor values, const CachedArguments &a,
                            int64_t rows) {
    const dim3 grid((unsigned)rows, (unsigned)a.query_heads);
    T *to = (T *)out.data;
    const T *from = (const T *)q.data, *k = (const T *)keys.data, *v = (const T *)values.data;
    if (a.head_dimension <= 64)
        ADAMEM_LAUNCH((attention_cached_kernel<T, 2>), grid, 128, 0, context->stream, to, from, k, v, a);
    else if (a.head_dimension <= 128)
        ADAMEM_LAUNCH((attention_cached_kernel<T, 4>), grid, 128, 0, context->stream, to, from, k, v, a);
    else
        ADAMEM_LAUNCH((attention_cached_kernel<T, 8>), grid, 128, 0, context->stream, to, from, k, v, a);
    return STATUS_OK;
}

extern "C" Status cuda_attention_cached(Device *device, Arena *scratch, Tensor out, Tensor q, Tensor keys, Tensor values,
                                        const CacheLayout *layout, AttentionShape shape) {
    (void)scratch;
    if (layout->tokens == 0) return STATUS_OK;
    if (shape.head_dimension > 256)
        FAIL("attention_cached: head dimension %lld is larger than 256", (long long)shape.head_dimension);
    CachedArguments a = {layout->offsets,      layout->lengths,           layout->block_table,
                         layout->table_width,  (int)layout->sequences,    (int)shape.query_heads,
                         (int)shape.key_heads, (int)shape.head_dimension, shape.scale};
    DISPATCH_FLOAT(q.dtype, T, TRY(launch_cached<T>(cuda_context(device), out, q, keys, values, a, layout->tokens)));
    return STATUS_OK;
}
