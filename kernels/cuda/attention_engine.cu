/* attention_forward and attention_backward of kernels/ops.h: chooses the implementation of each call and says once which.
 *
 * The choice depends on types, shapes and addresses only, so forward, backward and a repetition of either agree. */
#include "kernels/cuda/attention.cuh"

extern "C" {
#include "io/log.h"
}

static Status check_shape(const char *op, AttentionShape shape) {
    if (shape.head_dimension > 256) FAIL("%s: head dimension %lld is more than 256", op, (long long)shape.head_dimension);
    if (shape.key_heads < 1 || shape.query_heads % shape.key_heads)
        FAIL("%s: %lld query heads cannot be shared out over %lld key heads", op, (long long)shape.query_heads,
             (long long)shape.key_heads);
    return STATUS_OK;
}

/* Whether the tensor-core kernels take this call, else why not. They read and write 16 bytes at a time. */
static bool tensor_cores_take(const AttentionOperands &o, const char **why) {
    *why = NULL;
    if (o.q.dtype != DTYPE_BF16)
        *why = "activations are not bf16";
    else if (o.shape.head_dimension != 64 && o.shape.head_dimension != 128)
        *why = "head dimension is neither 64 nor 128";
    else if (!(o.shape.scale > 0))
        *why = "scale is not positive";
    else if (!wide_access(8, 8, o.q.data, o.k.data, o.v.data, o.out.data, o.dq.data, o.dk.data, o.dv.data, o.dout.data))
        *why = "tensors do not lie on 16-byte boundaries";
    return !*why;
}

/* The engine of a call, said where it differs from what was said before. */
static AttentionEngine choose_engine(CudaContext *context, const AttentionOperands &operands) {
    const char *why = "asked for";
    AttentionEngine engine = context->attention_forced;
    if (engine == ATTENTION_AUTO)
        engine = tensor_cores_take(operands, &why) ? ATTENTION_TENSOR_CORES : ATTENTION_PLAIN;
    else if (engine == ATTENTION_TENSOR_CORES && !tensor_cores_take(operands, &why))
        engine = ATTENTION_PLAIN;
    if (engine != context->attention_said) {
        context->attention_said = engine;
        if (engine == ATTENTION_TENSOR_CORES)
            log_info("attention: own tensor-core kernel");
        else
            log_info("attention: own plain kernel (%s)", why);
    }
    return engine;
}

extern "C" void cuda_attention_engine(Device *device, AttentionEngine engine) { cuda_context(device)->attention_forced = engine; }

extern "C" Status cuda_attention_forward(Device *device, Arena *scratch, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                                         const SequenceLayout *layout, AttentionShape shape) {
    (void)scratch;
    if (layout->tokens == 0 || layout->longest == 0) return STATUS_OK;
    TRY(check_shape("attention_forward", shape));
    const Tensor absent = tensor_absent();
    const AttentionOperands operands = {out, lse, q, k, v, absent, absent, absent, absent, layout, shape};
    CudaContext *context = cuda_context(device);
    if (choose_engine(context, operands) == ATTENTION_TENSOR_CORES) return attention_mma_forward(context, operands);
    return attention_plain_forward(context, operands);
}

extern "C" Status cuda_attention_backward(Device *device, Arena *scratch, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                                          Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const SequenceLayout *layout,
                                          AttentionShape shape) {
    if (layout->tokens == 0 || layout->longest == 0) return STATUS_OK;
    TRY(check_shape("attention_backward", shape));
    void *delta;
    TRY(arena_allocate(scratch, scratch_attention_backward(device, layout, shape), ARENA_HIGH, &delta));
    const AttentionOperands operands = {out, lse, q, k, v, dq, dk, dv, dout, layout, shape};
    CudaContext *context = cuda_context(device);
    Status status = choose_engine(context, operands) == ATTENTION_TENSOR_CORES
                        ? attention_mma_backward(context, operands, (float *)delta)
                        : attention_plain_backward(context, operands, (float *)delta);
    arena_release(scratch, delta);
    return status;
}
