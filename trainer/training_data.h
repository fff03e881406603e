/* The data sets of a run, prepared and open. */
#ifndef TRAINER_TRAINING_DATA_H
#define TRAINER_TRAINING_DATA_H

#include "trainer/data.h"

typedef struct TrainingData {
    TokenDataset *train, *validation; /* validation NULL: no evaluation */
    DataView view;                    /* of train */
} TrainingData;

/* Collective. Prepares what is missing. Close in any case. */
Status training_data_open(const Options *options, Communicator *communicator, TrainingData *out);
void training_data_close(TrainingData *data);

#endif
