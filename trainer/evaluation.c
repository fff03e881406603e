#include "trainer/evaluation.h"

#include "dist/gradient_reduction.h"
#include "io/fault.h"
#include "trainer/batch_stream.h"
#include "trainer/clock.h"
#include "trainer/ranks.h"
#include "trainer/stop.h"
#include "trainer/watchdog.h"

#include <math.h>
#include <stdlib.h>

static Status run_micro_batches(Session *session, const Objective *objective, BatchStream *stream, const StepBatch *batch,
                                GradientReduction *sums, int64_t *label_counts) {
    double waited = 0;
    for (int64_t i = 0; i < batch->micro_batches; ++i) {
        PackedBatch packed;
        DeviceBatch *ready; /* none: an evaluation shares the session's batch, and takes no memory of its own */
        double loss = 0;
        watchdog_beat(session->watchdog);
        fault_point("evaluation");
        TRY(stop_check("in an evaluation"));
        TRY(batch_stream_take(stream, &packed, &ready, &waited));
        ObjectiveInput input = {.batch = &packed, .label_tokens = batch->label_tokens, .samples = batch->samples};
        Status status = objective->forward(session, &input, &loss);
        for (int64_t k = 0; k < packed.label_count; ++k) ++label_counts[packed.label_ids[k]];
        packed_batch_free(&packed);
        if (!status) status = gradient_reduction_add(sums, &loss);
        TRY(status);
    }
    return STATUS_OK;
}

/* Collective. Entropy in nats of the label frequencies over all ranks. */
static Status unigram_loss(Communicator *communicator, int64_t *counts, int64_t vocabulary, int64_t total, double *out) {
    TRY(communicator->ops->sum_i64(communicator, counts, vocabulary));
    *out = 0;
    for (int64_t v = 0; v < vocabulary; ++v)
        if (counts[v] > 0) *out -= (double)counts[v] / (double)total * log((double)counts[v] / (double)total);
    return STATUS_OK;
}

/* The whole data set is one global batch of the sampler, in order. */
static Status evaluate_view(Session *session, const Objective *objective, TokenDataset *dataset, DataView *view,
                            GradientReduction *sums, EvaluationResult *out) {
    const TrainingOptions *training = &session->options->training;
    SamplerSettings settings = {.samples = view->mixture.samples,
                                .global_batch = view->mixture.samples,
                                .micro_batch_samples = training->per_device_train_batch_size,
                                .max_tokens = training->max_tokens_per_micro_batch,
                                .world = session->communicator->world,
                                .length = data_view_length,
                                .context = view};
    BatchStream *stream = NULL;
    StepBatch batch;
    bool finite;
    int64_t vocabulary = session->config.vocab_size, *counts = calloc((size_t)vocabulary, sizeof *counts);
    Status status = counts ? STATUS_OK : FAILURE("out of memory: label counts");
    if (!status)
        status = batch_stream_create(dataset, view, &settings, (LoaderTarget){0}, session->communicator->rank, 0, 1, &stream);
    if (!status) status = batch_stream_next(stream, &batch);
    if (!status) status = run_micro_batches(session, objective, stream, &batch, sums, counts);
    batch_stream_destroy(stream);
    status = communicator_agree_within(session->communicator, status, FAILED_RANK_SECONDS);
    if (!status) status = unigram_loss(session->communicator, counts, vocabulary, batch.label_tokens, &out->unigram_loss);
    free(counts);
    TRY(status);
    TRY(gradient_reduction_finish(sums, &out->loss, &finite));
    if (!finite) out->loss = NAN;
    out->perplexity = exp(out->loss);
    out->samples = batch.samples;
    out->tokens = batch.tokens;
    out->label_tokens = batch.label_tokens;
    return STATUS_OK;
}

Status evaluate_loss(Session *session, const Objective *objective, TokenDataset *dataset, int64_t max_samples,
                     EvaluationResult *out) {
    double start = clock_seconds();
    int64_t samples = token_dataset_samples(dataset);
    *out = (EvaluationResult){0};
    if (samples == 0) INVALID("data.validation: no sample is left to evaluate on");
    if (max_samples > 0 && max_samples < samples) samples = max_samples;
    DataView view = {.dataset = dataset};
    GradientReduction *sums = NULL;
    double weight = 1.0;
    TRY(data_mixture_create(&samples, &weight, 1, 0, &view.mixture));
    ReductionRoute route = {.control = session->communicator}; /* of the loss alone: no gradient */
    Status status = gradient_reduction_create(session->device, route, REDUCTION_EXACT, tensor_1d(NULL, DTYPE_F32, 0), 1, &sums);
    if (!status) status = evaluate_view(session, objective, dataset, &view, sums, out);
    gradient_reduction_destroy(sums);
    data_mixture_free(&view.mixture);
    out->seconds = clock_seconds() - start;
    return status;
}
