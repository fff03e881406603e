/* The linear group of layers.h: by far most of a training step. For Y_i = X W_i^T + s_i P_i B_i^T with P_i = dropout(X) A_i^T and
 * W frozen, the backward pass forms no weight gradient: Q_i = s_i dY_i B_i, dA_i = Q_i^T dropout(X), dB_i = s_i dY_i^T P_i, dX =
 * sum dY_i W_i + dropout(Q A).
 *
 * The A_i of a group lie side by side (model/lora.h), so P, dA and dropout(Q A) are one op each for all of its adapters, which
 * draws the mask itself. The low-rank part of Y and of dX is written first and the wide product adds to it: a read of Y or dX in
 * the epilogue of a product that the arithmetic bounds is free on a GPU, where a thin product that adds to Y is bounded by
 * reading and writing Y. It also rounds the small part, and then the sum, instead of the large part and then the sum.
 *
 * The other form, W stored as [W | B] and the activation as [x | s P], makes Y, and (dX, dY B), one product each. At 7B shapes,
 * T = 8192 and r = 16 the thin form adds to gate_proj one write of Y (310 MB) forward and one read of dY backward: 0.09 ms each
 * at 3.35 TB/s beside products of 1.6 ms at 700 TFLOP/s, 6 %; the other form costs 0.5 % more arithmetic, 2 to 4 % with whole
 * tiles, but every op that makes an activation must write wider rows, and B must be copied into W after each update. On paper it
 * gains 2 to 4 % of a step; tests/cuda/bench_lora measures both. Until it has, the thin form is used. */
#include "model/layers.h"

#include <string.h>

/* Neighbouring linears of the group whose A lie side by side. */
typedef struct Stack {
    LoraStack ranks;
    int members[LINEAR_GROUP_MAX];
    Tensor a, gradient; /* [R,K] */
    Value *low_rank;    /* P_i, one behind the other: [T R] */
} Stack;

_Static_assert(LINEAR_GROUP_MAX <= LORA_STACK_MAX, "a group fits into a stack");

typedef struct GroupState {
    const Linear *linears[LINEAR_GROUP_MAX];
    Stack stacks[LINEAR_GROUP_MAX];
    const SequenceLayout *layout;
    Dropout dropout;
    int count, stack_count;
    bool reads_input; /* weight gradients read the input again */
} GroupState;

static bool has_trainable(const Linear *linear) {
    return linear->weight->trainable || (linear->bias && linear->bias->trainable) || linear->lora.a;
}

static bool follows(Tensor stacked, Tensor next) { return next.data == (char *)stacked.data + tensor_bytes(stacked); }

static void form_stacks(GroupState *group) {
    for (int i = 0; i < group->count; ++i) {
        const Parameter *a = group->linears[i]->lora.a;
        if (!a) continue;
        Stack *stack = group->stack_count ? &group->stacks[group->stack_count - 1] : NULL;
        if (!stack || !follows(stack->a, a->value) || !follows(stack->gradient, a->gradient)) {
            stack = &group->stacks[group->stack_count++];
            stack->a = a->value;
            stack->gradient = a->gradient;
        } else {
            stack->a.shape[0] += a->shape[0];
            stack->gradient.shape[0] += a->shape[0];
        }
        stack->members[stack->ranks.count] = i;
        stack->ranks.ranks[stack->ranks.count++] = a->shape[0];
    }
}

/* Member i's matrix [T, R_i] of P or Q. */
static Tensor member_of(const Stack *stack, Tensor all, int i) {
    int64_t tokens = all.shape[0] / stack->a.shape[0], begin = 0;
    for (int k = 0; k < i; ++k) begin += stack->ranks.ranks[k];
    return tensor_2d((char *)all.data + tokens * begin * (int64_t)dtype_bytes(all.dtype), all.dtype, tokens,
                     stack->ranks.ranks[i]);
}

static Status down(Tape *tape, Value *x, const GroupState *group, Stack *stack) {
    int64_t elements = x->data.shape[0] * stack->a.shape[0];
    TRY(tape_value(tape, x->data.dtype, 1, &elements, false, &stack->low_rank));
    return tape_ops(tape)->lora_down(tape_device(tape), stack->low_rank->data, x->data, stack->a, stack->ranks, group->layout,
                                     group->dropout);
}

static Status up(Tape *tape, const GroupState *group, const Stack *stack, Value **out) {
    for (int i = 0; i < stack->ranks.count; ++i) {
        const Lora *lora = &group->linears[stack->members[i]]->lora;
        TRY(tape_ops(tape)->matmul(tape_device(tape), tape_arena(tape), out[stack->members[i]]->data,
                                   member_of(stack, stack->low_rank->data, i), false, lora->b->value, true, tensor_absent(),
                                   lora->scale, 0.0f));
    }
    return STATUS_OK;
}

static Status group_forward(Tape *tape, Value *x, GroupState *group, bool needs_gradient, Value **out) {
    for (int i = 0; i < group->stack_count; ++i) TRY(down(tape, x, group, &group->stacks[i]));
    for (int i = 0; i < group->count; ++i)
        TRY(tape_value(tape, x->data.dtype, 2, (int64_t[]){x->data.shape[0], group->linears[i]->weight->shape[0]}, needs_gradient,
                       &out[i]));
    for (int i = 0; i < group->stack_count; ++i) TRY(up(tape, group, &group->stacks[i], out));
    for (int i = 0; i < group->count; ++i) {
        const Linear *linear = group->linears[i];
        TRY(tape_ops(tape)->matmul(tape_device(tape), tape_arena(tape), out[i]->data, x->data, false, linear->weight->value, true,
                                   linear->bias ? linear->bias->value : tensor_absent(), 1.0f, linear->lora.a ? 1.0f : 0.0f));
    }
    return STATUS_OK;
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

/* Q_i and dB_i. A linear whose output got no gradient has a Q of zeros. */
static Status member_gradients(Tape *tape, const Lora *lora, const Value *y, Tensor low_rank, Tensor q) {
    const Ops *ops = tape_ops(tape);
    Device *device = tape_device(tape);
    if (!y->gradient) return device_fill_zero(device, q.data, tensor_bytes(q));
    Tensor dy = y->gradient->tensor;
    TRY(ops->matmul(device, tape_arena(tape), q, dy, false, lora->b->value, false, tensor_absent(), lora->scale, 0.0f));
    return ops->matmul(device, tape_arena(tape), lora->b->gradient, dy, true, low_rank, false, tensor_absent(), lora->scale,
                       1.0f);
}

/* dA, dB, and the low-rank part of the input's gradient, when it is wanted (dx.data not NULL). */
static Status stack_gradients(Tape *tape, const Node *node, const Stack *stack, Tensor dx, bool *accumulate) {
    const GroupState *group = node->state;
    Tensor p = stack->low_rank->data, q = p;
    TRY(arena_allocate(tape_arena(tape), tensor_bytes(q), ARENA_HIGH, &q.data));
    Status status = STATUS_OK;
    bool any = false;
    for (int i = 0; i < stack->ranks.count && !status; ++i) {
        const Value *y = node->outputs[stack->members[i]];
        any |= y->gradient != NULL;
        status =
            member_gradients(tape, &group->linears[stack->members[i]]->lora, y, member_of(stack, p, i), member_of(stack, q, i));
    }
    if (any && !status) {
        status = tape_ops(tape)->lora_down_backward(tape_device(tape), tape_arena(tape), stack->gradient, dx, *accumulate, q,
                                                    node->inputs[0]->data, stack->a, stack->ranks, group->layout, group->dropout);
        *accumulate = true;
    }
    arena_release(tape_arena(tape), q.data);
    return status;
}

static Status linear_group_backward(Tape *tape, Node *node) {
    const GroupState *group = node->state;
    Value *x = node->inputs[0];
    Tensor dx = tensor_absent();
    bool accumulate = false;
    if (group->reads_input) TRY(tape_require(tape, x));
    if (x->needs_gradient) TRY(tape_gradient(tape, x, &dx, &accumulate));
    for (int i = 0; i < group->stack_count; ++i) TRY(stack_gradients(tape, node, &group->stacks[i], dx, &accumulate));
    for (int i = 0; i < group->count; ++i) {
        if (!node->outputs[i]->gradient) continue;
        Tensor dy = node->outputs[i]->gradient->tensor;
        TRY(base_gradients(tape, group->linears[i], x->data, dy));
        if (!dx.data) continue;
        TRY(tape_ops(tape)->matmul(tape_device(tape), tape_arena(tape), dx, dy, false, group->linears[i]->weight->value, false,
                                   tensor_absent(), 1.0f, accumulate ? 1.0f : 0.0f));
        accumulate = true;
    }
    return STATUS_OK;
}

static Status record_group(Tape *tape, Value *x, const GroupState *group, Value **out) {
    Node node = {.backward = linear_group_backward, .inputs = {x}, .input_count = 1, .output_count = group->count};
    Value *save[LINEAR_GROUP_MAX + 1];
    int save_count = 0;
    if (group->reads_input) save[save_count++] = x; /* the input is read again only for weight gradients */
    for (int i = 0; i < group->count; ++i) node.outputs[i] = out[i];
    for (int i = 0; i < group->stack_count; ++i) save[save_count++] = group->stacks[i].low_rank;
    TRY(tape_host_allocate(tape, sizeof *group, &node.state));
    memcpy(node.state, group, sizeof *group);
    TRY(tape_record(tape, node, save, save_count));
    for (int i = 0; i < group->stack_count; ++i) tape_done(tape, group->stacks[i].low_rank);
    return STATUS_OK;
}

Status layer_linear_group(Tape *tape, Value *x, const Linear *const *linears, int count, const SequenceLayout *layout,
                          Dropout dropout, Value **out) {
    GroupState group = {.layout = layout, .dropout = dropout, .count = count};
    for (int i = 0; i < count; ++i) {
        group.linears[i] = linears[i];
        group.reads_input |= has_trainable(linears[i]);
    }
    form_stacks(&group);
    TRY(group_forward(tape, x, &group, x->needs_gradient || group.reads_input, out));
    return record_group(tape, x, &group, out);
}
