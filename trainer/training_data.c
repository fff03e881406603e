#include "trainer/training_data.h"

#include "trainer/session.h"

#include <stdlib.h>

Status training_data_open(const Options *options, Communicator *communicator, TrainingData *data) {
    *data = (TrainingData){0};
    Tokenizer *tokenizer = NULL;
    char *train = NULL, *validation = NULL;
    Status status = communicator_agree(communicator, session_tokenizer(options, true, &tokenizer));
    if (!status) status = data_prepare(options, tokenizer, communicator, false, &train, NULL);
    if (!status && options->data.validation.count)
        status = data_prepare(options, tokenizer, communicator, true, &validation, NULL);
    if (!status) {
        status = token_dataset_open(train, &data->train);
        if (!status) status = data_view_create(options, data->train, &data->view);
        if (!status && validation) status = token_dataset_open(validation, &data->validation);
        status = communicator_agree(communicator, status);
    }
    tokenizer_free(tokenizer);
    free(train);
    free(validation);
    return status;
}

void training_data_close(TrainingData *data) {
    data_mixture_free(&data->view.mixture);
    token_dataset_close(data->train);
    token_dataset_close(data->validation);
}
