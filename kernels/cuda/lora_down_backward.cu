/* dA += Q^T dropout(x) and dx (+)= dropout(Q A): two kernels, since one wants long sums over tokens and the other none. Both are
 * bound by memory: one read of x, one write (and read) of dx; the mask is drawn in each, which hides behind that.
 *
 * dA: a block takes 64 channels and LORA_TOKEN_CHUNK tokens; the chunks' sums are added in their order by a third kernel. */
#include "kernels/cuda/lora.cuh"

enum { THREADS = 128, CHANNELS = 64, STEP_TOKENS = 64 };

template <int N16>
__global__ void __launch_bounds__(THREADS)
    lora_da_mma_kernel(float *__restrict__ partial, const __nv_bfloat16 *__restrict__ q, const __nv_bfloat16 *__restrict__ x,
                       int64_t width, LoraColumns columns, DropoutMask mask) {
    constexpr int ranks = 16 * N16, stored = 64; /* rows of eight chunks: what lies beyond the ranks is not used */
    __shared__ __align__(16) __nv_bfloat16 tiles[2][STEP_TOKENS * (CHANNELS + stored)];
    const int64_t channel = blockIdx.x * (int64_t)CHANNELS, first = blockIdx.y * (int64_t)LORA_TOKEN_CHUNK;
    const int64_t end = first + LORA_TOKEN_CHUNK < columns.tokens ? first + LORA_TOKEN_CHUNK : columns.tokens;
    const int rank = blockIdx.z * ranks, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    auto start = [&](int stage, int64_t token) {
        copy_tile<CHANNELS, STEP_TOKENS, THREADS>(tiles[stage], x, token, channel, columns.tokens, width);
        copy_columns<stored, STEP_TOKENS, THREADS>(tiles[stage] + STEP_TOKENS * CHANNELS, q, columns, token, rank);
        copy_async_commit();
    };
    float sum[N16][2][4] = {};
    start(0, first);
    for (int64_t token = first, step = 0; token < end; token += STEP_TOKENS, ++step) {
        __nv_bfloat16 *rows = tiles[step % 2], *q_rows = rows + STEP_TOKENS * CHANNELS;
        if (token + STEP_TOKENS < end) {
            start((int)(step + 1) % 2, token + STEP_TOKENS);
            copy_async_wait<1>();
        } else {
            copy_async_wait<0>();
        }
        keep_tile<CHANNELS, STEP_TOKENS, THREADS>(rows, mask, token, channel, columns.tokens);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < STEP_TOKENS / 16; ++k) {
            uint32_t right[4]; /* the warp's 16 channels */
            load_matrices_transposed(right, rows + lora_place<CHANNELS>(16 * k + lane % 16, 2 * warp + lane / 16));
#pragma unroll
            for (int m = 0; m < N16; ++m) {
                uint32_t left[4];
                load_matrices_transposed(left,
                                         q_rows + lora_place<stored>(16 * k + lane / 16 * 8 + lane % 8, 2 * m + lane / 8 % 2));
                multiply_add(sum[m][0], left, right[0], right[1]);
                multiply_add(sum[m][1], left, right[2], right[3]);
            }
        }
        __syncthreads();
    }
    float *out = partial + blockIdx.y * (int64_t)columns.rank * width;
#pragma unroll
    for (int m = 0; m < N16; ++m)
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int64_t r = rank + 16 * m + lane / 4 + i / 2 * 8;
                const int64_t c = channel + 16 * warp + 8 * n + lane % 4 * 2 + i % 2;
                if (r < columns.rank && c < width) out[r * width + c] = sum[m][n][i];
            }
}

/* One block per 64 tokens and 64 channels; ranks in turns of 16 N16. */
template <int N16>
__global__ void __launch_bounds__(THREADS)
    lora_dx_mma_kernel(__nv_bfloat16 *__restrict__ dx, bool accumulate, const __nv_bfloat16 *__restrict__ q,
                       const __nv_bfloat16 *__restrict__ a, int64_t width, LoraColumns columns, DropoutMask mask) {
    constexpr int ranks = 16 * N16;
    __shared__ __align__(16) __nv_bfloat16 q_rows[STEP_TOKENS * 64], a_rows[ranks * CHANNELS], result[STEP_TOKENS * CHANNELS];
    __shared__ uint8_t kept[STEP_TOKENS][CHANNELS / 8];
    const int64_t token = blockIdx.x * (int64_t)STEP_TOKENS, channel = blockIdx.y * (int64_t)CHANNELS;
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    if (accumulate) copy_tile<CHANNELS, STEP_TOKENS, THREADS>(result, dx, token, channel, columns.tokens, width);
    float sum[CHANNELS / 8][4] = {};
    for (int rank = 0; rank < columns.rank; rank += ranks) {
        if (rank) __syncthreads(); /* all warps have done with the ranks before */
        copy_columns<64, STEP_TOKENS, THREADS>(q_rows, q, columns, token, rank);
        copy_tile<CHANNELS, ranks, THREADS>(a_rows, a, rank, channel, columns.rank, width);
        copy_async_commit();
        for (int i = threadIdx.x; rank == 0 && i < STEP_TOKENS * CHANNELS / 8; i += THREADS)
            kept[i / 8][i % 8] = mask.threshold == 0 ? 0xff
                                 : token + i / 8 < columns.tokens
                                     ? (uint8_t)kept_channels(mask, token + i / 8, channel / 8 + i % 8)
                                     : 0;
        copy_async_wait<0>();
        __syncthreads();
#pragma unroll
        for (int k = 0; k < N16; ++k) {
            uint32_t left[4];
            load_matrices(left, q_rows + lora_place<64>(threadIdx.x / 32 * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
            for (int n = 0; n < CHANNELS / 8; n += 2) {
                uint32_t right[4];
                load_matrices_transposed(right, a_rows + lora_place<CHANNELS>(16 * k + lane % 16, n + lane / 16));
                multiply_add(sum[n], left, right[0], right[1]);
                multiply_add(sum[n + 1], left, right[2], right[3]);
            }
        }
    }
    const float scale = mask.threshold ? mask.scale : 1.0f;
#pragma unroll
    for (int n = 0; n < CHANNELS / 8; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int r = row + 8 * half;
            const uint32_t bits = (uint32_t)kept[r][n] >> lane % 4 * 2;
            __nv_bfloat16 *at = result + lora_place<CHANNELS>(r, n) + lane % 4 * 2;
            float low = bits & 1 ? scale * sum[n][2 * half] : 0.0f, high = bits & 2 ? scale * sum[n][2 * half + 1] : 0.0f;
            if (accumulate) {
                low += to_float(at[0]);
                high += to_float(at[1]);
            }
            *reinterpret_cast<uint32_t *>(at) = pack_bf16(low, high);
        }
    __syncthreads();
    for (int i = threadIdx.x; i < STEP_TOKENS * CHANNELS / 8; i += THREADS)
        if (token + i / 8 < columns.tokens && channel + i % 8 * 8 < width)
            *reinterpret_cast<uint4 *>(dx + (token + i / 8) * width + channel + i % 8 * 8) =
                *reinterpret_cast<const uint4 *>(result + lora_place<CHANNELS>(i / 8, i % 8));
}

/* Any type, width and address. One thread per rank and eight channels; sums of TOKEN_BLOCK tokens are added in their order. */
template <typename T>
__global__ void lora_da_kernel(float *__restrict__ partial, const T *__restrict__ q, const T *__restrict__ x, int64_t width,
                               int64_t items, LoraColumns columns, DropoutMask mask) {
    const int64_t item = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, groups = (width + 7) / 8;
    if (item >= items) return;
    const int64_t group = item % groups, rank = item / groups, first = blockIdx.y * (int64_t)LORA_TOKEN_CHUNK;
    const int64_t end = first + LORA_TOKEN_CHUNK < columns.tokens ? first + LORA_TOKEN_CHUNK : columns.tokens;
    const int count = width - group * 8 < 8 ? (int)(width - group * 8) : 8;
    float total[8] = {};
    for (int64_t block = first; block < end; block += TOKEN_BLOCK) {
        float sum[8] = {};
        for (int64_t token = block; token < end && token < block + TOKEN_BLOCK; ++token) {
            const uint32_t kept = mask.threshold ? kept_channels(mask, token, group) : 0xffu;
            const float upstream = to_float(q[lora_element(columns, token, (int)rank)]);
#pragma unroll
            for (int i = 0; i < 8; ++i)
                if (i < count && kept >> i & 1) sum[i] += upstream * to_float(x[token * width + group * 8 + i]);
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) total[i] += sum[i];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (i < count) partial[(blockIdx.y * (int64_t)columns.rank + rank) * width + group * 8 + i] = total[i];
}

/* One thread per token and eight channels. */
template <typename T>
__global__ void lora_dx_kernel(T *__restrict__ dx, bool accumulate, const T *__restrict__ q, const T *__restrict__ a,
                               int64_t width, int64_t items, LoraColumns columns, DropoutMask mask) {
    const int64_t item = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, groups = (width + 7) / 8;
    if (item >= items) return;
    const int64_t group = item % groups, token = item / groups;
    const int count = width - group * 8 < 8 ? (int)(width - group * 8) : 8;
    const uint32_t kept = mask.threshold ? kept_channels(mask, token, group) : 0xffu;
    const float scale = mask.threshold ? mask.scale : 1.0f;
    float sum[8] = {};
    for (int rank = 0; rank < columns.rank; ++rank) {
        const float upstream = to_float(q[lora_element(columns, token, rank)]);
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (i < count) sum[i] += upstream * to_float(a[rank * width + group * 8 + i]);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (i < count) {
            T *at = dx + token * width + group * 8 + i;
            const float value = kept >> i & 1 ? scale * sum[i] : 0.0f;
            *at = from_float<T>(accumulate ? to_float(*at) + value : value);
        }
}

/* da += scale times the partial sums, in the order of the chunks. */
__global__ void lora_add_partial_kernel(float *__restrict__ da, const float *__restrict__ partial, int64_t elements,
                                        int64_t chunks, float scale) {
    const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= elements) return;
    float sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * elements + i];
    da[i] += scale * sum;
}

/* What both launches take. */
struct LoraBackward {
    Tensor da, dx, q, x, a;
    bool accumulate;
    LoraColumns columns;
    DropoutMask mask;
    int64_t width, chunks;
};

static Status launch_mma(CudaContext *context, const LoraBackward &b, float *partial) {
    const __nv_bfloat16 *q = (const __nv_bfloat16 *)b.q.data;
    unsigned channels, tokens;
    TRY(linear_grid("lora_down_backward", b.width, CHANNELS, &channels));
    TRY(linear_grid("lora_down_backward", b.columns.tokens, STEP_TOKENS, &tokens));
    DISPATCH_RANKS(b.columns.rank, N16, {
        const dim3 grid(channels, (unsigned)b.chunks, (unsigned)ceil_divide(b.columns.rank, 16 * N16));
        ADAMEM_LAUNCH(lora_da_mma_kernel<N16>, grid, THREADS, 0, context->stream, partial, q, (const __nv_bfloat16 *)b.x.data,
                      b.width, b.columns, b.mask);
        if (b.dx.data)
            ADAMEM_LAUNCH(lora_dx_mma_kernel<N16>, dim3(tokens, channels), THREADS, 0, context->stream,
                          (__nv_bfloat16 *)b.dx.data, b.accumulate, q, (const __nv_bfloat16 *)b.a.data, b.width, b.columns,
                          b.mask);
    });
    return STATUS_OK;
}

template <typename T> static Status launch_plain(CudaContext *context, const LoraBackward &b, float *partial) {
    const int64_t groups = ceil_divide(b.width, 8);
    unsigned da_grid, dx_grid;
    TRY(linear_grid("lora_down_backward", groups * b.columns.rank, 128, &da_grid));
    TRY(linear_grid("lora_down_backward", groups * b.columns.tokens, 128, &dx_grid));
    ADAMEM_LAUNCH(lora_da_kernel<T>, dim3(da_grid, (unsigned)b.chunks), 128, 0, context->stream, partial, (const T *)b.q.data,
                  (const T *)b.x.data, b.width, groups * b.columns.rank, b.columns, b.mask);
    if (b.dx.data)
        ADAMEM_LAUNCH(lora_dx_kernel<T>, dx_grid, 128, 0, context->stream, (T *)b.dx.data, b.accumulate, (const T *)b.q.data,
                      (const T *)b.a.data, b.width, groups * b.columns.tokens, b.columns, b.mask);
    return STATUS_OK;
}

static Status launch_all(CudaContext *context, const LoraBackward &b, float *partial) {
    unsigned grid;
    const int64_t elements = b.columns.rank * b.width;
    if (b.x.dtype == DTYPE_BF16 && wide_access(b.width, 8, b.x.data, b.a.data, b.dx.data) && b.width / CHANNELS < 65535)
        TRY(launch_mma(context, b, partial));
    else
        DISPATCH_FLOAT(b.x.dtype, T, TRY(launch_plain<T>(context, b, partial)));
    TRY(linear_grid("lora_down_backward", elements, 256, &grid));
    ADAMEM_LAUNCH(lora_add_partial_kernel, grid, 256, 0, context->stream, (float *)b.da.data, partial, elements, b.chunks,
                  b.mask.threshold ? b.mask.scale : 1.0f);
    return STATUS_OK;
}

extern "C" Status cuda_lora_down_backward(Device *device, Arena *scratch, Tensor da, Tensor dx, bool accumulate, Tensor q,
                                          Tensor x, Tensor a, LoraStack stack, const SequenceLayout *layout, Dropout dropout) {
    LoraBackward b = {da, dx, q, x, a, accumulate, {}, dropout_mask(layout, dropout), column_count(x), 0};
    TRY(lora_columns(&b.columns, stack, row_count(x)));
    b.chunks = ceil_divide(b.columns.tokens, LORA_TOKEN_CHUNK);
    if (b.columns.tokens == 0 || b.columns.rank == 0) return STATUS_OK;
    if (b.chunks > 65535) FAIL("lora_down_backward: %lld tokens are more than one launch can hold", (long long)b.columns.tokens);
    void *partial;
    TRY(arena_allocate(scratch, scratch_lora_down_backward(device, da, x), ARENA_HIGH, &partial));
    Status status = launch_all(cuda_context(device), b, (float *)partial);
    arena_release(scratch, partial);
    return status;
}
