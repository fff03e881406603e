/* One training step, readable from top to bottom: train_step. Around it: evaluation, checkpoints, the guard. */
#include "trainer/loop.h"

#include "dist/gradient_reduction.h"
#include "io/file.h"
#include "io/log.h"
#include "trainer/batch_stream.h"
#include "trainer/clock.h"
#include "trainer/evaluation.h"
#include "trainer/matmul_table.h"
#include "trainer/optimizer.h"
#include "trainer/performance.h"
#include "trainer/prediction.h"
#include "trainer/progress.h"
#include "trainer/ranks.h"
#include "trainer/training_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Steps in a row without a finite gradient after which the run is given up. */
#define MAX_CONSECUTIVE_SKIPS 5

typedef struct Loop {
    Session *session;
    TrainingData *data;
    const Plan *plan;
    const Objective *objective;
    GradientReduction *reduction;
    Optimizer *optimizer;
    BatchStream *stream;
    Progress *progress;
    Predictor *predictor; /* NULL: evaluations do not generate */
    TrainingState state;
    int64_t saved_step; /* of the newest checkpoint of this process; -1 none */
} Loop;

/* One that the device works on, or whose loss is still to be read. */
typedef struct IssuedBatch {
    PackedBatch packed;
    AnswerBatch answers;
    ObjectiveInput input;
} IssuedBatch;

static void free_issued(IssuedBatch *micro) {
    packed_batch_free(&micro->packed);
    answer_batch_free(&micro->answers);
}

/* What a step sums over micro-batches and ranks beside the gradient; the parts only where the loss has more than one. */
enum { SUM_LOSS, SUM_CROSS_ENTROPY, SUM_LENGTH, SUM_COVERAGE, STEP_SUMS };

/* Forward, backward, into the sums: all of it issued, nothing waited for. */
static Status issue_micro_batch(Loop *loop, const StepBatch *batch, IssuedBatch *micro, double *data_seconds) {
    Session *session = loop->session;
    micro->input = (ObjectiveInput){.batch = &micro->packed,
                                    .step = batch->step,
                                    .training = true,
                                    .recompute = session->recompute,
                                    .label_tokens = batch->label_tokens,
                                    .samples = batch->samples};
    TRY(batch_stream_take(loop->stream, &micro->packed, &micro->input.ready, data_seconds));
    if (loop->data->terms) {
        TRY(answer_batch_build(loop->data->terms, &micro->packed, &micro->answers));
        micro->input.answers = &micro->answers;
    }
    TRY(device_batch_use(micro->input.ready));
    TRY(loop->objective->forward(session, &micro->input, NULL));
    TRY(tape_backward(session->tape));
    TRY(device_batch_done(micro->input.ready));
    return gradient_reduction_add(loop->reduction, NULL);
}

static Status read_loss(Loop *loop, IssuedBatch *micro) {
    double loss;
    TRY(loop->objective->loss(loop->session, &micro->input, &loss));
    const LossParts *parts = &micro->answers.parts;
    gradient_reduction_add_scalars(loop->reduction,
                                   (double[STEP_SUMS]){loss, parts->cross_entropy, parts->length, parts->coverage});
    free_issued(micro);
    return STATUS_OK;
}

/* A loss is read when the next micro-batch has been issued: the device always has work while the host waits. */
static Status run_micro_batches(Loop *loop, const StepBatch *batch, double *data_seconds) {
    IssuedBatch pair[2] = {0};
    Status status = STATUS_OK;
    for (int64_t i = 0; i < batch->micro_batches && !status; ++i) {
        status = issue_micro_batch(loop, batch, &pair[i % 2], data_seconds);
        if (!status && i > 0) status = read_loss(loop, &pair[(i - 1) % 2]);
    }
    if (!status && batch->micro_batches > 0) status = read_loss(loop, &pair[(batch->micro_batches - 1) % 2]);
    if (!status) status = device_synchronize(loop->session->device); /* what went wrong there is known before ranks agree */
    for (int i = 0; i < 2; ++i) free_issued(&pair[i]);
    return status;
}

static Status clear_gradient(const Parameters *parameters) {
    return device_fill_zero(parameters->device, parameters->gradient.data, tensor_bytes(parameters->gradient));
}

/* Applies update updates + 1, or skips it on all ranks alike when the gradient is not finite. */
static Status apply_update(Loop *loop, bool finite, StepReport *report) {
    TrainingState *state = &loop->state;
    const TrainingOptions *training = &loop->session->options->training;
    double factor = schedule_factor(&loop->plan->schedule, state->updates);
    report->skipped = !finite;
    report->grad_norm = NAN;
    if (finite) {
        TRY(optimizer_grad_norm(loop->optimizer, &report->grad_norm));
        TRY(optimizer_step(loop->optimizer, state->updates + 1, factor, report->grad_norm));
        ++state->updates;
        state->consecutive_skips = 0;
    } else {
        ++state->consecutive_skips;
    }
    report->learning_rate = training->learning_rate * schedule_factor(&loop->plan->schedule, state->updates);
    return clear_gradient(loop->session->parameters);
}

/* One global batch: micro-batches, reduction, update. */
static Status train_step(Loop *loop, StepBatch *batch, StepReport *report) {
    TrainingState *state = &loop->state;
    bool finite;
    double start = clock_seconds(), sums[STEP_SUMS] = {0};
    *report = (StepReport){.batch = batch};
    TRY(batch_stream_next(loop->stream, batch));
    Status status = run_micro_batches(loop, batch, &report->data_seconds);
    double reduce = clock_seconds();
    /* A rank that failed must not leave the others waiting, nor wait until they have computed what is in vain. */
    TRY(communicator_agree_within(loop->session->communicator, status, FAILED_RANK_SECONDS));
    TRY(gradient_reduction_finish(loop->reduction, sums, &finite));
    report->loss = sums[SUM_LOSS];
    report->parts = (LossParts){sums[SUM_CROSS_ENTROPY], sums[SUM_LENGTH], sums[SUM_COVERAGE]};
    report->comm_seconds = clock_seconds() - reduce;
    TRY(apply_update(loop, finite, report));
    ++state->step;
    state->epoch_cursor = batch->cursor;
    state->epoch = (double)state->step / (double)loop->plan->steps_per_epoch;
    report->step_seconds = clock_seconds() - start;
    return STATUS_OK;
}

static Status step_and_report(Loop *loop) {
    TrainingState *state = &loop->state;
    StepBatch batch;
    StepReport report;
    TRY(train_step(loop, &batch, &report));
    TRY(progress_step(loop->progress, state, &report));
    if (!report.skipped) return STATUS_OK;
    log_info("step %lld: the gradient is not finite; update skipped (%lld in a row)", (long long)state->step,
             (long long)state->consecutive_skips);
    return progress_event(loop->progress, state, "skipped", "non-finite gradient");
}

static Status save(Loop *loop, bool best) {
    if (loop->saved_step == loop->state.step && !best) return STATUS_OK;
    TRY(training_state_save(loop->session, &loop->state, best));
    loop->saved_step = loop->state.step;
    return STATUS_OK;
}

static bool out_of_patience(const Loop *loop) {
    int64_t limit = loop->session->options->training.early_stopping_patience;
    return limit > 0 && loop->state.patience >= limit;
}

/* Of the loss less is better, of every metric more. */
static bool is_best(const Loop *loop, const EvaluationResult *result, const Predictions *predictions, double *value) {
    double before = loop->state.best_metric;
    int metric = loop->predictor ? evaluation_best_metric(loop->session->options, predictor_metrics(loop->predictor)) : -1;
    *value = metric < 0 ? result->loss : predictions->means[metric];
    return isfinite(*value) && (isnan(before) || (metric < 0 ? *value < before : *value > before));
}

/* Keeps the best checkpoint, counts patience. *stop: early stopping. */
static Status take_evaluation(Loop *loop, const EvaluationResult *result, const Predictions *predictions, bool *stop) {
    TrainingState *state = &loop->state;
    const char *name = loop->session->options->training.metric_for_best_model;
    char message[64];
    double value;
    bool best = is_best(loop, result, predictions, &value);
    if (best) {
        state->best_metric = value;
        state->best_step = state->step;
        state->patience = 0;
    } else {
        ++state->patience;
    }
    TRY(progress_evaluation(loop->progress, state, result, best, loop->predictor, predictions));
    if (best) TRY(save(loop, true));
    *stop = out_of_patience(loop);
    if (*stop) {
        log_info("stopping early: %lld evaluations without a better %s than %.4f at step %lld", (long long)state->patience, name,
                 state->best_metric, (long long)state->best_step);
        snprintf(message, sizeof message, "no better %s", name);
        TRY(progress_event(loop->progress, state, "early_stopping", message));
    }
    return STATUS_OK;
}

static Status evaluate(Loop *loop, bool *stop) {
    EvaluationResult result;
    Predictions predictions = {.count = 0};
    TRY(evaluate_loss(loop->session, loop->objective, loop->data->validation, loop->session->options->evaluation.max_samples,
                      &result));
    if (loop->predictor) TRY(predictor_run(loop->predictor, "predictions", &predictions));
    Status status = take_evaluation(loop, &result, &predictions, stop);
    predictions_free(&predictions);
    return status;
}

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

static Status run_steps(Loop *loop) {
    TrainingState *state = &loop->state;
    const TrainingOptions *training = &loop->session->options->training;
    matmul_table_watch(loop->session, true);
    bool stop = out_of_patience(loop); /* a run that stopped early stays stopped when it is started again */
    while (state->step < loop->plan->total_steps && !stop) {
        TRY(step_and_report(loop));
        if (state->consecutive_skips >= MAX_CONSECUTIVE_SKIPS)
            return status_mark_shared(status_new(STATUS_DIVERGED, __FILE__, __LINE__,
                                                 "training diverged: %d steps in a row without a finite gradient, the last at "
                                                 "step %lld; lower training.learning_rate and start again from the last "
                                                 "checkpoint",
                                                 MAX_CONSECUTIVE_SKIPS, (long long)state->step));
        bool last = state->step == loop->plan->total_steps;
        if (loop->data->validation && (due(state->step, training->eval_steps) || (last && training->eval_steps > 0)))
            TRY(evaluate(loop, &stop));
        bool good = state->consecutive_skips == 0; /* else the weights are on their way to divergence: keep the last good file */
        if (last || stop || (good && due(state->step, training->save_steps))) TRY(save(loop, false));
    }
    return STATUS_OK;
}

/* The largest micro-batch that can come, forward and backward, before the first step: what does not fit, or a kernel that
 * fails, shows now and not in the night. Leaves nothing behind. On a CPU memory is not taken by plan, and the time is saved. */
static Status rehearse(Loop *loop) {
    Session *session = loop->session;
    PackedBatch packed;
    AnswerBatch answers = {0};
    double loss;
    if (device_is_host(session->device) || session->worst.sequences == 0) return STATUS_OK;
    TRY(plan_fill_worst_batch(session->worst, &packed));
    ObjectiveInput input = {.batch = &packed,
                            .training = true,
                            .recompute = session->recompute,
                            .label_tokens = packed.label_count,
                            .samples = packed.sequences,
                            .answers = loop->data->terms ? &answers : NULL};
    Status status = loop->data->terms ? answer_batch_build(loop->data->terms, &packed, &answers) : STATUS_OK;
    if (!status) status = loop->objective->forward(session, &input, &loss);
    if (!status) status = tape_backward(session->tape);
    if (!status) status = clear_gradient(session->parameters);
    if (!status) status = device_synchronize(session->device);
    status = status_prefix(status, "the largest micro-batch, %lld tokens in sequences of at most %lld", (long long)packed.tokens,
                           (long long)packed.longest);
    packed_batch_free(&packed);
    answer_batch_free(&answers);
    return status;
}

/* Memory for the largest micro-batch at once. */
static LoaderTarget loader_target(const Session *session) {
    const TrainingOptions *training = &session->options->training;
    int64_t tokens = session->worst.sequences * session->worst.longest + session->worst.rest;
    return (LoaderTarget){
        .device = session->device, .tokens = tokens, .sequences = training->per_device_train_batch_size, .labels = tokens};
}

/* What every step needs, from loop->state on. */
static Status open_steps(Loop *loop) {
    Session *session = loop->session;
    const Options *options = session->options;
    ReductionKind kind = strcmp(options->training.reduction, "exact") == 0 ? REDUCTION_EXACT : REDUCTION_FLOAT;
    loop->objective = objective_by_name(options->training.objective);
    ReductionRoute route = {.control = session->communicator, .device = session->device_communicator};
    TRY(gradient_reduction_create(session->device, route, kind, session->parameters->gradient, loop->data->terms ? STEP_SUMS : 1,
                                  &loop->reduction));
    TRY(optimizer_create(options, session->parameters, session->arena, &loop->optimizer));
    SamplerSettings settings = {.seed = (uint64_t)options->run.seed,
                                .shuffle = options->data.shuffle,
                                .samples = loop->data->view.mixture.samples,
                                .global_batch = loop->plan->global_batch_size,
                                .micro_batch_samples = options->training.per_device_train_batch_size,
                                .max_tokens = options->training.max_tokens_per_micro_batch,
                                .world = session->communicator->world,
                                .length = data_view_length,
                                .context = &loop->data->view};
    TRY(batch_stream_create(loop->data->train, &loop->data->view, &settings, loader_target(session), session->communicator->rank,
                            loop->state.step, loop->plan->total_steps, &loop->stream));
    return rehearse(loop);
}

/* The checkpoint carries the losses since the last log line; what those steps held is counted again. */
static Status restore_window(Loop *loop) {
    int64_t step = loop->state.step, open = step % loop->session->options->training.logging_steps;
    StepBatch earlier;
    if (!loop->state.loss_count) return STATUS_OK; /* a line was written at this step */
    TRY(batch_stream_counts(loop->stream, step - open, step, &earlier));
    progress_restore(loop->progress, &earlier);
    return STATUS_OK;
}

/* The effective configuration beside the run's other files; only when it is this run's: not before the checkpoint fits it. */
static Status write_config(const Options *options) {
    Text text = {0};
    char *path = NULL;
    Status status = options_text(options, &text);
    if (!status) status = path_join(options->run.output_dir, "config.cfg", &path);
    if (!status) status = file_write_atomic(path, text.data, text.length);
    free(path);
    text_free(&text);
    return status;
}

static Status open_run(Loop *loop, const char *resume) {
    Session *session = loop->session;
    bool found = false;
    double rate = 0;
    if (session->options->training.predict_with_generate) TRY(predictor_open(session, &loop->predictor));
    TRY(training_state_resume(session, resume, &loop->state, &found));
    loop->saved_step = found && strcmp(resume, "auto") == 0 ? loop->state.step : -1;
    if (found) log_info("continuing from step %lld", (long long)loop->state.step);
    TRY(open_steps(loop));
    TRY(performance_matrix_rate(session->device, session->arena, session->parameters->dtype, &rate));
    if (session->communicator->rank == 0) TRY(write_config(session->options));
    if (session->communicator->rank == 0) TRY(matmul_table_keep(session));
    TRY(progress_open(session, loop->plan, found ? loop->state.step : -1, rate, &loop->progress));
    return restore_window(loop);
}

static void close_loop(Loop *loop) {
    progress_close(loop->progress);
    predictor_close(loop->predictor);
    status_free(device_synchronize(loop->session->device)); /* of a device that is lost nothing is awaited */
    batch_stream_destroy(loop->stream);
    optimizer_destroy(loop->optimizer);
    gradient_reduction_destroy(loop->reduction);
}

static Status report_memory(const Session *session) {
    int64_t peak;
    TRY(session_device_peak(session, &peak));
    if (peak > 0)
        log_info("device memory: %.3f GB at most, planned %.3f GB", (double)peak / 1e9, (double)session->plan.total / 1e9);
    return STATUS_OK;
}

/* final.h5: the checkpoint to export. */
static Status finish(Loop *loop) {
    const Options *options = loop->session->options;
    bool best = options->training.load_best_model_at_end && loop->state.best_step >= 0;
    int64_t step = best ? loop->state.best_step : loop->state.step;
    Status status = loop->session->communicator->rank == 0 ? training_state_point_final(options, step) : STATUS_OK;
    TRY(communicator_agree(loop->session->communicator, status));
    TRY(report_memory(loop->session));
    log_info("done after %lld steps; final.h5 is step %lld%s%s%s", (long long)loop->state.step, (long long)step,
             best ? " (best " : "", best ? options->training.metric_for_best_model : "", best ? ")" : "");
    return STATUS_OK;
}

Status train_run(Session *session, TrainingData *data, const Plan *plan, const char *resume) {
    Loop loop = {.session = session, .data = data, .plan = plan, .state = training_state_new()};
    Status status = communicator_agree(session->communicator, session_explain_memory(session, open_run(&loop, resume)));
    if (!status) status = run_steps(&loop);
    if (!status) status = finish(&loop);
    close_loop(&loop);
    return status;
}

static Status bench_steps(Loop *loop, int64_t steps, BenchResult *out) {
    StepBatch batch;
    StepReport report;
    matmul_table_watch(loop->session, true);
    for (int64_t i = 0; i < steps; ++i) {
        TRY(train_step(loop, &batch, &report));
        out->step_seconds[i] = report.step_seconds;
        if (i == 0) out->first_loss = report.loss;
        out->last_loss = report.loss;
        out->tokens += batch.tokens;
        out->squared_lengths += batch.squared_lengths;
    }
    out->arena_peak = (int64_t)arena_peak(loop->session->arena);
    out->recompute = loop->session->recompute;
    return session_device_peak(loop->session, &out->device_peak);
}

Status train_bench(Session *session, TrainingData *data, const Plan *plan, int64_t steps, BenchResult *out) {
    Loop loop = {.session = session, .data = data, .plan = plan, .state = training_state_new()};
    Status status = communicator_agree(session->communicator, session_explain_memory(session, open_steps(&loop)));
    if (!status) status = bench_steps(&loop, steps, out);
    matmul_table_watch(session, false);
    close_loop(&loop);
    return status;
}
