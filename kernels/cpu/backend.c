#include "kernels/cpu/context.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/ops_cpu.h"

#if defined(__AVX512F__)
#define LEVEL_NAME "AVX-512"
#elif defined(__AVX2__)
#define LEVEL_NAME "AVX2"
#else
#define LEVEL_NAME "portable"
#endif

static const Ops ops = {
    .name = "cpu",
    .matmul = cpu_matmul,
    .embedding_forward = cpu_embedding_forward,
    .embedding_backward = cpu_embedding_backward,
    .rms_norm_forward = cpu_rms_norm_forward,
    .rms_norm_backward = cpu_rms_norm_backward,
    .rope_table = cpu_rope_table,
    .rope = cpu_rope,
    .attention_forward = cpu_attention_forward,
    .attention_backward = cpu_attention_backward,
    .cache_append = cpu_cache_append,
    .attention_cached = cpu_attention_cached,
    .swiglu_forward = cpu_swiglu_forward,
    .swiglu_backward = cpu_swiglu_backward,
    .gelu_forward = cpu_gelu_forward,
    .gelu_backward = cpu_gelu_backward,
    .layer_norm_forward = cpu_layer_norm_forward,
    .linear_cross_entropy = cpu_linear_cross_entropy,
    .token_log_probabilities = cpu_token_log_probabilities,
    .dropout = cpu_dropout,
    .lora_down = cpu_lora_down,
    .lora_down_backward = cpu_lora_down_backward,
    .gather_rows = cpu_gather_rows,
    .scatter_rows = cpu_scatter_rows,
    .cross_attention_forward = cpu_cross_attention_forward,
    .cross_attention_backward = cpu_cross_attention_backward,
    .film_forward = cpu_film_forward,
    .film_backward = cpu_film_backward,
    .segment_mean_forward = cpu_segment_mean_forward,
    .segment_mean_backward = cpu_segment_mean_backward,
    .scale_forward = cpu_scale_forward,
    .scale_backward = cpu_scale_backward,
    .linear_distillation = cpu_linear_distillation,
    .info_nce = cpu_info_nce,
    .diversity = cpu_diversity,
    .cast = cpu_cast,
    .add = cpu_add,
    .column_sum = cpu_column_sum,
    .fixed_point_accumulate = cpu_fixed_point_accumulate,
    .fixed_point_convert = cpu_fixed_point_convert,
    .sum_squares = cpu_sum_squares,
    .adamw = cpu_adamw,
};

extern const CpuBackend CPU_NAME(cpu_backend);
const CpuBackend CPU_NAME(cpu_backend) = {
    .name = LEVEL_NAME,
    .ops = &ops,
    .open = cpu_context_open,
    .close = cpu_context_close,
};
