/* Scratch that the ops take from the arena, in one place: the planner must take exactly what the backends take.
 *
 * Each op takes its scratch in a single allocation (high side) of the bytes given here and releases it before it returns;
 * zero means it takes none. The sizes depend on shapes only, never on the number of threads. */
#ifndef KERNELS_SCRATCH_H
#define KERNELS_SCRATCH_H

#include "kernels/ops.h"

/* Rows of one partial sum over tokens; partial sums are added in block order. */
enum { TOKEN_BLOCK = 32 };
/* Elements of one partial sum of sum_squares. */
enum { SQUARES_BLOCK = 65536 };

/* Rows per chunk of linear_cross_entropy: about 100 MB of fp32 logits, whatever the vocabulary. */
static inline int64_t cross_entropy_chunk(int64_t vocabulary, int64_t rows) {
    int64_t chunk = (int64_t)100000000 / (4 * (vocabulary ? vocabulary : 1)) / 16 * 16;
    if (chunk < 16) chunk = 16;
    if (chunk > 512) chunk = 512;
    return chunk < rows ? chunk : rows;
}

/* Keys per task of the attention backward pass: a sequence is cut into at most 4 ranges of keys. */
static inline int64_t attention_key_range(int64_t longest) {
    int64_t range = (longest + 3) / 4;
    range = (range + 63) / 64 * 64;
    return range < 512 ? 512 : range;
}
static inline int64_t attention_key_ranges(int64_t longest) {
    int64_t range = attention_key_range(longest);
    return (longest + range - 1) / range;
}

/* Partial sums of dweight. */
static inline size_t scratch_rms_norm_backward(Tensor dweight, Tensor x) {
    Tensor rows = tensor_as_rows(x);
    int64_t blocks = (rows.shape[0] + TOKEN_BLOCK - 1) / TOKEN_BLOCK;
    return dweight.data ? (size_t)(blocks * rows.shape[1]) * sizeof(float) : 0;
}

/* Row width of fp32 scratch per head: whole vectors. */
static inline int64_t attention_padded_dimension(int64_t head_dimension) { return (head_dimension + 15) / 16 * 16; }

/* Per query head and token: the dot product dout * out, dq per key range, dk and dv. */
static inline size_t scratch_attention_backward(const SequenceLayout *layout, AttentionShape shape) {
    int64_t rows = layout->tokens * shape.query_heads, width = attention_padded_dimension(shape.head_dimension);
    return (size_t)(rows * (1 + (2 + attention_key_ranges(layout->longest)) * width)) * sizeof(float);
}

/* fp32 logits, gathered hidden rows and their gradients of one chunk. */
static inline size_t scratch_linear_cross_entropy(Tensor hidden, Tensor weight, Tensor rows) {
    int64_t chunk = cross_entropy_chunk(weight.shape[0], rows.shape[0]);
    return (size_t)(chunk * weight.shape[0]) * sizeof(float) + 2 * (size_t)(chunk * hidden.shape[1]) * sizeof(float);
}

static inline size_t scratch_sum_squares(Tensor x) {
    return (size_t)((tensor_elements(x) + SQUARES_BLOCK - 1) / SQUARES_BLOCK) * sizeof(double);
}

#endif
