#include "trainer/objectives/head_loss.h"

/* Device memory of the terms, in one piece whose size depends on the number of label rows only, so that a plan knows it. */
typedef struct TermTensors {
    void *memory;
    Tensor row_weight;
    TokenPairs pairs;
    Tensor log_p, derivative;
} TermTensors;

static Tensor part(char **next, DType dtype, int64_t room, int64_t count) {
    Tensor tensor = tensor_1d(*next, dtype, count);
    *next += (size_t)room * dtype_bytes(dtype);
    return tensor;
}

static Status take_tensors(const HeadLoss *loss, Arena *arena, int64_t rows, TermTensors *out) {
    const int64_t room = rows * loss_pairs_per_row(loss->terms), pairs = loss->answers ? loss->answers->pairs : room;
    char *next;
    TRY(arena_allocate(arena, (size_t)(2 * rows + 1 + 3 * room) * sizeof(float), ARENA_HIGH, &out->memory));
    next = out->memory;
    out->row_weight = part(&next, DTYPE_F32, rows, rows);
    out->pairs.offsets = part(&next, DTYPE_I32, rows + 1, rows + 1);
    out->pairs.tokens = part(&next, DTYPE_I32, room, pairs);
    out->log_p = part(&next, DTYPE_F32, room, pairs);
    out->derivative = part(&next, DTYPE_F32, room, pairs);
    return STATUS_OK;
}

/* The pairs' log-probabilities to the host, their derivatives back. */
static Status token_terms(const HeadLoss *loss, Tape *tape, const Value *hidden, const Parameter *head, Tensor rows,
                          const TermTensors *t) {
    AnswerBatch *answers = loss->answers;
    Device *device = tape_device(tape);
    if (answers) TRY(device_upload(device, t->pairs.offsets.data, answers->offsets, tensor_bytes(t->pairs.offsets)));
    if (answers) TRY(device_upload(device, t->pairs.tokens.data, answers->tokens, tensor_bytes(t->pairs.tokens)));
    TRY(layer_token_log_probabilities(tape, hidden, head, rows, t->pairs, t->log_p));
    if (!answers) return STATUS_OK;
    TRY(device_download(device, answers->log_p, t->log_p.data, tensor_bytes(t->log_p)));
    answer_batch_terms(answers, loss->samples);
    return device_upload(device, t->derivative.data, answers->derivative, tensor_bytes(t->derivative));
}

static Status with_terms(const HeadLoss *loss, Tape *tape, Value *hidden, const Parameter *head, DeviceBatch *batch,
                         CrossEntropySettings settings, const TermTensors *t) {
    const AnswerBatch *answers = loss->answers;
    if (loss->terms->entity_weight > 0) {
        settings.row_weight = t->row_weight;
        if (answers) TRY(device_upload(tape_device(tape), t->row_weight.data, answers->row_weight, tensor_bytes(t->row_weight)));
    }
    if (tensor_elements(t->pairs.tokens) > 0) {
        TRY(token_terms(loss, tape, hidden, head, batch->rows, t));
        settings.pairs = t->pairs;
        settings.pair_log_probability = t->log_p;
        settings.pair_derivative = t->derivative;
    }
    return layer_linear_cross_entropy(tape, hidden, head, batch->rows, batch->labels, &settings, batch->nll);
}

Status head_loss(const HeadLoss *loss, Tape *tape, Value *hidden, const Parameter *head, DeviceBatch *batch) {
    CrossEntropySettings settings = {.label_smoothing = loss->label_smoothing, .scale = loss->scale};
    TermTensors tensors;
    if (!loss->terms) return layer_linear_cross_entropy(tape, hidden, head, batch->rows, batch->labels, &settings, batch->nll);
    TRY(take_tensors(loss, tape_arena(tape), batch->rows.shape[0], &tensors));
    Status status = with_terms(loss, tape, hidden, head, batch, settings, &tensors);
    arena_release(tape_arena(tape), tensors.memory);
    return status;
}
