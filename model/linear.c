/* The linear group of layers.h: by far most of a training step. For Y = X W^T + s P B^T with P = dropout(X) A^T and W
 * frozen, the backward pass forms no weight gradient: Q = s dY B, dA = Q^T dropout(X), dB = s dY^T P,
 * dX = dY W + mask(Q A). dropout(X) is made again from its counter instead of being kept. */
#include "model/layers.h"

#include <string.h>

typedef struct GroupState {
    const Linear *linears[LINEAR_GROUP_MAX];
    Value *low_rank[LINEAR_GROUP_MAX]; /* P_i [T,R_i]; NULL without LoRA */
    const SequenceLayout *layout;
    Dropout dropout;
    int count;
    bool reads_input; /* weight gradients read the input again */
} GroupState;

static bool has_trainable(const Linear *linear) {
    return linear->weight->trainable || (linear->bias && linear->bias->trainable) ||
           (linear->lora.a && linear->lora.a->trainable);
}

/* The input of the LoRA path: x itself, or a dropped copy in scratch (*owned, to be released by the caller). */
static Status lora_input(Tape *tape, Tensor x, const SequenceLayout *layout, Dropout dropout, Tensor *out, void **owned) {
    *out = x;
    *owned = NULL;
    if (dropout.p == 0) return STATUS_OK;
    TRY(arena_allocate(tape_arena(tape), tensor_bytes(x), ARENA_HIGH, owned));
    out->data = *owned;
    return tape_ops(tape)->dropout(tape_device(tape), *out, false, x, layout, dropout);
}

static Status forward_one(Tape *tape, Tensor x, Tensor dropped, const Linear *linear, bool needs_gradient, Value **low_rank,
                          Value **out) {
    const Ops *ops = tape_ops(tape);
    Device *device = tape_device(tape);
    Arena *arena = tape_arena(tape);
    TRY(tape_value(tape, x.dtype, 2, (int64_t[]){x.shape[0], linear->weight->shape[0]}, needs_gradient, out));
    Tensor bias = linear->bias ? linear->bias->value : tensor_absent();
    TRY(ops->matmul(device, arena, (*out)->data, x, false, linear->weight->value, true, bias, 1.0f, 0.0f));
    *low_rank = NULL;
    if (!linear->lora.a) return STATUS_OK;
    const Lora *lora = &linear->lora;
    TRY(tape_value(tape, x.dtype, 2, (int64_t[]){x.shape[0], lora->a->shape[0]}, false, low_rank));
    TRY(ops->matmul(device, arena, (*low_rank)->data, dropped, false, lora->a->value, true, tensor_absent(), 1.0f, 0.0f));
    return ops->matmul(device, arena, (*out)->data, (*low_rank)->data, false, lora->b->value, true, tensor_absent(), lora->scale,
                       1.0f);
}

/* dW, db of a linear that is trained in full. */
static Status base_gradients(Tape *tape, const Linear *linear, Tensor x, Tensor dy) {
    const Ops *ops = tape_ops(tape);
    if (linear->weight->trainable)
        TRY(ops->matmul(tape_device(tape), tape_arena(tape), linear->weight->gradient, dy, true, x, false, tensor_absent(), 1.0f,
                        1.0f));
    if (linear->bias && linear->bias->trainable)
        TRY(ops->column_sum(tape_device(tape), tape_arena(tape), linear->bias->gradient, dy));
    return STATUS_OK;
}

/* dA, dB, and the LoRA part of the input's gradient, added to dx when it is wanted (dx.data not NULL). */
static Status lora_gradients(Tape *tape, const Lora *lora, Tensor low_rank, Tensor dropped, Tensor dy, Tensor dx,
                             bool accumulate) {
    const Ops *ops = tape_ops(tape);
    Device *device = tape_device(tape);
    Arena *arena = tape_arena(tape);
    Tensor q = low_rank;
    TRY(arena_allocate(arena, tensor_bytes(q), ARENA_HIGH, &q.data));
    Status status = ops->matmul(device, arena, q, dy, false, lora->b->value, false, tensor_absent(), lora->scale, 0.0f);
    if (!status && lora->a->trainable)
        status = ops->matmul(device, arena, lora->a->gradient, q, true, dropped, false, tensor_absent(), 1.0f, 1.0f);
    if (!status && lora->b->trainable)
        status = ops->matmul(device, arena, lora->b->gradient, dy, true, low_rank, false, tensor_absent(), lora->scale, 1.0f);
    if (!status && dx.data)
        status = ops->matmul(device, arena, dx, q, false, lora->a->value, false, tensor_absent(), 1.0f, accumulate ? 1.0f : 0.0f);
    arena_release(arena, q.data);
    return status;
}

/* One linear's share of the backward pass. dx is absent when the input needs no gradient. With dropout the LoRA parts of
 * all linears are summed in masked[T,K], since they share one mask, which is applied once behind the loop. */
static Status backward_one(Tape *tape, const GroupState *state, int i, Value *x, Value *y, Tensor dropped, Tensor dx,
                           bool *accumulate, Tensor masked, bool *masked_written) {
    const Linear *linear = state->linears[i];
    if (!y->gradient) return STATUS_OK;
    Tensor dy = y->gradient->tensor;
    TRY(base_gradients(tape, linear, x->data, dy));
    if (dx.data) {
        TRY(tape_ops(tape)->matmul(tape_device(tape), tape_arena(tape), dx, dy, false, linear->weight->value, false,
                                   tensor_absent(), 1.0f, *accumulate ? 1.0f : 0.0f));
        *accumulate = true;
    }
    if (!linear->lora.a) return STATUS_OK;
    Tensor target = masked.data ? masked : dx;
    TRY(lora_gradients(tape, &linear->lora, state->low_rank[i]->data, dropped, dy, target,
                       masked.data ? *masked_written : *accumulate));
    if (masked.data) *masked_written = true;
    return STATUS_OK;
}

static bool group_has_lora(const GroupState *state) {
    for (int i = 0; i < state->count; ++i)
        if (state->linears[i]->lora.a) return true;
    return false;
}

static Status linear_group_backward(Tape *tape, Node *node) {
    const GroupState *state = node->state;
    Value *x = node->inputs[0];
    void *owned = NULL;
    bool accumulate = false, masked_written = false;
    Status status = STATUS_OK;
    if (state->reads_input) TRY(tape_require(tape, x));
    Tensor dx = tensor_absent(), masked = tensor_absent(), dropped = x->data;
    if (state->reads_input && group_has_lora(state))
        TRY(lora_input(tape, x->data, state->layout, state->dropout, &dropped, &owned));
    if (x->needs_gradient) TRY_GOTO(tape_gradient(tape, x, &dx, &accumulate), done);
    if (state->dropout.p > 0 && group_has_lora(state) && dx.data) {
        masked = dx;
        masked.data = NULL;
        TRY_GOTO(arena_allocate(tape_arena(tape), tensor_bytes(masked), ARENA_HIGH, &masked.data), done);
    }
    for (int i = 0; i < state->count; ++i)
        TRY_GOTO(backward_one(tape, state, i, x, node->outputs[i], dropped, dx, &accumulate, masked, &masked_written), done);
    if (masked_written) status = tape_ops(tape)->dropout(tape_device(tape), dx, true, masked, state->layout, state->dropout);
done:
    arena_release(tape_arena(tape), masked.data);
    arena_release(tape_arena(tape), owned);
    return status;
}

Status layer_linear_group(Tape *tape, Value *x, const Linear *const *linears, int count, const SequenceLayout *layout,
                          Dropout dropout, Value **out) {
    GroupState group = {.layout = layout, .dropout = dropout, .count = count};
    bool any_trainable = false;
    for (int i = 0; i < count; ++i) {
        group.linears[i] = linears[i];
        any_trainable |= has_trainable(linears[i]);
    }
    group.reads_input = any_trainable;
    bool needs = x->needs_gradient || any_trainable;
    Tensor dropped = x->data;
    void *owned = NULL;
    if (group_has_lora(&group)) TRY(lora_input(tape, x->data, layout, dropout, &dropped, &owned));
    Status status = STATUS_OK;
    for (int i = 0; i < count && !status; ++i)
        status = forward_one(tape, x->data, dropped, linears[i], needs, &group.low_rank[i], &out[i]);
    arena_release(tape_arena(tape), owned);
    TRY(status);
    Node node = {.backward = linear_group_backward, .inputs = {x}, .input_count = 1, .output_count = count};
    Value *save[LINEAR_GROUP_MAX + 1];
    int save_count = 0;
    if (any_trainable) save[save_count++] = x; /* the input is read again only for weight gradients */
    for (int i = 0; i < count; ++i) {
        node.outputs[i] = out[i];
        if (group.low_rank[i]) save[save_count++] = group.low_rank[i];
    }
    TRY(tape_host_allocate(tape, sizeof group, &node.state));
    memcpy(node.state, &group, sizeof group);
    TRY(tape_record(tape, node, save, save_count));
    for (int i = 0; i < count; ++i) tape_done(tape, group.low_rank[i]);
    return STATUS_OK;
}
