#include "kernels/cuda/ops_cuda.h"

static const Ops table = {
    .name = "cuda",
    .matmul = cuda_matmul,
    .embedding_forward = cuda_embedding_forward,
    .embedding_backward = cuda_embedding_backward,
    .rms_norm_forward = cuda_rms_norm_forward,
    .rms_norm_backward = cuda_rms_norm_backward,
    .rope_table = cuda_rope_table,
    .rope = cuda_rope,
    .attention_forward = cuda_attention_forward,
    .attention_backward = cuda_attention_backward,
    .cache_append = cuda_cache_append,
    .attention_cached = cuda_attention_cached,
    .swiglu_forward = cuda_swiglu_forward,
    .swiglu_backward = cuda_swiglu_backward,
    .gelu_forward = cuda_gelu_forward,
    .gelu_backward = cuda_gelu_backward,
    .layer_norm_forward = cuda_layer_norm_forward,
    .linear_cross_entropy = cuda_linear_cross_entropy,
    .dropout = cuda_dropout,
    .lora_down = cuda_lora_down,
    .lora_down_backward = cuda_lora_down_backward,
    .cast = cuda_cast,
    .add = cuda_add,
    .column_sum = cuda_column_sum,
    .fixed_point_accumulate = cuda_fixed_point_accumulate,
    .fixed_point_convert = cuda_fixed_point_convert,
    .sum_squares = cuda_sum_squares,
    .adamw = cuda_adamw,
};

const Ops *ops_cuda(void) { return &table; }
