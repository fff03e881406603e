#include "trainer/training_data.h"

#include "trainer/session.h"

#include <stdlib.h>

Status training_data_open(const Options *options, Communicator *communicator, TrainingData *data) {
    *data = (TrainingData){0};
    Tokenizer *tokenizer = NULL;
    char *train = NULL, *validation = NULL;
    Status status = communicator_agree(communicator, session_tokenizer(options, true, &tokenizer));
    if (!status) status = communicator_agree(communicator, loss_terms_create(options, tokenizer, &data->terms));
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

static int64_t longest_sample(const TokenDataset *dataset) {
    int64_t longest = 1;
    for (int64_t i = 0; dataset && i < token_dataset_samples(dataset); ++i)
        if (token_dataset_length(dataset, i) > longest) longest = token_dataset_length(dataset, i);
    return longest;
}

WorstBatch training_data_worst(const Options *options, const TrainingData *data) {
    int64_t train = longest_sample(data->train), validation = longest_sample(data->validation);
    return plan_worst(options, train > validation ? train : validation);
}

void training_data_close(TrainingData *data) {
    loss_terms_destroy(data->terms);
    data_mixture_free(&data->view.mixture);
    token_dataset_close(data->train);
    token_dataset_close(data->validation);
}
