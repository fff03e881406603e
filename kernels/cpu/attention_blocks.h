/* What both directions of attention share: block size, packing into fp32, and the numbering of tasks. */
#ifndef KERNELS_CPU_ATTENTION_BLOCKS_H
#define KERNELS_CPU_ATTENTION_BLOCKS_H

#include "kernels/cpu/block_gemm.h"
#include "kernels/ops.h"

/* Queries and keys per block: a 64 x 64 fp32 score block and its operands stay in the second-level cache. */
enum { BLOCK = 64, MAX_HEAD_DIMENSION = 256 };

ALWAYS_INLINE void pack_row(bool bf16, float *to, const void *from, int64_t width, int64_t padded) {
#pragma omp simd
    for (int64_t e = 0; e < width; ++e) to[e] = element_load(bf16, from, e);
    for (int64_t e = width; e < padded; ++e) to[e] = 0.0f;
}

/* to[rows, padded] = rows of one head as fp32; x points at the head of the first row, stride in elements. */
static inline void pack_rows(bool bf16, float *to, const void *x, int64_t stride, int64_t rows, int64_t width, int64_t padded) {
    for (int64_t r = 0; r < rows; ++r)
        BY_STORAGE(bf16, pack_row, to + r * padded, element_at(bf16, x, r * stride), width, padded);
}

/* to[width, BLOCK] = transpose of from[rows, padded]; columns beyond rows are zero. */
static inline void transpose_block(float *to, const float *from, int64_t rows, int64_t width, int64_t padded) {
    for (int64_t e = 0; e < width; ++e) {
        for (int64_t r = 0; r < rows; ++r) to[e * BLOCK + r] = from[r * padded + e];
        for (int64_t r = rows; r < BLOCK; ++r) to[e * BLOCK + r] = 0.0f;
    }
}

/* Part number `part` (of `size` rows) of the packed batch: sequences are cut apart from each other. */
typedef struct Part {
    int64_t sequence, sequence_begin, sequence_end; /* number; rows of the batch */
    int64_t begin, end;                             /* rows of the part */
} Part;

static inline int64_t count_parts(const SequenceLayout *layout, int64_t size) {
    int64_t count = 0;
    for (int64_t s = 0; s < layout->sequences; ++s)
        count += (layout->host_offsets[s + 1] - layout->host_offsets[s] + size - 1) / size;
    return count;
}

static inline Part find_part(const SequenceLayout *layout, int64_t size, int64_t part) {
    int64_t s = 0, parts;
    for (;; ++s, part -= parts) {
        parts = (layout->host_offsets[s + 1] - layout->host_offsets[s] + size - 1) / size;
        if (part < parts) break;
    }
    Part found = {.sequence = s, .sequence_begin = layout->host_offsets[s], .sequence_end = layout->host_offsets[s + 1]};
    found.begin = found.sequence_begin + part * size;
    found.end = found.begin + size < found.sequence_end ? found.begin + size : found.sequence_end;
    return found;
}

/* Query i of a sequence (counted from its first) sees keys 0 .. i + shift under a causal mask: aligned at the end. */
static inline int64_t causal_shift(const SequenceLayout *queries, const SequenceLayout *keys, int64_t sequence) {
    return (keys->host_offsets[sequence + 1] - keys->host_offsets[sequence]) -
           (queries->host_offsets[sequence + 1] - queries->host_offsets[sequence]);
}

#endif
