#include "tests/parity/rig.h"

#include "io/file.h"
#include "io/log.h"
#include "trainer/directory.h"
#include "trainer/loop.h"
#include "trainer/objectives/objective.h"
#include "trainer/peft.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Called outside of any test, where cmocka's assertions cannot be used. */
static void must(Status status) {
    if (!status) return;
    fprintf(stderr, "cannot start: %s\n", status_message(status));
    exit(1);
}

void world_start(World *world) {
    log_set_level(LOG_ERROR);
    must(ranks_start(&world->ranks));
    strcpy(world->directory, "/tmp/adamem-parity-XXXXXX");
    if (!mkdtemp(world->directory)) must(FAILURE("cannot make %s", world->directory));
}

int world_end(World *world, int failed) {
    directory_remove(world->directory);
    ranks_end(&world->ranks);
    launch_finish(failed != 0, 1);
    return failed;
}

const char *world_path(const World *world, const char *format, ...) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    int length = snprintf(path, sizeof paths[0], "%s/", world->directory);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path + length, sizeof paths[0] - (size_t)length, format, arguments);
    va_end(arguments);
    return path;
}

void rig_open(Rig *rig, World *world, const char *adapter, bool training, const char *format, ...) {
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    assert_in_range(length, 1, sizeof text - 1);
    expect_ok(options_load_text("test", text, &rig->options));
    if (adapter) expect_ok(peft_read_config(adapter, &rig->options));
    expect_ok(session_open(&rig->options, &world->ranks.launch, world->ranks.communicator,
                           (SessionSettings){.training = training}, &rig->session));
}

void rig_close(Rig *rig) {
    session_close(&rig->session);
    options_free(&rig->options);
}

PackedBatch rig_pack(const Samples *samples, Pass pass) {
    int64_t count = pass.count ? pass.count : samples->count - pass.first, start = samples_first_token(samples, pass.first);
    int64_t *ends = malloc((size_t)count * sizeof *ends), *numbers = malloc((size_t)count * sizeof *numbers);
    PackedBatch packed;
    assert_true(ends && numbers);
    for (int64_t i = 0; i < count; ++i) {
        ends[i] = samples->ends[pass.first + i] - start;
        numbers[i] = pass.first + i;
    }
    expect_ok(packed_batch_build(samples->ids + start, samples->labels + start, ends, numbers, count, &packed));
    free(ends);
    free(numbers);
    if (pass.joined) {
        packed.offsets[1] = (int32_t)packed.tokens;
        packed.sequences = 1;
        packed.longest = packed.tokens;
    }
    return packed;
}

static double forward(Rig *rig, const Samples *samples, Pass pass, bool training) {
    double loss;
    PackedBatch packed = rig_pack(samples, pass);
    ObjectiveInput input = {.batch = &packed,
                            .step = pass.step,
                            .training = training,
                            .recompute = pass.recompute,
                            .label_tokens = pass.label_tokens ? pass.label_tokens : samples_label_tokens(samples)};
    expect_ok(objective_sft.forward(&rig->session, &input, &loss));
    packed_batch_free(&packed);
    return loss;
}

double rig_gradients(Rig *rig, const Samples *samples, Pass pass) {
    const Parameters *p = rig->session.parameters;
    if (!pass.keep_gradient) expect_ok(device_fill_zero(p->device, p->gradient.data, tensor_bytes(p->gradient)));
    double loss = forward(rig, samples, pass, true);
    expect_ok(tape_backward(rig->session.tape));
    return loss;
}

double rig_loss(Rig *rig, const Samples *samples, Pass pass) { return forward(rig, samples, pass, false); }

float *rig_logits(Rig *rig, const Samples *samples, Pass pass) {
    Session *s = &rig->session;
    PackedBatch packed = rig_pack(samples, pass);
    Value *hidden, *logits;
    DecoderRun run = {.layout = &s->batch.layout};
    expect_ok(device_batch_set(&s->batch, s->device, &packed));
    expect_ok(tape_begin(s->tape, false, false));
    expect_ok(decoder_forward(s->decoder, s->tape, &run, s->batch.ids, &hidden));
    expect_ok(tape_value(s->tape, DTYPE_F32, 2, (int64_t[]){packed.tokens, s->config.vocab_size}, false, &logits));
    expect_ok(s->device->ops->matmul(s->device, s->arena, logits->data, hidden->data, false, s->decoder->head->value, true,
                                     tensor_absent(), 1.0f, 0.0f));
    float *out = malloc(tensor_bytes(logits->data));
    assert_non_null(out);
    expect_ok(device_download(s->device, out, logits->data.data, tensor_bytes(logits->data)));
    packed_batch_free(&packed);
    return out;
}

float *device_copy_of(Device *device, Tensor tensor) {
    float *out = malloc(tensor_bytes(tensor) + 1);
    assert_true(out && tensor.dtype == DTYPE_F32);
    expect_ok(device_download(device, out, tensor.data, tensor_bytes(tensor)));
    return out;
}

float *rig_copy_gradient(const Rig *rig) { return device_copy_of(rig->session.device, rig->session.parameters->gradient); }
float *rig_copy_master(const Rig *rig) { return device_copy_of(rig->session.device, rig->session.parameters->master); }

void expect_same_bits(Device *device, Tensor tensor, const float *expected) {
    float *got = device_copy_of(device, tensor);
    assert_memory_equal(got, expected, tensor_bytes(tensor));
    free(got);
}

Status rig_train(Rig *rig, World *world, Plan *plan) {
    Plan own;
    TrainingData data;
    if (!plan) plan = &own;
    expect_ok(options_validate(&rig->options, OPTIONS_FOR_TRAIN));
    expect_ok(training_data_open(&rig->options, world->ranks.communicator, &data));
    expect_ok(plan_compute(&rig->options, data.view.mixture.samples, 1, plan));
    expect_ok(file_make_directories(rig->options.run.output_dir));
    Status status = train_run(&rig->session, &data, plan, "none");
    training_data_close(&data);
    return status;
}
