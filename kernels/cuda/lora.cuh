/* What the two low-rank ops share: where a stack's P and Q lie, and tiles of bf16 matrices in shared memory with the mask drawn
 * on the way. A tile's rows are cut into chunks of eight elements; chunk c of row r lies at place c ^ (r mod 8), so that eight
 * rows of one column of chunks meet no bank twice. */
#ifndef KERNELS_CUDA_LORA_CUH
#define KERNELS_CUDA_LORA_CUH

#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/tensor_core.cuh"

/* A LoraStack on the device. */
struct LoraColumns {
    int64_t tokens;
    int count, rank; /* rank: sum of the ranks */
    int ranks[LORA_STACK_MAX];
    bool wide; /* all ranks are multiples of eight: a row of each matrix is made of whole chunks */
};

static inline Status lora_columns(LoraColumns *out, const LoraStack &stack, int64_t tokens) {
    int64_t rank = 0;
    *out = LoraColumns();
    out->tokens = tokens;
    out->count = stack.count;
    out->wide = true;
    for (int i = 0; i < stack.count; ++i) {
        rank += stack.ranks[i];
        out->ranks[i] = (int)stack.ranks[i];
        out->wide = out->wide && stack.ranks[i] % 8 == 0;
    }
    if (rank > 65536) FAIL("adapters of one input have a rank of %lld together: the CUDA backend takes 65536", (long long)rank);
    out->rank = (int)rank;
    return STATUS_OK;
}

/* Element of the stacked matrices that holds column r of a token. */
__device__ __forceinline__ int64_t lora_element(const LoraColumns &columns, int64_t token, int r) {
    int64_t begin = 0;
#pragma unroll
    for (int i = 0; i < LORA_STACK_MAX - 1; ++i) {
        if (r < columns.ranks[i] || i + 1 >= columns.count) return begin + token * columns.ranks[i] + r;
        begin += columns.tokens * columns.ranks[i];
        r -= columns.ranks[i];
    }
    return begin + token * columns.ranks[LORA_STACK_MAX - 1] + r;
}

template <int WIDTH> __device__ __forceinline__ int lora_place(int row, int chunk) {
    return row * WIDTH + (chunk ^ (row & 7)) * 8;
}

/* Starts copying ROWS x WIDTH elements of a matrix of `rows` x `columns`, columns a multiple of eight, from (row, column) on;
 * what lies outside becomes zero. Each thread copies the chunks that keep_tile gives it. */
template <int WIDTH, int ROWS, int THREADS>
__device__ __forceinline__ void copy_tile(__nv_bfloat16 *tile, const __nv_bfloat16 *matrix, int64_t row, int64_t column,
                                          int64_t rows, int64_t columns) {
    constexpr int chunks = WIDTH / 8;
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * chunks; i += THREADS) {
        const int r = i / chunks, c = i % chunks;
        const bool inside = row + r < rows && column + 8 * c < columns;
        copy_async<16>(tile + lora_place<WIDTH>(r, c), matrix + (inside ? (row + r) * columns + column + 8 * c : 0), inside);
    }
}

/* The same of columns first .. first + WIDTH of the stacked Q of ROWS tokens. Narrow ranks are read element by element, at once.
 */
template <int WIDTH, int ROWS, int THREADS>
__device__ __forceinline__ void copy_columns(__nv_bfloat16 *tile, const __nv_bfloat16 *q, const LoraColumns &columns,
                                             int64_t token, int first) {
    constexpr int chunks = WIDTH / 8;
    if (columns.wide) {
#pragma unroll
        for (int i = threadIdx.x; i < ROWS * chunks; i += THREADS) {
            const int r = i / chunks, c = i % chunks;
            const bool inside = token + r < columns.tokens && first + 8 * c < columns.rank;
            copy_async<16>(tile + lora_place<WIDTH>(r, c), q + (inside ? lora_element(columns, token + r, first + 8 * c) : 0),
                           inside);
        }
        return;
    }
    for (int i = threadIdx.x; i < ROWS * WIDTH; i += THREADS) {
        const int r = i / WIDTH, c = i % WIDTH;
        const bool inside = token + r < columns.tokens && first + c < columns.rank;
        tile[lora_place<WIDTH>(r, c / 8) + c % 8] =
            inside ? q[lora_element(columns, token + r, first + c)] : __float2bfloat16_rn(0.0f);
    }
}

/* Drops elements of a tile of x. A thread works on the chunks that it copied itself: between the two it needs no barrier. */
template <int WIDTH, int ROWS, int THREADS>
__device__ __forceinline__ void keep_tile(__nv_bfloat16 *tile, const DropoutMask &mask, int64_t token, int64_t column,
                                          int64_t tokens) {
    constexpr int chunks = WIDTH / 8;
    if (mask.threshold == 0) return;
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * chunks; i += THREADS) {
        const int r = i / chunks, c = i % chunks;
        if (token + r >= tokens) continue;
        const uint32_t kept = kept_channels(mask, token + r, column / 8 + c);
        uint4 *at = reinterpret_cast<uint4 *>(tile + lora_place<WIDTH>(r, c));
        uint4 words = *at;
        words.x &= (kept & 1 ? 0xffffu : 0) | (kept & 2 ? 0xffff0000u : 0);
        words.y &= (kept & 4 ? 0xffffu : 0) | (kept & 8 ? 0xffff0000u : 0);
        words.z &= (kept & 16 ? 0xffffu : 0) | (kept & 32 ? 0xffff0000u : 0);
        words.w &= (kept & 64 ? 0xffffu : 0) | (kept & 128 ? 0xffff0000u : 0);
        *at = words;
    }
}

/* Runs the statements with N16 = the number of sixteens of ranks that a block takes, 1 to 4. */
#define DISPATCH_RANKS(rank, N16, ...)                                                                                           \
    do {                                                                                                                         \
        if ((rank) <= 16) {                                                                                                      \
            constexpr int N16 = 1;                                                                                               \
            __VA_ARGS__;                                                                                                         \
        } else if ((rank) <= 32) {                                                                                               \
            constexpr int N16 = 2;                                                                                               \
            __VA_ARGS__;                                                                                                         \
        } else if ((rank) <= 48) {                                                                                               \
            constexpr int N16 = 3;                                                                                               \
            __VA_ARGS__;                                                                                                         \
        } else {                                                                                                                 \
            constexpr int N16 = 4;                                                                                               \
            __VA_ARGS__;                                                                                                         \
        }                                                                                                                        \
    } while (0)

#endif
