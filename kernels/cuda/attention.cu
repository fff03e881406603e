/* Softmax attention over a packed batch in plain fp32 arithmetic: the path that is always right, for every head dimension
 * up to 256 and every GPU, without tensor cores. Queries and keys may have layouts of their own (cross attention).
 *
 * All three big kernels have one shape: a block of four warps owns a few rows (queries, or keys in the backward pass for
 * dk and dv), each warp R of them; it walks over the other side in tiles of 32 rows held in shared memory. Lane j computes
 * the scores of its warp's rows with row j of the tile; then the lanes share out the channels, and row j's score reaches
 * them by a shuffle. Every sum has one fixed order. */
#include "kernels/cuda/attention.cuh"

static const int warps_per_block = 4;
static const int tile_rows = 32;

/* Rows of one warp: fewer where a row holds many channels, to stay inside the registers. C: channels per lane. */
template <int C> __host__ __device__ constexpr int rows_per_warp() { return C <= 4 ? 8 : 4; }
template <int C> __host__ __device__ constexpr int rows_per_block() { return 4 * rows_per_warp<C>(); }
/* Row length in shared memory; the odd one keeps lanes that read a column apart in different banks. */
template <int C> __host__ __device__ constexpr int own_stride() { return 32 * C; }
template <int C> __host__ __device__ constexpr int tile_stride() { return 32 * C + 1; }

struct AttentionArguments {
    const int32_t *query_offsets, *key_offsets;
    int64_t query_tokens;
    int64_t tiles; /* blocks in x per sequence */
    int query_heads, key_heads, head_dimension;
    float scale;
    bool causal;
};

/* One side of a sequence: its first row in the batch, and its rows. */
struct Side {
    int64_t start, length;
};

/* The sequence of this block, and its first own row: of the queries, or of the keys. A causal query i sees keys up to i + shift:
 * both are counted from the first of their sequence, and the last query sees the last key. */
struct BlockRange {
    Side queries, keys;
    int64_t first, shift;
};

__device__ __forceinline__ Side side_of(const int32_t *offsets, int64_t sequence) {
    return {offsets[sequence], offsets[sequence + 1] - offsets[sequence]};
}

__device__ __forceinline__ BlockRange block_range(const AttentionArguments &a, int rows) {
    const int64_t sequence = blockIdx.x / a.tiles;
    BlockRange range;
    range.queries = side_of(a.query_offsets, sequence);
    range.keys = side_of(a.key_offsets, sequence);
    range.first = blockIdx.x % a.tiles * rows;
    range.shift = range.keys.length - range.queries.length;
    return range;
}

/* Copies `rows` rows of one head to shared memory as float, zeros beyond `valid` rows and beyond the head dimension.
 * row: address of the first row's head; heads: of this tensor. */
template <int C, typename T>
__device__ __forceinline__ void load_rows(float *to, int stride, const T *row, int64_t heads, int rows, int64_t valid,
                                          int head_dimension) {
#pragma unroll 4
    for (int i = threadIdx.x; i < rows * 32 * C; i += warps_per_block * 32) {
        const int r = i / (32 * C), e = i % (32 * C);
        to[r * stride + e] = r < valid && e < head_dimension ? to_float(row[r * heads * head_dimension + e]) : 0.0f;
    }
}

/* score[r] = own row r of this warp . row `lane` of the tile. Sums of sums of 16: the rounding errors of one long sum would be
 * twice as large at 128 channels, and the gradient takes the difference of two such scores. */
template <int C> __device__ __forceinline__ void scores(float (&score)[rows_per_warp<C>()], const float *own, const float *tile) {
    constexpr int R = rows_per_warp<C>();
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < R; ++r) score[r] = 0;
#pragma unroll 1
    for (int begin = 0; begin < 32 * C; begin += 16) {
        float part[R];
#pragma unroll
        for (int r = 0; r < R; ++r) part[r] = 0;
#pragma unroll
        for (int e = begin; e < begin + 16; ++e) {
            const float other = tile[lane * tile_stride<C>() + e];
#pragma unroll
            for (int r = 0; r < R; ++r) part[r] += own[r * own_stride<C>() + e] * other;
        }
#pragma unroll
        for (int r = 0; r < R; ++r) score[r] += part[r];
    }
}

/* sum[r][i] += sum of the weight of (r, tile row j) * tile[j][channel lane + 32 i] over j in order: long sequences too are
 * sums of short sums. */
template <int C>
__device__ __forceinline__ void add_weighted(float (&sum)[rows_per_warp<C>()][C], const float (&weight)[rows_per_warp<C>()],
                                             const float *tile) {
    constexpr int R = rows_per_warp<C>();
    const int lane = threadIdx.x % 32;
    float part[R][C];
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
        for (int i = 0; i < C; ++i) part[r][i] = 0;
#pragma unroll 4
    for (int j = 0; j < tile_rows; ++j) {
        float value[C];
#pragma unroll
        for (int i = 0; i < C; ++i) value[i] = tile[j * tile_stride<C>() + lane + 32 * i];
#pragma unroll
        for (int r = 0; r < R; ++r) {
            const float w = __shfl_sync(0xffffffffu, weight[r], j);
#pragma unroll
            for (int i = 0; i < C; ++i) part[r][i] += w * value[i];
        }
    }
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
        for (int i = 0; i < C; ++i) sum[r][i] += part[r][i];
}

template <int C, typename T>
__device__ __forceinline__ void store_row(T *row, const float (&value)[C], float factor, int head_dimension) {
#pragma unroll
    for (int i = 0; i < C; ++i) {
        const int e = threadIdx.x % 32 + 32 * i;
        if (e < head_dimension) row[e] = from_float<T>(value[i] * factor);
    }
}

/* Keys that a block of queries can see, none when negative. */
__device__ __forceinline__ int64_t visible_keys(const AttentionArguments &a, const BlockRange &range, int rows) {
    const int64_t end = range.first + rows + range.shift;
    return a.causal && end < range.keys.length ? end : range.keys.length;
}

template <typename T, int C>
__global__ void __launch_bounds__(128, 2)
    attention_forward_kernel(T *__restrict__ out, float *__restrict__ lse, const T *__restrict__ q, const T *__restrict__ k,
                             const T *__restrict__ v, AttentionArguments a) {
    constexpr int R = rows_per_warp<C>(), rows = rows_per_block<C>();
    extern __shared__ float shared[];
    float *queries = shared, *keys = queries + rows * own_stride<C>(), *values = keys + tile_rows * tile_stride<C>();
    const BlockRange range = block_range(a, rows);
    if (range.first >= range.queries.length) return;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, E = a.head_dimension;
    const int64_t head = blockIdx.y, key_head = head / (a.query_heads / a.key_heads), first = range.first + warp * R;
    load_rows<C>(queries, own_stride<C>(), q + ((range.queries.start + range.first) * a.query_heads + head) * E, a.query_heads,
                 rows, range.queries.length - range.first, E);

    float maximum[R], total[R], sum[R][C];
#pragma unroll
    for (int r = 0; r < R; ++r) {
        maximum[r] = -INFINITY;
        total[r] = 0;
#pragma unroll
        for (int i = 0; i < C; ++i) sum[r][i] = 0;
    }
    const int64_t end = visible_keys(a, range, rows);
    for (int64_t tile = 0; tile < end; tile += tile_rows) {
        const int64_t source = ((range.keys.start + tile) * a.key_heads + key_head) * E;
        __syncthreads();
        load_rows<C>(keys, tile_stride<C>(), k + source, a.key_heads, tile_rows, range.keys.length - tile, E);
        load_rows<C>(values, tile_stride<C>(), v + source, a.key_heads, tile_rows, range.keys.length - tile, E);
        __syncthreads();
        float score[R];
        scores<C>(score, queries + warp * R * own_stride<C>(), keys);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            const bool seen = tile + lane < range.keys.length && (!a.causal || tile + lane <= first + r + range.shift);
            const float larger = fmaxf(maximum[r], warp_max(seen ? score[r] * a.scale : -INFINITY));
            /* A query that sees a key sees key 0, which the first tile holds. */
            const float correction = larger == -INFINITY ? 1.0f : expf(maximum[r] - larger);
            const float weight = seen ? expf(score[r] * a.scale - larger) : 0.0f;
            total[r] = total[r] * correction + warp_sum(weight);
            maximum[r] = larger;
            score[r] = weight;
#pragma unroll
            for (int i = 0; i < C; ++i) sum[r][i] *= correction;
        }
        add_weighted<C>(sum, score, values);
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (first + r >= range.queries.length) continue;
        const int64_t token = range.queries.start + first + r;
        store_row<C>(out + (token * a.query_heads + head) * E, sum[r], total[r] > 0 ? 1.0f / total[r] : 0.0f, E);
        if (lane == 0) lse[head * a.query_tokens + token] = maximum[r] + logf(total[r]);
    }
}

/* delta[h, t] = dout . out, one warp per (t, h). */
template <typename T>
__global__ void attention_delta_kernel(float *__restrict__ delta, const T *__restrict__ dout, const T *__restrict__ out,
                                       int64_t tokens, int heads, int head_dimension) {
    const int64_t item = blockIdx.x * (int64_t)(blockDim.x / 32) + threadIdx.x / 32;
    if (item >= tokens * heads) return;
    float sum = 0;
    for (int e = threadIdx.x % 32; e < head_dimension; e += 32)
        sum += to_float(dout[item * head_dimension + e]) * to_float(out[item * head_dimension + e]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[item % heads * tokens + item / heads] = sum;
}

template <typename T, int C>
__global__ void __launch_bounds__(128, 2)
    attention_dq_kernel(T *__restrict__ dq, const T *__restrict__ dout, const float *__restrict__ lse,
                        const float *__restrict__ delta, const T *__restrict__ q, const T *__restrict__ k,
                        const T *__restrict__ v, AttentionArguments a) {
    constexpr int R = rows_per_warp<C>(), rows = rows_per_block<C>();
    extern __shared__ float shared[];
    float *queries = shared, *upstream = queries + rows * own_stride<C>(), *keys = upstream + rows * own_stride<C>(),
          *values = keys + tile_rows * tile_stride<C>();
    const BlockRange range = block_range(a, rows);
    if (range.first >= range.queries.length) return;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, E = a.head_dimension;
    const int64_t head = blockIdx.y, key_head = head / (a.query_heads / a.key_heads), first = range.first + warp * R;
    const int64_t own = ((range.queries.start + range.first) * a.query_heads + head) * E;
    load_rows<C>(queries, own_stride<C>(), q + own, a.query_heads, rows, range.queries.length - range.first, E);
    load_rows<C>(upstream, own_stride<C>(), dout + own, a.query_heads, rows, range.queries.length - range.first, E);

    float row_lse[R], row_delta[R], sum[R][C];
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const int64_t index = head * a.query_tokens + range.queries.start + first + r;
        row_lse[r] = first + r < range.queries.length ? lse[index] : 0.0f;
        row_delta[r] = first + r < range.queries.length ? delta[index] : 0.0f;
#pragma unroll
        for (int i = 0; i < C; ++i) sum[r][i] = 0;
    }
    const int64_t end = visible_keys(a, range, rows);
    for (int64_t tile = 0; tile < end; tile += tile_rows) {
        const int64_t source = ((range.keys.start + tile) * a.key_heads + key_head) * E;
        __syncthreads();
        load_rows<C>(keys, tile_stride<C>(), k + source, a.key_heads, tile_rows, range.keys.length - tile, E);
        load_rows<C>(values, tile_stride<C>(), v + source, a.key_heads, tile_rows, range.keys.length - tile, E);
        __syncthreads();
        float score[R], dweight[R];
        scores<C>(score, queries + warp * R * own_stride<C>(), keys);
        scores<C>(dweight, upstream + warp * R * own_stride<C>(), values);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            const bool seen = tile + lane < range.keys.length && first + r < range.queries.length &&
                              (!a.causal || tile + lane <= first + r + range.shift);
            const float weight = seen ? expf(score[r] * a.scale - row_lse[r]) : 0.0f;
            score[r] = weight * (dweight[r] - row_delta[r]);
        }
        add_weighted<C>(sum, score, keys);
    }
#pragma unroll
    for (int r = 0; r < R; ++r)
        if (first + r < range.queries.length)
            store_row<C>(dq + ((range.queries.start + first + r) * a.query_heads + head) * E, sum[r], a.scale, E);
}

/* Own rows are keys; the tiles are queries, of all query heads that read this key/value head, one head after another. */
template <typename T, int C>
__global__ void __launch_bounds__(128, 2)
    attention_dkv_kernel(T *__restrict__ dk, T *__restrict__ dv, const T *__restrict__ dout, const float *__restrict__ lse,
                         const float *__restrict__ delta, const T *__restrict__ q, const T *__restrict__ k,
                         const T *__restrict__ v, AttentionArguments a) {
    constexpr int R = rows_per_warp<C>(), rows = rows_per_block<C>();
    extern __shared__ float shared[];
    float *keys = shared, *values = keys + rows * own_stride<C>(), *queries = values + rows * own_stride<C>(),
          *upstream = queries + tile_rows * tile_stride<C>();
    const BlockRange range = block_range(a, rows);
    if (range.first >= range.keys.length) return;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, E = a.head_dimension, group = a.query_heads / a.key_heads;
    const int64_t key_head = blockIdx.y, first = range.first + warp * R;
    const int64_t own = ((range.keys.start + range.first) * a.key_heads + key_head) * E;
    load_rows<C>(keys, own_stride<C>(), k + own, a.key_heads, rows, range.keys.length - range.first, E);
    load_rows<C>(values, own_stride<C>(), v + own, a.key_heads, rows, range.keys.length - range.first, E);

    float key_sum[R][C], value_sum[R][C];
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
        for (int i = 0; i < C; ++i) key_sum[r][i] = value_sum[r][i] = 0;
    /* Causal: no query before the first own key sees any of them. */
    const int64_t begin = a.causal && range.first > range.shift ? (range.first - range.shift) / tile_rows * tile_rows : 0;
    for (int64_t head = key_head * group; head < (key_head + 1) * group; ++head)
        for (int64_t tile = begin; tile < range.queries.length; tile += tile_rows) {
            const int64_t source = ((range.queries.start + tile) * a.query_heads + head) * E, query = tile + lane;
            __syncthreads();
            load_rows<C>(queries, tile_stride<C>(), q + source, a.query_heads, tile_rows, range.queries.length - tile, E);
            load_rows<C>(upstream, tile_stride<C>(), dout + source, a.query_heads, tile_rows, range.queries.length - tile, E);
            __syncthreads();
            const int64_t index = head * a.query_tokens + range.queries.start + query;
            const float query_lse = query < range.queries.length ? lse[index] : 0.0f;
            const float query_delta = query < range.queries.length ? delta[index] : 0.0f;
            float score[R], dweight[R];
            scores<C>(score, keys + warp * R * own_stride<C>(), queries);
            scores<C>(dweight, values + warp * R * own_stride<C>(), upstream);
#pragma unroll
            for (int r = 0; r < R; ++r) {
                const bool seen = query < range.queries.length && first + r < range.keys.length &&
                                  (!a.causal || first + r <= query + range.shift);
                const float weight = seen ? expf(score[r] * a.scale - query_lse) : 0.0f;
                score[r] = weight;
                dweight[r] = weight * (dweight[r] - query_delta);
            }
            add_weighted<C>(value_sum, score, upstream);
            add_weighted<C>(key_sum, dweight, queries);
        }
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (first + r >= range.keys.length) continue;
        const int64_t row = ((range.keys.start + first + r) * a.key_heads + key_head) * E;
        store_row<C>(dk + row, key_sum[r], a.scale, E);
        store_row<C>(dv + row, value_sum[r], 1.0f, E);
    }
}

/* Shared memory of a block with `own` buffers for its own rows and two tiles. */
template <int C> static int shared_bytes(int own) {
    return (int)sizeof(float) * (own * rows_per_block<C>() * own_stride<C>() + 2 * tile_rows * tile_stride<C>());
}

/* own: the layout of what a block owns `rows` rows of. */
static AttentionArguments make_arguments(const AttentionOperands &o, const SequenceLayout *own, int rows) {
    const AttentionShape &shape = o.shape;
    AttentionArguments a;
    a.query_offsets = o.layout->offsets;
    a.key_offsets = o.keys->offsets;
    a.query_tokens = o.layout->tokens;
    a.tiles = ceil_divide(own->longest, rows);
    a.query_heads = (int)shape.query_heads;
    a.key_heads = (int)shape.key_heads;
    a.head_dimension = (int)shape.head_dimension;
    a.scale = shape.scale;
    a.causal = shape.causal;
    return a;
}

template <typename T, int C> static Status launch_forward(CudaContext *context, const AttentionOperands &o) {
    const AttentionArguments a = make_arguments(o, o.layout, rows_per_block<C>());
    const int bytes = shared_bytes<C>(1);
    unsigned blocks;
    TRY(linear_grid("attention_forward", a.tiles * o.layout->sequences, 1, &blocks));
    if (blocks == 0) return STATUS_OK;
    TRY_CUDA(cudaFuncSetAttribute(attention_forward_kernel<T, C>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    ADAMEM_LAUNCH((attention_forward_kernel<T, C>), dim3(blocks, (unsigned)a.query_heads), warps_per_block * 32, bytes,
                  context->stream, (T *)o.out.data, (float *)o.lse.data, (const T *)o.q.data, (const T *)o.k.data,
                  (const T *)o.v.data, a);
    return STATUS_OK;
}

template <typename T, int C> static Status launch_dq(CudaContext *context, const AttentionOperands &o, float *delta) {
    const AttentionArguments a = make_arguments(o, o.layout, rows_per_block<C>());
    const int bytes = shared_bytes<C>(2);
    unsigned blocks, delta_blocks;
    TRY(linear_grid("attention_backward", a.tiles * o.layout->sequences, 1, &blocks));
    TRY(linear_grid("attention_backward", a.query_tokens * a.query_heads, 8, &delta_blocks));
    if (blocks == 0) return STATUS_OK;
    ADAMEM_LAUNCH(attention_delta_kernel<T>, delta_blocks, 256, 0, context->stream, delta, (const T *)o.dout.data,
                  (const T *)o.out.data, a.query_tokens, a.query_heads, a.head_dimension);
    TRY_CUDA(cudaFuncSetAttribute(attention_dq_kernel<T, C>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    ADAMEM_LAUNCH((attention_dq_kernel<T, C>), dim3(blocks, (unsigned)a.query_heads), warps_per_block * 32, bytes,
                  context->stream, (T *)o.dq.data, (const T *)o.dout.data, (const float *)o.lse.data, delta, (const T *)o.q.data,
                  (const T *)o.k.data, (const T *)o.v.data, a);
    return STATUS_OK;
}

template <typename T, int C> static Status launch_backward(CudaContext *context, const AttentionOperands &o, float *delta) {
    const AttentionArguments a = make_arguments(o, o.keys, rows_per_block<C>());
    const int bytes = shared_bytes<C>(2);
    unsigned blocks;
    TRY((launch_dq<T, C>(context, o, delta)));
    TRY(linear_grid("attention_backward", a.tiles * o.keys->sequences, 1, &blocks));
    if (blocks == 0) return STATUS_OK;
    TRY_CUDA(cudaFuncSetAttribute(attention_dkv_kernel<T, C>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    ADAMEM_LAUNCH((attention_dkv_kernel<T, C>), dim3(blocks, (unsigned)a.key_heads), warps_per_block * 32, bytes, context->stream,
                  (T *)o.dk.data, (T *)o.dv.data, (const T *)o.dout.data, (const float *)o.lse.data, delta, (const T *)o.q.data,
                  (const T *)o.k.data, (const T *)o.v.data, a);
    return STATUS_OK;
}

/* Runs the statements with C = the channels per lane, a power of two. */
#define DISPATCH_CHANNELS(head_dimension, C, ...)                                                                                \
    do {                                                                                                                         \
        if ((head_dimension) <= 32) {                                                                                            \
            constexpr int C = 1;                                                                                                 \
            __VA_ARGS__;                                                                                                         \
        } else if ((head_dimension) <= 64) {                                                                                     \
            constexpr int C = 2;                                                                                                 \
            __VA_ARGS__;                                                                                                         \
        } else if ((head_dimension) <= 128) {                                                                                    \
            constexpr int C = 4;                                                                                                 \
            __VA_ARGS__;                                                                                                         \
        } else {                                                                                                                 \
            constexpr int C = 8;                                                                                                 \
            __VA_ARGS__;                                                                                                         \
        }                                                                                                                        \
    } while (0)

Status attention_plain_forward(CudaContext *context, const AttentionOperands &operands) {
    DISPATCH_FLOAT(operands.q.dtype, T,
                   DISPATCH_CHANNELS(operands.shape.head_dimension, C, TRY((launch_forward<T, C>(context, operands)))));
    return STATUS_OK;
}

Status attention_plain_backward(CudaContext *context, const AttentionOperands &operands, float *delta) {
    DISPATCH_FLOAT(operands.q.dtype, T,
                   DISPATCH_CHANNELS(operands.shape.head_dimension, C, TRY((launch_backward<T, C>(context, operands, delta)))));
    return STATUS_OK;
}
