/* attention_forward and attention_backward of kernels/ops.h: chooses the implementation of each call and says once which.
 *
 * The choice depends on the GPU, the libraries, types, shapes and addresses only, so a repetition of a call agrees. */
#include "kernels/cuda/attention.cuh"

extern "C" {
#include "io/log.h"
}

Status attention_check_shape(const char *op, AttentionShape shape) {
    if (shape.head_dimension > 256) FAIL("%s: head dimension %lld is more than 256", op, (long long)shape.head_dimension);
    if (shape.key_heads < 1 || shape.query_heads % shape.key_heads)
        FAIL("%s: %lld query heads cannot be shared out over %lld key heads", op, (long long)shape.query_heads,
             (long long)shape.key_heads);
    return STATUS_OK;
}

/* Whether kernels take this call that read and write 16 bytes of bf16 at a time, else why not. */
static bool wide_kernels_take(const AttentionOperands &o, const char **why) {
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

/* Each engine of each pass is said once, with the reason why it is not the one before it. */
static void say(CudaContext *context, const AttentionOperands &operands, bool backward, AttentionEngine engine, const char *why) {
    const unsigned bit = 1u << (2 * engine + backward);
    const char *pass = backward ? "backward" : "forward";
    if (context->attention_said & bit) return;
    context->attention_said |= bit;
    if (engine == ATTENTION_CUDNN)
        log_info("attention %s: %s", pass, attention_cudnn_name(context, operands, backward));
    else
        log_info("attention %s: own %s kernel%s%s%s", pass, engine == ATTENTION_PLAIN ? "plain" : "tensor-core", why ? " (" : "",
                 why ? why : "", why ? ")" : "");
}

static AttentionEngine choose_engine(CudaContext *context, const AttentionOperands &operands, bool backward) {
    const char *why = NULL;
    AttentionEngine engine = ATTENTION_PLAIN;
    if (context->attention != ATTENTION_PLAIN && wide_kernels_take(operands, &why)) {
        engine = ATTENTION_TENSOR_CORES;
        if (context->cudnn && attention_cudnn_takes(context, operands, backward, &why)) engine = ATTENTION_CUDNN;
    }
    say(context, operands, backward, engine, why);
    return engine;
}

Status cuda_set_attention(Device *device, AttentionEngine engine) {
    CudaContext *context = cuda_context(device);
    const bool wanted = engine == ATTENTION_AUTO || engine == ATTENTION_CUDNN;
    attention_cudnn_close(context->cudnn);
    context->cudnn = NULL;
    context->attention = engine;
    context->attention_said = 0;
    device->cudnn = CUDNN_NO_PASS;
    if (!wanted) return STATUS_OK;
    Status status = attention_cudnn_open(context->ordinal, context->stream, &context->cudnn, &device->cudnn);
    if (!status || engine == ATTENTION_CUDNN) return status;
    log_info("attention: without cuDNN: %s", status_message(status));
    status_free(status);
    return STATUS_OK;
}

extern "C" Status cuda_attention_forward(Device *device, Arena *scratch, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                                         const SequenceLayout *layout, AttentionShape shape) {
    if (layout->tokens == 0 || layout->longest == 0) return STATUS_OK;
    TRY(attention_check_shape("attention_forward", shape));
    const Tensor absent = tensor_absent();
    const AttentionOperands operands = {out, lse, q, k, v, absent, absent, absent, absent, layout, layout, shape};
    CudaContext *context = cuda_context(device);
    const size_t bytes = scratch_attention_forward(device, q.dtype, layout, shape);
    void *memory = NULL;
    if (bytes) TRY(arena_allocate(scratch, bytes, ARENA_HIGH, &memory));
    Status status;
    switch (choose_engine(context, operands, false)) {
    case ATTENTION_CUDNN: status = attention_cudnn_forward(context, operands, memory); break;
    case ATTENTION_TENSOR_CORES: status = attention_mma_forward(context, operands); break;
    default: status = attention_plain_forward(context, operands); break;
    }
    if (memory) arena_release(scratch, memory);
    return status;
}

extern "C" Status cuda_attention_backward(Device *device, Arena *scratch, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                                          Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const SequenceLayout *layout,
                                          AttentionShape shape) {
    if (layout->tokens == 0 || layout->longest == 0) return STATUS_OK;
    TRY(attention_check_shape("attention_backward", shape));
    void *memory;
    TRY(arena_allocate(scratch, scratch_attention_backward(device, q.dtype, layout, shape), ARENA_HIGH, &memory));
    const AttentionOperands operands = {out, lse, q, k, v, dq, dk, dv, dout, layout, layout, shape};
    CudaContext *context = cuda_context(device);
    Status status;
    switch (choose_engine(context, operands, true)) {
    case ATTENTION_CUDNN: status = attention_cudnn_backward(context, operands, memory); break;
    case ATTENTION_TENSOR_CORES: status = attention_mma_backward(context, operands, (float *)memory); break;
    default: status = attention_plain_backward(context, operands, (float *)memory); break;
    }
    arena_release(scratch, memory);
    return status;
}
