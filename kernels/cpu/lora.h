/* What the two low-rank ops share: their operands, and copies of the input with the mask drawn on the way. */
#ifndef KERNELS_CPU_LORA_H
#define KERNELS_CPU_LORA_H

#include "kernels/cpu/context.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/mask.h"

/* Both ops stage blocks in a thread's workspace, which bounds the sum of the ranks. */
enum { LORA_MOST_RANKS = 3072 };

typedef struct LowRank {
    Device *device;
    MatmulCache *cache;
    const SequenceLayout *layout;
    const void *x, *a; /* [T,K], [R,K] */
    LoraStack stack;
    MaskKey key;
    int64_t tokens, width, rank;
    bool bf16, widen; /* widen: this CPU has no bf16 product, blocks are staged in fp32 */
} LowRank;

static inline int64_t lora_rank_sum(LoraStack stack) {
    int64_t sum = 0;
    for (int i = 0; i < stack.count; ++i) sum += stack.ranks[i];
    return sum;
}

static inline Status low_rank_open(LowRank *out, Device *device, Tensor x, Tensor a, LoraStack stack,
                                   const SequenceLayout *layout, Dropout dropout) {
    *out = (LowRank){.device = device,
                     .cache = cpu_context(device)->matmul,
                     .layout = layout,
                     .x = x.data,
                     .a = a.data,
                     .stack = stack,
                     .key = mask_key(dropout),
                     .tokens = x.shape[0],
                     .width = x.shape[1],
                     .rank = lora_rank_sum(stack),
                     .bf16 = x.dtype == DTYPE_BF16};
    if (out->rank > LORA_MOST_RANKS)
        FAIL("adapters of one input have a rank of %lld together: the CPU backend takes %d", (long long)out->rank,
             LORA_MOST_RANKS);
    return STATUS_OK;
}

/* Whether blocks can be read where they lie. */
static inline bool low_rank_direct(const LowRank *l) { return !l->widen && l->key.threshold == 0; }

ALWAYS_INLINE void convert_row(bool from_bf16, bool to_bf16, void *to, const void *from, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) element_store(to_bf16, to, i, element_load(from_bf16, from, i));
}

/* rows x columns of a matrix with `stride` elements per row, dense, in fp32 when widening. */
static inline void stage_block(const LowRank *l, void *to, const void *from, int64_t stride, int64_t rows, int64_t columns) {
    bool to_bf16 = l->bf16 && !l->widen;
    for (int64_t r = 0; r < rows; ++r) {
        void *y = element_at_mutable(to_bf16, to, r * columns);
        const void *x = element_at(l->bf16, from, r * stride);
        if (to_bf16 == l->bf16)
            memcpy(y, x, (size_t)columns * (l->bf16 ? 2 : 4));
        else
            convert_row(true, false, y, x, columns);
    }
}

/* Selection, not multiplication by a mask: a dropped infinity is zero. The scale of kept elements goes into the sums. */
ALWAYS_INLINE void keep_row(bool from_bf16, bool to_bf16, void *to, const void *from, const uint16_t *pieces, uint32_t threshold,
                            int64_t count) {
    if (from_bf16 && to_bf16) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) ((uint16_t *)to)[i] = pieces[i] >= threshold ? ((const uint16_t *)from)[i] : 0;
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) ((float *)to)[i] = pieces[i] >= threshold ? element_load(from_bf16, from, i) : 0.0f;
    }
}

static inline void keep_elements(const LowRank *l, void *to, const void *from, const uint16_t *pieces, int64_t count) {
    if (!l->bf16)
        keep_row(false, false, to, from, pieces, l->key.threshold, count);
    else if (l->widen)
        keep_row(true, false, to, from, pieces, l->key.threshold, count);
    else
        keep_row(true, true, to, from, pieces, l->key.threshold, count);
}

static inline int64_t minimum_of(int64_t a, int64_t b) { return a < b ? a : b; }

#endif
