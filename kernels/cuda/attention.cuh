/* The implementations behind attention_forward and attention_backward of kernels/ops.h, and what they share.
 *
 * attention_engine.cu chooses one per call and pass: all have the same out and lse, so one may run forward and another
 * backward. All are deterministic and take at most the scratch of kernels/scratch.h. */
#ifndef KERNELS_CUDA_ATTENTION_CUH
#define KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/common.cuh"

/* The operands of one call. The gradients and dout are absent in the forward pass. */
struct AttentionOperands {
    Tensor out, lse, q, k, v;
    Tensor dq, dk, dv, dout;
    const SequenceLayout *layout; /* of the queries */
    const SequenceLayout *keys;   /* of the keys; only the plain kernels know another one than the queries' */
    AttentionShape shape;
};

/* An error that names the op for shapes that no implementation takes (attention_engine.cu). */
Status attention_check_shape(const char *op, AttentionShape shape);

/* Plain fp32 arithmetic, every dtype, head dimensions up to 256 (attention.cu). delta: scratch, [H,Tq]. */
Status attention_plain_forward(CudaContext *context, const AttentionOperands &operands);
Status attention_plain_backward(CudaContext *context, const AttentionOperands &operands, float *delta);

/* cuDNN, bf16, head dimension 64 or 128 (attention_cudnn.cu): loads the library and says which passes it may run here. */
Status attention_cudnn_open(int ordinal, cudaStream_t stream, CudnnAttention **out, CudnnPasses *passes);
/* Whether cuDNN takes a pass of the call; if not, *why (as long as the context lives) says the reason. A plan is made at the
 * first call of a shape, and kept, as is a refusal. */
bool attention_cudnn_takes(CudaContext *context, const AttentionOperands &operands, bool backward, const char **why);
/* "cuDNN 9.19.0, engine 6": of the call that it took. */
const char *attention_cudnn_name(CudaContext *context, const AttentionOperands &operands, bool backward);
/* scratch: of scratch_attention_forward and scratch_attention_backward, 256-byte aligned. */
Status attention_cudnn_forward(CudaContext *context, const AttentionOperands &operands, void *scratch);
Status attention_cudnn_backward(CudaContext *context, const AttentionOperands &operands, void *scratch);

/* Tensor cores, bf16, head dimension 64 or 128 (attention_mma_forward.cu, attention_mma_backward.cu). */
Status attention_mma_forward(CudaContext *context, const AttentionOperands &operands);
Status attention_mma_backward(CudaContext *context, const AttentionOperands &operands, float *delta);

#endif
