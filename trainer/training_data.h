/* The data sets of a run, prepared and open. */
#ifndef TRAINER_TRAINING_DATA_H
#define TRAINER_TRAINING_DATA_H

#include "trainer/data.h"
#include "trainer/objectives/answers.h"
#include "trainer/plan.h"

typedef struct TrainingData {
    TokenDataset *train, *validation; /* validation NULL: no evaluation */
    DataView view;                    /* of train */
    LossTerms *terms;                 /* NULL: the loss is cross-entropy alone */
} TrainingData;

/* Collective. Prepares what is missing. Close in any case. options must outlive the data. */
Status training_data_open(const Options *options, Communicator *communicator, TrainingData *out);
/* The largest micro-batch that training and validation can form. */
WorstBatch training_data_worst(const Options *options, const TrainingData *data);
void training_data_close(TrainingData *data);

#endif
