/* What the tensor-core attention kernels share: how a block finds its rows, how tiles of rows lie in shared memory, and the
 * two products that FlashAttention-2 (Dao 2023, arXiv 2307.08691) is made of.
 *
 * A tile holds rows of E bf16 elements, cut into chunks of 16 bytes. Chunk c of row r lies at place c ^ (r % 8) of its row:
 * the eight rows that one load_matrices reads at the same chunk fall into different banks, without padding.
 * A block has four warps; each owns 16 MT rows of the block's own tile and keeps its results for them in registers, spread
 * as multiply_add leaves them: [MT][columns / 8][4]. */
#ifndef KERNELS_CUDA_ATTENTION_MMA_CUH
#define KERNELS_CUDA_ATTENTION_MMA_CUH

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/tensor_core.cuh"

static const int mma_warps = 4;
static const int mma_threads = 32 * mma_warps;
static const float log2_e = 1.4426950408889634f;
static const float ln_2 = 0.6931471805599453f;

struct MmaArguments {
    const int32_t *offsets;
    int64_t tokens;
    int sequences, query_heads, key_heads;
    float scale;
    bool causal;
};

/* The sequence of a block and its first own row (counted from the sequence's start). */
struct MmaBlock {
    int64_t start;
    int length, first;
};

/* Blocks are numbered through the sequences, ceil(length / ROWS) each. from_end: a sequence's last rows come first, because
 * they have the most work when each row sees those before it. Every warp finds the same answer. */
template <int ROWS> __device__ __forceinline__ MmaBlock find_block(const MmaArguments &a, int block, bool from_end) {
    const int lane = threadIdx.x % 32;
    for (int base = 0;; base += 32) {
        const int sequence = base + lane;
        const int start = sequence < a.sequences ? a.offsets[sequence] : 0;
        const int length = sequence < a.sequences ? a.offsets[sequence + 1] - start : 0;
        const int blocks = (length + ROWS - 1) / ROWS;
        int sum = blocks; /* of the lanes up to this one */
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            const int other = __shfl_sync(0xffffffffu, sum, (lane - distance) & 31);
            if (lane >= distance) sum += other;
        }
        const int total = __shfl_sync(0xffffffffu, sum, 31);
        if (block >= total && base + 32 < a.sequences) {
            block -= total;
            continue;
        }
        const int owner = warp_sum(sum <= block ? 1 : 0);
        MmaBlock found;
        found.start = __shfl_sync(0xffffffffu, start, owner);
        found.length = __shfl_sync(0xffffffffu, length, owner);
        const int index = block - __shfl_sync(0xffffffffu, sum - blocks, owner);
        found.first = (from_end ? __shfl_sync(0xffffffffu, blocks, owner) - 1 - index : index) * ROWS;
        return found;
    }
}

/* Blocks in the grid, from the host's copy of the offsets. */
static inline int64_t mma_blocks(const SequenceLayout *layout, int rows) {
    int64_t blocks = 0;
    for (int64_t s = 0; s < layout->sequences; ++s)
        blocks += ceil_divide(layout->host_offsets[s + 1] - layout->host_offsets[s], rows);
    return blocks;
}

static inline MmaArguments mma_arguments(const AttentionOperands &o) {
    MmaArguments a;
    a.offsets = o.layout->offsets;
    a.tokens = o.layout->tokens;
    a.sequences = (int)o.layout->sequences;
    a.query_heads = (int)o.shape.query_heads;
    a.key_heads = (int)o.shape.key_heads;
    a.scale = o.shape.scale;
    a.causal = o.shape.causal;
    return a;
}

/* Element of a tile where chunk `chunk` of row `row` begins. */
template <int E> __device__ __forceinline__ int tile_place(int row, int chunk) { return row * E + (chunk ^ (row & 7)) * 8; }

/* Starts copying ROWS rows, `stride` elements apart, into a tile; rows from `valid` on become zeros. valid >= 1. */
template <int E, int ROWS>
__device__ __forceinline__ void load_tile(__nv_bfloat16 *tile, const __nv_bfloat16 *rows, int stride, int valid) {
    constexpr int chunks = E / 8, step = mma_threads / chunks;
    static_assert(ROWS % step == 0, "whole passes");
    const int chunk = threadIdx.x % chunks, first = threadIdx.x / chunks;
#pragma unroll
    for (int r = 0; r < ROWS; r += step) {
        const int row = r + first;
        const bool inside = row < valid;
        copy_async<16>(tile + tile_place<E>(row, chunk), rows + (int64_t)(inside ? row : 0) * stride + chunk * 8, inside);
    }
}

/* product[16 MT, 8 NT] = a[16 MT, E] b[8 NT, E]^T; a and b begin at a multiple of 8 rows of their tiles. UNROLL: steps of 16
 * channels that the compiler may overlap; 2 hides more of the loads, 1 leaves more registers. */
template <int E, int UNROLL, int MT, int NT>
__device__ __forceinline__ void multiply_rows(float (&product)[MT][NT][4], const __nv_bfloat16 *a, const __nv_bfloat16 *b) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) product[m][n][i] = 0;
#pragma unroll UNROLL
    for (int k = 0; k < E / 16; ++k) {
        uint32_t left[MT][4];
#pragma unroll
        for (int m = 0; m < MT; ++m) load_matrices(left[m], a + tile_place<E>(16 * m + lane % 16, 2 * k + lane / 16));
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            uint32_t right[4];
            load_matrices(right, b + tile_place<E>(8 * n + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < MT; ++m) {
                multiply_add(product[m][n], left[m], right[0], right[1]);
                multiply_add(product[m][n + 1], left[m], right[2], right[3]);
            }
        }
    }
}

/* sum[16 MT, E] += weight[16 MT, 8 NT] b[8 NT, E], the weights rounded to bf16. Where multiply_add leaves two neighbouring
 * 16 x 8 results is where it takes a 16 x 16 operand from: the weights never leave their lane. */
template <int E, int MT, int NT>
__device__ __forceinline__ void add_weighted_rows(float (&sum)[MT][E / 8][4], const float (&weight)[MT][NT][4],
                                                  const __nv_bfloat16 *b) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < NT / 2; ++k) {
        uint32_t left[MT][4];
#pragma unroll
        for (int m = 0; m < MT; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                left[m][i] = pack_bf16(weight[m][2 * k + i / 2][i % 2 * 2], weight[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < E / 8; n += 2) {
            uint32_t right[4];
            load_matrices_transposed(right, b + tile_place<E>(16 * k + lane % 16, n + lane / 16));
#pragma unroll
            for (int m = 0; m < MT; ++m) {
                multiply_add(sum[m][n], left[m], right[0], right[1]);
                multiply_add(sum[m][n + 1], left[m], right[2], right[3]);
            }
        }
    }
}

template <int MT, int NT> __device__ __forceinline__ void clear(float (&sum)[MT][NT][4]) {
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[m][n][i] = 0;
}

/* Writes a warp's 16 MT rows, times factor[m][0] (row g) and factor[m][1] (row g + 8), to rows `stride` elements apart, the
 * first `valid` of them. staging: the warp's own rows of a tile, which it alone used and needs no more; through it the
 * global accesses become 16 bytes wide. */
template <int E, int MT>
__device__ __forceinline__ void store_rows(__nv_bfloat16 *rows, int stride, int valid, __nv_bfloat16 *staging,
                                           const float (&sum)[MT][E / 8][4], const float (&factor)[MT][2]) {
    const int lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
        for (int n = 0; n < E / 8; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                *reinterpret_cast<uint32_t *>(staging + tile_place<E>(16 * m + 8 * half + lane / 4, n) + 2 * (lane % 4)) =
                    pack_bf16(sum[m][n][2 * half] * factor[m][half], sum[m][n][2 * half + 1] * factor[m][half]);
    __syncwarp();
    constexpr int chunks = E / 8;
#pragma unroll
    for (int r = 0; r < 16 * MT; r += 32 / chunks) {
        const int row = r + lane / chunks, chunk = lane % chunks;
        if (row < valid)
            *reinterpret_cast<uint4 *>(rows + (int64_t)row * stride + chunk * 8) =
                *reinterpret_cast<const uint4 *>(staging + tile_place<E>(row, chunk));
    }
}

#endif
