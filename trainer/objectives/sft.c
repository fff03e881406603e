#include "trainer/objectives/objective.h"

#include "trainer/objectives/head_loss.h"

#include <string.h>

static DeviceBatch *batch_of(Session *session, const ObjectiveInput *input) {
    return input->ready ? input->ready : &session->batch;
}

static Status read_loss(Session *session, const ObjectiveInput *input, double *loss) {
    DeviceBatch *batch = batch_of(session, input);
    double sum;
    TRY(device_batch_nll_sum(batch, &sum));
    *loss = input->answers ? answer_batch_loss(input->answers, batch->host_nll, input->label_tokens)
                           : sum / (double)input->label_tokens;
    return STATUS_OK;
}

static Status forward(Session *session, const ObjectiveInput *input, double *loss) {
    const Options *options = session->options;
    DeviceBatch *batch = batch_of(session, input);
    if (!input->ready) TRY(device_batch_set(batch, session->device, input->batch));
    TRY(tape_begin(session->tape, input->training, input->recompute));
    void *memory;
    TRY(tape_host_allocate(session->tape, sizeof(DecoderRun), &memory)); /* read again in the backward pass */
    DecoderRun *run = memory;
    run->layout = &batch->layout;
    run->dropout = (Dropout){.p = input->training ? (float)options->lora.lora_dropout : 0.0f,
                             .seed = (uint64_t)options->run.seed,
                             .step = (uint32_t)input->step};
    Value *hidden;
    TRY(decoder_forward(session->decoder, session->tape, run, batch->ids, &hidden));
    HeadLoss settings = {.label_smoothing = input->training ? (float)options->training.label_smoothing_factor : 0.0f,
                         .scale = (float)(1.0 / (double)input->label_tokens),
                         .terms = input->answers ? &options->loss : NULL,
                         .answers = input->answers,
                         .samples = input->samples};
    TRY(head_loss(&settings, session->tape, hidden, session->decoder->head, batch));
    TRY(device_batch_nll_start(batch));
    return loss ? read_loss(session, input, loss) : STATUS_OK;
}

const Objective objective_sft = {"sft", forward, read_loss};

const Objective *objective_by_name(const char *name) {
    static const Objective *const all[] = {&objective_sft, &objective_memory_pretrain, &objective_memory_task};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        if (strcmp(name, all[i]->name) == 0) return all[i];
    return NULL;
}
