/* The objectives of the latent memory: one forward pass, whose terms the configuration chooses. */
#include "trainer/objectives/objective.h"

static Status forward(Session *session, const ObjectiveInput *input, double *loss) {
    DeviceBatch *batch = input->ready ? input->ready : &session->batch;
    MemoryShare own, *share = input->memory ? input->memory : &own;
    MemoryTensors tensors;
    const MemoryLoss terms =
        memory_loss_of(session->options, session->adamem, input->training, input->label_tokens, input->samples);
    if (!input->ready) TRY(device_batch_set(batch, session->device, input->batch));
    TRY(tape_begin(session->tape, input->training, input->recompute));
    TRY(memory_loss_forward(&terms, session->tape, input->batch, batch, &tensors));
    TRY(memory_loss_read(&terms, session->device, batch, &tensors, share));
    if (loss) *loss = share->loss;
    return STATUS_OK;
}

/* The terms' memory belonged to the pass: they were read in it. */
static Status read_loss(Session *session, const ObjectiveInput *input, double *loss) {
    (void)session;
    *loss = input->memory->loss;
    return STATUS_OK;
}

const Objective objective_memory_pretrain = {"memory_pretrain", forward, read_loss};
const Objective objective_memory_task = {"memory_task", forward, read_loss};
