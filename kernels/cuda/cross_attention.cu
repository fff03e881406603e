/* Attention between two layouts: the plain kernels, for every type. Its queries are few (latents, or the tokens of an answer)
 * beside its keys. */
#include "kernels/cuda/attention.cuh"

extern "C" Status cuda_cross_attention_forward(Device *device, Arena *scratch, Tensor out, Tensor lse, Tensor q, Tensor k,
                                               Tensor v, const SequenceLayout *queries, const SequenceLayout *keys,
                                               AttentionShape shape) {
    (void)scratch;
    TRY(attention_check_shape("cross_attention_forward", shape));
    const Tensor absent = tensor_absent();
    return attention_plain_forward(cuda_context(device),
                                   {out, lse, q, k, v, absent, absent, absent, absent, queries, keys, shape});
}

extern "C" Status cuda_cross_attention_backward(Device *device, Arena *scratch, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                                                Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                                                const SequenceLayout *queries, const SequenceLayout *keys, AttentionShape shape) {
    TRY(attention_check_shape("cross_attention_backward", shape));
    const size_t bytes = scratch_cross_attention_backward(device, queries, keys, shape);
    void *delta = NULL;
    if (bytes) TRY(arena_allocate(scratch, bytes, ARENA_HIGH, &delta));
    Status status = attention_plain_backward(cuda_context(device), {out, lse, q, k, v, dq, dk, dv, dout, queries, keys, shape},
                                             (float *)delta);
    arena_release(scratch, delta);
    return status;
}
