/* Scratch that the ops take from the arena, in one place: the planner must take exactly what the backends take.
 *
 * Each op takes its scratch in a single allocation (high side) of the bytes given here and releases it before it returns;
 * zero means it takes none. The sizes depend on shapes and on the kind of device only, never on the number of threads or on
 * what memory happens to be free: chunks have a say in the bits of a result. */
#ifndef KERNELS_SCRATCH_H
#define KERNELS_SCRATCH_H

#include "kernels/ops.h"

/* Rows of one partial sum over tokens; partial sums are added in block order. */
enum { TOKEN_BLOCK = 32 };
/* Elements of one partial sum of sum_squares. */
enum { SQUARES_BLOCK = 65536 };
/* Elements of one partial sum of the gradient of a factor. */
enum { SCALE_BLOCK = 4096 };

/* On a CPU about 100 MB of fp32 logits, whatever the vocabulary. */
static inline int64_t cross_entropy_chunk_cpu(int64_t vocabulary) {
    int64_t chunk = (int64_t)100000000 / (4 * (vocabulary ? vocabulary : 1)) / 16 * 16;
    return chunk < 16 ? 16 : chunk > 512 ? 512 : chunk;
}

/* On a GPU 4096 rows, halved until their fp32 logits take at most 1/32 of the memory that such a GPU has (2.5 GB of 80 GB at
 * Qwen2.5's vocabulary; 1024 rows on 24 GB). Products this long run at full speed, and the head's weights are read once per
 * chunk. Logits stay fp32: bf16 would save a third of the traffic between the products, but rounds a logit of 20 by up to
 * 0.06, and so its probability by 6 %. */
static inline int64_t cross_entropy_chunk_gpu(int64_t vocabulary, int64_t memory_bytes) {
    int64_t chunk = 4096;
    while (chunk > 64 && chunk * vocabulary * 4 > memory_bytes / 32) chunk /= 2;
    return chunk;
}

/* Rows per chunk of linear_cross_entropy and token_log_probabilities. */
static inline int64_t cross_entropy_chunk(const Device *device, int64_t vocabulary, int64_t rows) {
    int64_t chunk = device->target == BACKEND_CUDA ? cross_entropy_chunk_gpu(vocabulary, device->memory_bytes)
                                                   : cross_entropy_chunk_cpu(vocabulary);
    return chunk < rows ? chunk : rows;
}

/* Keys per task of the CPU's attention backward pass: a sequence is cut into at most 4 ranges of keys. */
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

/* Whether cuDNN may run a pass of attention on the device. Whether it does is seen only when it runs. */
static inline bool attention_cudnn_may(const Device *device, DType dtype, AttentionShape shape, bool backward) {
    return device->cudnn >= (backward ? CUDNN_BOTH_PASSES : CUDNN_FORWARD_PASS) && dtype == DTYPE_BF16 &&
           (shape.head_dimension == 64 || shape.head_dimension == 128);
}

static inline size_t scratch_round(size_t bytes) { return (bytes + 255) / 256 * 256; }

/* Workspace granted to cuDNN. Forward and in its newer backward pass it needs some ten KB. Its older backward pass keeps all
 * scores of a batch in bf16: granted for short sequences, 1024 per row on average, and 256 MiB. Depends on the number of
 * tokens only, so that the batch with the most tokens takes most. */
static inline size_t scratch_attention_cudnn(const SequenceLayout *layout, AttentionShape shape, bool backward) {
    size_t scores = (size_t)(layout->tokens * shape.query_heads) * 2048, most = (size_t)256 << 20;
    return ((size_t)1 << 20) + (backward ? scratch_round(scores < most ? scores : most) : 0);
}

/* Statistics as cuDNN writes them, and its workspace. */
static inline size_t scratch_attention_forward(const Device *device, DType dtype, const SequenceLayout *layout,
                                               AttentionShape shape) {
    if (layout->longest == 0 || !attention_cudnn_may(device, dtype, shape, false)) return 0;
    return scratch_round((size_t)(layout->tokens * shape.query_heads) * sizeof(float)) +
           scratch_attention_cudnn(layout, shape, false);
}

/* Per query head and token: the dot product dout * out; on a CPU also dq per key range, dk and dv; for cuDNN also the
 * statistics, dq, and, where query heads share key heads, dk and dv of each, in four bytes. */
static inline size_t scratch_attention_backward(const Device *device, DType dtype, const SequenceLayout *layout,
                                                AttentionShape shape) {
    int64_t rows = layout->tokens * shape.query_heads, width = attention_padded_dimension(shape.head_dimension);
    if (layout->longest == 0) return 0;
    if (attention_cudnn_may(device, dtype, shape, true)) {
        size_t row = scratch_round((size_t)rows * sizeof(float));
        size_t head = scratch_round((size_t)(rows * shape.head_dimension) * sizeof(float));
        return 2 * row + (shape.query_heads > shape.key_heads ? 3 : 1) * head + scratch_attention_cudnn(layout, shape, true);
    }
    if (device->target == BACKEND_CUDA) return (size_t)rows * sizeof(float);
    return (size_t)(rows * (1 + (2 + attention_key_ranges(layout->longest)) * width)) * sizeof(float);
}

/* As scratch_attention_backward without cuDNN, for queries and keys of different layouts. */
static inline size_t scratch_cross_attention_backward(const Device *device, const SequenceLayout *queries,
                                                      const SequenceLayout *keys, AttentionShape shape) {
    int64_t query_rows = queries->tokens * shape.query_heads, key_rows = keys->tokens * shape.query_heads;
    int64_t width = attention_padded_dimension(shape.head_dimension);
    if (device->target == BACKEND_CUDA) return (size_t)query_rows * sizeof(float);
    return (size_t)(query_rows * (1 + attention_key_ranges(keys->longest) * width) + 2 * key_rows * width) * sizeof(float);
}

/* fp32 logits, gathered hidden rows and their gradients of one chunk. */
static inline size_t scratch_linear_cross_entropy(const Device *device, Tensor hidden, Tensor weight, Tensor rows) {
    int64_t chunk = cross_entropy_chunk(device, weight.shape[0], rows.shape[0]);
    size_t element = device->target == BACKEND_CUDA ? dtype_bytes(hidden.dtype) : sizeof(float);
    return (size_t)(chunk * weight.shape[0]) * sizeof(float) + 2 * (size_t)(chunk * hidden.shape[1]) * element;
}

/* fp32 logits and gathered hidden rows of one chunk. */
static inline size_t scratch_token_log_probabilities(const Device *device, Tensor hidden, Tensor weight, Tensor rows) {
    int64_t chunk = cross_entropy_chunk(device, weight.shape[0], rows.shape[0]);
    return (size_t)(chunk * weight.shape[0]) * sizeof(float) + (size_t)(chunk * hidden.shape[1]) * dtype_bytes(hidden.dtype);
}

/* Rows per chunk of linear_distillation: two logits per row and word. */
static inline int64_t distillation_chunk(const Device *device, int64_t vocabulary, int64_t rows) {
    int64_t chunk = cross_entropy_chunk(device, vocabulary, INT64_MAX) / 2;
    return chunk < rows ? chunk : rows;
}

/* fp32 logits of student and teacher, gathered hidden rows and their gradients of one chunk, each from an aligned address on:
 * equal products must be computed alike. */
static inline size_t scratch_linear_distillation(const Device *device, Tensor hidden, Tensor weight, Tensor rows) {
    int64_t chunk = distillation_chunk(device, weight.shape[0], rows.shape[0]);
    size_t logits = scratch_round((size_t)(chunk * weight.shape[0]) * sizeof(float));
    return 2 * logits + 2 * scratch_round((size_t)(chunk * hidden.shape[1]) * dtype_bytes(hidden.dtype));
}

/* On a CPU the list of the rows of dy by rows of dx: begins [R+1] and entries [N]. */
static inline size_t scratch_scatter_rows(const Device *device, Tensor dx, Tensor index) {
    return device->target == BACKEND_CUDA ? 0 : (size_t)(dx.shape[0] + 1 + tensor_elements(index)) * sizeof(int32_t);
}

static inline size_t scratch_scale_backward(Tensor dfactor, Tensor x) {
    return dfactor.data ? (size_t)((tensor_elements(x) + SCALE_BLOCK - 1) / SCALE_BLOCK) * sizeof(double) : 0;
}

/* Cosines and their gradients [B,B]; of the rows of u and of v each: one over the norm, logsumexp, products with the gradient. */
static inline size_t scratch_info_nce(Tensor u) { return (size_t)(u.shape[0] * (u.shape[0] + 5)) * sizeof(float); }

/* Per row: one over the norm, and its part of the loss. */
static inline size_t scratch_diversity(Tensor z) { return (size_t)z.shape[0] * 2 * sizeof(float); }

/* Tokens of one partial sum of the gradient of A on a GPU: many blocks, and yet little to add up. */
enum { LORA_TOKEN_CHUNK = 1024 };

/* On a GPU the partial sums of da [chunks, R, K]. */
static inline size_t scratch_lora_down_backward(const Device *device, Tensor da, Tensor x) {
    int64_t chunks = (x.shape[0] + LORA_TOKEN_CHUNK - 1) / LORA_TOKEN_CHUNK;
    return device->target == BACKEND_CUDA ? (size_t)(chunks * tensor_elements(da)) * sizeof(float) : 0;
}

static inline size_t scratch_sum_squares(Tensor x) {
    return (size_t)((tensor_elements(x) + SQUARES_BLOCK - 1) / SQUARES_BLOCK) * sizeof(double);
}

#endif
