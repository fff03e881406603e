/* The implementations behind attention_forward and attention_backward of kernels/ops.h, and what they share.
 *
 * attention_engine.cu chooses one per call. All are deterministic and take at most the scratch of kernels/scratch.h. */
#ifndef KERNELS_CUDA_ATTENTION_CUH
#define KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/common.cuh"

/* The operands of one call. The gradients and dout are absent in the forward pass. */
struct AttentionOperands {
    Tensor out, lse, q, k, v;
    Tensor dq, dk, dv, dout;
    const SequenceLayout *layout;
    AttentionShape shape;
};

/* Plain fp32 arithmetic, every dtype, head dimensions up to 256 (attention.cu). delta: scratch, [H,T]. */
Status attention_plain_forward(CudaContext *context, const AttentionOperands &operands);
Status attention_plain_backward(CudaContext *context, const AttentionOperands &operands, float *delta);

/* Tensor cores, bf16, head dimension 64 or 128 (attention_mma_forward.cu, attention_mma_backward.cu). */
Status attention_mma_forward(CudaContext *context, const AttentionOperands &operands);
Status attention_mma_backward(CudaContext *context, const AttentionOperands &operands, float *delta);

#endif
