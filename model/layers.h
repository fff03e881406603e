/* Layers: the fused operations of kernels/ops.h as steps on the tape, with their parameters. */
#ifndef MODEL_LAYERS_H
#define MODEL_LAYERS_H

#include "model/lora.h"
#include "model/tape.h"

/* One linear map, weight [N,K], with an optional bias [N] and an optional LoRA pair. */
typedef struct Linear {
    Parameter *weight, *bias; /* bias NULL: none */
    Lora lora;                /* lora.a NULL: none */
    Lora resting;             /* an adapter that decoder_switch_adapters took out of use */
} Linear;

#define LINEAR_GROUP_MAX 3

/* out[i][T,N_i] = x W_i^T + b_i + s_i dropout(x) A_i^T B_i^T for count linears that read the same x[T,K], so that its
 * gradient is made in one visit. dropout applies to the LoRA path only, one mask for the group; the caller
 * passes p = 0 in evaluation. */
Status layer_linear_group(Tape *tape, Value *x, const Linear *const *linears, int count, const SequenceLayout *layout,
                          Dropout dropout, Value **out);

/* rows of table: out[T,D]. ids [T] I32. */
Status layer_embedding(Tape *tape, const Parameter *table, Tensor ids, Value **out);

/* sum = x + delta (delta NULL: sum is x itself); normed = RMSNorm(sum). */
Status layer_residual_rms_norm(Tape *tape, Value *x, Value *delta, const Parameter *weight, float epsilon, Value **sum,
                               Value **normed);

/* In place on x, seen as [T, heads, head_dimension]. */
Status layer_rope(Tape *tape, Value *x, int64_t head_dimension, Tensor cos_sin);

/* q [T,H*E], k, v [T,G*E] -> out [T,H*E]. layout must stay valid until the backward pass. */
Status layer_attention(Tape *tape, Value *q, Value *k, Value *v, const SequenceLayout *layout, AttentionShape shape, Value **out);

/* silu(gate) * up. */
Status layer_swiglu(Tape *tape, Value *gate, Value *up, Value **out);

/* Sum-type loss at label rows (ops.h, linear_cross_entropy): fills nll[n]; when recording, hidden's gradient is set to that of
 * the objective which the settings describe, and the head's gradient view is added to when it is trainable. */
Status layer_linear_cross_entropy(Tape *tape, Value *hidden, const Parameter *head, Tensor rows, Tensor labels,
                                  const CrossEntropySettings *settings, Tensor nll);

/* log_p[m] of single tokens at rows (ops.h, token_log_probabilities). Not recorded: what depends on them comes back through the
 * pairs of layer_linear_cross_entropy. */
Status layer_token_log_probabilities(Tape *tape, const Value *hidden, const Parameter *head, Tensor rows, TokenPairs pairs,
                                     Tensor log_p);

#endif
