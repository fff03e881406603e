/* The loss at the head of the network: cross-entropy, or cross-entropy with the further terms of the multi-objective loss. */
#ifndef TRAINER_OBJECTIVES_HEAD_LOSS_H
#define TRAINER_OBJECTIVES_HEAD_LOSS_H

#include "model/batch.h"
#include "model/layers.h"
#include "trainer/objectives/answers.h"

typedef struct HeadLoss {
    float label_smoothing, scale; /* of the cross-entropy */
    const LossOptions *terms;     /* NULL: cross-entropy alone */
    AnswerBatch *answers;         /* with terms; NULL on a planning device, which takes the memory and computes nothing */
    int64_t samples;              /* of the whole global batch */
} HeadLoss;

/* Fills batch->nll and, when the tape records, the gradient of hidden and head; with terms also answers->parts.length and
 * coverage. Terms on single tokens cost a second product with the head, and the device waits for the host in between. */
Status head_loss(const HeadLoss *loss, Tape *tape, Value *hidden, const Parameter *head, DeviceBatch *batch);

#endif
